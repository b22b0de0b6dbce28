//! A POSIX shared memory object, read and written as the file that it is.

use std::os::fd::OwnedFd;

use inference::{Error, Result};
use rustix::fs::{FileType, Mode, fstat};
use rustix::io::{Errno, pread, pwrite};
use rustix::shm;

/// An open object.
#[derive(Debug)]
pub(super) struct Object(OwnedFd);

impl Object {
    /// Opens an existing object by `shm_open`'s rules: `/name`, without a further slash.
    ///
    /// # Errors
    /// InvalidArgument, in Triton's words, when it cannot be opened for reading and writing.
    pub(super) fn open(key: &str) -> Result<Object> {
        let refuse = |why: &dyn std::fmt::Display| {
            Error::invalid_argument(format!("Unable to open shared memory region: '{key}': {why}"))
        };
        let file = shm::open(key, shm::OFlags::RDWR, Mode::empty()).map_err(|error| refuse(&error))?;
        let kind = FileType::from_raw_mode(fstat(&file).map_err(|error| refuse(&error))?.st_mode);
        if kind != FileType::RegularFile {
            return Err(refuse(&"it is no shared memory object"));
        }
        Ok(Object(file))
    }

    /// Its size at this moment.
    pub(super) fn size(&self) -> Result<u64> {
        let status = fstat(&self.0).map_err(|error| lost(error.to_string()))?;
        Ok(u64::try_from(status.st_size).unwrap_or(0))
    }

    /// Fills `buffer` with the bytes from `start` on.
    ///
    /// # Errors
    /// InvalidArgument when the object ends before that.
    pub(super) fn read(&self, start: u64, mut buffer: &mut [u8]) -> Result<()> {
        let mut position = start;
        while !buffer.is_empty() {
            match pread(&self.0, &mut *buffer, position) {
                Ok(0) => return Err(lost(format!("it ends at byte {position}"))),
                Ok(read) => {
                    position += read as u64;
                    buffer = &mut buffer[read..];
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(lost(error.to_string())),
            }
        }
        Ok(())
    }

    /// Writes `data` at `start`.
    ///
    /// # Errors
    /// InvalidArgument when the object ends before that, or there is no memory for it.
    pub(super) fn write(&self, start: u64, mut data: &[u8]) -> Result<()> {
        // Writing past the end would make the client's object larger.
        let size = self.size()?;
        if start.saturating_add(data.len() as u64) > size {
            return Err(lost(format!("it ends at byte {size}")));
        }
        let mut position = start;
        while !data.is_empty() {
            match pwrite(&self.0, data, position) {
                Ok(0) => return Err(lost(format!("it takes no more at byte {position}"))),
                Ok(written) => {
                    position += written as u64;
                    data = &data[written..];
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(lost(error.to_string())),
            }
        }
        Ok(())
    }
}

/// The client has changed its object under the server's hands.
fn lost(why: String) -> Error {
    Error::invalid_argument(format!("the client's object is not as it was registered: {why}"))
}
