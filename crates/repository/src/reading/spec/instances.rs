//! Instance groups.

use inference::{InstanceGroup, InstanceKind};
use protocol::model_config::model_instance_group::Kind;
use protocol::model_config::{ModelConfig, ModelInstanceGroup};

use super::Findings;

/// The groups, or the default one where there are none.
pub(super) fn groups(config: &ModelConfig, findings: &mut Findings) -> Vec<InstanceGroup> {
    if config.instance_group.is_empty() {
        return vec![InstanceGroup::default()];
    }
    let given = config.instance_group.iter().enumerate();
    given.map(|(index, given)| group(&format!("instance_group[{index}]"), given, findings)).collect()
}

fn group(path: &str, given: &ModelInstanceGroup, findings: &mut Findings) -> InstanceGroup {
    let count = u32::try_from(given.count).unwrap_or_else(|_| {
        findings.add(format!("{path}.count"), format!("a group cannot have {} instances", given.count));
        1
    });
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
    InstanceGroup { count: count.max(1), kind, gpus }
}
