//! The seam to memory of GPUs that other processes share: whoever knows a driver implements it, whoever takes requests uses it.

use std::fmt;

use crate::{Error, Result};

/// What a process hands to another one to share an allocation on a GPU: CUDA's `cudaIpcMemHandle_t`, which is the driver's
/// `CUipcMemHandle`. Its bytes mean something to the driver only.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceMemoryHandle(pub [u8; DeviceMemoryHandle::SIZE]);

impl DeviceMemoryHandle {
    /// How many bytes a handle has.
    pub const SIZE: usize = 64;
}

impl TryFrom<&[u8]> for DeviceMemoryHandle {
    type Error = Error;

    fn try_from(bytes: &[u8]) -> Result<Self> {
        bytes.try_into().map(DeviceMemoryHandle).map_err(|_| {
            Error::invalid_argument(format!(
                "a cudaIpcMemHandle_t has {} bytes, this handle has {}",
                DeviceMemoryHandle::SIZE,
                bytes.len()
            ))
        })
    }
}

/// Whoever has a handle can map the memory, so it is not for logs.
impl fmt::Debug for DeviceMemoryHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceMemoryHandle(..)")
    }
}

/// GPUs whose memory can be shared between processes.
pub trait DeviceMemory: Send + Sync + fmt::Debug {
    /// Maps the allocation behind a handle, in the address space of the GPU with this CUDA ordinal. It stays mapped until the
    /// mapping is dropped, and is then unmapped exactly once. May take as long as a GPU takes to be woken up.
    ///
    /// # Errors
    /// InvalidArgument when there is no such GPU, or the driver knows no such memory; Internal when the GPU fails.
    fn open(&self, handle: &DeviceMemoryHandle, ordinal: u32) -> Result<Box<dyn DeviceMapping>>;
}

/// Memory of a GPU that another process shares with this one, while it is mapped.
pub trait DeviceMapping: Send + Sync + fmt::Debug {
    /// How many bytes there are; never changes.
    fn size(&self) -> u64;

    /// Copies the bytes from `start` on into `buffer`. Waits for the GPU.
    ///
    /// # Errors
    /// InvalidArgument when they are not all within the memory; Internal when the GPU fails.
    fn read(&self, start: u64, buffer: &mut [u8]) -> Result<()>;

    /// Copies `data` to `start`; when it returns, other processes see it. Waits for the GPU.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn write(&self, start: u64, data: &[u8]) -> Result<()>;
}
