//! Regions of POSIX shared memory objects.

use inference::Result;

use super::object::Object;
use super::region::{Kind, Memory, Region};
use super::{SharedMemory, invalid};

/// What clients are told about such a region.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SystemRegion {
    pub(crate) name: String,
    pub(crate) key: String,
    pub(crate) offset: u64,
    pub(crate) byte_size: u64,
}

impl SharedMemory {
    /// Registers a region of the object that `shm_open` finds under `key`.
    ///
    /// # Errors
    /// AlreadyExists; InvalidArgument when there is no such object or it is too small; Overloaded past the bound on regions.
    pub(crate) fn system_register(&self, name: &str, key: &str, offset: u64, byte_size: u64) -> Result<()> {
        let registry = self.registry()?;
        registry.check_new(name, byte_size)?;
        let object = Object::open(key)?;
        let size = object.size()?;
        if offset.checked_add(byte_size).is_none_or(|end| end > size) {
            let what =
                format!("offset {offset} and byte_size {byte_size} go past the end of '{key}', which has {size} bytes");
            return Err(invalid(name, &what));
        }
        let memory = Memory::System { key: key.to_owned(), offset, object };
        registry.insert(Region { name: name.to_owned(), byte_size, memory })
    }

    /// Forgets the region of this name, or all of system memory when it is empty. As in Triton, one that is not there is no
    /// error.
    ///
    /// # Errors
    /// Unsupported where clients may not use shared memory.
    pub(crate) fn system_unregister(&self, name: &str) -> Result<()> {
        self.registry()?.take(name, Kind::System);
        Ok(())
    }

    /// The region of this name, or all of system memory, sorted, when it is empty.
    ///
    /// # Errors
    /// NotFound.
    pub(crate) fn system_status(&self, name: &str) -> Result<Vec<SystemRegion>> {
        self.registry()?.list(name, Kind::System, |region| match &region.memory {
            Memory::System { key, offset, .. } => Some(SystemRegion {
                name: region.name.clone(),
                key: key.clone(),
                offset: *offset,
                byte_size: region.byte_size,
            }),
            Memory::Cuda { .. } => None,
        })
    }
}
