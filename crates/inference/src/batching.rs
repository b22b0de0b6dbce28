//! How requests of one model are joined into batches, as `dynamic_batching` of its configuration says.

use std::collections::BTreeMap;
use std::time::Duration;

/// What becomes of a request whose time in the queue is up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeoutAction {
    /// It ends in an error.
    #[default]
    Reject,
    /// It waits until every request of its priority level that is in time has been served.
    Delay,
}

/// `ModelQueuePolicy`: how requests of one priority level wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueuePolicy {
    /// What becomes of those that wait too long.
    pub timeout_action: TimeoutAction,
    /// How long they may wait; `None` for no limit.
    pub default_timeout: Option<Duration>,
    /// Whether a request's own parameter `timeout` (microseconds) may shorten that.
    pub allow_timeout_override: bool,
    /// How many may wait; `None` for no bound but the server's.
    pub max_queue_size: Option<u32>,
}

/// `ModelDynamicBatching`: requests that wait together run together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DynamicBatching {
    /// Batch sizes (in rows) that start at once, and are not outgrown; empty for the model's largest batch alone.
    pub preferred_batch_sizes: Vec<u32>,
    /// How long a request may wait for others while an instance is free.
    pub max_queue_delay: Duration,
    /// Whether the wait within that delay is learned from arrivals and costs; `None` for the server's default.
    pub adaptive: Option<bool>,
    /// Responses leave in the order in which the requests came.
    pub preserve_ordering: bool,
    /// Levels are 1 (served first) to this number; 0 where all requests are equal.
    pub priority_levels: u64,
    /// The level of requests that name none, or one that there is not; 0 where there are no levels.
    pub default_priority_level: u64,
    /// How requests wait where their level has no policy of its own.
    pub default_queue_policy: QueuePolicy,
    /// Policies of levels.
    pub priority_queue_policy: BTreeMap<u64, QueuePolicy>,
}

impl DynamicBatching {
    /// The level of a request that asks for `wanted`; 0 asks for the default.
    pub fn level(&self, wanted: u64) -> u64 {
        if (1..=self.priority_levels).contains(&wanted) { wanted } else { self.default_priority_level }
    }

    /// How requests of a level wait.
    pub fn policy(&self, level: u64) -> &QueuePolicy {
        self.priority_queue_policy.get(&level).unwrap_or(&self.default_queue_policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_there_is_not_is_the_default_one() {
        let policy = QueuePolicy { max_queue_size: Some(7), ..QueuePolicy::default() };
        let batching = DynamicBatching {
            priority_levels: 3,
            default_priority_level: 2,
            priority_queue_policy: [(3, policy)].into(),
            ..DynamicBatching::default()
        };
        assert_eq!([0, 1, 3, 4].map(|wanted| batching.level(wanted)), [2, 1, 3, 2]);
        assert_eq!((batching.policy(3).max_queue_size, batching.policy(1).max_queue_size), (Some(7), None));
        assert_eq!(DynamicBatching::default().level(1), 0, "without levels all are equal");
    }
}
