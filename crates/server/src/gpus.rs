//! How much of each GPU models may take: `--gpu-memory`, against the GPUs that there are.

use std::collections::BTreeMap;
use std::str::FromStr;

use bytesize::ByteSize;
use inference::{Device, MemoryUsage};
use metrics::{Unit, describe_gauge, gauge};
use model_cache::Gpu;

/// The percentage of a GPU's free memory that models may take by default; the rest is for the runtimes' workspaces.
const DEFAULT: Share = Share::Percent(80);

/// How much models may take, as it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GpuMemory {
    /// Of each GPU that is not named.
    of_each: Option<Share>,
    /// By CUDA ordinal.
    named: BTreeMap<u32, Share>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Share {
    Bytes(u64),
    /// Of what was free at start.
    Percent(u8),
}

impl Share {
    fn of(self, gpu: &Gpu) -> u64 {
        match self {
            Share::Bytes(bytes) => bytes.min(gpu.total_bytes),
            Share::Percent(percent) => (u128::from(gpu.free_bytes) * u128::from(percent) / 100) as u64,
        }
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is neither a size such as 4GiB nor a percentage such as 50%");
        match text.strip_suffix('%') {
            Some(number) => {
                let percent = number.trim().parse().ok().filter(|percent| *percent <= 100);
                percent.map(Share::Percent).ok_or_else(wrong)
            }
            None => text.parse::<ByteSize>().map(|size| Share::Bytes(size.as_u64())).map_err(|_| wrong()),
        }
    }
}

/// `SHARE`, `ORDINAL=SHARE`, or several of them: `50%`, `0=4GiB,1=50%`, `4GiB,1=0`.
impl FromStr for GpuMemory {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut memory = GpuMemory::default();
        for part in text.split(',').map(str::trim) {
            let is_new = match part.split_once('=') {
                None => memory.of_each.replace(part.parse()?).is_none(),
                Some((ordinal, share)) => {
                    let ordinal =
                        ordinal.trim().parse().map_err(|_| format!("'{ordinal}' is no GPU; they begin at 0"))?;
                    memory.named.insert(ordinal, share.trim().parse()?).is_none()
                }
            };
            if !is_new {
                return Err(format!("'{part}' says again what was said before it"));
            }
        }
        Ok(memory)
    }
}

impl GpuMemory {
    /// Adds what models may take of each of these GPUs, and says which of them they may be placed on: those of which they may
    /// take something.
    ///
    /// # Errors
    /// A GPU is named that is not there although others are. Where there is none at all, what was asked for is passed over.
    pub(crate) fn divide(&self, gpus: &[Gpu], budget: &mut MemoryUsage) -> anyhow::Result<Vec<u32>> {
        let is_there = |ordinal: &u32| gpus.iter().any(|gpu| gpu.ordinal == *ordinal);
        if let Some(absent) = self.named.keys().find(|ordinal| !gpus.is_empty() && !is_there(ordinal)) {
            let there: Vec<u32> = gpus.iter().map(|gpu| gpu.ordinal).collect();
            anyhow::bail!("--gpu-memory names GPU {absent}, but this machine has GPUs {there:?}");
        }
        let mut usable = Vec::new();
        describe_gauge!("nv_gpu_memory_total_bytes", Unit::Bytes, "GPU total memory, in bytes");
        for gpu in gpus {
            let share = self.named.get(&gpu.ordinal).copied().or(self.of_each).unwrap_or(DEFAULT);
            let bytes = share.of(gpu);
            budget.add(Device::Gpu(gpu.ordinal), bytes);
            usable.extend((bytes > 0).then_some(gpu.ordinal));
            gauge!("nv_gpu_memory_total_bytes", "gpu_uuid" => gpu.uuid.clone()).set(gpu.total_bytes as f64);
            tracing::info!(
                gpu = gpu.ordinal,
                name = gpu.name,
                uuid = gpu.uuid,
                total_bytes = gpu.total_bytes,
                free_bytes = gpu.free_bytes,
                budget_bytes = bytes,
                "found a GPU"
            );
        }
        Ok(usable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn gpu(ordinal: u32, total_bytes: u64, free_bytes: u64) -> Gpu {
        Gpu { ordinal, name: "a GPU".into(), uuid: format!("GPU-{ordinal}"), total_bytes, free_bytes }
    }

    /// What models may take of a GPU of 8 GiB and one of 16 GiB, half of which is in use.
    fn divided(text: &str) -> (u64, u64, Vec<u32>) {
        let (memory, mut budget) = (text.parse::<GpuMemory>().expect(text), MemoryUsage::default());
        let gpus = [gpu(0, 8 * GIB, 8 * GIB), gpu(1, 16 * GIB, 8 * GIB)];
        let usable = memory.divide(&gpus, &mut budget).expect("both are there");
        (budget.get(Device::Gpu(0)), budget.get(Device::Gpu(1)), usable)
    }

    #[test]
    fn each_gpu_has_its_share() {
        assert_eq!(divided("4GiB"), (4 * GIB, 4 * GIB, vec![0, 1]));
        assert_eq!(divided("50%"), (4 * GIB, 4 * GIB, vec![0, 1]), "of what is free");
        assert_eq!(divided("0=1GiB,1=25%"), (GIB, 2 * GIB, vec![0, 1]));
        assert_eq!(divided("2GiB, 1 = 100GiB"), (2 * GIB, 16 * GIB, vec![0, 1]), "no more than there is");
        assert_eq!(divided("1=0"), (8 * GIB * 80 / 100, 0, vec![0]), "by default most of it");
    }

    #[test]
    fn a_gpu_that_is_not_there_is_an_error_beside_others() {
        let memory: GpuMemory = "3=1GiB".parse().expect("well written");
        let refused =
            memory.divide(&[gpu(0, GIB, GIB)], &mut MemoryUsage::default()).expect_err("there is no such GPU");
        assert_eq!(refused.to_string(), "--gpu-memory names GPU 3, but this machine has GPUs [0]");
        assert_eq!(memory.divide(&[], &mut MemoryUsage::default()).expect("there are none"), Vec::<u32>::new());
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for wrong in ["", "lots", "101%", "-1%", "gpu0=1GiB", "0=", "1GiB,2GiB", "0=1GiB,0=2GiB", "0=1=2"] {
            assert!(wrong.parse::<GpuMemory>().is_err(), "{wrong}");
        }
    }
}
