//! Writing to a disk that may fill up: what does not fit is tried again after something was evicted.

use std::io::{self, ErrorKind, Write};

use crate::failure::{Failure, Outcome};

/// The room that an archive may take; the disk cache behind it evicts.
pub(crate) trait Room {
    /// Asks for `bytes` more.
    ///
    /// # Errors
    /// NoRoom when they cannot be had.
    fn take(&mut self, bytes: u64) -> Outcome<()>;

    /// The disk itself is full, whatever the books say: makes some room, so that trying again makes sense.
    ///
    /// # Errors
    /// NoRoom when nothing is left to evict.
    fn disk_is_full(&mut self) -> Outcome<()>;
}

/// Does `operation`, again and again while the disk is full and something can be evicted.
pub(crate) fn retry_when_full<T>(
    room: &mut dyn Room,
    mut operation: impl FnMut() -> io::Result<T>,
) -> Outcome<io::Result<T>> {
    loop {
        match operation() {
            Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                room.disk_is_full()?;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return Ok(result),
        }
    }
}

/// Writes all of `data`.
pub(super) fn write_all(room: &mut dyn Room, file: &mut impl Write, mut data: &[u8]) -> Outcome<()> {
    while !data.is_empty() {
        let written = retry_when_full(room, || file.write(data))?;
        match written {
            Ok(0) => return Err(Failure::disk("write an unpacked file", ErrorKind::WriteZero.into())),
            Ok(count) => data = &data[count..],
            Err(error) => return Err(Failure::disk("write an unpacked file", error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use inference::Error;

    use super::*;
    use crate::failure::Reason;

    /// Holds `free` bytes, and `per_eviction` more after each eviction.
    struct SmallDisk {
        written: Vec<u8>,
        free: std::rc::Rc<std::cell::Cell<usize>>,
    }

    impl Write for SmallDisk {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            let count = data.len().min(self.free.get());
            if count == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            self.free.set(self.free.get() - count);
            self.written.extend_from_slice(&data[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Evicting {
        left: usize,
        free: std::rc::Rc<std::cell::Cell<usize>>,
    }

    impl Room for Evicting {
        fn take(&mut self, _bytes: u64) -> Outcome<()> {
            Ok(())
        }

        fn disk_is_full(&mut self) -> Outcome<()> {
            let error = || Failure::new(Reason::NoRoom, Error::no_room("nothing to evict"));
            self.left = self.left.checked_sub(1).ok_or_else(error)?;
            self.free.set(self.free.get() + 3);
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_evicts_until_it_fits_or_nothing_is_left() {
        for (evictable, fits) in [(3, true), (2, false)] {
            let free = std::rc::Rc::new(std::cell::Cell::new(1));
            let mut disk = SmallDisk { written: Vec::new(), free: free.clone() };
            let mut room = Evicting { left: evictable, free };
            match write_all(&mut room, &mut disk, b"0123456789") {
                Ok(()) => assert!(fits && disk.written == b"0123456789"),
                Err(failure) => assert!(!fits && failure.reason == Reason::NoRoom),
            }
        }
    }
}
