//! Archives that are replaced or deleted in the store while they serve: nobody notices but by the answers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use e2e::{
    Asked, Fault, FaultProxy, Http, Launch, S3Store, Server, Store, echo_named, infer, scaling_twice_archive, until,
};
use http::Method;
use protocol::grpc_service::infer_parameter::ParameterChoice;
use protocol::grpc_service::{ModelConfigRequest, ModelMetadataRequest};
use serde_json::{Value, json};
use test_util::s3::MemoryS3;
use tokio::task::JoinHandle;
use tonic::Request;
use tonic::metadata::MetadataMap;

use crate::grpc::{Client, connect, floats};
use crate::{ask_echo, assert_has};

const TARGET: &str = "team/scaling.tar.gz";
const CLIENTS: usize = 64;
/// Of each client between two requests: enough that a busy machine has time for anything else.
const PAUSE: Duration = Duration::from_millis(150);

/// With a store that is asked often.
fn launch(store: &S3Store) -> Launch {
    store.launch().option("--store-check-interval", "200ms")
}

fn put(store: &S3Store, archive: Vec<u8>) -> String {
    store.server.put(&S3Store::key(TARGET), archive)
}

fn ones() -> Value {
    infer(&[json!({ "name": "x", "datatype": "FP32", "shape": [1, 512], "data": vec![1.0; 512] })])
}

/// What clients have been answered: the archive's version, and the factor by which it multiplies.
type Seen = BTreeSet<(String, u64)>;

/// Asks again and again, by one of two protocols, until told to stop or until there is no such model. Anything but a right
/// answer fails.
fn ask_on(server: &Server, number: usize, stop: &Arc<AtomicBool>) -> JoinHandle<Seen> {
    let invocations = server.url("/invocations");
    let model = server.url(&format!("/v2/models/{}/infer", TARGET.replace('/', "%2F")));
    let (http, stop, body) = (Http::new(), stop.clone(), ones());
    tokio::spawn(async move {
        let mut seen = Seen::new();
        while !stop.load(Ordering::SeqCst) {
            let answer = match number % 2 {
                0 => http.invoke(&invocations, TARGET, &body).await,
                _ => http.post(&model, &body).await,
            };
            if answer.status == 404 {
                break;
            }
            let answer = answer.ok();
            let numbers = answer.numbers("y");
            assert!(numbers.len() == 512 && numbers.iter().all(|number| *number == numbers[0]), "{numbers:?}");
            let version = answer.header("x-panoply-version").expect("every answer says its version").to_owned();
            seen.insert((version, numbers[0] as u64));
            tokio::time::sleep(PAUSE).await;
        }
        seen
    })
}

async fn factor(server: &Server) -> u64 {
    server.invoke(TARGET, &ones()).await.ok().numbers("y")[0] as u64
}

async fn index_reason(server: &Server, target: &str) -> String {
    let index = server.http().send(Method::POST, &server.url("/v2/repository/index"), &[], "").await.ok().json();
    let entries = index.as_array().expect("a list");
    let entry = entries.iter().find(|entry| entry["name"] == target).expect("it is in memory");
    assert_eq!(entry["state"], "READY", "{entry}");
    entry["reason"].as_str().unwrap_or_default().to_owned()
}

