//! `inference.GRPCInferenceService`, call by call.

use std::time::Instant;

use futures::stream::Empty;
use inference::{CacheOutcome, Description, Error, ModelKey, Result as InferenceResult};
use protocol::grpc_service::grpc_inference_service_server::GrpcInferenceService;
use protocol::grpc_service::{
    CudaSharedMemoryRegisterRequest, CudaSharedMemoryRegisterResponse, CudaSharedMemoryStatusRequest,
    CudaSharedMemoryStatusResponse, CudaSharedMemoryUnregisterRequest, CudaSharedMemoryUnregisterResponse,
    LogSettingsRequest, LogSettingsResponse, ModelConfigRequest, ModelConfigResponse, ModelInferRequest,
    ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse,
    ModelStatisticsRequest, ModelStatisticsResponse, ModelStreamInferResponse, RepositoryIndexRequest,
    RepositoryIndexResponse, RepositoryModelLoadRequest, RepositoryModelLoadResponse, RepositoryModelUnloadRequest,
    RepositoryModelUnloadResponse, ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest,
    ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse, SystemSharedMemoryRegisterRequest,
    SystemSharedMemoryRegisterResponse, SystemSharedMemoryStatusRequest, SystemSharedMemoryStatusResponse,
    SystemSharedMemoryUnregisterRequest, SystemSharedMemoryUnregisterResponse, TraceSettingRequest,
    TraceSettingResponse,
};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::{decode, describe, failure, logging, repository, shared_memory, statistics, timeout, trace};
use crate::{Shared, infer};

/// The service.
pub(super) struct InferenceGrpc {
    pub(super) app: Shared,
}

impl InferenceGrpc {
    /// The model that a call names and what it is; loads it, as HTTP does.
    async fn describe(&self, call: &MetadataMap, name: &str, version: &str) -> Result<(ModelKey, Description), Status> {
        let key = key(call, name, version)?;
        let deadline =
            timeout::of_call(call.as_ref()).map(|timeout| timeout.and_then(|time| Instant::now().checked_add(time)));
        let deadline = deadline.map_err(|error| failure::refuse(&key, error))?;
        match self.app.services.control.describe(&key, deadline, None).await {
            Ok(found) => Ok((key, found)),
            Err(error) => Err(failure::refuse(&key, error)),
        }
    }
}

fn key(call: &MetadataMap, name: &str, version: &str) -> Result<ModelKey, Status> {
    let key: InferenceResult<ModelKey> =
        crate::infer::target(call.as_ref()).and_then(|target| decode::key(target, name, version));
    key.map_err(|error| failure::refuse(&ModelKey::default(), error))
}

/// An answer that also says how the model was found.
fn told<T>(message: T, cache: Option<&CacheOutcome>) -> Response<T> {
    let mut response = Response::new(message);
    infer::cache_headers(response.metadata_mut().as_mut(), cache);
    response
}

/// An answer that is about no model.
fn reply<T>(answer: InferenceResult<T>) -> Result<Response<T>, Status> {
    answer.map(Response::new).map_err(|error| failure::refuse(&ModelKey::default(), error))
}

