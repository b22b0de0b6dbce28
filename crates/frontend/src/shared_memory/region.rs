//! What clients register, and the parts of it that requests refer to.

use std::sync::Arc;

use bytes::Bytes;
use inference::{DeviceMapping, Error, Result};

use super::object::Object;
use super::pool::Pool;

/// A registered region of `byte_size` bytes. Requests at work hold it too, so that taking it away does not disturb them.
#[derive(Debug)]
pub(super) struct Region {
    pub(super) name: String,
    pub(super) byte_size: u64,
    pub(super) memory: Memory,
}

/// Where a region's bytes are.
#[derive(Debug)]
pub(super) enum Memory {
    /// In the object that `shm_open` finds under `key`, from `offset` on.
    System { key: String, offset: u64, object: Object },
    /// At the beginning of an allocation on the GPU `device_id`, which is mapped as long as this exists.
    Cuda { device_id: u32, mapping: Box<dyn DeviceMapping> },
}

/// Which of the two kinds; names are shared by both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    System,
    Cuda,
}

impl Kind {
    /// The name in messages about regions of the other kind.
    const fn name(self) -> &'static str {
        match self {
            Kind::System => "system",
            Kind::Cuda => "CUDA",
        }
    }

    /// There is no region of this name, in Triton's words.
    pub(super) fn unknown(self, region: &str) -> Error {
        let kind = self.name().to_lowercase();
        Error::not_found(format!("Unable to find {kind} shared memory region: '{region}'"))
    }

    /// There is one, but of this kind instead of `wanted`, in Triton's words.
    pub(super) fn instead_of(self, wanted: Kind, region: &str) -> Error {
        Error::not_found(format!(
            "The region named '{region}' is registered as {} shared memory, not {} shared memory",
            self.name(),
            wanted.name()
        ))
    }
}

impl Region {
    pub(super) fn kind(&self) -> Kind {
        match self.memory {
            Memory::System { .. } => Kind::System,
            Memory::Cuda { .. } => Kind::Cuda,
        }
    }

    /// Where in its object or allocation the region begins.
    pub(super) fn start(&self) -> u64 {
        match self.memory {
            Memory::System { offset, .. } => offset,
            Memory::Cuda { .. } => 0,
        }
    }
}

/// A part of a region, for the length of a request.
///
/// An object is read and written through its file, not through a mapping: the client may cut it short or change it at any
/// time, and a mapping would then end the process (SIGBUS) or change a tensor after it was checked. The copy of 600 KB takes
/// 40 µs. Memory of a GPU is copied for the second reason, and because tensors on their way to a model are in host memory.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    pub(super) region: Arc<Region>,
    pub(super) buffers: Arc<Pool>,
    pub(super) start: u64,
    pub(super) length: usize,
}

impl Window {
    /// How many bytes there are.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Whether copies wait for a GPU, however small they are.
    pub(super) fn waits(&self) -> bool {
        self.region.kind() == Kind::Cuda
    }

    /// A copy of the bytes, aligned for tensors.
    ///
    /// # Errors
    /// InvalidArgument when the object does not have them any more; Internal when the GPU fails.
    pub(crate) fn read(&self) -> Result<Bytes> {
        let mut buffer = self.buffers.take(self.length);
        let read = match &self.region.memory {
            Memory::System { object, .. } => object.read(self.start, buffer.as_mut()),
            Memory::Cuda { mapping, .. } => mapping.read(self.start, buffer.as_mut()),
        };
        read.map_err(|error| self.in_region(error))?;
        Ok(buffer.into_bytes())
    }

    /// Writes from the window's beginning on.
    ///
    /// # Errors
    /// InvalidArgument when the object has no room for them any more; Internal when the GPU fails.
    pub(crate) fn write(&self, data: &[u8]) -> Result<()> {
        debug_assert!(data.len() <= self.length, "invariant: the caller has checked the length");
        let written = match &self.region.memory {
            Memory::System { object, .. } => object.write(self.start, data),
            Memory::Cuda { mapping, .. } => mapping.write(self.start, data),
        };
        written.map_err(|error| self.in_region(error))
    }

    fn in_region(&self, error: Error) -> Error {
        error.context(format!("shared memory region '{}'", self.region.name))
    }
}
