//! What a model takes in memory: the estimate before its load, and the best knowledge after it.

use std::ffi::CStr;
use std::path::Path;
use std::{fs, ptr};

use inference::{Device, MemoryUsage, Placement};
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::Session;
use ort::{AsPointer, sys};

/// What a session takes beside its weights: graph, kernels, names. Measured: 40 to 106 KB for a graph of one or two nodes.
const SESSION_BYTES: u64 = 128 * 1024;

/// The estimate's factor on the files' size, as a fraction. Measured on 70 MB of MatMul and of Conv weights: once loaded, 1.0
/// times the file; for a moment of the load, 1.1 and 2.4 times, because weights that kernels repack then exist twice. The
/// estimate lies between, and leaves room for the first run's activations.
const ESTIMATE_FACTOR: (u64, u64) = (3, 2);

/// What a graph takes in memory for each byte of it in a file. Measured without weights: 41 for MiniLM's encoder (216 nodes),
/// 22 for MobileNet (58 nodes).
const GRAPH_FACTOR: u64 = 40;

/// What a load is expected to take: one session for all instances on the host, one per instance on a GPU, whose graph is on the
/// host all the same. `in_files` is what the one on the host takes when its weights stay in their files; it is taken to be no
/// more than with weights in memory.
pub(crate) fn estimate(file_bytes: u64, in_files: Option<u64>, placement: &Placement) -> MemoryUsage {
    let session = file_bytes.saturating_mul(ESTIMATE_FACTOR.0) / ESTIMATE_FACTOR.1 + SESSION_BYTES;
    let mut usage = MemoryUsage::default();
    if placement.instances.contains(&Device::Host) {
        usage.add(Device::Host, in_files.map_or(session, |bytes| bytes.min(session)));
    }
    for gpu in placement.instances.iter().filter(|device| **device != Device::Host) {
        usage.add_all(&of_session_on(*gpu, session));
    }
    usage
}

/// What a session takes that takes so much on its device.
pub(crate) fn of_session_on(device: Device, bytes: u64) -> MemoryUsage {
    let mut usage = MemoryUsage::on(device, bytes);
    if device != Device::Host {
        usage.add(Device::Host, SESSION_BYTES);
    }
    usage
}

/// What one loaded session takes on its device: the size of its files or what allocators have handed out for it, whichever
/// is more (allocators do not see all repacked weights; a file may hold weights that optimisation dropped). What they handed
/// out is not known on the host when other models ran or were loaded at the same time: they share the arena.
pub(crate) fn of_session(allocated: Option<u64>, file_bytes: u64) -> u64 {
    allocated.unwrap_or(0).max(file_bytes) + SESSION_BYTES
}

/// What a session is expected to take whose weights stay in files: a graph several times as large as the model without its
/// weights, and weights that optimisation changes. More than it should where weights are left in that model.
pub(crate) fn of_mapped_graph(skeleton_bytes: u64, folded_bytes: u64) -> u64 {
    GRAPH_FACTOR.saturating_mul(skeleton_bytes).saturating_add(folded_bytes).saturating_add(SESSION_BYTES)
}

/// What one has taken, where that is known: what was handed out for it.
pub(crate) fn of_mapped_session(allocated: u64) -> u64 {
    allocated + SESSION_BYTES
}

/// Bytes of a model's file and of its neighbours, where ONNX keeps external weights.
pub(crate) fn file_bytes(model_file: &Path) -> u64 {
    let length = |path: &Path| fs::metadata(path).ok().filter(fs::Metadata::is_file).map_or(0, |data| data.len());
    let folder = model_file.parent().and_then(|folder| fs::read_dir(folder).ok());
    let sum = folder.into_iter().flatten().flatten().map(|entry| length(&entry.path())).sum::<u64>();
    sum.max(length(model_file))
}

/// What an arena says of itself, in bytes.
pub(crate) struct ArenaUse {
    /// Handed out.
    pub(crate) in_use: u64,
    /// Taken from the system.
    total: u64,
}

impl ArenaUse {
    /// Taken from the system and not handed out.
    pub(crate) fn unused(&self) -> u64 {
        self.total.saturating_sub(self.in_use)
    }
}

/// The arena on the host of a session.
pub(crate) fn of_arena(session: &Session) -> Option<ArenaUse> {
    statistics(session, AllocationDevice::CPU, 0)
}

/// Bytes that a session has been given on its GPU.
pub(crate) fn on_gpu(session: &Session, ordinal: u32) -> Option<u64> {
    statistics(session, AllocationDevice::CUDA, i32::try_from(ordinal).ok()?).map(|arena| arena.in_use)
}

/// What the arena that a session uses says; `None` where it has none.
fn statistics(session: &Session, device: AllocationDevice, ordinal: i32) -> Option<ArenaUse> {
    let info = MemoryInfo::new(device, ordinal, AllocatorType::Device, MemoryType::Default).ok()?;
    let allocator = Allocator::new(session, info).ok()?;
    let api = ort::api();
    let mut stats: *mut sys::OrtKeyValuePairs = ptr::null_mut();
    // SAFETY: the allocator is alive; the statistics are ours, read before they are released, and released once. A value
    // is a NUL-terminated string that lives as long as they do.
    unsafe {
        ort::Error::result_from_status((api.AllocatorGetStats)(allocator.ptr(), &mut stats)).ok()?;
        let number = |key: &CStr| {
            let value = (api.GetKeyValue)(stats, key.as_ptr());
            if value.is_null() { None } else { CStr::from_ptr(value).to_str().ok()?.parse().ok() }
        };
        let numbers = (number(c"InUse"), number(c"TotalAllocated"));
        (api.ReleaseKeyValuePairs)(stats);
        Some(ArenaUse { in_use: numbers.0?, total: numbers.1? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_share_a_session_on_the_host_and_have_one_each_on_a_gpu() {
        let placement = Placement { instances: vec![Device::Host, Device::Host, Device::Gpu(1), Device::Gpu(1)] };
        let usage = estimate(1000, None, &placement);
        assert_eq!(usage.get(Device::Host), 1500 + 3 * SESSION_BYTES, "a graph each");
        assert_eq!(usage.get(Device::Gpu(1)), 2 * (1500 + SESSION_BYTES));
    }

    #[test]
    fn weights_in_files_are_expected_to_take_no_more_than_weights_in_memory() {
        let on_host = |in_files| estimate(1000, in_files, &Placement::on_host(2)).get(Device::Host);
        assert_eq!(on_host(Some(7)), 7);
        assert_eq!(on_host(Some(of_mapped_graph(4000, 0))), on_host(None));
    }

    #[test]
    fn files_beside_the_model_count() {
        let folder = tempfile::tempdir().expect("a folder");
        let model = folder.path().join("model.onnx");
        fs::write(&model, [0; 10]).expect("written");
        fs::write(folder.path().join("weights"), [0; 5]).expect("written");
        assert_eq!(file_bytes(&model), 15);
    }
}
