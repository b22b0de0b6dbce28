//! How long one waits behind others where only so many are served at once. Pure.

use std::num::NonZeroUsize;
use std::time::Duration;

/// Those that are served or wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    slots: NonZeroUsize,
    count: usize,
    /// What all of them take together.
    work: Duration,
}

impl Line {
    /// An empty one, where `slots` are served at once.
    pub(super) fn new(slots: NonZeroUsize) -> Self {
        Line { slots, count: 0, work: Duration::ZERO }
    }

    /// Somebody joins who takes `work`; says how long they will wait.
    pub(super) fn join(&mut self, work: Duration) -> Duration {
        let wait = self.wait();
        self.count += 1;
        self.work = self.work.saturating_add(work);
        wait
    }

    /// How long somebody would wait who joined now. Those that are served are taken to be half done.
    pub(super) fn wait(&self) -> Duration {
        let slots = self.slots.get();
        if self.count < slots {
            return Duration::ZERO;
        }
        let left = (self.count as f64 - slots as f64 / 2.0) / self.count as f64;
        self.work.mul_f64(left / slots as f64)
    }

    /// Somebody leaves who had joined with `work`.
    pub(super) fn leave(&mut self, work: Duration) {
        self.count = self.count.saturating_sub(1);
        self.work = self.work.saturating_sub(work);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_while_there_are_slots() {
        let second = Duration::from_secs(1);
        let mut line = Line::new(2.try_into().expect("not zero"));
        assert_eq!([line.join(second), line.join(second)], [Duration::ZERO; 2]);
        assert_eq!(line.join(second), second / 2, "for the first that ends");
        assert_eq!(line.join(second), second);
        (0..4).for_each(|_| line.leave(second));
        assert_eq!(line.join(second), Duration::ZERO);
    }
}
