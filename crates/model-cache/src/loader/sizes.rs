//! What the models of an archive took when they were loaded: better than an estimate the next time.

use inference::{Device, MemoryUsage};

/// By model, in the order of the load. What a model takes on the host says nothing about what it takes on a GPU, nor the other
/// way round: each is remembered beside the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sizes(Vec<Size>);

/// What a model took, with the device that its groups went to which leave it open.
#[derive(Clone, Debug, Default)]
struct Size {
    on_host: Option<(Device, MemoryUsage)>,
    on_gpu: Option<(Device, MemoryUsage)>,
}

impl Sizes {
    /// Notes the next model.
    pub(super) fn note(&mut self, home: Device, usage: MemoryUsage) {
        let size = Some((home, usage));
        self.0.push(match home {
            Device::Host => Size { on_host: size, on_gpu: None },
            Device::Gpu(_) => Size { on_host: None, on_gpu: size },
        });
    }

    /// The same archive was loaded again, and took this.
    pub(crate) fn update(&mut self, newer: &Sizes) {
        self.0.resize_with(newer.0.len(), Size::default);
        for (known, newer) in self.0.iter_mut().zip(&newer.0) {
            known.on_host = newer.on_host.clone().or_else(|| known.on_host.take());
            known.on_gpu = newer.on_gpu.clone().or_else(|| known.on_gpu.take());
        }
    }

    /// What a model took, and where.
    pub(super) fn of(&self, model: usize) -> impl Iterator<Item = (Device, &MemoryUsage)> {
        let sizes = self.0.get(model).into_iter().flat_map(|size| [&size.on_host, &size.on_gpu]);
        sizes.flatten().map(|(home, usage)| (*home, usage))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(home: Device, bytes: u64) -> Sizes {
        let mut sizes = Sizes::default();
        sizes.note(home, MemoryUsage::on(home, bytes));
        sizes
    }

    #[test]
    fn what_a_model_takes_on_the_host_is_known_beside_what_it_takes_on_a_gpu() {
        let mut sizes = Sizes::default();
        for (home, bytes) in [(Device::Host, 1), (Device::Gpu(0), 2), (Device::Gpu(1), 3)] {
            sizes.update(&size(home, bytes));
        }
        let known: Vec<(Device, u64)> = sizes.of(0).map(|(home, usage)| (home, usage.get(home))).collect();
        assert_eq!(known, [(Device::Host, 1), (Device::Gpu(1), 3)], "the latest of each kind");
    }
}
