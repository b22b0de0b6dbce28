//! The calls of the CUDA driver that are needed here, made safe. The driver is loaded at run time; [`Driver`] is the proof
//! that it is there. All unsafe code of this crate is in this file.

use std::sync::Arc;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

/// The driver, loaded and initialised.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Driver(());

/// Why no driver can be used.
#[derive(Debug)]
pub(crate) enum Missing {
    /// There is no library of it.
    Library,
    /// It refuses to start, mostly because there is no GPU.
    Device(DriverError),
}

impl Driver {
    /// Loads the driver, where there is one.
    pub(crate) fn load() -> Result<Driver, Missing> {
        // SAFETY: only looks for the driver's library. Calls are made only by those who have a `Driver`, since cudarc panics
        // where the library is missing.
        if !unsafe { sys::is_culib_present() } {
            return Err(Missing::Library);
        }
        result::init().map_err(Missing::Device)?;
        Ok(Driver(()))
    }

    /// How many GPUs there are; their ordinals are 0 and so on.
    pub(crate) fn count(self) -> Result<u32, DriverError> {
        Ok(result::device::get_count()?.unsigned_abs())
    }

    /// The name of a GPU.
    pub(crate) fn name(self, ordinal: u32) -> Result<String, DriverError> {
        result::device::get_name(device(ordinal)?)
    }

    /// The UUID of a GPU, as `nvidia-smi` has it.
    pub(crate) fn uuid(self, ordinal: u32) -> Result<String, DriverError> {
        let bytes = result::device::get_uuid(device(ordinal)?)?.bytes.map(|byte| byte as u8);
        let hex = |part: &[u8]| part.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let parts = [&bytes[..4], &bytes[4..6], &bytes[6..8], &bytes[8..10], &bytes[10..]];
        Ok(format!("GPU-{}", parts.map(hex).join("-")))
    }

    /// The primary context of a GPU, which everything in this process shares that uses the GPU.
    pub(crate) fn primary_context(self, ordinal: u32) -> Result<Context, DriverError> {
        let device = device(ordinal)?;
        // SAFETY: `device` comes from the driver. `Context` releases what is retained here, once.
        let context = unsafe { result::primary_ctx::retain(device)? };
        Ok(Context { device, context })
    }
}

fn device(ordinal: u32) -> Result<sys::CUdevice, DriverError> {
    result::device::get(i32::try_from(ordinal).unwrap_or(i32::MAX))
}

/// A primary context, which exists at least as long as this does.
#[derive(Debug)]
pub(crate) struct Context {
    device: sys::CUdevice,
    context: sys::CUcontext,
}

// SAFETY: a context belongs to the process; the driver lets every thread use it, several at once.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// Does something with this as the thread's current context, and puts back what was current before.
    fn with<T>(&self, work: impl FnOnce() -> Result<T, DriverError>) -> Result<T, DriverError> {
        // SAFETY: `self` keeps the context alive; what is pushed here is popped when `_pushed` is dropped.
        unsafe { sys::cuCtxPushCurrent_v2(self.context).result()? };
        let _pushed = Pushed;
        work()
    }

    /// What is free, and all there is of the GPU's memory, in bytes.
    pub(crate) fn memory(&self) -> Result<(u64, u64), DriverError> {
        let (free, total) = self.with(result::mem_get_info)?;
        Ok((free as u64, total as u64))
    }

    /// Maps the allocation that another process has exported.
    pub(crate) fn import(self: Arc<Self>, handle: &[u8; 64]) -> Result<Imported, DriverError> {
        let handle = sys::CUipcMemHandle { reserved: handle.map(u8::cast_signed) };
        let flags = sys::CUipcMem_flags::CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS as u32;
        let (mut address, mut base, mut size) = (0, 0, 0);
        // SAFETY: the driver checks the handle's bytes; it writes the address, and no more.
        self.with(|| unsafe { sys::cuIpcOpenMemHandle_v2(&raw mut address, handle, flags).result() })?;
        // From here on dropping it closes what was opened.
        let mut imported = Imported { context: self, address, size: 0 };
        // SAFETY: `address` is mapped in the current context; both results are written.
        let range = || unsafe { sys::cuMemGetAddressRange_v2(&raw mut base, &raw mut size, address).result() };
        imported.context.with(range)?;
        imported.size = (base + size as u64).saturating_sub(address);
        Ok(imported)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained once when this was made, and `device` comes from the driver.
        if let Err(error) = unsafe { result::primary_ctx::release(self.device) } {
            tracing::warn!(?error, "the CUDA driver does not release a context");
        }
    }
}

/// The top of this thread's stack of contexts.
struct Pushed;

impl Drop for Pushed {
    fn drop(&mut self) {
        let mut popped = std::ptr::null_mut();
        // SAFETY: takes away what `Context::with` has pushed on this same thread; the result is written and not used.
        let _ = unsafe { sys::cuCtxPopCurrent_v2(&raw mut popped).result() };
    }
}

/// An allocation of another process, mapped.
#[derive(Debug)]
pub(crate) struct Imported {
    context: Arc<Context>,
    address: sys::CUdeviceptr,
    size: u64,
}

impl Imported {
    /// How many bytes are mapped.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Copies from `start` on; the bytes are there when it returns.
    pub(crate) fn read(&self, start: u64, buffer: &mut [u8]) -> Result<(), CopyFault> {
        let from = self.address + checked(start, buffer.len(), self.size)?;
        // SAFETY: the source is within the mapping, as was just checked, and `self` keeps it; the copy is synchronous.
        self.context.with(|| unsafe { result::memcpy_dtoh_sync(buffer, from) }).map_err(CopyFault::Driver)
    }

    /// Copies to `start`; the bytes are on the GPU when it returns.
    pub(crate) fn write(&self, start: u64, data: &[u8]) -> Result<(), CopyFault> {
        let to = self.address + checked(start, data.len(), self.size)?;
        let copied = self.context.with(|| {
            // SAFETY: as in `read`, with source and destination exchanged.
            unsafe { result::memcpy_htod_sync(to, data)? };
            // The copy may return when the bytes are staged; another process would still read the old ones then.
            // SAFETY: the default stream of the current context always exists.
            unsafe { result::stream::synchronize(result::stream::null()) }
        });
        copied.map_err(CopyFault::Driver)
    }
}

/// Why nothing was copied.
#[derive(Debug)]
pub(crate) enum CopyFault {
    /// The bytes are not all within the mapping.
    Outside,
    /// The driver refuses, or the GPU fails.
    Driver(DriverError),
}

/// `start`, if `length` bytes from there on are within `size` bytes.
fn checked(start: u64, length: usize, size: u64) -> Result<u64, CopyFault> {
    match start.checked_add(length as u64) {
        Some(end) if end <= size => Ok(start),
        _ => Err(CopyFault::Outside),
    }
}

impl Drop for Imported {
    fn drop(&mut self) {
        // SAFETY: opened once when this was made, in this context, and nobody can have the address any more.
        let closed = self.context.with(|| unsafe { sys::cuIpcCloseMemHandle(self.address).result() });
        if let Err(error) = closed {
            tracing::warn!(?error, "the CUDA driver does not close a client's memory");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_stay_within_the_memory() {
        for (start, length, is_within) in
            [(0, 8, true), (8, 0, true), (3, 5, true), (0, 9, false), (8, 1, false), (u64::MAX, 1, false)]
        {
            assert_eq!(checked(start, length, 8).is_ok(), is_within, "{start} + {length}");
        }
    }
}