async fn until_counted(server: &Server, metric: &str, outcome: &str) {
    until(&format!("{metric} {outcome}"), async || {
        (server.metrics().await.sum(metric, &[("outcome", outcome)]) > 0.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_under_64_clients_fails_no_request_and_mixes_no_versions() {
    let store = S3Store::start().await;
    let two = put(&store, scaling_twice_archive(2));
    let server = launch(&store).start().await;
    assert_eq!(factor(&server).await, 4);
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS).map(|number| ask_on(&server, number, &stop)).collect();
    let three = put(&store, scaling_twice_archive(3));
    until("the new version serves", async || (factor(&server).await == 9).then_some(())).await;
    put(&store, scaling_twice_archive(2));
    until("the old version is back", async || (factor(&server).await == 4).then_some(())).await;
    stop.store(true, Ordering::SeqCst);
    let mut seen = Seen::new();
    for client in clients {
        seen.extend(client.await.expect("no request fails"));
    }
    assert_eq!(seen, Seen::from([(two, 4), (three, 9)]));
    let metrics = server.metrics().await;
    assert_eq!(metrics.sum("panoply_refreshes_total", &[("outcome", "replaced")]), 2.0);
    assert_eq!(metrics.sum("panoply_model_load_failures_total", &[]), 0.0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_under_64_clients_ends_with_not_found_and_nothing_else() {
    let store = S3Store::start().await;
    let version = put(&store, scaling_twice_archive(2));
    let server = launch(&store).start().await;
    assert_eq!(factor(&server).await, 4);
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS).map(|number| ask_on(&server, number, &stop)).collect();
    store.server.delete(&S3Store::key(TARGET));
    for client in clients {
        let seen = client.await.expect("answers are right, or say that there is no such model");
        assert!(seen.is_subset(&Seen::from([(version.clone(), 4)])), "{seen:?}");
    }
    until("it has left memory and disk", async || {
        let metrics = server.metrics().await;
        let left = metrics.sum("panoply_resident_archives", &[]) + metrics.sum("panoply_disk_cache_archives", &[]);
        (left == 0.0).then_some(())
    })
    .await;
    put(&store, scaling_twice_archive(3));
    until("it is found when it is there again", async || {
        (server.invoke(TARGET, &ones()).await.status == 200).then_some(())
    })
    .await;
    assert_eq!(factor(&server).await, 9);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_new_version_is_told_and_leaves_the_old_one_serving() {
    let store = S3Store::start().await;
    let two = put(&store, scaling_twice_archive(2));
    let server = launch(&store).start().await;
    assert_eq!(factor(&server).await, 4);
    // No archive at all, and one whose model cannot be loaded.
    put(&store, b"no archive".to_vec());
    until_counted(&server, "panoply_refreshes_total", "fetch_failed").await;
    assert_has(&index_reason(&server, TARGET).await, &["an older version serves", "gzip"]);
    put(&store, e2e::onnx_archive("twice", b"no model"));
    until_counted(&server, "panoply_refreshes_total", "load_failed").await;
    assert_has(&index_reason(&server, TARGET).await, &["an older version serves", "twice"]);
    assert_eq!(server.metrics().await.sum("panoply_outdated_archives", &[]), 1.0);
    let answer = server.invoke(TARGET, &ones()).await.ok();
    assert_eq!((answer.numbers("y")[0], answer.header("x-panoply-version")), (4.0, Some(&*two)));
    put(&store, scaling_twice_archive(3));
    until("the next version serves", async || (factor(&server).await == 9).then_some(())).await;
    assert_eq!(index_reason(&server, TARGET).await, "");
    assert_eq!(server.metrics().await.sum("panoply_outdated_archives", &[]), 0.0);
    server.stop().await;
}

/// An identity model takes 4 KiB.
async fn without_room(how: &str) -> (S3Store, Server) {
    let store = S3Store::start().await;
    put(&store, echo_named("echo", "OLD"));
    let launch = launch(&store).option("--model-memory", "6KiB").option("--replace-without-room", how);
    let server = launch.start().await;
    assert_eq!(ask_echo(&server, TARGET, &[1.0]).await.ok().numbers("OLD"), [1.0]);
    put(&store, echo_named("echo", "NEW"));
    (store, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_for_both_the_old_version_serves_on_where_it_is_to_be_kept() {
    let (_store, server) = without_room("keep").await;
    until_counted(&server, "panoply_refreshes_total", "no_room").await;
    assert_has(&index_reason(&server, TARGET).await, &["an older version serves", "no room"]);
    let checked = async || server.metrics().await.sum("panoply_refresh_checks_total", &[("outcome", "changed")]);
    until("it is asked about often", async || (checked().await >= 20.0).then_some(())).await;
    let tried = server.metrics().await.sum("panoply_refreshes_total", &[("outcome", "no_room")]);
    assert!(tried < 10.0, "{tried} tries, one after each pause, which grow");
    assert_eq!(ask_echo(&server, TARGET, &[1.0]).await.ok().numbers("OLD"), [1.0]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_for_both_requests_wait_in_a_gap_where_that_is_allowed() {
    let (_store, server) = without_room("gap").await;
    until("the new version serves, and until then the old one", async || {
        let answer = ask_echo(&server, TARGET, &[1.0]).await.ok();
        (answer.output_names() == ["NEW"]).then_some(())
    })
    .await;
    until_counted(&server, "panoply_refreshes_total", "replaced_with_gap").await;
    assert_eq!(index_reason(&server, TARGET).await, "");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_changes_nothing() {
    let store = S3Store::start().await;
    put(&store, echo_named("echo", "OLD"));
    let server = launch(&store).start().await;
    ask_echo(&server, TARGET, &[1.0]).await.ok();
    drop(store);
    until_counted(&server, "panoply_refresh_checks_total", "failed").await;
    let answer = ask_echo(&server, TARGET, &[1.0]).await.ok();
    assert_eq!((answer.numbers("OLD"), answer.cache()), (vec![1.0], "memory"));
    assert_eq!(index_reason(&server, TARGET).await, "");
    server.stop().await;
}

/// More than a page of a listing costs.
const MANY: usize = 30;

fn put_many(store: &S3Store) -> Vec<String> {
    let names: Vec<String> = (0..MANY).map(|number| format!("{number}.tar.gz")).collect();
    for name in &names {
        store.put(name, &echo_named("echo", "OLD"));
    }
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_that_fail_change_nothing() {
    let store = S3Store::start().await;
    let names = put_many(&store);
    let is_listing = |asked: &Asked| asked.path.trim_end_matches('/') == format!("/{}", MemoryS3::BUCKET);
    let faults = [
        Fault::Damage(700),
        Fault::Error(403, "AccessDenied", None),
        Fault::Reset(900),
        Fault::Damage(1500),
        Fault::Shorten(400),
    ];
    let proxy = FaultProxy::start(store.server.endpoint(), move |asked| {
        is_listing(asked).then(|| faults[asked.earlier % faults.len()])
    })
    .await;
    let server = store.launch_through(proxy.endpoint()).option("--store-check-interval", "100ms").start().await;
    for name in &names {
        ask_echo(&server, name, &[1.0]).await.ok();
    }
    until("it has listed often enough", async || {
        (proxy.asked().iter().filter(|asked| is_listing(asked)).count() >= faults.len()).then_some(())
    })
    .await;
    store.put(&names[7], &echo_named("echo", "NEW"));
    until("the new version serves", async || {
        (ask_echo(&server, &names[7], &[1.0]).await.ok().output_names() == ["NEW"]).then_some(())
    })
    .await;
    for name in &names {
        assert_eq!(ask_echo(&server, name, &[1.0]).await.ok().cache(), "memory", "{name}");
    }
    assert_eq!(server.metrics().await.sum("panoply_refreshes_total", &[]), 1.0, "the one that was replaced");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_archives_are_looked_after_by_listing_the_store() {
    let store = S3Store::start().await;
    let names = put_many(&store);
    let server = launch(&store).start().await;
    for name in &names {
        ask_echo(&server, name, &[1.0]).await.ok();
    }
    until_counted(&server, "panoply_refresh_checks_total", "listed").await;
    store.put(&names[7], &echo_named("echo", "NEW"));
    until("the new version serves", async || {
        (ask_echo(&server, &names[7], &[1.0]).await.ok().output_names() == ["NEW"]).then_some(())
    })
    .await;
    store.server.delete(&S3Store::key(&names[3]));
    until("it is not found any more", async || {
        (ask_echo(&server, &names[3], &[1.0]).await.status == 404).then_some(())
    })
    .await;
    for name in names.iter().filter(|name| **name != names[3]) {
        assert_eq!(ask_echo(&server, name, &[1.0]).await.ok().cache(), "memory", "{name}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn something_else_at_the_stores_address_changes_nothing() {
    let store = S3Store::start().await;
    put(&store, echo_named("echo", "OLD"));
    let proxy = FaultProxy::start(store.server.endpoint(), |_| None).await;
    let server = store.launch_through(proxy.endpoint()).option("--store-check-interval", "200ms").start().await;
    ask_echo(&server, TARGET, &[1.0]).await.ok();
    for code in ["NoSuchBucket", "NoRoute"] {
        proxy.set(move |_| Some(Fault::Error(404, code, None)));
        let failed = || async { server.metrics().await.sum("panoply_refresh_checks_total", &[("outcome", "failed")]) };
        let before = failed().await;
        until("it is asked often", async || (failed().await >= before + 3.0).then_some(())).await;
        assert_eq!(index_reason(&server, TARGET).await, "", "{code}");
        assert_eq!(ask_echo(&server, TARGET, &[1.0]).await.ok().cache(), "memory", "{code}");
    }
    assert_eq!(server.metrics().await.sum("panoply_refresh_checks_total", &[("outcome", "missing")]), 0.0);
    proxy.set(|_| None);
    put(&store, echo_named("echo", "NEW"));
    until("the new version serves", async || {
        (ask_echo(&server, TARGET, &[1.0]).await.ok().output_names() == ["NEW"]).then_some(())
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_tells_the_version_as_http_does() {
    let store = S3Store::start().await;
    let (old, server) = (put(&store, echo_named("echo", "OLD")), launch(&store).start().await);
    let mut client = connect(&server).await;
    assert_eq!(version(&client).await, old);
    let about = ModelMetadataRequest { name: TARGET.to_owned(), version: String::new() };
    assert_eq!(told(client.model_metadata(about).await.expect("told").metadata()), old);
    let about = ModelConfigRequest { name: TARGET.to_owned(), version: String::new() };
    assert_eq!(told(client.model_config(about).await.expect("told").metadata()), old);
    let mut wrong = floats(TARGET, &[1.0]);
    wrong.inputs[0].datatype = "INT32".to_owned();
    assert_eq!(told(client.model_infer(wrong.clone()).await.expect_err("a wrong type").metadata()), old);
    let mut stream = client.model_stream_infer(futures::stream::iter([wrong])).await.expect("a stream").into_inner();
    let answer = stream.message().await.expect("no status").expect("an answer");
    let mut parameters = answer.infer_response.expect("it has one, too").parameters;
    let said = parameters.remove("x-panoply-version").and_then(|parameter| parameter.parameter_choice);
    assert_eq!(said, Some(ParameterChoice::StringParam(old)), "{}", answer.error_message);
    let new = put(&store, echo_named("echo", "NEW"));
    until("the new version serves", async || (version(&client).await == new).then_some(())).await;
    server.stop().await;
}

/// The version that answers over gRPC.
async fn version(client: &Client) -> String {
    let answer = client.clone().model_infer(Request::new(floats(TARGET, &[1.0]))).await.expect("it answers");
    told(answer.metadata())
}

fn told(metadata: &MetadataMap) -> String {
    let version = metadata.get("x-panoply-version").expect("every answer says its version");
    version.to_str().expect("an ETag is ASCII").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_told_of_a_model_says_its_version_errors_included() {
    let store = S3Store::start().await;
    let version = put(&store, echo_named("echo", "Y"));
    let server = launch(&store).start().await;
    let model = server.url(&format!("/v2/models/{}", TARGET.replace('/', "%2F")));
    for url in [model.clone(), format!("{model}/config")] {
        assert_eq!(server.http().get(&url).await.ok().header("x-panoply-version"), Some(&*version), "{url}");
    }
    let wrong = infer(&[json!({ "name": "X", "datatype": "INT32", "shape": [1], "data": [1] })]);
    for answer in [
        server.invoke(TARGET, &wrong).await,
        server.http().post(&format!("{model}/infer"), &wrong).await,
        server.http().get(&format!("{model}/versions/7")).await,
        server.http().post(&format!("{model}/generate"), &json!({ "Z": 1 })).await,
        server.http().post(&format!("{model}/generate_stream"), &json!({ "Z": 1 })).await,
    ] {
        assert!((400..500).contains(&answer.status), "{answer:?}");
        assert_eq!(answer.header("x-panoply-version"), Some(&*version), "{answer:?}");
    }
    for (path, status) in [("infer", 400), ("ready", 200), ("stats", 200)] {
        // The first is no JSON.
        let method = if path == "infer" { Method::POST } else { Method::GET };
        let answer = server.http().send(method, &format!("{model}/{path}"), &[], "{").await;
        assert_eq!((answer.status, answer.header("x-panoply-version")), (status, Some(&*version)), "{answer:?}");
    }
    let broken = store.server.put(&S3Store::key("broken"), e2e::onnx_archive("twice", b"no model"));
    for _ in 0..2 {
        let answer = server.invoke("broken", &wrong).await;
        assert!(answer.status >= 400, "{answer:?}");
        assert_eq!(answer.header("x-panoply-version"), Some(&*broken), "{answer:?}");
    }
    let answer = server.invoke("nowhere", &wrong).await;
    assert_eq!((answer.status, answer.header("x-panoply-version")), (404, None), "{answer:?}");
    server.stop().await;
}
