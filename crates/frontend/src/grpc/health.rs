//! `grpc.health.v1.Health`, from the same source as every other readiness probe.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use inference::ModelControl;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// How long a change may go unnoticed by those who watch.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);
const INFERENCE_SERVICE: &str = "inference.GRPCInferenceService";

/// Health of the server as a whole (no name) and of the inference service, which are the same thing.
pub(super) struct HealthService {
    pub(super) control: Arc<dyn ModelControl>,
    pub(super) closing: CancellationToken,
}

fn status_of(control: &dyn ModelControl, service: &str) -> ServingStatus {
    match service {
        "" | INFERENCE_SERVICE if control.is_server_ready() => ServingStatus::Serving,
        "" | INFERENCE_SERVICE => ServingStatus::NotServing,
        _ => ServingStatus::ServiceUnknown,
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = &request.get_ref().service;
        match status_of(&*self.control, service) {
            ServingStatus::ServiceUnknown => Err(Status::not_found(format!(
                "service '{service}' is not served; ask for '' or '{INFERENCE_SERVICE}'"
            ))),
            status => Ok(Response::new(HealthCheckResponse { status: status.into() })),
        }
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    /// The status now, and whenever it changes. Ends when the server does.
    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (control, closing) = (self.control.clone(), self.closing.clone());
        let service = request.into_inner().service;
        let changes = stream::unfold(None, move |last| {
            let (control, closing, service) = (control.clone(), closing.clone(), service.clone());
            async move {
                loop {
                    let now = status_of(&*control, &service);
                    if last != Some(now) {
                        return Some((Ok(HealthCheckResponse { status: now.into() }), Some(now)));
                    }
                    tokio::select! {
                        () = tokio::time::sleep(WATCH_INTERVAL) => {}
                        () = closing.cancelled() => return None,
                    }
                }
            }
        });
        Ok(Response::new(changes.boxed()))
    }
}
