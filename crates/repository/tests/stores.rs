//! The model stores, over real sockets and real files.

mod setup;

use std::io::{Read as _, Write as _};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::types::ChecksumAlgorithm;
use bytes::Bytes;
use futures::TryStreamExt;
use inference::{ErrorKind, Result, TargetModel};
use metrics_exporter_prometheus::PrometheusBuilder;
use repository::{FolderStore, ModelStore, ObjectInfo, S3Config, S3Credentials, S3Store, was_replaced};
use setup::{Setup, s3_config, target};
use test_util::archive::ArchiveBuilder;
use test_util::s3::{ACCESS_KEY_ID, Access, FolderS3, MemoryS3, ObjectChecksum, SECRET_ACCESS_KEY};

async fn read(store: &dyn ModelStore, key: &str) -> Result<Bytes> {
    let target = target(key);
    let info = store.head(&target).await?;
    read_range(store, &target, &info, 0..info.size).await
}

async fn read_range(
    store: &dyn ModelStore,
    target: &TargetModel,
    info: &ObjectInfo,
    range: Range<u64>,
) -> Result<Bytes> {
    let chunks: Vec<Bytes> = store.get(target, info, range).await?.try_collect().await?;
    Ok(chunks.concat().into())
}

/// Bytes that hardly compress.
fn noise() -> Vec<u8> {
    (0..400_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).rotate_left(n % 31).to_le_bytes()).collect()
}

/// What every store must do; `put` puts an object.
async fn conforms(store: &dyn ModelStore, put: &dyn Fn(&str, &[u8])) {
    put("a.tar.gz", b"one");
    put("team/b.tar.gz", &[7; 300_000]);
    assert_eq!(read(store, "a.tar.gz").await.expect("a"), "one");
    assert_eq!(read(store, "team/b.tar.gz").await.expect("b"), vec![7; 300_000]);

    let missing = store.head(&target("team/none.tar.gz")).await.expect_err("missing");
    assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing:?}");
    assert!(missing.message().contains("'team/none.tar.gz'"), "{missing}");
    assert_eq!(missing.message(), store.missing(&target("team/none.tar.gz")).message());
    for (key, is_missing) in [("team/none.tar.gz", true), ("team/b.tar.gz", false)] {
        assert_eq!(store.is_missing(&target(key)).await.expect("said"), is_missing, "{key}");
    }
    if let Some(listing) = store.list() {
        let pages: Vec<_> = listing.try_collect().await.expect("listed");
        let mut listed: Vec<_> = pages.into_iter().flat_map(|page| page.archives).collect();
        listed.sort_by(|a, b| a.target.cmp(&b.target));
        for (archive, key) in listed.iter().zip(["a.tar.gz", "team/b.tar.gz"]) {
            assert_eq!(
                (archive.target.as_str(), &archive.etag),
                (key, &store.head(&target(key)).await.expect(key).etag)
            );
        }
        // s3s-fs lists no ETags, without which a listing says nothing.
        assert!(matches!(listed.len(), 0 | 2), "{listed:?}");
    }
    let b = target("team/b.tar.gz");
    let info = store.head(&b).await.expect("there");
    for range in [0..1, 299_999..300_000, 100_000..299_000] {
        let length = usize::try_from(range.end - range.start).expect("small");
        assert_eq!(read_range(store, &b, &info, range).await.expect("a part"), vec![7; length]);
    }
    let missing = store.get(&target("team/none.tar.gz"), &info, 0..1).await.map(|_| ()).expect_err("missing");
    assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing:?}");

    let old = store.head(&target("a.tar.gz")).await.expect("there");
    put("a.tar.gz", b"two!");
    let new = store.head(&target("a.tar.gz")).await.expect("there");
    assert_ne!(old.etag, new.etag);
    let replaced = store.get(&target("a.tar.gz"), &old, 0..3).await.map(|_| ()).expect_err("replaced");
    assert!(was_replaced(&replaced) && replaced.kind() == ErrorKind::Unavailable, "{replaced:?}");
    assert!(replaced.message().contains("was replaced"), "{replaced}");
}

