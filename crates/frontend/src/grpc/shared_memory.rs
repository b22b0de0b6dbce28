//! `SystemSharedMemory*` and `CudaSharedMemory*`.

use inference::{DeviceMemoryHandle, Result};
use protocol::grpc_service::cuda_shared_memory_status_response::RegionStatus as CudaRegionStatus;
use protocol::grpc_service::system_shared_memory_status_response::RegionStatus;
use protocol::grpc_service::{
    CudaSharedMemoryRegisterRequest, CudaSharedMemoryRegisterResponse, CudaSharedMemoryStatusRequest,
    CudaSharedMemoryStatusResponse, CudaSharedMemoryUnregisterRequest, CudaSharedMemoryUnregisterResponse,
    SystemSharedMemoryRegisterRequest, SystemSharedMemoryRegisterResponse, SystemSharedMemoryStatusRequest,
    SystemSharedMemoryStatusResponse, SystemSharedMemoryUnregisterRequest, SystemSharedMemoryUnregisterResponse,
};

use crate::shared_memory::{CudaRegion, SharedMemory, SystemRegion};

pub(super) fn system_status(
    memory: &SharedMemory,
    request: SystemSharedMemoryStatusRequest,
) -> Result<SystemSharedMemoryStatusResponse> {
    let status = |region: SystemRegion| {
        let SystemRegion { name, key, offset, byte_size } = region;
        (name.clone(), RegionStatus { name, key, offset, byte_size })
    };
    let regions = memory.system_status(&request.name)?.into_iter().map(status).collect();
    Ok(SystemSharedMemoryStatusResponse { regions })
}

pub(super) fn system_register(
    memory: &SharedMemory,
    request: SystemSharedMemoryRegisterRequest,
) -> Result<SystemSharedMemoryRegisterResponse> {
    let SystemSharedMemoryRegisterRequest { name, key, offset, byte_size } = request;
    memory.system_register(&name, &key, offset, byte_size)?;
    Ok(SystemSharedMemoryRegisterResponse {})
}

pub(super) fn system_unregister(
    memory: &SharedMemory,
    request: SystemSharedMemoryUnregisterRequest,
) -> Result<SystemSharedMemoryUnregisterResponse> {
    memory.system_unregister(&request.name)?;
    Ok(SystemSharedMemoryUnregisterResponse {})
}

pub(super) fn cuda_status(
    memory: &SharedMemory,
    request: CudaSharedMemoryStatusRequest,
) -> Result<CudaSharedMemoryStatusResponse> {
    let status = |region: CudaRegion| {
        let CudaRegion { name, device_id, byte_size } = region;
        (name.clone(), CudaRegionStatus { name, device_id: device_id.into(), byte_size })
    };
    let regions = memory.cuda_status(&request.name)?.into_iter().map(status).collect();
    Ok(CudaSharedMemoryStatusResponse { regions })
}

pub(super) async fn cuda_register(
    memory: &SharedMemory,
    request: CudaSharedMemoryRegisterRequest,
) -> Result<CudaSharedMemoryRegisterResponse> {
    let CudaSharedMemoryRegisterRequest { name, raw_handle, device_id, byte_size } = request;
    memory.check_cuda(&name)?;
    let handle = DeviceMemoryHandle::try_from(&raw_handle[..]).map_err(|error| error.context("'raw_handle'"))?;
    memory.cuda_register(name, handle, device_id, byte_size).await?;
    Ok(CudaSharedMemoryRegisterResponse {})
}

pub(super) async fn cuda_unregister(
    memory: &SharedMemory,
    request: CudaSharedMemoryUnregisterRequest,
) -> Result<CudaSharedMemoryUnregisterResponse> {
    memory.cuda_unregister(&request.name).await?;
    Ok(CudaSharedMemoryUnregisterResponse {})
}
