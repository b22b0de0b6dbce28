//! Where models are found: store, disk, memory, for every kind of store.

use std::sync::Arc;

use e2e::{FolderStore, Gate, Launch, S3Store, Server, SignedFolderStore, Store, echo, echo_named};
use test_util::s3::{ACCESS_KEY_ID, Access, MemoryS3, SECRET_ACCESS_KEY};

use crate::{ask_echo, assert_has};

const TARGET: &str = "team-a/nested/echo.tar.gz";

/// Asks for the echo and checks the answer, its tier, and that a load's timing comes exactly with a load.
async fn found_in(server: &Server, target: &str, output: &str, tier: &str) {
    let answer = ask_echo(server, target, &[1.0, -2.5]).await.ok();
    assert_eq!((answer.numbers(output), answer.cache()), (vec![1.0, -2.5], tier));
    assert_eq!(answer.json()["model_name"], target);
    match answer.header("server-timing") {
        Some(timing) if tier != "memory" => assert_has(timing, &["download;dur=", "unpack;dur=", "load;dur="]),
        timing => assert!(timing.is_none() && tier == "memory", "{timing:?} for {tier}"),
    }
}

/// Without loading again at start what was in memory: requests are to find it where it is.
fn cold_starts(launch: Launch) -> Launch {
    launch.option("--restore-resident", "false")
}

