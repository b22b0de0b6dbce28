//! Where the instances of a model may go. Pure: `choice` decides between the ways that are listed here.

mod choice;
#[cfg(test)]
mod tests;

use inference::{Device, Error, InstanceGroup, InstanceKind, MemoryUsage, Placement, RateLimiter, Result};

pub(crate) use choice::{Choice, Demand, Need, choose};

/// One way to place the instances of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    /// Where the groups go that leave it open.
    pub(crate) home: Device,
    /// The device of each instance and what it needs to run, in the groups' order; never empty.
    pub(crate) instances: Vec<(Device, RateLimiter)>,
}

impl Way {
    /// As backends are told.
    pub(crate) fn placement(&self) -> Placement {
        Placement { instances: self.instances.iter().map(|(device, _)| *device).collect() }
    }

    /// Whether an instance is on a GPU.
    pub(crate) fn is_on_gpu(&self) -> bool {
        self.instances.iter().any(|(device, _)| *device != Device::Host)
    }

    /// What a model takes here, from what it takes elsewhere; `None` where that says nothing about it.
    pub(crate) fn translate(&self, elsewhere: Device, usage: &MemoryUsage) -> Option<MemoryUsage> {
        if elsewhere == self.home {
            return Some(usage.clone());
        }
        let is_at_home = |(device, _): &(Device, RateLimiter)| matches!(device, Device::Host) || *device == self.home;
        let are_gpus = matches!((elsewhere, self.home), (Device::Gpu(_), Device::Gpu(_)));
        (are_gpus && self.instances.iter().all(is_at_home)).then(|| {
            let mut moved = MemoryUsage::default();
            let there = |device| if device == elsewhere { self.home } else { device };
            usage.iter().for_each(|(device, bytes)| moved.add(there(device), bytes));
            moved
        })
    }
}

/// The ways to place a model's instance groups on the GPUs there are (`gpus`: their ordinals) and the host; never empty.
///
/// A group that lists GPUs has `count` instances on each of them, as in Triton. One that lists none has `count` instances on
/// one GPU: any of them. Groups of `KIND_AUTO` and `KIND_MODEL` may go to the host as well. All groups that leave it open go to
/// the same device. Without GPUs the host serves: whether a model that asked for a GPU accepts that is its backend's business.
///
/// # Errors
/// InvalidArgument when a group lists a GPU that is not there although others are.
pub(crate) fn ways(model: &str, groups: &[InstanceGroup], gpus: &[u32]) -> Result<Vec<Way>> {
    if !gpus.is_empty() {
        groups.iter().try_for_each(|group| check(model, group, gpus))?;
    }
    let needs_gpu = |group: &InstanceGroup| group.kind == InstanceKind::Gpu && group.gpus.is_empty();
    let may_be_on_host = gpus.is_empty() || !groups.iter().any(needs_gpu);
    let homes = gpus.iter().map(|ordinal| Device::Gpu(*ordinal)).chain(may_be_on_host.then_some(Device::Host));
    let mut ways: Vec<Way> = Vec::new();
    for home in homes {
        let way = Way { home, instances: instances(groups, home, !gpus.is_empty()) };
        if ways.iter().all(|known| known.instances != way.instances) {
            ways.push(way);
        }
    }
    Ok(ways)
}

fn check(model: &str, group: &InstanceGroup, gpus: &[u32]) -> Result<()> {
    let is_cpu = group.kind == InstanceKind::Cpu;
    match group.gpus.iter().find(|gpu| !is_cpu && !gpus.contains(gpu)) {
        Some(absent) => Err(Error::invalid_argument(format!(
            "model '{model}': instance_group names GPU {absent}, but this server uses GPUs {gpus:?} (--gpu-memory)"
        ))
        .with_model(model)),
        None => Ok(()),
    }
}

fn instances(groups: &[InstanceGroup], home: Device, has_gpus: bool) -> Vec<(Device, RateLimiter)> {
    let mut instances = Vec::new();
    for group in groups {
        for device in devices(group, home, has_gpus) {
            instances.extend((0..group.count.max(1)).map(|_| (device, group.rate_limiter.clone())));
        }
    }
    if instances.is_empty() {
        instances.push((Device::Host, RateLimiter::default()));
    }
    instances
}

/// Where a group has its instances, each device as often as it is listed.
fn devices(group: &InstanceGroup, home: Device, has_gpus: bool) -> Vec<Device> {
    let listed = || group.gpus.iter().map(|ordinal| Device::Gpu(*ordinal)).collect();
    match group.kind {
        _ if !has_gpus => vec![Device::Host],
        InstanceKind::Cpu => vec![Device::Host],
        InstanceKind::Gpu if !group.gpus.is_empty() => listed(),
        InstanceKind::Auto if home != Device::Host && !group.gpus.is_empty() => listed(),
        InstanceKind::Gpu | InstanceKind::Auto | InstanceKind::Model => vec![home],
    }
}
