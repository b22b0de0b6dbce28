//! Why sequences ended that their clients did not end, for as long as a client may ask; pure.

use std::collections::VecDeque;

use inference::CorrelationId;

/// How many are remembered.
const REMEMBERED: usize = 256;

/// Why a sequence ended before its last request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// It was idle for too long.
    Idle,
    /// Its instance is gone.
    Crashed,
    /// The request that was to start it never ran.
    StartLost,
}

/// The last sequences that ended so.
#[derive(Debug, Default)]
pub(super) struct Endings(VecDeque<(CorrelationId, Why)>);

impl Endings {
    pub(super) fn remember(&mut self, id: CorrelationId, why: Why) {
        self.forget(&id);
        self.0.truncate(REMEMBERED - 1);
        self.0.push_front((id, why));
    }

    pub(super) fn forget(&mut self, id: &CorrelationId) {
        self.0.retain(|(known, _)| known != id);
    }

    pub(super) fn why(&self, id: &CorrelationId) -> Option<Why> {
        self.0.iter().find(|(known, _)| known == id).map(|(_, why)| *why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_remembered() {
        let mut endings = Endings::default();
        for number in 1..=300 {
            endings.remember(CorrelationId::Number(number), Why::Idle);
        }
        endings.remember(CorrelationId::Number(299), Why::Crashed);
        endings.forget(&CorrelationId::Number(298));
        let why = |number| endings.why(&CorrelationId::Number(number));
        assert_eq!((why(300), why(299), why(298)), (Some(Why::Idle), Some(Why::Crashed), None));
        assert_eq!((why(45), why(44)), (Some(Why::Idle), None));
    }
}
