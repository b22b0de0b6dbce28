//! Where a model's memory is: the host or one GPU.

use std::fmt;

use smallvec::SmallVec;

/// A place that holds models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Device {
    /// The machine's own memory.
    Host,
    /// The GPU with this CUDA ordinal.
    Gpu(u32),
}

/// As metric labels and messages name it: `host`, `gpu0`.
impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Host => f.write_str("host"),
            Device::Gpu(ordinal) => write!(f, "gpu{ordinal}"),
        }
    }
}

/// Bytes held on each device; a device that is not listed holds none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryUsage(SmallVec<[(Device, u64); 2]>);

impl MemoryUsage {
    /// Bytes on one device and nothing elsewhere.
    pub fn on(device: Device, bytes: u64) -> Self {
        let mut usage = MemoryUsage::default();
        usage.add(device, bytes);
        usage
    }

    /// Adds bytes on one device (saturating).
    pub fn add(&mut self, device: Device, bytes: u64) {
        if bytes == 0 {
            return;
        }
        match self.0.iter_mut().find(|(held, _)| *held == device) {
            Some((_, sum)) => *sum = sum.saturating_add(bytes),
            None => self.0.push((device, bytes)),
        }
    }

    /// Adds all of another usage (saturating).
    pub fn add_all(&mut self, other: &MemoryUsage) {
        other.iter().for_each(|(device, bytes)| self.add(device, bytes));
    }

    /// Takes all of another usage away (saturating at 0).
    pub fn remove_all(&mut self, other: &MemoryUsage) {
        for (device, bytes) in &mut self.0 {
            *bytes = bytes.saturating_sub(other.get(*device));
        }
        self.0.retain(|(_, bytes)| *bytes > 0);
    }

    /// Bytes on one device.
    pub fn get(&self, device: Device) -> u64 {
        self.0.iter().find(|(held, _)| *held == device).map_or(0, |(_, bytes)| *bytes)
    }

    /// Every device that holds something.
    pub fn iter(&self) -> impl Iterator<Item = (Device, u64)> + '_ {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_by_device() {
        let mut usage = MemoryUsage::on(Device::Host, 5);
        usage.add_all(&MemoryUsage::on(Device::Gpu(1), 7));
        usage.add(Device::Host, 1);
        assert_eq!((usage.get(Device::Host), usage.get(Device::Gpu(1)), usage.get(Device::Gpu(0))), (6, 7, 0));
        usage.remove_all(&MemoryUsage::on(Device::Host, 9));
        assert_eq!(usage, MemoryUsage::on(Device::Gpu(1), 7));
    }
}