#[tokio::test]
async fn a_folder_conforms() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = FolderStore::open(folder.path()).expect("a store");
    conforms(&store, &|key, content| {
        let path = folder.path().join(key);
        std::fs::create_dir_all(path.parent().expect("a parent"))
            .and_then(|()| std::fs::write(path, content))
            .expect("put");
    })
    .await;
    let error = store.head(&target("team")).await.expect_err("a directory is no archive");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let below_a_file = store.head(&target("a.tar.gz/x")).await.expect_err("below a file");
    assert_eq!(below_a_file.kind(), ErrorKind::NotFound, "{below_a_file}");
    assert_eq!(FolderStore::open(&folder.path().join("none")).err().expect("missing").kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_is_noticed() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = FolderStore::open(folder.path()).expect("a store");
    let path = folder.path().join("a.tar.gz");
    std::fs::write(&path, vec![1; 2_000_000]).expect("put");
    let target = target("a.tar.gz");
    let info = store.head(&target).await.expect("there");
    let body = store.get(&target, &info, 0..info.size).await.expect("open");
    std::fs::write(&path, vec![2; 2_000_000]).expect("put");
    let error = body.try_collect::<Vec<_>>().await.expect_err("changed");
    assert!(was_replaced(&error) && error.message().contains("was replaced"), "{error}");
}

#[tokio::test]
async fn s3_in_memory_conforms() {
    let server = MemoryS3::start().await;
    let store = S3Store::connect(s3_config(server.endpoint(), "/some/prefix")).await;
    assert_eq!(store.location(), "s3://models/some/prefix/");
    conforms(&store, &|key, content| {
        server.put(&format!("some/prefix/{key}"), content.to_vec());
    })
    .await;
    let missing = store.head(&target("x.tar.gz")).await.expect_err("missing");
    assert_eq!(missing.message(), "no archive 'x.tar.gz' in bucket 'models' under prefix 'some/prefix/'");
}

/// `s3s-fs` ignores If-Match, as some vendors do: the store must notice by the ETag.
#[tokio::test]
async fn s3s_fs_conforms() {
    let root = tempfile::tempdir().expect("a folder");
    let bucket = root.path().join(MemoryS3::BUCKET);
    std::fs::create_dir(&bucket).expect("a bucket");
    let server = FolderS3::start(root.path()).await;
    let store = S3Store::connect(s3_config(server.endpoint(), "")).await;
    conforms(&store, &|key, content| {
        let path = bucket.join(key);
        std::fs::create_dir_all(path.parent().expect("a parent"))
            .and_then(|()| std::fs::write(path, content))
            .expect("put");
    })
    .await;
}

/// The SDK's own client.
fn sdk_client(endpoint: &str) -> aws_sdk_s3::Client {
    let credentials = aws_credential_types::Credentials::new(ACCESS_KEY_ID, SECRET_ACCESS_KEY, None, None, "test");
    let config = aws_sdk_s3::Config::builder()
        .behavior_version_latest()
        .endpoint_url(endpoint)
        .force_path_style(true)
        .region(aws_sdk_s3::config::Region::new("us-east-1"))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .credentials_provider(credentials);
    aws_sdk_s3::Client::from_conf(config.build())
}

/// The test server itself: what later tests rely on.
#[tokio::test]
async fn s3_in_memory_honours_conditions_and_ranges() {
    let server = MemoryS3::start().await;
    let etag = server.put("a", "0123456789");
    let client = sdk_client(server.endpoint());
    let get = || client.get_object().bucket(MemoryS3::BUCKET).key("a");
    let status = |error: aws_sdk_s3::error::SdkError<_>| error.raw_response().map(|answer| answer.status().as_u16());
    assert_eq!(status(get().if_none_match(&etag).send().await.expect_err("unchanged")), Some(304));
    assert_eq!(status(get().if_match("\"other\"").send().await.expect_err("changed")), Some(412));
    assert_eq!(status(get().range("bytes=10-").send().await.expect_err("beyond the end")), Some(416));
    let part = get().range("bytes=2-4").if_match(&etag).send().await.expect("a part");
    assert_eq!(part.content_range.as_deref(), Some("bytes 2-4/10"));
    assert_eq!(part.body.collect().await.expect("bytes").into_bytes(), "234");
    assert_eq!((server.gets("a"), server.heads("a")), (4, 0));
    server.delete("a");
    assert_eq!(status(get().send().await.expect_err("deleted")), Some(404));
}

