//! CUDA regions, which this server does not take: a tensor on its way to a model is in host memory, so that a region on a
//! GPU would have to be copied back first.

use inference::{Error, Result};

use super::{Region, SharedMemory};

impl SharedMemory {
    /// Refuses a region of GPU memory.
    ///
    /// # Errors
    /// Unsupported.
    pub(crate) fn cuda_register(&self, name: &str) -> Result<()> {
        self.check_allowed()?;
        Err(Error::unsupported(format!(
            "failed to register CUDA shared memory region: '{name}', this server takes only system shared memory; register \
             such a region instead"
        )))
    }

    /// CUDA regions: there is never one.
    ///
    /// # Errors
    /// NotFound for any name.
    pub(crate) fn cuda_status(&self, name: &str) -> Result<Vec<Region>> {
        self.check_allowed()?;
        if name.is_empty() {
            return Ok(Vec::new());
        }
        Err(Error::not_found(format!("Unable to find cuda shared memory region: '{name}'")))
    }
}
