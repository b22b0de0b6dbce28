//! `dynamic_batching`, and what of it contradicts itself.

use std::time::Duration;

use inference::{DynamicBatching, QueuePolicy, TimeoutAction};
use protocol::model_config::model_queue_policy::TimeoutAction as Action;
use protocol::model_config::{ModelDynamicBatching, ModelQueuePolicy};

use super::Findings;

const PATH: &str = "dynamic_batching";

/// What the scheduler needs of it. `max_batch_size` is 0 where the configuration leaves it to the model's file.
pub(super) fn dynamic(given: &ModelDynamicBatching, max_batch_size: u32, findings: &mut Findings) -> DynamicBatching {
    check_levels(given, findings);
    let by_level = given.priority_queue_policy.iter();
    DynamicBatching {
        preferred_batch_sizes: preferred(PATH, &given.preferred_batch_size, max_batch_size, findings),
        max_queue_delay: Duration::from_micros(given.max_queue_delay_microseconds),
        adaptive: None,
        preserve_ordering: keeps_order(given),
        priority_levels: given.priority_levels,
        default_priority_level: given.default_priority_level,
        default_queue_policy: given.default_queue_policy.as_ref().map(policy).unwrap_or_default(),
        priority_queue_policy: by_level.map(|(level, given)| (*level, policy(given))).collect(),
    }
}

/// The preferred sizes of a batch; `within` is the path of the message that has them.
pub(super) fn preferred(within: &str, given: &[i32], max_batch_size: u32, findings: &mut Findings) -> Vec<u32> {
    let mut sizes = Vec::with_capacity(given.len());
    for (index, size) in given.iter().enumerate() {
        let path = format!("{within}.preferred_batch_size[{index}]");
        match u32::try_from(*size) {
            Ok(size) if size > 0 && (max_batch_size == 0 || size <= max_batch_size) => sizes.push(size),
            Ok(size) if size > 0 => {
                findings.add(path, format!("preferred batch size {size} is above `max_batch_size` {max_batch_size}"));
            }
            _ => findings.add(path, format!("{size} is no batch size; they begin at 1")),
        }
    }
    sizes
}

fn check_levels(given: &ModelDynamicBatching, findings: &mut Findings) {
    let (levels, default) = (given.priority_levels, given.default_priority_level);
    if levels > 0 && !(1..=levels).contains(&default) {
        findings.add(
            format!("{PATH}.default_priority_level"),
            format!("`default_priority_level` must be between 1 and `priority_levels` ({levels}), got {default}"),
        );
    }
    if levels == 0 && default > 0 {
        findings.add(
            format!("{PATH}.default_priority_level"),
            format!("`default_priority_level` is {default}, but there are no levels; set `priority_levels`"),
        );
    }
    let mut strange: Vec<u64> = given.priority_queue_policy.keys().copied().collect();
    strange.retain(|level| !(1..=levels).contains(level));
    strange.sort_unstable();
    for level in strange {
        findings.add(
            format!("{PATH}.priority_queue_policy[{level}]"),
            format!("there is no priority level {level}; `priority_levels` is {levels}"),
        );
    }
}

/// Whether the order that `preserve_ordering` asks for can be promised. Several priorities, and a policy that delays what
/// is late, are there to change it: they win, since they decide who waits, and the log says so.
fn keeps_order(given: &ModelDynamicBatching) -> bool {
    let delays = |policy: &ModelQueuePolicy| policy.timeout_action() == Action::Delay && may_time_out(policy);
    let policies = given.default_queue_policy.iter().chain(given.priority_queue_policy.values());
    let changes_order = given.priority_levels > 1 || policies.into_iter().any(delays);
    if given.preserve_ordering && changes_order {
        tracing::warn!(
            "`preserve_ordering` is passed over beside several priority levels or `timeout_action: DELAY`, which change the \
             order"
        );
    }
    given.preserve_ordering && !changes_order
}

fn may_time_out(policy: &ModelQueuePolicy) -> bool {
    policy.default_timeout_microseconds > 0 || policy.allow_timeout_override
}

fn policy(given: &ModelQueuePolicy) -> QueuePolicy {
    QueuePolicy {
        timeout_action: match given.timeout_action() {
            Action::Reject => TimeoutAction::Reject,
            Action::Delay => TimeoutAction::Delay,
        },
        default_timeout: match given.default_timeout_microseconds {
            0 => None,
            microseconds => Some(Duration::from_micros(microseconds)),
        },
        allow_timeout_override: given.allow_timeout_override,
        max_queue_size: (given.max_queue_size > 0).then_some(given.max_queue_size),
    }
}
