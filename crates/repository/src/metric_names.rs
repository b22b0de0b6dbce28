//! What this crate's metrics mean, for the scrape's HELP lines. None has a label per model.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Describes every metric that this crate emits to the installed recorder.
pub fn describe_metrics() {
    describe_counter!(
        "panoply_store_requests_total",
        "Requests to the model store, by operation (head, get, list) and outcome (success, not_found, failure)"
    );
    describe_counter!(
        "panoply_store_retries_total",
        "Requests to the model store that were made again, by operation (head, get, list)"
    );
    describe_counter!(
        "panoply_store_retries_refused_total",
        "Requests to the model store that were not made again because too many had failed, by operation (head, get, list)"
    );
    describe_gauge!("panoply_downloads_in_flight", "Archives that are being downloaded and unpacked");
    describe_gauge!("panoply_download_waiting_archives", "Archives that wait for other downloads to end");
    describe_gauge!(
        "panoply_download_parts_in_flight",
        "Parts of archives that are being downloaded, or wait in memory to be unpacked"
    );
    describe_gauge!(
        "panoply_download_waiting_requests",
        "Requests for a part of an archive that wait for others to end"
    );
    describe_counter!("panoply_downloads_total", "Archives downloaded and unpacked");
    describe_counter!("panoply_download_bytes_total", Unit::Bytes, "Bytes received from the model store");
    describe_histogram!(
        "panoply_download_duration_seconds",
        Unit::Seconds,
        "From asking the model store for an archive to its last byte"
    );
    describe_counter!(
        "panoply_download_failures_total",
        "Fetches that failed, by reason (store, timeout, corrupt, archive, no_room, disk)"
    );
    describe_histogram!(
        "panoply_unpack_duration_seconds",
        Unit::Seconds,
        "From an archive's last byte to its directory in the disk cache"
    );
    describe_counter!("panoply_unpacked_bytes_total", Unit::Bytes, "Bytes of unpacked archives");
    describe_gauge!("panoply_disk_cache_bytes", Unit::Bytes, "Bytes of the archives in the disk cache");
    describe_gauge!("panoply_disk_cache_capacity_bytes", Unit::Bytes, "Bytes that the disk cache may hold");
    describe_gauge!("panoply_disk_cache_archives", "Archives in the disk cache");
}
