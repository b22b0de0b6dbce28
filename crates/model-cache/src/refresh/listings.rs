//! Decides whether the store is asked about each archive or listed as a whole, whichever costs less. Pure: `now` is an
//! argument.

use std::time::{Duration, Instant};

/// How many windows a listing that failed, or cost too much, is not tried again.
const WINDOWS_OFF: u32 = 16;

/// Listings in a window, rounded up: each has to come before what the last one settled is due again.
const LISTINGS_PER_WINDOW: usize = 2;

/// What is known of listings of a store.
pub(crate) struct Listings {
    window: Duration,
    /// One page costs as much as so many questions about single archives.
    heads_per_page: usize,
    next: Instant,
    /// So many pages did not hold everything.
    too_few_pages: Option<(usize, Instant)>,
}

/// How a listing ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With the last page.
    Complete,
    /// Before the last page, after so many.
    Cut(usize),
    /// With an error, or without use.
    Failed,
}

impl Listings {
    /// No listing has been tried.
    pub(crate) fn new(window: Duration, heads_per_page: usize, now: Instant) -> Self {
        Listings { window, heads_per_page: heads_per_page.max(1), next: now, too_few_pages: None }
    }

    /// How many pages a listing that begins at `now` may have, so that it costs less than asking about so many archives one by
    /// one; `None` where it is not to begin. What is begun must end in [`Listings::ended`].
    pub(crate) fn begin(&mut self, archives: usize, now: Instant) -> Option<usize> {
        let pages = archives / (self.heads_per_page * LISTINGS_PER_WINDOW);
        let is_too_few = |(known, until): (usize, Instant)| pages <= known && now < until;
        if now < self.next || pages == 0 || self.too_few_pages.is_some_and(is_too_few) {
            return None;
        }
        self.next = now + self.window * 5 / 8;
        Some(pages)
    }

    /// Notes how a listing ended.
    pub(crate) fn ended(&mut self, ending: Ending, now: Instant) {
        match ending {
            Ending::Complete => self.too_few_pages = None,
            Ending::Cut(pages) => self.too_few_pages = Some((pages, now + self.window * WINDOWS_OFF)),
            Ending::Failed => self.next = now + self.window * WINDOWS_OFF,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(40);

    #[test]
    fn a_listing_is_begun_where_it_costs_less() {
        let start = Instant::now();
        let pages = |archives| Listings::new(WINDOW, 10, start).begin(archives, start);
        assert_eq!([0, 1, 19, 20, 39, 40, 1000].map(pages), [None, None, None, Some(1), Some(1), Some(2), Some(50)]);
    }

    #[test]
    fn the_next_listing_comes_before_anything_is_due_again() {
        let start = Instant::now();
        let mut listings = Listings::new(WINDOW, 10, start);
        assert!(listings.begin(100, start).is_some());
        listings.ended(Ending::Complete, start);
        assert!(listings.begin(100, start + WINDOW / 2).is_none());
        assert!(listings.begin(100, start + WINDOW * 5 / 8).is_some());
    }

    #[test]
    fn a_store_that_is_too_large_is_listed_again_when_that_may_pay() {
        let start = Instant::now();
        let mut listings = Listings::new(WINDOW, 10, start);
        assert_eq!(listings.begin(100, start), Some(5));
        listings.ended(Ending::Cut(5), start);
        assert_eq!(listings.begin(100, start + WINDOW), None);
        assert_eq!(listings.begin(200, start + WINDOW), Some(10), "more may be spent");
        listings.ended(Ending::Cut(10), start + WINDOW);
        assert_eq!(listings.begin(200, start + WINDOW * 16), None);
        assert_eq!(listings.begin(200, start + WINDOW * 17), Some(10), "it may have become smaller");
    }

    #[test]
    fn a_listing_that_fails_is_left_alone_for_a_while() {
        let start = Instant::now();
        let mut listings = Listings::new(WINDOW, 10, start);
        assert!(listings.begin(100, start).is_some());
        listings.ended(Ending::Failed, start);
        assert!(listings.begin(100, start + WINDOW * 15).is_none());
        assert!(listings.begin(100, start + WINDOW * 16).is_some());
    }
}
