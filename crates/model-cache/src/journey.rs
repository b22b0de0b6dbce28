//! A load on its way: how urgent it is, how far it has come, and when it is expected to arrive.

use std::sync::Arc;
use std::time::Duration;

use inference::TargetModel;
use parking_lot::Mutex;
use repository::{Priority, Urgency};
use tokio::sync::watch;

use crate::clock::now;
use crate::forecast::{Estimate, Forecast, Stage};

/// What a load says about itself while it goes on. Dropping it ends its part in the forecast of others.
pub(crate) struct Journey {
    target: TargetModel,
    urgency: Urgency,
    is_unasked: bool,
    forecast: Arc<Mutex<Forecast>>,
    estimate: watch::Sender<Estimate>,
}

impl Journey {
    /// A load that begins; how it goes on is told to whoever has a receiver.
    pub(crate) fn begin(
        target: TargetModel,
        urgency: Urgency,
        is_unasked: bool,
        forecast: Arc<Mutex<Forecast>>,
    ) -> (Self, watch::Receiver<Estimate>) {
        let first = forecast.lock().enter(&target, Stage::Looking, is_waited_for(&urgency), now());
        let (estimate, receiver) = watch::channel(first);
        (Journey { target, urgency, is_unasked, forecast, estimate }, receiver)
    }

    /// How urgent it is.
    pub(crate) fn urgency(&self) -> &Urgency {
        &self.urgency
    }

    /// How urgent it has become, if nobody had asked for it when it began.
    pub(crate) fn unasked(&self) -> Option<&Urgency> {
        self.is_unasked.then_some(&self.urgency)
    }

    /// Its archive is asked of the store.
    pub(crate) fn fetching(&self, bytes: u64) {
        self.enter(Stage::Fetching { bytes });
    }

    /// The archive is there, after `time` without the wait for a turn.
    pub(crate) fn fetched(&self, bytes: u64, time: Duration) {
        self.forecast.lock().fetched(&self.target, bytes, time);
    }

    /// Its models are being loaded.
    pub(crate) fn loading(&self, bytes: u64) {
        self.enter(Stage::Loading { bytes });
    }

    /// They are there, after `time` without the waits for a slot and for room.
    pub(crate) fn loaded(&self, bytes: u64, time: Duration) {
        self.forecast.lock().loaded(&self.target, bytes, time);
    }

    /// It goes on without its slot: it is in nobody's way any more.
    pub(crate) fn overdue(&self) {
        let mut forecast = self.forecast.lock();
        self.estimate.send_if_modified(|estimate| {
            forecast.leave(estimate);
            *estimate = estimate.out_of_line();
            false
        });
    }

    fn enter(&self, stage: Stage) {
        let mut forecast = self.forecast.lock();
        forecast.leave(&self.estimate.borrow());
        let estimate = forecast.enter(&self.target, stage, is_waited_for(&self.urgency), now());
        drop(forecast);
        self.estimate.send_replace(estimate);
    }
}

fn is_waited_for(urgency: &Urgency) -> bool {
    urgency.now() == Priority::Interactive
}

impl Drop for Journey {
    fn drop(&mut self) {
        self.forecast.lock().leave(&self.estimate.borrow());
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    #[test]
    fn what_is_overdue_leaves_its_line_once() {
        let forecast = Arc::new(Mutex::new(Forecast::new(NonZeroUsize::MIN, NonZeroUsize::MIN)));
        let begin = |name| {
            let target = TargetModel::new(name).expect("valid");
            Journey::begin(target, Urgency::from(Priority::Interactive), false, forecast.clone())
        };
        let ((stuck, _told), (waits, _told_too)) = (begin("stuck"), begin("waits"));
        stuck.loaded(1 << 20, Duration::from_secs(8));
        stuck.loading(1 << 20);
        waits.loading(1 << 20);
        stuck.overdue();
        stuck.overdue();
        let (next, estimate) = begin("next");
        let wait = || {
            next.loading(1 << 20);
            estimate.borrow().remaining(now()).expect("known").as_secs_f64().round()
        };
        assert_eq!(wait(), 12.0, "behind the one that waits, half done");
        drop(stuck);
        assert_eq!(wait(), 12.0);
        drop(waits);
        assert_eq!(wait(), 8.0);
    }
}