#[tonic::async_trait]
impl GrpcInferenceService for InferenceGrpc {
    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Result<Response<ServerReadyResponse>, Status> {
        Ok(Response::new(ServerReadyResponse { ready: self.app.services.control.is_server_ready() }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Result<Response<ModelReadyResponse>, Status> {
        let ModelReadyRequest { name, version } = request.get_ref();
        let key = key(request.metadata(), name, version)?;
        Ok(Response::new(ModelReadyResponse { ready: self.app.services.control.is_model_ready(&key) }))
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        Ok(Response::new(describe::server(&self.app)))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let (call, _, ModelMetadataRequest { name, version }) = request.into_parts();
        let (key, found) = self.describe(&call, &name, &version).await?;
        Ok(told(describe::model(&key, &found.model), found.cache.as_ref()))
    }

    async fn model_config(
        &self,
        request: Request<ModelConfigRequest>,
    ) -> Result<Response<ModelConfigResponse>, Status> {
        let (call, _, ModelConfigRequest { name, version }) = request.into_parts();
        let (key, found) = self.describe(&call, &name, &version).await?;
        match describe::config(&found.model) {
            Ok(message) => Ok(told(message, found.cache.as_ref())),
            Err(error) => Err(failure::refuse(&key, error)),
        }
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Result<Response<RepositoryIndexResponse>, Status> {
        let RepositoryIndexRequest { repository_name, ready } = request.get_ref();
        repository::check_repository(repository_name).map_err(|error| failure::refuse(&ModelKey::default(), error))?;
        Ok(Response::new(describe::index(self.app.services.control.index().await, *ready)))
    }

    /// Never called: the route of [`super::unary`] is in front of tonic's.
    async fn model_infer(&self, _: Request<ModelInferRequest>) -> Result<Response<ModelInferResponse>, Status> {
        Err(failure::refuse(&ModelKey::default(), Error::internal("invariant: ModelInfer has a route of its own")))
    }

    type ModelStreamInferStream = Empty<Result<ModelStreamInferResponse, Status>>;

    /// Never called: the route of [`super::stream`] is in front of tonic's.
    async fn model_stream_infer(
        &self,
        _: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        Err(failure::refuse(&ModelKey::default(), Error::internal("invariant: a stream has a route of its own")))
    }

    async fn model_statistics(
        &self,
        request: Request<ModelStatisticsRequest>,
    ) -> Result<Response<ModelStatisticsResponse>, Status> {
        let ModelStatisticsRequest { name, version } = request.get_ref();
        let key = key(request.metadata(), name, version)?;
        match self.app.services.control.statistics(&key) {
            Ok(of) => Ok(Response::new(statistics::statistics(of))),
            Err(error) => Err(failure::refuse(&key, error)),
        }
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Result<Response<RepositoryModelLoadResponse>, Status> {
        repository::load(&*self.app.services.control, request.into_inner()).await?;
        Ok(Response::new(RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Result<Response<RepositoryModelUnloadResponse>, Status> {
        repository::unload(&*self.app.services.control, request.into_inner()).await?;
        Ok(Response::new(RepositoryModelUnloadResponse {}))
    }

    async fn system_shared_memory_status(
        &self,
        request: Request<SystemSharedMemoryStatusRequest>,
    ) -> Result<Response<SystemSharedMemoryStatusResponse>, Status> {
        reply(shared_memory::system_status(&self.app.services.shared_memory, request.into_inner()))
    }

    async fn system_shared_memory_register(
        &self,
        request: Request<SystemSharedMemoryRegisterRequest>,
    ) -> Result<Response<SystemSharedMemoryRegisterResponse>, Status> {
        reply(shared_memory::system_register(&self.app.services.shared_memory, request.into_inner()))
    }

    async fn system_shared_memory_unregister(
        &self,
        request: Request<SystemSharedMemoryUnregisterRequest>,
    ) -> Result<Response<SystemSharedMemoryUnregisterResponse>, Status> {
        reply(shared_memory::system_unregister(&self.app.services.shared_memory, request.into_inner()))
    }

    async fn cuda_shared_memory_status(
        &self,
        request: Request<CudaSharedMemoryStatusRequest>,
    ) -> Result<Response<CudaSharedMemoryStatusResponse>, Status> {
        reply(shared_memory::cuda_status(&self.app.services.shared_memory, request.into_inner()))
    }

    async fn cuda_shared_memory_register(
        &self,
        request: Request<CudaSharedMemoryRegisterRequest>,
    ) -> Result<Response<CudaSharedMemoryRegisterResponse>, Status> {
        reply(shared_memory::cuda_register(&self.app.services.shared_memory, request.into_inner()).await)
    }

    async fn cuda_shared_memory_unregister(
        &self,
        request: Request<CudaSharedMemoryUnregisterRequest>,
    ) -> Result<Response<CudaSharedMemoryUnregisterResponse>, Status> {
        reply(shared_memory::cuda_unregister(&self.app.services.shared_memory, request.into_inner()).await)
    }

    async fn trace_setting(
        &self,
        request: Request<TraceSettingRequest>,
    ) -> Result<Response<TraceSettingResponse>, Status> {
        let (call, _, message) = request.into_parts();
        if !message.model_name.is_empty() {
            self.describe(&call, &message.model_name, "").await?;
        }
        reply(trace::setting(&self.app.services.tracing, message))
    }

    async fn log_settings(
        &self,
        request: Request<LogSettingsRequest>,
    ) -> Result<Response<LogSettingsResponse>, Status> {
        let told = logging::settings(&*self.app.services.log, request.into_inner());
        told.map(Response::new).map_err(|error| failure::refuse(&ModelKey::default(), error))
    }
}
