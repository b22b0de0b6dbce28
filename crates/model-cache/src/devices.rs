//! Which GPUs there are: the seam that the CUDA driver fills where there is one.

use cudarc::driver::{result, sys};

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// The CUDA ordinal.
    pub ordinal: u32,
    /// The name that the driver gives it.
    pub name: String,
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
        // SAFETY: only looks for the driver's library; calls below are made only when it is there, since cudarc panics
        // without it.
        if !unsafe { sys::is_culib_present() } {
            return Vec::new();
        }
        match list() {
            Ok(gpus) => gpus,
            Err(error) => {
                tracing::warn!(?error, "the CUDA driver is there but reports no usable GPU");
                Vec::new()
            }
        }
    }
}

fn list() -> Result<Vec<Gpu>, result::DriverError> {
    result::init()?;
    (0..result::device::get_count()?).map(describe).collect()
}

fn describe(ordinal: i32) -> Result<Gpu, result::DriverError> {
    let device = result::device::get(ordinal)?;
    // SAFETY: `device` comes from the driver; the primary context is released again below, on every path.
    let (free_bytes, total_bytes) = unsafe {
        let context = result::primary_ctx::retain(device)?;
        let info = result::ctx::set_current(context).and_then(|()| result::mem_get_info());
        result::primary_ctx::release(device)?;
        info?
    };
    let name = result::device::get_name(device)?;
    Ok(Gpu { ordinal: ordinal.unsigned_abs(), name, total_bytes: total_bytes as u64, free_bytes: free_bytes as u64 })
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
