//! Remembers which archives were bad, so that they are not fetched again for every request. Pure: `now` is an argument.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use inference::{Error, TargetModel};
use lru::LruCache;

/// How long a refused archive is left alone: `initial` at first, twice as long after each further refusal of the same
/// ETag, never longer than `maximum`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// After the first refusal.
    pub initial: Duration,
    /// The bound.
    pub maximum: Duration,
}

/// How many refused archives are remembered; past it the one that was refused longest ago is forgotten (and would be
/// fetched and refused once more).
const MAX_REMEMBERED: NonZeroUsize = NonZeroUsize::new(4096).expect("invariant: not zero");

struct Refusal {
    etag: Arc<str>,
    error: Error,
    delay: Duration,
    until: Instant,
}

/// Archives that were refused, by target model.
pub struct Refusals {
    backoff: Backoff,
    refused: LruCache<TargetModel, Refusal>,
}

impl Refusals {
    /// Nothing is refused yet.
    pub fn new(backoff: Backoff) -> Self {
        Refusals { backoff, refused: LruCache::new(MAX_REMEMBERED) }
    }

    /// The error to answer with instead of fetching this version of the archive at `now`; `None` when it may be fetched.
    pub fn check(&self, target: &TargetModel, etag: &str, now: Instant) -> Option<Error> {
        let refusal = self.refused.peek(target)?;
        (*refusal.etag == *etag && now < refusal.until).then(|| refusal.error.clone())
    }

    /// Whether this version has been refused, however long ago that was.
    pub fn knows(&self, target: &TargetModel, etag: &str) -> bool {
        self.refused.peek(target).is_some_and(|refusal| *refusal.etag == *etag)
    }

    /// Why an archive was refused last.
    pub fn last(&self, target: &TargetModel) -> Option<&Error> {
        self.refused.peek(target).map(|refusal| &refusal.error)
    }

    /// How many archives are remembered as refused.
    pub fn len(&self) -> usize {
        self.refused.len()
    }

    /// Whether no archive is remembered as refused.
    pub fn is_empty(&self) -> bool {
        self.refused.is_empty()
    }

    /// Remembers that this version was refused at `now`.
    pub fn record(&mut self, target: &TargetModel, etag: &Arc<str>, error: Error, now: Instant) {
        self.record_for(self.backoff.maximum, target, etag, error, now);
    }

    /// [`Refusals::record`] with another bound than that of the back-off.
    pub fn record_for(&mut self, maximum: Duration, target: &TargetModel, etag: &Arc<str>, error: Error, now: Instant) {
        let delay = match self.refused.peek(target) {
            Some(earlier) if earlier.etag == *etag => earlier.delay.saturating_mul(2),
            _ => self.backoff.initial,
        };
        let delay = delay.min(maximum);
        let refusal = Refusal { etag: Arc::clone(etag), error, delay, until: now + delay };
        self.refused.put(target.clone(), refusal);
    }

    /// Forgets a target: it was fetched after all, or taken out of service.
    pub fn forget(&mut self, target: &TargetModel) {
        self.refused.pop(target);
    }

    /// Every archive that is remembered as refused, and why.
    pub fn iter(&self) -> impl Iterator<Item = (&TargetModel, &Error)> {
        self.refused.iter().map(|(target, refusal)| (target, &refusal.error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_refusal_lasts_until_the_etag_changes_or_the_back_off_ends() {
        let target = TargetModel::new("a.tar.gz").expect("valid");
        let (one, two): (Arc<str>, Arc<str>) = ("1".into(), "2".into());
        let mut refusals = Refusals::new(Backoff { initial: SECOND, maximum: 3 * SECOND });
        let start = Instant::now();
        let refuse = |refusals: &mut Refusals, at| {
            refusals.record(&target, &one, Error::invalid_argument("bad"), at);
        };

        refuse(&mut refusals, start);
        assert_eq!(refusals.check(&target, "1", start).expect("refused").message(), "bad");
        assert!(refusals.check(&target, &two, start).is_none(), "another version is another matter");
        assert!(refusals.check(&target, "1", start + SECOND).is_none());

        for expected in [2, 3, 3] {
            refuse(&mut refusals, start);
            let end = start + expected * SECOND;
            assert!(refusals.check(&target, "1", end - Duration::from_nanos(1)).is_some(), "{expected}");
            assert!(refusals.check(&target, "1", end).is_none(), "{expected}");
        }

        refusals.record_for(SECOND * 60, &target, &one, Error::invalid_argument("bad"), start);
        assert!(refusals.check(&target, "1", start + SECOND * 6 - Duration::from_nanos(1)).is_some(), "another bound");
        assert!(refusals.check(&target, "1", start + SECOND * 6).is_none());

        refusals.forget(&target);
        assert!(refusals.check(&target, "1", start).is_none());
        refuse(&mut refusals, start);
        assert!(refusals.check(&target, "1", start + SECOND).is_none(), "the back-off began anew");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut refusals = Refusals::new(Backoff { initial: SECOND, maximum: SECOND });
        let now = Instant::now();
        for number in 0..MAX_REMEMBERED.get() + 10 {
            let target = TargetModel::new(&format!("{number}")).expect("valid");
            refusals.record(&target, &"1".into(), Error::invalid_argument("bad"), now);
        }
        assert_eq!(refusals.refused.len(), MAX_REMEMBERED.get());
    }
}
