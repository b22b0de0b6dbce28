//! Properties of the schedule: nothing is forgotten, and nothing comes in bursts.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const WINDOW: Duration = Duration::from_secs(64);
const SECOND: Duration = Duration::from_secs(1);

fn target(number: usize) -> TargetModel {
    TargetModel::new(&format!("{number}.tar.gz")).expect("valid")
}

#[test]
fn archives_that_came_together_are_checked_evenly_over_the_second_window() {
    let start = Instant::now();
    for count in [1, 2, 7, 100, 1000] {
        let mut schedule = Schedule::new(WINDOW);
        schedule.track((0..count).map(|number| (target(number), Some(start))), start);
        let eighths: Vec<usize> = (1..=16)
            .map(|eighth| {
                let now = start + WINDOW / 8 * eighth;
                let due = schedule.take_due(now, usize::MAX);
                due.iter().for_each(|target| schedule.checked(target, now));
                due.len()
            })
            .collect();
        assert_eq!(eighths[..5].iter().sum::<usize>(), 0, "the store has just been asked");
        assert_eq!(eighths[5..8].iter().sum::<usize>(), count, "each once in the first window");
        assert_eq!(eighths[8..].iter().sum::<usize>(), count, "and in the next");
        assert!(eighths[8..].iter().all(|due| *due <= count / 8 + 3), "{count}: {eighths:?}");
    }
}

#[test]
fn an_old_word_of_the_store_counts_from_when_it_was_said() {
    let start = Instant::now();
    let mut schedule = Schedule::new(WINDOW);
    let now = start + WINDOW - SECOND;
    schedule.track([(target(0), Some(start)), (target(1), Some(start))], now);
    assert_eq!(schedule.take_due(start + WINDOW, 10).len(), 2);
}

#[test]
fn one_that_is_being_checked_is_not_checked_again() {
    let start = Instant::now();
    let mut schedule = Schedule::new(WINDOW);
    assert_eq!(schedule.track([(target(0), None)], start), Tracked { came: vec![target(0)], gone: vec![] });
    assert_eq!(schedule.track([(target(0), None)], start), Tracked::default());
    assert_eq!(schedule.take_due(start + WINDOW, 10).len(), 1);
    assert_eq!((schedule.take_due(start + WINDOW * 5, 10).len(), schedule.next_due()), (0, None));
    schedule.checked(&target(0), start + WINDOW * 5);
    let due = schedule.next_due().expect("again");
    assert!(due > start + WINDOW * 5 && due <= start + WINDOW * 6);
    assert_eq!(schedule.track([], start), Tracked { came: vec![], gone: vec![target(0)] });
    assert_eq!(schedule.next_due(), None);
}

#[test]
fn what_a_listing_settles_is_due_late_and_what_it_does_not_is_due_as_before() {
    let start = Instant::now();
    let mut schedule = Schedule::new(WINDOW);
    schedule.track([(target(0), Some(start)), (target(1), Some(start))], start);
    let listed = start + WINDOW / 2;
    schedule.settled(&target(0), listed);
    assert_eq!(schedule.take_due(start + WINDOW, 10), [target(1)]);
    schedule.settled(&target(1), listed);
    assert_eq!(schedule.take_due(listed + WINDOW, 10), [target(0)], "who is asked about is left alone");
    schedule.check_again(&target(0), start + WINDOW * 3);
    assert_eq!(schedule.next_due(), Some(start + WINDOW * 3));
    assert_eq!(schedule.len(), 2);
}

proptest! {
    /// Whatever comes and goes, and however few may be checked at once, as long as that suffices nothing is left unchecked
    /// for longer than a window and the time that a check takes.
    #[test]
    fn everything_is_checked_in_every_window(sets in prop::collection::vec(prop::collection::btree_set(0..12usize, 0..12), 1..8)) {
        let start = Instant::now();
        let mut schedule = Schedule::new(WINDOW);
        let mut since: HashMap<TargetModel, Instant> = HashMap::new();
        for step in 0..300 {
            let now = start + SECOND * step;
            let set = &sets[step as usize * sets.len() / 300];
            let Tracked { gone, .. } = schedule.track(set.iter().map(|number| (target(*number), Some(now))), now);
            since.retain(|target, _| !gone.contains(target));
            for number in set {
                since.entry(target(*number)).or_insert(now);
            }
            for target in schedule.take_due(now, 2) {
                since.insert(target.clone(), now);
                schedule.checked(&target, now);
            }
            for (target, since) in &since {
                prop_assert!(now - *since <= WINDOW + SECOND * 6, "{target} was left alone");
            }
        }
    }
}
