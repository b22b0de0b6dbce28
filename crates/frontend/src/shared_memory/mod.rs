//! Memory that clients share with the server: named regions of POSIX shared memory objects and of GPUs' memory, which
//! requests refer to instead of carrying their tensors.

mod cuda;
mod object;
mod place;
mod pool;
mod region;
mod system;
mod tensors;

use std::collections::BTreeMap;
use std::sync::Arc;

use inference::{DeviceMemory, Error, ErrorKind, Result};
use parking_lot::Mutex;

pub(crate) use self::cuda::CudaRegion;
pub(crate) use self::place::{BYTE_SIZE, OFFSET, Place, PlaceParts, REGION};
use self::pool::Pool;
use self::region::{Kind, Region, Window};
pub(crate) use self::system::SystemRegion;
pub(crate) use self::tensors::{SharedInput, SharedOutput, fetch, store};

/// The regions that clients have registered; clones share them.
#[derive(Clone, Debug, Default)]
pub struct SharedMemory(Option<Arc<Registry>>);

#[derive(Debug)]
struct Registry {
    /// `--max-client-shm-regions`.
    max_regions: usize,
    /// Whose memory clients may register, or what is missing for that.
    devices: Result<Arc<dyn DeviceMemory>>,
    regions: Mutex<BTreeMap<String, Arc<Region>>>,
    buffers: Arc<Pool>,
}

impl SharedMemory {
    /// Clients may not use shared memory.
    pub fn off() -> Self {
        SharedMemory(None)
    }

    /// Clients may register so many regions at once (`--max-client-shm-regions`), also of the memory of `devices`; where
    /// there are none, clients that try are told the error.
    pub fn allowed(max_regions: usize, devices: Result<Arc<dyn DeviceMemory>>) -> Self {
        let registry = Registry { max_regions, devices, regions: Mutex::default(), buffers: Arc::default() };
        SharedMemory(Some(Arc::new(registry)))
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
        let start = place.within(region.start(), region.byte_size)?;
        let length = usize::try_from(place.byte_size).map_err(|_| place.too_large())?;
        Ok(Window { region: region.clone(), buffers: registry.buffers.clone(), start, length })
    }
}

/// A registration that makes no sense, in Triton's words.
fn invalid(name: &str, what: &str) -> Error {
    Error::invalid_argument(format!("failed to register shared memory region '{name}': invalid args: {what}"))
}

impl Registry {
    /// Refuses what need not be opened to know that it cannot be registered.
    fn check_new(&self, name: &str, byte_size: u64) -> Result<()> {
        if name.is_empty() || byte_size == 0 {
            return Err(invalid(name, "a region needs a name and at least one byte"));
        }
        Self::check_free_in(&self.regions.lock(), name, self.max_regions)
    }

    fn check_free_in(regions: &BTreeMap<String, Arc<Region>>, name: &str, max_regions: usize) -> Result<()> {
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
        let is_free = Self::check_free_in(&regions, &region.name, self.max_regions);
        if is_free.is_ok() {
            regions.insert(region.name.clone(), Arc::new(region));
        }
        // Otherwise the region is closed here, which needs no lock.
        drop(regions);
        is_free
    }

    /// Takes away the region of this name if it is of this kind, or all of this kind when it is empty. Whoever drops them last
    /// closes them.
    fn take(&self, name: &str, kind: Kind) -> BTreeMap<String, Arc<Region>> {
        let mut regions = self.regions.lock();
        let taken = |region: &Region| region.kind() == kind && (name.is_empty() || region.name == name);
        regions.extract_if(.., |_, region| taken(region)).collect()
    }

    /// What `told` makes of the region of this name, or of all of this kind when it is empty.
    fn list<T>(&self, name: &str, kind: Kind, told: impl Fn(&Region) -> Option<T>) -> Result<Vec<T>> {
        let regions = self.regions.lock();
        if name.is_empty() {
            return Ok(regions.values().filter_map(|region| told(region)).collect());
        }
        let region = regions.get(name).ok_or_else(|| kind.unknown(name))?;
        let one = told(region).ok_or_else(|| region.kind().instead_of(kind, name))?;
        Ok(vec![one])
    }
}

#[cfg(test)]
mod tests;
