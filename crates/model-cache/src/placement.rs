//! Decides which device each instance of a model goes to. Pure.

use inference::{Device, Error, InstanceGroup, InstanceKind, Placement, RateLimiter, Result};

/// Places a model's instance groups on the GPUs there are (`gpus`: their ordinals) and the host.
///
/// As in Triton, a group of `KIND_GPU` has `count` instances on each of its GPUs (all there are when it lists none);
/// `KIND_AUTO` and `KIND_MODEL` take a GPU where there is one. Where there is none the host serves: whether a model that
/// asked for a GPU accepts that is its backend's business.
///
/// # Errors
/// InvalidArgument when a group lists a GPU that is not there although others are.
pub(crate) fn place(model: &str, groups: &[InstanceGroup], gpus: &[u32]) -> Result<Placement> {
    let mut instances = Vec::new();
    for group in groups {
        let count = group.count.max(1) as usize;
        for device in devices(model, group, gpus)? {
            instances.extend(std::iter::repeat_n(device, count));
        }
    }
    if instances.is_empty() {
        instances.push(Device::Host);
    }
    Ok(Placement { instances })
}

fn devices(model: &str, group: &InstanceGroup, gpus: &[u32]) -> Result<Vec<Device>> {
    if group.kind == InstanceKind::Cpu || gpus.is_empty() {
        return Ok(vec![Device::Host]);
    }
    if let Some(absent) = group.gpus.iter().find(|gpu| !gpus.contains(gpu)) {
        return Err(Error::invalid_argument(format!(
            "model '{model}': instance_group names GPU {absent}, but this machine has {gpus:?}"
        ))
        .with_model(model));
    }
    let chosen = if group.gpus.is_empty() { gpus } else { &group.gpus };
    Ok(chosen.iter().map(|ordinal| Device::Gpu(*ordinal)).collect())
}

/// For each instance that [`place`] makes of these groups, in its order: its device, and what it needs to run.
///
/// # Errors
/// As [`place`].
pub(crate) fn demands(model: &str, groups: &[InstanceGroup], gpus: &[u32]) -> Result<Vec<(Device, RateLimiter)>> {
    let mut demands = Vec::new();
    for group in groups {
        for device in place(model, std::slice::from_ref(group), gpus)?.instances {
            demands.push((device, group.rate_limiter.clone()));
        }
    }
    if demands.is_empty() {
        demands.push((Device::Host, RateLimiter::default()));
    }
    Ok(demands)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_groups_where_they_can_run() {
        use Device::{Gpu, Host};
        use InstanceKind::{Auto, Cpu, Gpu as KindGpu};
        let group = |kind, count, gpus: &[u32]| InstanceGroup {
            kind,
            count,
            gpus: gpus.to_vec(),
            rate_limiter: RateLimiter::default(),
        };
        // (group, GPUs of the machine, instances)
        let cases = [
            (group(Cpu, 2, &[]), vec![0], vec![Host, Host]),
            (group(Auto, 1, &[]), vec![], vec![Host]),
            (group(KindGpu, 2, &[]), vec![0, 1], vec![Gpu(0), Gpu(0), Gpu(1), Gpu(1)]),
            (group(KindGpu, 1, &[1]), vec![0, 1], vec![Gpu(1)]),
            (group(KindGpu, 2, &[0, 1]), vec![], vec![Host, Host]),
        ];
        for (group, gpus, instances) in cases {
            let placement = place("m", std::slice::from_ref(&group), &gpus).expect("placeable");
            assert_eq!(placement, Placement { instances }, "{group:?} on {gpus:?}");
        }
        assert!(place("m", &[group(KindGpu, 1, &[7])], &[0]).is_err());
    }
}
