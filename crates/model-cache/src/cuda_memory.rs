//! Memory of GPUs that clients share, by the CUDA driver.

use std::collections::BTreeMap;
use std::sync::Arc;

use cudarc::driver::result::DriverError;
use inference::{DeviceMapping, DeviceMemory, DeviceMemoryHandle, Error, Result};
use parking_lot::Mutex;

use crate::cuda::{Context, CopyFault, Driver, Imported, Missing};

/// The GPUs that the CUDA driver knows.
#[derive(Debug)]
pub struct CudaMemory {
    driver: Driver,
    /// Contexts of the GPUs that were ever used here. Making one takes a good part of a second, and so does ending it.
    contexts: Mutex<BTreeMap<u32, Arc<Context>>>,
}

impl CudaMemory {
    /// Loads the driver.
    ///
    /// # Errors
    /// Unsupported, with what is missing.
    pub fn find() -> Result<CudaMemory> {
        match Driver::load() {
            Ok(driver) => Ok(CudaMemory { driver, contexts: Mutex::default() }),
            Err(Missing::Library) => Err(Error::unsupported(
                "the CUDA driver's library, libcuda.so, cannot be loaded on this machine; install NVIDIA's driver, or start \
                 the container with its GPUs",
            )),
            Err(Missing::Device(error)) => Err(Error::unsupported(format!(
                "the CUDA driver is there but cannot be used: {}; see that this process may use a GPU",
                explain(error)
            ))),
        }
    }
}

impl CudaMemory {
    fn context(&self, ordinal: u32) -> Result<Arc<Context>, DriverError> {
        let mut contexts = self.contexts.lock();
        if let Some(context) = contexts.get(&ordinal) {
            return Ok(context.clone());
        }
        let context = Arc::new(self.driver.primary_context(ordinal)?);
        contexts.insert(ordinal, context.clone());
        Ok(context)
    }
}

impl DeviceMemory for CudaMemory {
    fn open(&self, handle: &DeviceMemoryHandle, ordinal: u32) -> Result<Box<dyn DeviceMapping>> {
        let count = self.driver.count().map_err(|error| failed("tell its GPUs", error))?;
        if ordinal >= count {
            let message = format!("there is no GPU with the device_id {ordinal}; this machine has {count}");
            return Err(Error::invalid_argument(message));
        }
        let context = self.context(ordinal).map_err(|error| failed("make a context", error))?;
        let imported = context.import(&handle.0).map_err(|error| {
            Error::invalid_argument(format!(
                "the CUDA driver knows no memory of another process by this handle on GPU {ordinal}: {}",
                explain(error)
            ))
        })?;
        Ok(Box::new(imported))
    }
}

impl DeviceMapping for Imported {
    fn size(&self) -> u64 {
        Imported::size(self)
    }

    fn read(&self, start: u64, buffer: &mut [u8]) -> Result<()> {
        Imported::read(self, start, buffer).map_err(|fault| self.refuse("copy from the GPU", fault))
    }

    fn write(&self, start: u64, data: &[u8]) -> Result<()> {
        Imported::write(self, start, data).map_err(|fault| self.refuse("copy to the GPU", fault))
    }
}

impl Imported {
    fn refuse(&self, what: &str, fault: CopyFault) -> Error {
        match fault {
            CopyFault::Driver(error) => failed(what, error),
            CopyFault::Outside => Error::invalid_argument(format!("the GPU's memory has {} bytes", self.size())),
        }
    }
}

fn failed(what: &str, error: DriverError) -> Error {
    Error::internal(format!("the CUDA driver cannot {what}: {}", explain(error)))
}

/// The error as the driver names and explains it.
fn explain(error: DriverError) -> String {
    let text = error.error_string().map(|text| text.to_string_lossy().into_owned());
    text.map_or_else(|_| format!("{:?}", error.0), |text| format!("{:?}, {text}", error.0))
}

#[cfg(test)]
mod tests {
    use inference::ErrorKind;

    use super::*;

    #[test]
    fn what_is_missing_is_told_and_nothing_panics() {
        match CudaMemory::find() {
            Ok(memory) => {
                let error = memory.open(&DeviceMemoryHandle([0; 64]), u32::MAX).map(drop).expect_err("no such GPU");
                assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
                assert!(error.message().contains("the CUDA driver"), "{error}");
            }
        }
    }
}