/// The checksums here are computed and checked by the SDK and by `s3s-fs`, not by our code.
#[tokio::test]
async fn checksums_that_the_sdk_uploads_are_read_and_right() {
    let root = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(root.path().join(MemoryS3::BUCKET)).expect("a bucket");
    let server = FolderS3::start(root.path()).await;
    let uploader = sdk_client(server.endpoint());
    let store = S3Store::connect(s3_config(server.endpoint(), "")).await;
    let content = vec![42; 100_000];
    for algorithm in [
        ChecksumAlgorithm::Crc32,
        ChecksumAlgorithm::Crc32C,
        ChecksumAlgorithm::Crc64Nvme,
        ChecksumAlgorithm::Sha1,
        ChecksumAlgorithm::Sha256,
    ] {
        let put = uploader.put_object().bucket(MemoryS3::BUCKET).key("a.tar.gz").checksum_algorithm(algorithm.clone());
        put.body(content.clone().into()).send().await.expect("uploaded");
        let info = store.head(&target("a.tar.gz")).await.expect("there");
        let expected = info.checksum.unwrap_or_else(|| panic!("{algorithm} is missing"));
        let mut hasher = expected.hasher();
        hasher.update(&content);
        assert_eq!(hasher.finish(), expected, "{algorithm}");
    }
}

#[tokio::test]
async fn who_may_not_read_is_told_what_to_check() {
    let server = MemoryS3::start().await;
    server.put("a.tar.gz", "content");
    let keys = |id: &str, secret: &str| S3Credentials::Keys {
        access_key_id: id.to_owned(),
        secret_access_key: secret.to_owned(),
    };
    for credentials in [keys(ACCESS_KEY_ID, "wrong"), keys("AKIAUNKNOWN", SECRET_ACCESS_KEY), S3Credentials::Anonymous]
    {
        let config = S3Config { credentials: credentials.clone(), ..s3_config(server.endpoint(), "") };
        let store = S3Store::connect(config).await;
        let error = store.head(&target("a.tar.gz")).await.expect_err("denied");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{credentials:?}: {error:?}");
        assert!(error.message().contains("denied") && error.message().contains("check the credentials"), "{error}");
        assert!(!format!("{credentials:?} {error:#}").contains("no-secret"));
    }
    let open = MemoryS3::start_with(Access::Anonymous).await;
    open.put("a.tar.gz", "content");
    let config = S3Config { credentials: S3Credentials::Anonymous, ..s3_config(open.endpoint(), "") };
    assert_eq!(read(&S3Store::connect(config).await, "a.tar.gz").await.expect("public"), "content");
}

#[tokio::test]
async fn an_unreachable_endpoint_is_unavailable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
    drop(listener);
    let store = S3Store::connect(s3_config(&endpoint, "")).await;
    let error = store.head(&target("a.tar.gz")).await.expect_err("nobody listens");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    for part in [endpoint.as_str(), "refused", "check the endpoint"] {
        assert!(error.message().contains(part), "{error}\nshould contain {part}");
    }
}

