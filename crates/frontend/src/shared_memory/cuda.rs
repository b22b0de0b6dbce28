//! Regions of a GPU's memory, which another process has exported. They are opened by whoever stands behind
//! [`DeviceMemory`](inference::DeviceMemory), and copied from and to: tensors on their way to a model are in host memory.

use inference::{DeviceMemoryHandle, Error, Result};

use super::region::{Kind, Memory, Region};
use super::{SharedMemory, invalid};
use crate::infer::off_thread;

/// What clients are told about such a region.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CudaRegion {
    pub(crate) name: String,
    pub(crate) device_id: u32,
    pub(crate) byte_size: u64,
}

impl SharedMemory {
    /// Whether clients may register memory of GPUs, and this machine has a GPU.
    pub(crate) fn takes_cuda(&self) -> bool {
        self.registry().is_ok_and(|registry| registry.devices.is_ok())
    }

    /// Maps and registers the first `byte_size` bytes of the allocation that a client has exported from the GPU `device_id`.
    ///
    /// # Errors
    /// Unsupported without GPUs; AlreadyExists; InvalidArgument when the handle, the GPU or the size is wrong; Overloaded
    /// past the bound on regions.
    pub(crate) async fn cuda_register(
        &self,
        name: String,
        handle: DeviceMemoryHandle,
        device_id: i64,
        byte_size: u64,
    ) -> Result<()> {
        self.check_cuda(&name)?;
        let memory = self.clone();
        // The driver may have to wake up the GPU.
        off_thread(move || memory.map(name, &handle, device_id, byte_size)).await
    }

    /// Refuses where clients may not use shared memory, and where there are no GPUs.
    ///
    /// # Errors
    /// Unsupported, with what is missing.
    pub(crate) fn check_cuda(&self, name: &str) -> Result<()> {
        let Err(missing) = &self.registry()?.devices else { return Ok(()) };
        let refusal = format!("failed to register CUDA shared memory region: '{name}', GPUs not supported");
        Err(missing.clone().context(refusal))
    }

    fn map(&self, name: String, handle: &DeviceMemoryHandle, device_id: i64, byte_size: u64) -> Result<()> {
        let registry = self.registry()?;
        registry.check_new(&name, byte_size)?;
        let refused = |error: Error| {
            let refusal = "failed to register shared memory region: invalid args";
            error.context(format!("{refusal}: region '{name}'"))
        };
        let device_id = u32::try_from(device_id)
            .map_err(|_| refused(Error::invalid_argument(format!("there is no GPU with the device_id {device_id}"))))?;
        let devices = registry.devices.as_ref().map_err(Clone::clone)?;
        let mapping = devices.open(handle, device_id).map_err(refused)?;
        let size = mapping.size();
        if byte_size > size {
            let what = format!("byte_size {byte_size} goes past the end of the allocation, which has {size} bytes");
            return Err(invalid(&name, &what));
        }
        registry.insert(Region { name, byte_size, memory: Memory::Cuda { device_id, mapping } })
    }

    /// Forgets the region of this name, or all of GPUs when it is empty; one that is not there is no error. A region that a
    /// request still uses is unmapped when the request ends.
    ///
    /// # Errors
    /// Unsupported where clients may not use shared memory.
    pub(crate) async fn cuda_unregister(&self, name: &str) -> Result<()> {
        let taken = self.registry()?.take(name, Kind::Cuda);
        if !taken.is_empty() {
            // Unmapping may wait for the GPU.
            off_thread(move || drop(taken)).await;
        }
        Ok(())
    }

    /// The region of this name, or all of GPUs, sorted, when it is empty.
    ///
    /// # Errors
    /// NotFound.
    pub(crate) fn cuda_status(&self, name: &str) -> Result<Vec<CudaRegion>> {
        self.registry()?.list(name, Kind::Cuda, |region| match region.memory {
            Memory::Cuda { device_id, .. } => {
                Some(CudaRegion { name: region.name.clone(), device_id, byte_size: region.byte_size })
            }
            Memory::System { .. } => None,
        })
    }
}
