//! The gRPC port over real sockets, with models that the tests control.

mod calls;
mod cuda;
mod ends;
#[path = "../http/fake.rs"]
mod fake;
mod framing;
mod guarded;
mod statistics;
mod streams;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use fake::Fake;
use frontend::{Admission, DrainReport, FrontendConfig, ServeConfig, Services, SharedMemory};
use protocol::grpc_service::ModelInferRequest;
use protocol::grpc_service::grpc_inference_service_client::GrpcInferenceServiceClient;
use protocol::grpc_service::model_infer_request::InferInputTensor;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

type Client = GrpcInferenceServiceClient<Channel>;

struct Running {
    address: SocketAddr,
    fake: Arc<Fake>,
    channel: Channel,
    client: Client,
    drain: CancellationToken,
    closing: CancellationToken,
    server: JoinHandle<DrainReport>,
}

async fn start() -> Running {
    start_with(Admission::default(), FrontendConfig::default(), ServeConfig::default()).await
}

async fn start_with(admission: Admission, config: FrontendConfig, serve: ServeConfig) -> Running {
    start_sharing(SharedMemory::off(), admission, config, serve).await
}

async fn start_sharing(
    shared_memory: SharedMemory,
    admission: Admission,
    config: FrontendConfig,
    serve: ServeConfig,
) -> Running {
    let fake = Fake::new();
    let services = Services {
        inference: fake.clone(),
        control: fake.clone(),
        log: fake.clone(),
        admission,
        shared_memory,
        tracing: frontend::Tracing::default(),
    };
    let (drain, closing) = (CancellationToken::new(), CancellationToken::new());
    let router = frontend::grpc_router(services, config, closing.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let server = tokio::spawn(frontend::serve(listener, router, drain.clone(), serve));
    let endpoint = Channel::from_shared(format!("http://{address}")).expect("a URL");
    let channel = endpoint.connect().await.expect("connects");
    let client = GrpcInferenceServiceClient::new(channel.clone()).max_decoding_message_size(64 << 20);
    Running { address, fake, client, channel, drain, closing, server }
}

/// A request with one FP32 input of shape [1, n], raw.
fn request(model: &str, values: &[f32]) -> ModelInferRequest {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    ModelInferRequest {
        model_name: model.to_owned(),
        id: "r1".to_owned(),
        inputs: vec![InferInputTensor {
            name: "INPUT0".to_owned(),
            datatype: "FP32".to_owned(),
            shape: vec![1, values.len() as i64],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![Bytes::from(raw)],
        ..ModelInferRequest::default()
    }
}
