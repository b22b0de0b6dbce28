//! The gRPC port: Triton's `inference.GRPCInferenceService`, `grpc.health.v1.Health`, and reflection.
//!
//! Inference's way: [`unary`] or [`stream`] → [`messages`] (frames, decompression) → [`decode`] → the models → [`encode`] →
//! [`wire`]. Every other call's: [`gate`] (decides on compression) → tonic (frames, protobuf) → [`service`]. Errors become
//! statuses in [`failure`] alone, by the table that HTTP uses too.

mod arrivals;
mod call;
mod contents;
mod decode;
mod describe;
mod encode;
mod encoding;
mod failure;
mod gate;
mod health;
mod infer;
mod logging;
mod message_timeout;
mod messages;
mod order;
mod repository;
mod sequences;
mod service;
mod shared_memory;
mod statistics;
mod stream;
#[cfg(test)]
mod tests;
mod timeout;
mod trace;
mod unary;
mod weight;
mod wire;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::middleware::from_fn;
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use protocol::grpc_service::grpc_inference_service_server::GrpcInferenceServiceServer;
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding::{Deflate, Gzip};
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tower_http::catch_panic::CatchPanicLayer;

use self::health::HealthService;
use self::messages::{Messages, Unread};
use self::service::InferenceGrpc;
use crate::admission::Admission;
use crate::body::{Bounds, Whole};
use crate::status::Failure;
use crate::{App, FrontendConfig, Services, restriction};

const MODEL_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const MODEL_STREAM_INFER: &str = "/inference.GRPCInferenceService/ModelStreamInfer";

/// The routes of the gRPC port (8001). Streams take no further requests once `closing` is cancelled: they would keep their
/// connections from ending.
pub fn grpc_router(services: Services, config: FrontendConfig, closing: CancellationToken) -> Router {
    let (compression, body_timeout) = (config.grpc_compression, config.body_timeout);
    let max_request_size = usize::try_from(config.max_request_size).unwrap_or(usize::MAX);
    let health = HealthService { control: services.control.clone(), closing: closing.clone() };
    let restrictions = config.grpc_restrictions.clone();
    let app = Arc::new(App { services, config });
    let inference = GrpcInferenceServiceServer::new(InferenceGrpc { app: app.clone() })
        .max_decoding_message_size(max_request_size)
        // Our own bound is checked before a response is encoded.
        .max_encoding_message_size(usize::MAX)
        .accept_compressed(Gzip)
        .accept_compressed(Deflate)
        .send_compressed(Gzip)
        .send_compressed(Deflate);
    let mut routes = Routes::new(inference).add_service(HealthServer::new(health));
    let described = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(protocol::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let valid = "invariant: the descriptors are written by the build";
    routes = routes.add_service(described().build_v1().expect(valid));
    routes = routes.add_service(described().build_v1alpha().expect(valid));
    let router = routes
        .into_axum_router()
        .layer(from_fn(move |request, next| gate::pass(compression, body_timeout, request, next)))
        .route(MODEL_INFER, post(unary::model_infer).with_state(app.clone()))
        .route(MODEL_STREAM_INFER, post(stream::model_stream_infer).with_state((app, closing)));
    restriction::guard_grpc(router, &restrictions)
        .layer(CatchPanicLayer::custom(panicked as fn(Box<dyn Any + Send>) -> Response))
}

/// Reads a `ModelInferRequest` as a call does; whether it was accepted.
pub(crate) fn read_message(bytes: Bytes) -> bool {
    let mut share = Admission::default().body();
    decode::decode(bytes, &mut share).and_then(decode::request).is_ok()
}

/// Reads the messages of a stream as a call does; whether all were accepted.
pub(crate) async fn read_messages(body: Body) -> bool {
    let admission = Admission::default();
    let bounds = Bounds { size: 64 << 10, timeout: Duration::from_secs(1), admission: &admission };
    let mut messages = Messages::new(body, None);
    let mut accepted = true;
    loop {
        match messages.next(bounds).await {
            Ok(Some(Whole { bytes, mut share })) => {
                accepted &= decode::decode(bytes, &mut share).and_then(decode::request).is_ok();
            }
            Ok(None) => return accepted,
            Err(Unread::Message(_)) => accepted = false,
            Err(Unread::Call(_)) => return false,
        }
    }
}

/// A failure as the answer to a call that no handler has seen.
pub(crate) fn refusal(failure: &Failure) -> Response {
    failure::status(failure).into_http()
}

fn panicked(payload: Box<dyn Any + Send>) -> Response {
    failure::status(&crate::reply::log_panic(&*payload).into()).into_http::<Body>()
}
