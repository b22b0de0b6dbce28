//! Counters by small number: those that are used make their own room, and none is found under a lock.

use std::sync::OnceLock;

/// Numbers below 2 to the power of this many have a place.
const SEGMENTS: usize = 12;

/// One `T` for each number from 1 to 4095. Segment `n` holds the numbers from 2^n to 2^(n+1) - 1, and exists once one of them
/// was asked for: whoever only ever asks for 1 keeps 12 empty slots and one `T`.
#[derive(Debug)]
pub(super) struct Segments<T>([OnceLock<Box<[T]>>; SEGMENTS]);

impl<T> Default for Segments<T> {
    fn default() -> Self {
        Segments(std::array::from_fn(|_| OnceLock::new()))
    }
}

impl<T: Default> Segments<T> {
    /// What is counted for a number; `None` for one without a place. 0 is 1.
    pub(super) fn of(&self, number: u64) -> Option<&T> {
        let number = number.max(1);
        let segment = number.ilog2() as usize;
        let offset = usize::try_from(number - (1 << segment)).unwrap_or(usize::MAX);
        let make = || (0..1usize << segment).map(|_| T::default()).collect();
        self.0.get(segment)?.get_or_init(make).get(offset)
    }

    /// Everything that has a place, with its number, ascending; also numbers that nobody asked for.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        let segments = self.0.iter().enumerate();
        segments.flat_map(|(segment, slot)| (1u64 << segment..).zip(slot.get().into_iter().flatten()))
    }
}
