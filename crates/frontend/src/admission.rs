//! What is let in, in front of everything else: how many inference requests are worked on at once, and how many bytes of
//! their bodies are held.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use inference::{Error, Result};

/// The bounds and what is used of them; clones share both.
#[derive(Clone, Debug)]
pub struct Admission {
    requests: Arc<Bound>,
    body_bytes: Arc<Bound>,
}

impl Admission {
    /// Lets in so many requests at once (`--max-requests-in-flight`), and so many bytes of bodies (`--max-buffered-bytes`).
    pub fn new(max_requests: u64, max_body_bytes: u64) -> Self {
        let bound = |limit| Arc::new(Bound { limit, used: AtomicU64::new(0) });
        Admission { requests: bound(max_requests), body_bytes: bound(max_body_bytes) }
    }

    /// One more request.
    ///
    /// # Errors
    /// Overloaded when there are too many.
    pub(crate) fn enter(&self) -> Result<Share> {
        let mut share = Share { bound: self.requests.clone(), amount: 0 };
        if share.add(1) {
            return Ok(share);
        }
        Err(Error::overloaded(format!(
            "the server is working on the {} requests that --max-requests-in-flight allows; try again later",
            self.requests.limit
        )))
    }

    /// A body that holds nothing yet.
    pub(crate) fn body(&self) -> BodyShare {
        BodyShare(Share { bound: self.body_bytes.clone(), amount: 0 })
    }
}

impl Default for Admission {
    fn default() -> Self {
        Admission::new(4096, 1 << 30)
    }
}

#[derive(Debug)]
struct Bound {
    limit: u64,
    used: AtomicU64,
}

/// A part of a bound; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Share {
    bound: Arc<Bound>,
    amount: u64,
}

impl Share {
    /// Takes more, or nothing when there is not enough.
    fn add(&mut self, amount: u64) -> bool {
        let limit = self.bound.limit;
        let take = |used: u64| used.checked_add(amount).filter(|used| *used <= limit);
        let taken = self.bound.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok();
        self.amount += if taken { amount } else { 0 };
        taken
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.bound.used.fetch_sub(self.amount, Ordering::AcqRel);
    }
}

/// The bytes that one request's body holds; dropping it gives them back.
#[derive(Debug)]
pub(crate) struct BodyShare(Share);

impl BodyShare {
    /// Counts bytes that have arrived.
    ///
    /// # Errors
    /// Overloaded when all bodies together would hold too many.
    pub(crate) fn add(&mut self, bytes: usize) -> Result<()> {
        if self.0.add(bytes as u64) {
            return Ok(());
        }
        Err(Error::overloaded(format!(
            "the bodies of the requests at work would take more than the {} bytes that --max-buffered-bytes allows; try \
             again later",
            self.0.bound.limit
        )))
    }
}

#[cfg(test)]
mod tests {
    use inference::ErrorKind;

    use super::*;

    #[test]
    fn shares_are_refused_past_the_bound_and_given_back() {
        let admission = Admission::new(2, 10);
        let first = admission.enter().expect("one of two");
        let second = admission.clone().enter().expect("two of two");
        let error = admission.enter().expect_err("three of two");
        assert_eq!(error.kind(), ErrorKind::Overloaded);
        assert!(error.message().contains("the 2 requests that --max-requests-in-flight allows"), "{error}");
        drop(first);
        let third = admission.enter().expect("room again");

        let (mut one, mut other) = (admission.body(), admission.body());
        one.add(6).expect("6 of 10");
        let error = other.add(5).expect_err("11 of 10");
        assert!(error.message().contains("the 10 bytes that --max-buffered-bytes allows"), "{error}");
        other.add(4).expect("10 of 10: what was refused does not count");
        drop((one, other, second, third));
        assert_eq!(admission.body_bytes.used.load(Ordering::Acquire), 0);
        assert_eq!(admission.requests.used.load(Ordering::Acquire), 0);
        assert!(admission.body().add(usize::MAX).is_err());
    }
}
