//! One flight per archive, whoever asks, however often, and whoever goes away.

use std::sync::Arc;

use e2e::{Gate, Http, S3Store, Server, Store, fp32, infer, padding, until};
use futures::future::join_all;
use http::Method;
use test_util::archive::ArchiveBuilder;

use crate::{ask_echo, assert_has};

const TARGET: &str = "big.tar.gz";
/// Enough for the answer to HEAD, and not for the archive.
const HOLD_AFTER: usize = 64 << 10;

/// An archive that a gate can hold in the middle.
pub(crate) fn big_echo(model: &str) -> Vec<u8> {
    let config = e2e::Config::new(model, "identity").input("X", "FP32", "-1").output("Y", "FP32", "-1");
    ArchiveBuilder::new()
        .file(&format!("{model}/config.pbtxt"), config.text())
        .file(&format!("{model}/1/padding.bin"), padding(512 << 10))
        .gzip()
}

struct Scene {
    store: S3Store,
    gate: Gate,
    server: Arc<Server>,
}

impl Scene {
    async fn new(options: &[(&str, &str)]) -> Self {
        let store = S3Store::start().await;
        store.put(TARGET, &big_echo("big"));
        let gate = Gate::closed(store.server.endpoint(), HOLD_AFTER).await;
        let launch = store.launch_through(gate.endpoint());
        let launch = options.iter().fold(launch, |launch, (name, value)| launch.option(name, value));
        Scene { store, gate, server: Arc::new(launch.start().await) }
    }

    /// A request on its way, which can be aborted as a client that goes away.
    fn ask(&self) -> tokio::task::JoinHandle<e2e::Answer> {
        let server = self.server.clone();
        tokio::spawn(async move {
            // A client of its own: aborting the task closes its connection.
            let http = Http::new();
            http.invoke(&server.url("/invocations"), TARGET, &infer(&[fp32("X", &[5.0])])).await
        })
    }

    async fn until_waiting(&self, count: f64) {
        until(&format!("{count} requests wait for the load"), async || {
            let waiting = self.server.metrics().await.sum("panoply_load_waiting_requests", &[]);
            (waiting == count).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_cold_requests_make_one_download_and_one_load() {
    let scene = Scene::new(&[]).await;
    let requests: Vec<_> = (0..64).map(|_| scene.ask()).collect();
    scene.until_waiting(64.0).await;
    scene.gate.open();
    for answer in join_all(requests).await {
        let answer = answer.expect("the request runs").ok();
        assert_eq!((answer.numbers("Y"), answer.cache()), (vec![5.0], "store"));
    }
    assert_eq!(scene.store.gets(TARGET), 1);
    let metrics = scene.server.metrics().await;
    assert_eq!(metrics.sum("panoply_model_loads_total", &[]), 1.0);
    assert_eq!(metrics.sum("panoply_downloads_total", &[]), 1.0);
    assert_eq!(metrics.sum("panoply_cache_requests_total", &[("tier", "store")]), 64.0);
    assert_eq!(metrics.sum("panoply_load_waiting_requests", &[]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_does_not_end_the_load_for_the_others() {
    let scene = Scene::new(&[]).await;
    let first = scene.ask();
    scene.gate.holds().await;
    let second = scene.ask();
    scene.until_waiting(2.0).await;
    first.abort();
    scene.until_waiting(1.0).await;
    scene.gate.open();
    let answer = second.await.expect("the request runs").ok();
    assert_eq!((answer.numbers("Y"), answer.cache()), (vec![5.0], "store"));
    assert_eq!(scene.store.gets(TARGET), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_nobody_waits_for_any_more_is_finished_all_the_same() {
    let scene = Scene::new(&[]).await;
    let only = scene.ask();
    scene.gate.holds().await;
    only.abort();
    scene.until_waiting(0.0).await;
    scene.gate.open();
    until("the archive is in memory", async || {
        (scene.server.metrics().await.sum("panoply_resident_archives", &[]) == 1.0).then_some(())
    })
    .await;
    assert_eq!(ask_echo(&scene.server, TARGET, &[1.0]).await.ok().cache(), "memory");
    let outcomes = scene.server.metrics().await;
    assert_eq!(outcomes.sum("panoply_requests_total", &[("outcome", "cancelled")]), 1.0);
    assert_eq!(outcomes.sum("panoply_requests_in_flight", &[]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_a_load_is_bounded_in_number_and_time() {
    let scene = Scene::new(&[("--load-queue-size", "2"), ("--invocation-timeout", "300ms")]).await;
    let first = scene.ask();
    scene.gate.holds().await;
    // A request with a deadline gives up; the load does not.
    let late = infer(&[fp32("X", &[5.0])]);
    let runtime = scene.server.url("/endpoints/e/invocations");
    let answer = scene.server.http().invoke(&runtime, TARGET, &late).await;
    assert_eq!((answer.status, answer.header("x-amzn-errortype")), (429, Some("ModelNotReadyException")), "{answer:?}");
    assert_has(&answer.text(), &[TARGET, "is being loaded"]);
    let second = scene.ask();
    scene.until_waiting(2.0).await;
    let third = scene.ask().await.expect("the request runs");
    assert_eq!((third.status, third.header("retry-after")), (503, Some("1")), "{third:?}");
    assert_has(&third.error(), &[TARGET, "--load-queue-size"]);
    let answer = scene.server.http().invoke(&runtime, TARGET, &infer(&[fp32("X", &[5.0])])).await;
    assert_eq!((answer.status, answer.header("x-amzn-errortype")), (429, Some("ThrottlingException")), "{answer:?}");

    // Meanwhile others are served: looking at what is there waits for nothing.
    assert_eq!(scene.server.get("/v2/health/ready").await.status, 200);
    let index = scene.server.http().send(Method::POST, &scene.server.url("/v2/repository/index"), &[], "").await.ok();
    assert_eq!(index.json()[0]["state"], "LOADING", "{index:?}");
    scene.gate.open();
    for request in [first, second] {
        request.await.expect("the request runs").ok();
    }
    assert_eq!(scene.store.gets(TARGET), 1);
}
