//! Instance groups.

use inference::{InstanceGroup, InstanceKind, RateLimiter, ResourceDemand};
use protocol::model_config::model_instance_group::Kind;
use protocol::model_config::model_rate_limiter::Resource;
use protocol::model_config::{ModelConfig, ModelInstanceGroup, ModelRateLimiter};

use super::Findings;

/// The most instances of one group, and of all groups of a model on one device: far more than any machine runs at once.
/// Each takes memory even while idle.
const MOST_INSTANCES: u32 = 1024;
/// The most groups of a model, and the most GPUs that one of them lists; what a model has at most is their product.
const MOST_GROUPS: usize = 64;

/// The groups, or the default one where there are none.
pub(super) fn groups(config: &ModelConfig, findings: &mut Findings) -> Vec<InstanceGroup> {
    if config.instance_group.is_empty() {
        return vec![InstanceGroup::default()];
    }
    if config.instance_group.len() > MOST_GROUPS {
        let message = format!("there are {} groups; at most {MOST_GROUPS} are allowed", config.instance_group.len());
        findings.add(format!("instance_group[{MOST_GROUPS}]"), message);
        return Vec::new();
    }
    let mut groups: Vec<InstanceGroup> = Vec::with_capacity(config.instance_group.len());
    let mut total = 0;
    for (index, given) in config.instance_group.iter().enumerate() {
        let path = format!("instance_group[{index}]");
        let group = group(&path, given, findings);
        let before = total;
        total += group.count;
        if before <= MOST_INSTANCES && total > MOST_INSTANCES {
            let message = format!("the groups up to here have {total} instances; at most {MOST_INSTANCES} are allowed");
            findings.add(format!("{path}.count"), message);
        }
        groups.push(group);
    }
    groups
}

fn group(path: &str, given: &ModelInstanceGroup, findings: &mut Findings) -> InstanceGroup {
    let count = u32::try_from(given.count).unwrap_or_else(|_| {
        findings.add(format!("{path}.count"), format!("a group cannot have {} instances", given.count));
        1
    });
    if count > MOST_INSTANCES {
        let message = format!("a group cannot have {count} instances; at most {MOST_INSTANCES} are allowed");
        findings.add(format!("{path}.count"), message);
    }
    if given.gpus.len() > MOST_GROUPS {
        let message = format!("{} GPUs are listed; at most {MOST_GROUPS} are allowed", given.gpus.len());
        findings.add(format!("{path}.gpus"), message);
    }
    // Past the bound the figure has been reported, and the sum of all groups is not to report it again.
    let count = if count > MOST_INSTANCES { 1 } else { count };
    let kind = match given.kind() {
        Kind::Auto => InstanceKind::Auto,
        Kind::Gpu => InstanceKind::Gpu,
        Kind::Cpu => InstanceKind::Cpu,
        Kind::Model => InstanceKind::Model,
    };
    if matches!(kind, InstanceKind::Cpu | InstanceKind::Model) && !given.gpus.is_empty() {
        findings.add(format!("{path}.gpus"), format!("`gpus` contradicts `kind: {}`", given.kind().as_str_name()));
    }
    let mut gpus = Vec::new();
    for (index, ordinal) in given.gpus.iter().enumerate() {
        match u32::try_from(*ordinal) {
            Ok(ordinal) => gpus.push(ordinal),
            Err(_) => findings.add(format!("{path}.gpus[{index}]"), format!("{ordinal} is no GPU; they begin at 0")),
        }
    }
    let rate_limiter = given.rate_limiter.as_ref();
    let rate_limiter = rate_limiter.map(|given| self::rate_limiter(path, given, findings)).unwrap_or_default();
    InstanceGroup { count: count.max(1), kind, gpus, rate_limiter }
}

fn rate_limiter(path: &str, given: &ModelRateLimiter, findings: &mut Findings) -> RateLimiter {
    let path = format!("{path}.rate_limiter");
    if given.resources.len() > MOST_GROUPS {
        let message = format!("{} resources are listed; at most {MOST_GROUPS} are allowed", given.resources.len());
        findings.add(format!("{path}.resources[{MOST_GROUPS}]"), message);
        return RateLimiter::default();
    }
    let resource = |(index, given): (usize, &Resource)| {
        if given.name.is_empty() {
            findings.add(format!("{path}.resources[{index}]"), "`name` is missing: name the resource");
        }
        ResourceDemand { name: given.name.clone(), global: given.global, count: given.count.max(1) }
    };
    let resources = given.resources.iter().enumerate().map(resource).collect();
    RateLimiter { resources, priority: given.priority.max(1) }
}