async fn goes_through_the_tiers(store: &impl Store) {
    store.put(TARGET, &echo());
    let launch = cold_starts(store.launch()).option("--missing-key-ttl", "0s");
    let server = launch.start().await;
    found_in(&server, TARGET, "Y", "store").await;
    found_in(&server, TARGET, "Y", "memory").await;

    // What is not there is said to be missing, and works as soon as it is.
    let missing = ask_echo(&server, "team-b/later.tar.gz", &[1.0]).await;
    assert_eq!(missing.status, 404, "{missing:?}");
    assert_has(&missing.error(), &["team-b/later.tar.gz"]);
    assert_has(&missing.error(), &store.place());
    store.put("team-b/later.tar.gz", &echo_named("later", "Z"));
    found_in(&server, "team-b/later.tar.gz", "Z", "store").await;

    server.stop().await;
    let server = launch.start().await;
    found_in(&server, TARGET, "Y", "disk").await;
    found_in(&server, TARGET, "Y", "memory").await;
    found_in(&server, "team-b/later.tar.gz", "Z", "disk").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_goes_through_the_tiers() {
    goes_through_the_tiers(&FolderStore::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3s_fs_goes_through_the_tiers() {
    goes_through_the_tiers(&SignedFolderStore::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_goes_through_the_tiers_with_one_download() {
    let store = S3Store::start().await;
    goes_through_the_tiers(&store).await;
    assert_eq!(store.gets(TARGET), 1, "the restart found its disk cache");
    assert_eq!(store.heads(TARGET), 2, "each start asked once whether the archive is still the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_evicted_from_memory_is_found_on_disk() {
    let store = S3Store::start().await;
    for name in ["a", "b", "c"] {
        store.put(name, &echo_named(name, name));
    }
    // An identity model takes 4 KiB.
    let server = store.launch().option("--model-memory", "8KiB").start().await;
    for (name, tier) in
        [("a", "store"), ("b", "store"), ("a", "memory"), ("c", "store"), ("a", "memory"), ("b", "disk")]
    {
        found_in(&server, name, name, tier).await;
    }
    assert_eq!(["a", "b", "c"].map(|name| store.gets(name)), [1, 1, 1]);
    let metrics = server.metrics().await;
    assert_eq!(metrics.sum("panoply_evictions_total", &[("tier", "memory"), ("reason", "room")]), 2.0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_replaced_in_the_store_is_not_taken_from_disk() {
    let store = S3Store::start().await;
    store.put(TARGET, &echo_named("old", "OLD"));
    let launch = cold_starts(store.launch());
    let server = launch.start().await;
    found_in(&server, TARGET, "OLD", "store").await;
    server.stop().await;
    store.put(TARGET, &echo_named("new", "NEW"));
    let server = launch.start().await;
    found_in(&server, TARGET, "NEW", "store").await;
    server.stop().await;
    assert_eq!(store.gets(TARGET), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_replaced_just_before_its_download_is_served_as_it_is_now() {
    let store = S3Store::start().await;
    store.put(TARGET, &echo_named("old", "OLD"));
    // The store's very first answer, to HEAD, is held back.
    let gate = Gate::closed(store.server.endpoint(), 0).await;
    let server = Arc::new(store.launch_through(gate.endpoint()).start().await);
    let asking = server.clone();
    let request = tokio::spawn(async move { ask_echo(&asking, TARGET, &[1.5]).await });
    gate.holds().await;
    store.put(TARGET, &echo_named("new", "NEW"));
    gate.open();
    assert_eq!(request.await.expect("the request runs").ok().numbers("NEW"), [1.5]);
    assert_eq!((store.heads(TARGET), store.gets(TARGET)), (2, 2), "the first GET was for what is no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_disk_is_served_while_the_store_is_away() {
    let store = S3Store::start().await;
    store.put(TARGET, &echo());
    let launch = cold_starts(store.launch());
    let server = launch.start().await;
    found_in(&server, TARGET, "Y", "store").await;
    server.stop().await;
    drop(store);
    let server = launch.start().await;
    found_in(&server, TARGET, "Y", "disk").await;
    let unknown = ask_echo(&server, "never-seen.tar.gz", &[1.0]).await;
    assert_eq!(unknown.status, 503, "whether it exists cannot be known: {unknown:?}");
    assert_has(&unknown.error(), &["never-seen.tar.gz"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_anyone_may_read_needs_no_credentials() {
    let server = MemoryS3::start_with(Access::Anonymous).await;
    server.put("echo.tar.gz", echo());
    let launch = e2e::Launch::new()
        .option("--model-store", &format!("s3://{}", MemoryS3::BUCKET))
        .option("--s3-endpoint", server.endpoint())
        .option("--s3-region", "eu-central-1")
        .flag("--s3-path-style")
        .flag("--s3-anonymous");
    let panoply = launch.start().await;
    found_in(&panoply, "echo.tar.gz", "Y", "store").await;
    panoply.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_and_region_may_come_from_a_profile() {
    let store = S3Store::start().await;
    store.put("echo.tar.gz", &echo());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, text: String| {
        std::fs::write(folder.path().join(name), text).expect("a file can be written");
        folder.path().join(name).display().to_string()
    };
    let keys = format!("aws_access_key_id = {ACCESS_KEY_ID}\naws_secret_access_key = {SECRET_ACCESS_KEY}\n");
    let launch = e2e::Launch::new()
        .option("--model-store", &S3Store::url())
        .option("--s3-endpoint", store.server.endpoint())
        .flag("--s3-path-style")
        .variable("AWS_SHARED_CREDENTIALS_FILE", &write("credentials", format!("[models]\n{keys}")))
        .variable("AWS_CONFIG_FILE", &write("config", "[profile models]\nregion = eu-west-3\n".to_owned()))
        .variable("AWS_PROFILE", "models");
    let panoply = launch.start().await;
    found_in(&panoply, "echo.tar.gz", "Y", "store").await;
    panoply.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_the_servers_fault_and_said() {
    let store = S3Store::start().await;
    store.put("echo.tar.gz", &echo());
    let launch = store.launch().variable("AWS_SECRET_ACCESS_KEY", "another");
    let server = launch.start().await;
    let answer = ask_echo(&server, "echo.tar.gz", &[1.0]).await;
    assert!(answer.status >= 500, "{answer:?}");
    assert_has(&answer.error(), &[MemoryS3::BUCKET]);
    assert_eq!(store.gets("echo.tar.gz"), 0);
    server.stop().await;
}
