//! Which GPUs there are: the seam that the CUDA driver fills where there is one.

use cudarc::driver::result::DriverError;

use crate::cuda::{Driver, Missing};

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// The CUDA ordinal.
    pub ordinal: u32,
    /// The name that the driver gives it.
    pub name: String,
    /// What tells it apart from every other GPU: `GPU-…`, as `nvidia-smi` has it.
    pub uuid: String,
    /// All of its memory, in bytes.
    pub total_bytes: u64,
    /// What was free when it was asked, in bytes.
    pub free_bytes: u64,
}

/// Tells which GPUs there are.
pub trait DeviceInventory: Send + Sync {
    /// Every GPU that can be used, by ordinal.
    fn gpus(&self) -> Vec<Gpu>;
}

/// The GPUs that the CUDA driver reports. The driver is loaded at run time; without one there are no GPUs.
#[derive(Debug, Default)]
pub struct CudaInventory;

impl DeviceInventory for CudaInventory {
    fn gpus(&self) -> Vec<Gpu> {
        let listed = match Driver::load() {
            Ok(driver) => list(driver),
            Err(Missing::Library) => return Vec::new(),
            Err(Missing::Device(error)) => Err(error),
        };
        listed.unwrap_or_else(|error| {
            tracing::warn!(?error, "the CUDA driver is there but reports no usable GPU");
            Vec::new()
        })
    }
}

fn list(driver: Driver) -> Result<Vec<Gpu>, DriverError> {
    (0..driver.count()?).map(|ordinal| describe(driver, ordinal)).collect()
}

fn describe(driver: Driver, ordinal: u32) -> Result<Gpu, DriverError> {
    let (free_bytes, total_bytes) = driver.primary_context(ordinal)?.memory()?;
    Ok(Gpu { ordinal, name: driver.name(ordinal)?, uuid: driver.uuid(ordinal)?, total_bytes, free_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_for_gpus_never_panics() {
        let gpus = CudaInventory.gpus();
        assert!(gpus.iter().all(|gpu| gpu.free_bytes <= gpu.total_bytes), "{gpus:?}");
    }
}
