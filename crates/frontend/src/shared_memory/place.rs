//! What an input's or output's parameters say about where in shared memory it lies. Messages are Triton's.

use inference::{Error, Result};

/// The parameter that names a region.
pub(crate) const REGION: &str = "shared_memory_region";
/// The parameter that says where in the region the tensor begins; 0 when it is not there.
pub(crate) const OFFSET: &str = "shared_memory_offset";
/// The parameter that says how many bytes there are.
pub(crate) const BYTE_SIZE: &str = "shared_memory_byte_size";

/// Bytes of a region, not yet checked against it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) region: String,
    pub(crate) offset: u64,
    pub(crate) byte_size: u64,
}

impl Place {
    /// Where in the object this place begins, if it lies within a region of `size` bytes that begins at `start`.
    ///
    /// # Errors
    /// InvalidArgument.
    pub(super) fn within(&self, start: u64, size: u64) -> Result<u64> {
        if self.offset >= size {
            let message = format!("Invalid offset for shared memory region: '{}'", self.region);
            return Err(Error::invalid_argument(message));
        }
        match self.offset.checked_add(self.byte_size) {
            Some(end) if end <= size => Ok(start + self.offset),
            _ => Err(self.too_large()),
        }
    }

    pub(super) fn too_large(&self) -> Error {
        Error::invalid_argument(format!("Invalid offset + byte size for shared memory region: '{}'", self.region))
    }
}

/// The parameters as they come, one by one.
#[derive(Clone, Debug, Default)]
pub(crate) struct PlaceParts {
    pub(crate) region: Option<String>,
    pub(crate) offset: Option<u64>,
    pub(crate) byte_size: Option<u64>,
}

impl PlaceParts {
    /// The place, if the tensor lies in shared memory.
    ///
    /// # Errors
    /// InvalidArgument when only some of the parameters are there.
    pub(crate) fn place(self, tensor: &str) -> Result<Option<Place>> {
        let refuse = |message: String| Err(Error::invalid_argument(message));
        match self {
            PlaceParts { region: None, offset: None, byte_size: None } => Ok(None),
            PlaceParts { region: None, offset, .. } => {
                let what = if offset.is_some() { OFFSET } else { BYTE_SIZE };
                refuse(format!("'{what}' can not be specified without '{REGION}' parameter for tensor '{tensor}'"))
            }
            PlaceParts { byte_size: None, .. } => {
                refuse(format!("'{BYTE_SIZE}' must be specified along with '{REGION}' parameter for tensor '{tensor}'"))
            }
            PlaceParts { region: Some(region), offset, byte_size: Some(byte_size) } => {
                Ok(Some(Place { region, offset: offset.unwrap_or(0), byte_size }))
            }
        }
    }
}
