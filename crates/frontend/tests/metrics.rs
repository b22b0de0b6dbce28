//! The front end's metrics, alone in their process because the recorder is: one outcome for each request.

#[path = "http/fake.rs"]
mod fake;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use frontend::{Admission, FrontendConfig, Services};
use metrics_exporter_prometheus::PrometheusBuilder;
use protocol::grpc_service::ModelInferRequest;
use protocol::grpc_service::grpc_inference_service_client::GrpcInferenceServiceClient;
use protocol::grpc_service::model_infer_request::InferInputTensor;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// The value of the one series whose line begins like this.
fn value(page: &str, series: &str) -> f64 {
    let line =
        page.lines().find(|line| line.starts_with(series)).unwrap_or_else(|| panic!("{series} is not in\n{page}"));
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a value")
}

/// Calls, and requests of a stream, to the same models.
async fn over_grpc(fake: Arc<fake::Fake>) {
    let admission = Admission::default();
    let services = Services {
        inference: fake.clone(),
        control: fake.clone(),
        log: fake,
        admission,
        shared_memory: frontend::SharedMemory::off(),
        tracing: frontend::Tracing::default(),
    };
    let config = FrontendConfig { max_request_size: 1000, ..FrontendConfig::default() };
    let router = frontend::grpc_router(services, config, CancellationToken::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(frontend::serve(listener, router, CancellationToken::new(), frontend::ServeConfig::default()));
    let channel = tonic::transport::Channel::from_shared(format!("http://{address}")).expect("a URL");
    let mut client = GrpcInferenceServiceClient::new(channel.connect().await.expect("connects"));
    let request = |model: &str, elements: usize| ModelInferRequest {
        model_name: model.to_owned(),
        inputs: vec![InferInputTensor {
            name: "INPUT0".to_owned(),
            datatype: "FP32".to_owned(),
            shape: vec![1, elements as i64],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![vec![0; 4 * elements].into()],
        ..ModelInferRequest::default()
    };
    for (model, elements) in [("identity", 2), ("nope", 1), ("identity", 1000)] {
        let answer = client.model_infer(request(model, elements)).await;
        assert_eq!(answer.is_ok(), elements == 2, "{answer:?}");
    }
    let requests = futures::stream::iter([request("identity", 3), request("overloaded", 1), request("identity", 1000)]);
    let mut answers = client.model_stream_infer(requests).await.expect("a stream").into_inner();
    while let Ok(Some(_)) = answers.message().await {}
}

#[tokio::test]
async fn every_request_has_one_outcome() {
    let handle = PrometheusBuilder::new().install_recorder().expect("the only recorder");
    frontend::describe_metrics();
    let server = fake::start().await;
    let infer = |model: &str| format!("/v2/models/{model}/infer");
    let body = fake::request(&[1.0]);
    for model in ["identity", "identity", "nope", "overloaded", "modelbroken", "panic"] {
        server.post(&infer(model), &[], body.clone()).await;
    }
    server.post("/invocations", &[], "{").await;
    server.post("/endpoints/e/invocations", &[("X-Amzn-SageMaker-Target-Model", "..")], "{}").await;
    server.call(server.sagemaker, "POST", "/models/none/invoke", &[], body.clone()).await;
    let mut stream = TcpStream::connect(server.http).await.expect("connects");
    let head = format!("POST {} HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n{body}", infer("slow"), body.len());
    let requests = server.fake.requests.lock().expect("not poisoned").len();
    stream.write_all(head.as_bytes()).await.expect("writes");
    server.fake.wait_for_requests(requests + 1).await;
    drop(stream);
    fake::until(|| server.fake.abandoned.load(Ordering::SeqCst) == 1).await;
    over_grpc(server.fake.clone()).await;
    // Not inferences: they are not counted.
    server.get("/v2/models/identity").await;
    server.get("/v2/health/ready").await;
    // Many parts are copied together, which counts where they hold tensors.
    server.post(&infer("identity"), &[], vec![b' '; 3 << 20]).await;
    server.post(&infer("identity"), &[("Inference-Header-Content-Length", "0")], vec![0; 3 << 20]).await;

    // Nothing says how long this one is, so that its buffer has to grow.
    let parts = futures::stream::iter((0..48).map(|_| Ok::<_, std::io::Error>(vec![0u8; 64 << 10])));
    let parts = reqwest::Body::wrap_stream(parts);
    server.post(&infer("identity"), &[("Inference-Header-Content-Length", "0")], parts).await;
    let reply = server.post(&infer("strings"), &[("Inference-Header-Content-Length", "0")], "a string").await;
    assert_eq!(reply.status, 200, "{}", reply.text());

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let router = frontend::metrics_router(Arc::new(move || handle.render()));
    tokio::spawn(frontend::serve(listener, router, CancellationToken::new(), frontend::ServeConfig::default()));
    let reply = server.call(address, "GET", "/metrics", &[], "").await;
    assert!(reply.header("content-type").starts_with("text/plain; version=0.0.4"));
    assert_eq!(server.call(address, "GET", "/", &[], "").await.status, 404);
    let page = reply.text();
    let outcomes = [
        ("v2", "success", 5.0),
        ("v2", "not_found", 1.0),
        ("v2", "overloaded", 1.0),
        ("v2", "model_error", 1.0),
        ("v2", "internal", 1.0),
        ("v2", "cancelled", 1.0),
        ("v2", "invalid_argument", 1.0),
        ("invocations", "invalid_argument", 1.0),
        ("sagemaker_runtime", "invalid_argument", 1.0),
        ("sagemaker_container", "not_found", 1.0),
        ("grpc", "success", 2.0),
        ("grpc", "not_found", 1.0),
        ("grpc", "overloaded", 1.0),
        ("grpc", "too_large", 2.0),
    ];
    for (surface, outcome, count) in outcomes {
        let series = format!("panoply_requests_total{{surface=\"{surface}\",outcome=\"{outcome}\"}}");
        assert_eq!(value(&page, &series), count, "{series}\n{page}");
    }
    let lines = page.lines().filter(|line| line.starts_with("panoply_requests_total{")).count();
    assert_eq!(lines, outcomes.len(), "{page}");
    assert_eq!(value(&page, "panoply_requests_in_flight"), 0.0);
    assert_eq!(value(&page, "panoply_request_duration_seconds_count{surface=\"v2\"}"), 11.0);
    let copies = |reason: &str| value(&page, &format!("panoply_tensor_copies_total{{reason=\"{reason}\"}}"));
    let bytes = |reason: &str| value(&page, &format!("panoply_tensor_copied_bytes_total{{reason=\"{reason}\"}}"));
    assert_eq!((copies("body_chunks"), bytes("body_chunks")), (2.0, f64::from(2 * (3 << 20))));
    // Calls and streams share the connection's buffers.
    assert!(!page.contains("grpc_message"), "{page}");
    assert!(copies("body_growth") >= 1.0 && bytes("body_growth") < f64::from(2 * (3 << 20)), "{page}");
    assert_eq!((copies("raw_bytes"), bytes("raw_bytes")), (1.0, 8.0));
}
