//! `SystemSharedMemory*` and `CudaSharedMemory*`.

use inference::Result;
use protocol::grpc_service::system_shared_memory_status_response::RegionStatus;
use protocol::grpc_service::{
    CudaSharedMemoryRegisterRequest, CudaSharedMemoryRegisterResponse, CudaSharedMemoryStatusRequest,
    CudaSharedMemoryStatusResponse, CudaSharedMemoryUnregisterRequest, CudaSharedMemoryUnregisterResponse,
    SystemSharedMemoryRegisterRequest, SystemSharedMemoryRegisterResponse, SystemSharedMemoryStatusRequest,
    SystemSharedMemoryStatusResponse, SystemSharedMemoryUnregisterRequest, SystemSharedMemoryUnregisterResponse,
};

use crate::shared_memory::{Region, SharedMemory};

pub(super) fn system_status(
    memory: &SharedMemory,
    request: SystemSharedMemoryStatusRequest,
) -> Result<SystemSharedMemoryStatusResponse> {
    let status = |region: Region| {
        let Region { name, key, offset, byte_size, .. } = region;
        (name.clone(), RegionStatus { name, key, offset, byte_size })
    };
    let regions = memory.status(&request.name)?.into_iter().map(status).collect();
    Ok(SystemSharedMemoryStatusResponse { regions })
}

pub(super) fn system_register(
    memory: &SharedMemory,
    request: SystemSharedMemoryRegisterRequest,
) -> Result<SystemSharedMemoryRegisterResponse> {
    let SystemSharedMemoryRegisterRequest { name, key, offset, byte_size } = request;
    memory.register(&name, &key, offset, byte_size)?;
    Ok(SystemSharedMemoryRegisterResponse {})
}

pub(super) fn system_unregister(
    memory: &SharedMemory,
    request: SystemSharedMemoryUnregisterRequest,
) -> Result<SystemSharedMemoryUnregisterResponse> {
    memory.unregister(&request.name)?;
    Ok(SystemSharedMemoryUnregisterResponse {})
}

pub(super) fn cuda_status(
    memory: &SharedMemory,
    request: CudaSharedMemoryStatusRequest,
) -> Result<CudaSharedMemoryStatusResponse> {
    memory.cuda_status(&request.name)?;
    Ok(CudaSharedMemoryStatusResponse::default())
}

pub(super) fn cuda_register(
    memory: &SharedMemory,
    request: CudaSharedMemoryRegisterRequest,
) -> Result<CudaSharedMemoryRegisterResponse> {
    memory.cuda_register(&request.name)?;
    Ok(CudaSharedMemoryRegisterResponse {})
}

pub(super) fn cuda_unregister(
    memory: &SharedMemory,
    _: CudaSharedMemoryUnregisterRequest,
) -> Result<CudaSharedMemoryUnregisterResponse> {
    memory.check_allowed()?;
    Ok(CudaSharedMemoryUnregisterResponse {})
}