/// The answer to HEAD has no body and cannot tell these from a missing archive.
#[tokio::test]
async fn a_missing_bucket_and_another_kind_of_server_are_no_missing_archive() {
    let server = MemoryS3::start().await;
    let config = S3Config { bucket: "nowhere".to_owned(), ..s3_config(server.endpoint(), "p") };
    let error = S3Store::connect(config).await.head(&target("a.tar.gz")).await.expect_err("no bucket");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.message().contains("bucket 'nowhere' does not exist"), "{error}");

    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", other.local_addr().expect("bound"));
    std::thread::spawn(move || {
        while let Ok((mut socket, _)) = other.accept() {
            let _ = socket.read(&mut [0; 4096]);
            let _ = socket.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    let store = S3Store::connect(s3_config(&endpoint, "")).await;
    let error = store.is_missing(&target("a.tar.gz")).await.expect_err("no S3");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let error = store.head(&target("a.tar.gz")).await.expect_err("no S3");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.message().contains("--s3-endpoint") && error.message().contains(&endpoint), "{error}");
}

#[tokio::test]
async fn a_bucket_that_was_seen_is_not_looked_for_again() {
    let server = MemoryS3::start().await;
    let store = S3Store::connect(s3_config(server.endpoint(), "")).await;
    for key in ["a", "b", "a", "c"] {
        let error = store.head(&target(key)).await.expect_err("missing");
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
    let asked: Vec<_> = ["a", "b", "c"].into_iter().map(|key| (server.heads(key), server.gets(key))).collect();
    assert_eq!(asked, [(2, 1), (1, 0), (1, 0)]);
}

#[tokio::test]
async fn a_bucket_is_listed_page_by_page_below_the_prefix() {
    let server = MemoryS3::start().await;
    server.set_page(2);
    for key in ["p/1", "p/2", "p/3/x", "p/4", "p/5", "q/1", "p"] {
        server.put(key, key.to_owned());
    }
    let store = S3Store::connect(s3_config(server.endpoint(), "p")).await;
    let mut listing = store.list().expect("S3 has listings");
    assert_eq!(server.lists(), 0, "nothing is asked before it is wanted");
    let mut found = Vec::new();
    while let Some(page) = listing.try_next().await.expect("a page") {
        found.extend(page.archives.iter().map(|archive| archive.target.to_string()));
        assert_eq!(page.is_last, found.len() == 5, "{found:?}");
    }
    assert_eq!(found, ["1", "2", "3/x", "4", "5"]);
    assert_eq!(server.lists(), 3);
    let config = S3Config { bucket: "nowhere".to_owned(), ..s3_config(server.endpoint(), "p") };
    let nowhere = S3Store::connect(config).await;
    let error = nowhere.list().expect("S3 has listings").try_next().await.expect_err("no bucket");
    assert!(error.kind() == ErrorKind::Unavailable && error.message().contains("NoSuchBucket"), "{error}");
}

#[tokio::test]
async fn no_more_requests_are_under_way_than_the_settings_allow() {
    let server = MemoryS3::start().await;
    server.put("a", "content");
    let config = S3Config { connections: 2.try_into().expect("not zero"), ..s3_config(server.endpoint(), "") };
    let store = S3Store::connect(config).await;
    let a = target("a");
    store.head(&a).await.expect("there");
    let round = Duration::from_millis(200);
    server.set_latency(round);
    let started = std::time::Instant::now();
    for answer in futures::future::join_all((0..6).map(|_| store.head(&a))).await {
        answer.expect("there");
    }
    assert!(started.elapsed() >= 3 * round, "six requests, two at a time: {:?}", started.elapsed());
}

#[tokio::test]
async fn what_is_never_asked_for_lack_of_connections_is_no_failure_of_the_store() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _counting = metrics::set_default_local_recorder(&recorder);
    let counted = || -> Vec<String> {
        let scrape = recorder.handle().render();
        let mut lines: Vec<_> = scrape.lines().filter(|line| line.contains("panoply_store_requests")).collect();
        lines.sort_unstable();
        lines.into_iter().map(str::to_owned).collect()
    };
    let server = MemoryS3::start().await;
    server.put("a", vec![0; 8 << 20]);
    let half_a_second = Duration::from_millis(500);
    let config = S3Config {
        connections: 1.try_into().expect("not zero"),
        connect_timeout: half_a_second,
        read_timeout: half_a_second,
        ..s3_config(server.endpoint(), "")
    };
    let store = S3Store::connect(config).await;
    let a = target("a");
    let info = store.head(&a).await.expect("there");
    // Nobody reads on: the one connection stays in use.
    let _body = store.get(&a, &info, 0..info.size).await.expect("headers come at once");
    let before = counted();
    assert!(before.iter().any(|line| line.contains("success")), "{before:?}");
    let (head, get) = tokio::join!(store.head(&a), store.get(&a, &info, 0..1));
    for error in [head.map(|_| ()).expect_err("no connection"), get.map(|_| ()).expect_err("no connection")] {
        assert!(error.message().contains("--store-connections"), "{error}");
    }
    assert_eq!(counted(), before);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up() {
    let server = MemoryS3::start().await;
    server.put("a.tar.gz", vec![0; 1 << 20]);
    let config = S3Config { read_timeout: Duration::from_millis(300), ..s3_config(server.endpoint(), "") };
    let store = S3Store::connect(config).await;
    let info = store.head(&target("a.tar.gz")).await.expect("there");
    server.set_chunk_delay(Duration::from_secs(30));
    let body = store.get(&target("a.tar.gz"), &info, 0..info.size).await.expect("headers come at once");
    let error = body.try_collect::<Vec<_>>().await.expect_err("the body stalls");
    assert!(error.message().contains("no bytes came for 0.3 s"), "{error}");
    server.set_latency(Duration::from_secs(30));
    let error = store.head(&target("a.tar.gz")).await.expect_err("no answer");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
}

#[tokio::test]
async fn checksums_are_verified_while_unpacking() {
    let server = MemoryS3::start().await;
    let setup = Setup::over_s3(&server, |_| {}).await;
    let archive = ArchiveBuilder::new().file("m/config.pbtxt", "x").gzip();

    server.put_with_checksum("a.tar.gz", archive.clone(), ObjectChecksum::Crc32("AAAAAA==".to_owned()));
    let error = setup.fetch("a.tar.gz").await.expect_err("damaged");
    assert!(error.message().contains("the store says CRC32 AAAAAA=="), "{error}");
    assert!(setup.on_disk("staging").is_empty() && setup.on_disk("entries").is_empty());
    setup.fetch("a.tar.gz").await.expect_err("still refused");
    assert_eq!(server.gets("a.tar.gz"), 1, "not downloaded again");

    server.put_with_checksum("b.tar.gz", archive, ObjectChecksum::CompositeCrc32("AAAAAA==-2".to_owned()));
    setup.fetch("b.tar.gz").await.expect("a checksum of checksums says nothing about the whole");
}

#[tokio::test]
async fn a_download_that_breaks_off_is_tried_again() {
    let server = MemoryS3::start().await;
    let setup = Setup::over_s3(&server, |_| {}).await;
    let archive = ArchiveBuilder::new().file("m/1/x", noise()).gzip();
    server.put_broken("a.tar.gz", archive.clone(), archive.len() / 2);
    for gets in 1..3 {
        let error = setup.fetch("a.tar.gz").await.expect_err("broken");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(error.message().contains("broke off") || error.message().contains("ended after"), "{error}");
        assert_eq!(server.gets("a.tar.gz"), gets, "nothing is wrong with the archive itself");
        assert!(setup.on_disk("staging").is_empty());
    }
    server.put("a.tar.gz", archive);
    setup.fetch("a.tar.gz").await.expect("whole");
}

#[tokio::test]
async fn a_slow_download_is_given_up_and_a_cancelled_one_stops() {
    let server = MemoryS3::start().await;
    let setup = Setup::over_s3(&server, |config| config.download_timeout = Duration::from_millis(400)).await;
    server.put("a.tar.gz", ArchiveBuilder::new().file("m/1/x", noise()).gzip());
    server.set_chunk_delay(Duration::from_millis(100));
    let error = setup.fetch("a.tar.gz").await.expect_err("slow");
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert!(error.message().contains("--download-timeout"), "{error}");
    assert!(setup.on_disk("staging").is_empty());

    let setup = Arc::new(setup);
    let fetching = tokio::spawn({
        let setup = Arc::clone(&setup);
        async move { setup.fetch("a.tar.gz").await }
    });
    while setup.on_disk("staging").is_empty() {
        assert!(!fetching.is_finished());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    fetching.abort();
    while !setup.on_disk("staging").is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(setup.on_disk("entries").is_empty());
}
