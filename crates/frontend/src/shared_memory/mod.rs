//! Memory that clients share with the server: named regions of POSIX shared memory objects, which requests refer to instead
//! of carrying their tensors.

mod cuda;
mod object;
mod place;
mod pool;
mod tensors;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use inference::{Error, ErrorKind, Result};
use parking_lot::Mutex;

use self::object::Object;
pub(crate) use self::place::{BYTE_SIZE, OFFSET, Place, PlaceParts, REGION};
use self::pool::Pool;
pub(crate) use self::tensors::{SharedInput, SharedOutput, fetch, store};

/// The regions that clients have registered; clones share them.
#[derive(Clone, Debug, Default)]
pub struct SharedMemory(Option<Arc<Registry>>);

#[derive(Debug)]
struct Registry {
    /// `--max-client-shm-regions`.
    max_regions: usize,
    regions: Mutex<BTreeMap<String, Region>>,
    buffers: Arc<Pool>,
}

/// A registered region: `byte_size` bytes of an object, from `offset` on.
#[derive(Clone, Debug)]
pub(crate) struct Region {
    pub(crate) name: String,
    pub(crate) key: String,
    pub(crate) offset: u64,
    pub(crate) byte_size: u64,
    /// Requests at work hold it too, so that taking the region away does not disturb them.
    object: Arc<Object>,
}

impl SharedMemory {
    /// Clients may not use shared memory.
    pub fn off() -> Self {
        SharedMemory(None)
    }

    /// Clients may register so many regions at once (`--max-client-shm-regions`).
    pub fn allowed(max_regions: usize) -> Self {
        SharedMemory(Some(Arc::new(Registry { max_regions, regions: Mutex::default(), buffers: Arc::default() })))
    }

    /// Whether clients may use it.
    pub(crate) fn is_allowed(&self) -> bool {
        self.0.is_some()
    }

    fn registry(&self) -> Result<&Registry> {
        self.0.as_deref().ok_or_else(|| {
            Error::unsupported(
                "clients may not use shared memory on this server; start it with --allow-client-shm, or send tensors in \
                 requests",
            )
        })
    }

    /// Refuses where clients may not use shared memory.
    ///
    /// # Errors
    /// Unsupported.
    pub(crate) fn check_allowed(&self) -> Result<()> {
        self.registry().map(drop)
    }

    /// Registers a region of the object that `shm_open` finds under `key`.
    ///
    /// # Errors
    /// AlreadyExists; InvalidArgument when there is no such object or it is too small; Overloaded past the bound on regions.
    pub(crate) fn register(&self, name: &str, key: &str, offset: u64, byte_size: u64) -> Result<()> {
        let registry = self.registry()?;
        let invalid = |what: String| {
            Error::invalid_argument(format!("failed to register shared memory region '{name}': invalid args: {what}"))
        };
        if name.is_empty() || byte_size == 0 {
            return Err(invalid("a region needs a name and at least one byte".to_owned()));
        }
        registry.check_free(name)?;
        let object = Object::open(key)?;
        let size = object.size()?;
        if offset.checked_add(byte_size).is_none_or(|end| end > size) {
            return Err(invalid(format!(
                "offset {offset} and byte_size {byte_size} go past the end of '{key}', which has {size} bytes"
            )));
        }
        registry.insert(Region {
            name: name.to_owned(),
            key: key.to_owned(),
            offset,
            byte_size,
            object: Arc::new(object),
        })
    }

    /// Forgets a region, or all of them when `name` is empty. As in Triton, one that is not there is no error.
    ///
    /// # Errors
    /// Unsupported where clients may not use shared memory.
    pub(crate) fn unregister(&self, name: &str) -> Result<()> {
        let mut regions = self.registry()?.regions.lock();
        let removed = if name.is_empty() {
            std::mem::take(&mut *regions)
        } else {
            regions.remove_entry(name).into_iter().collect()
        };
        drop(regions);
        // Closing files needs no lock.
        drop(removed);
        Ok(())
    }

    /// The region of this name, or all of them, sorted, when it is empty.
    ///
    /// # Errors
    /// NotFound.
    pub(crate) fn status(&self, name: &str) -> Result<Vec<Region>> {
        let regions = self.registry()?.regions.lock();
        if name.is_empty() {
            return Ok(regions.values().cloned().collect());
        }
        match regions.get(name) {
            Some(region) => Ok(vec![region.clone()]),
            None => Err(Error::not_found(format!("Unable to find system shared memory region: '{name}'"))),
        }
    }

    /// The bytes that a request's tensor refers to.
    ///
    /// # Errors
    /// NotFound when the region is not registered, InvalidArgument when the place is not within it.
    pub(crate) fn find(&self, place: &Place) -> Result<Window> {
        let registry = self.registry()?;
        let (regions, name) = (registry.regions.lock(), &place.region);
        let Some(region) = regions.get(name) else {
            return Err(Error::not_found(format!("Unable to find shared memory region: '{name}'")));
        };
        let start = place.within(region.offset, region.byte_size)?;
        let length = usize::try_from(place.byte_size).map_err(|_| place.too_large())?;
        let (object, buffers) = (region.object.clone(), registry.buffers.clone());
        Ok(Window { region: name.clone(), object, buffers, start, length })
    }
}

impl Registry {
    fn check_free(&self, name: &str) -> Result<()> {
        let regions = self.regions.lock();
        Self::check_free_in(&regions, name, self.max_regions)
    }

    fn check_free_in(regions: &BTreeMap<String, Region>, name: &str, max_regions: usize) -> Result<()> {
        if regions.contains_key(name) {
            let message = format!("shared memory region '{name}' already in manager");
            return Err(Error::new(ErrorKind::AlreadyExists, message));
        }
        if regions.len() >= max_regions {
            return Err(Error::overloaded(format!(
                "failed to register shared memory region '{name}': there are {max_regions} regions already, which is what \
                 --max-client-shm-regions allows; unregister some"
            )));
        }
        Ok(())
    }

    fn insert(&self, region: Region) -> Result<()> {
        let mut regions = self.regions.lock();
        // Another client may have come in between.
        Self::check_free_in(&regions, &region.name, self.max_regions)?;
        regions.insert(region.name.clone(), region);
        Ok(())
    }
}

/// A part of a region, for the length of a request.
///
/// It is read and written through the file, not through a mapping: the client may cut the object short or change it at any
/// time, and a mapping would then end the process (SIGBUS) or change a tensor after it was checked. The copy of 600 KB takes
/// 40 µs.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    region: String,
    object: Arc<Object>,
    buffers: Arc<Pool>,
    start: u64,
    length: usize,
}

impl Window {
    /// How many bytes there are.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// A copy of the bytes, aligned for tensors.
    ///
    /// # Errors
    /// InvalidArgument when the object does not have them any more.
    pub(crate) fn read(&self) -> Result<Bytes> {
        let mut buffer = self.buffers.take(self.length);
        self.object.read(self.start, buffer.as_mut()).map_err(|error| self.in_region(error))?;
        Ok(buffer.into_bytes())
    }

    /// Writes from the window's beginning on.
    ///
    /// # Errors
    /// InvalidArgument when the object has no room for them any more.
    pub(crate) fn write(&self, data: &[u8]) -> Result<()> {
        debug_assert!(data.len() <= self.length, "invariant: the caller has checked the length");
        self.object.write(self.start, data).map_err(|error| self.in_region(error))
    }

    fn in_region(&self, error: Error) -> Error {
        error.context(format!("shared memory region '{}'", self.region))
    }
}

#[cfg(test)]
mod tests;
