//! On which terms a request waits: its level, and what happens when; pure.

use std::time::{Duration, Instant};

use inference::{DynamicBatching, InferRequest, Parameter, QueuePolicy, TimeoutAction};

use super::signature::{PRIORITY, TIMEOUT};

/// How one request waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    /// Lower levels are served first.
    pub(crate) level: u64,
    /// How many of its level may wait.
    pub(crate) max_queue_size: Option<u32>,
    /// When it leaves the queue with an error.
    pub(crate) reject_at: Option<Instant>,
    /// When it lets the others of its level pass.
    pub(crate) delay_at: Option<Instant>,
}

impl Terms {
    /// The terms of a request that came at `arrived` and whose caller waits until `deadline`.
    pub(crate) fn of(
        batching: &DynamicBatching,
        request: &InferRequest,
        arrived: Instant,
        deadline: Option<Instant>,
    ) -> Terms {
        let level = batching.level(positive(request, PRIORITY).unwrap_or(0));
        let policy = batching.policy(level);
        let times_out = timeout(policy, request).and_then(|timeout| arrived.checked_add(timeout));
        let (reject_at, delay_at) = match policy.timeout_action {
            TimeoutAction::Reject => (times_out, None),
            TimeoutAction::Delay => (None, times_out),
        };
        Terms {
            level,
            max_queue_size: policy.max_queue_size,
            reject_at: [reject_at, deadline].into_iter().flatten().min(),
            delay_at,
        }
    }
}

/// A request can shorten the timeout, never lengthen it.
fn timeout(policy: &QueuePolicy, request: &InferRequest) -> Option<Duration> {
    let own = positive(request, TIMEOUT).filter(|_| policy.allow_timeout_override).map(Duration::from_micros);
    [policy.default_timeout, own].into_iter().flatten().min()
}

fn positive(request: &InferRequest, parameter: &str) -> Option<u64> {
    match request.parameters.get(parameter) {
        Some(Parameter::Int64(value)) => u64::try_from(*value).ok().filter(|value| *value > 0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_may_shorten_their_timeout_and_choose_a_level() {
        let policy = |action, timeout, allow_timeout_override| QueuePolicy {
            timeout_action: action,
            default_timeout: timeout,
            allow_timeout_override,
            max_queue_size: None,
        };
        let (ms, now) = (Duration::from_millis, Instant::now());
        let batching = DynamicBatching {
            priority_levels: 3,
            default_priority_level: 2,
            default_queue_policy: policy(TimeoutAction::Reject, Some(ms(5)), true),
            priority_queue_policy: [
                (1, policy(TimeoutAction::Delay, None, true)),
                (3, policy(TimeoutAction::Reject, Some(ms(5)), false)),
            ]
            .into(),
            ..DynamicBatching::default()
        };
        // level, own timeout in ms → level, rejected after ms, delayed after ms
        let cases = [
            ((None, None), (2, Some(5), None)),
            ((Some(9), Some(3)), (2, Some(3), None)),
            ((Some(-1), Some(8)), (2, Some(5), None)),
            ((Some(3), Some(3)), (3, Some(5), None)),
            ((Some(1), Some(3)), (1, None, Some(3))),
            ((Some(1), Some(0)), (1, None, None)),
        ];
        for ((priority, timeout), (level, rejected, delayed)) in cases {
            let mut request = InferRequest::default();
            let mut set = |name: &str, value: Option<i64>| {
                value.map(|value| request.parameters.insert(name.to_owned(), Parameter::Int64(value)))
            };
            set(PRIORITY, priority);
            set(TIMEOUT, timeout.map(|timeout| timeout * 1000));
            let after = |time: Option<u64>| time.map(|time| now + ms(time));
            let terms = Terms::of(&batching, &request, now, None);
            let expected = Terms { level, max_queue_size: None, reject_at: after(rejected), delay_at: after(delayed) };
            assert_eq!(terms, expected, "{priority:?} {timeout:?}");
            let terms = Terms::of(&batching, &request, now, Some(now + ms(1)));
            assert_eq!(terms.reject_at, Some(now + ms(1)), "the caller waits no longer");
        }
    }
}
