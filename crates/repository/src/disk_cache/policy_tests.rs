//! The ledger's invariants under any sequence of events.

use proptest::prelude::*;

use super::*;

fn key(target: u8, etag: u8) -> ArchiveKey {
    let target = TargetModel::new(&format!("{target}.tar.gz")).expect("valid");
    ArchiveKey { target, etag: etag.to_string().into() }
}

fn insert(ledger: &mut Ledger, key: &ArchiveKey, bytes: u64) -> (bool, Vec<Departure>) {
    ledger.insert(key.clone(), bytes, "directory".into())
}

#[derive(Clone, Debug)]
enum Event {
    /// Reserve, and enter as complete when that worked.
    Fetch {
        target: u8,
        etag: u8,
        bytes: u64,
    },
    Pin {
        target: u8,
    },
    Unpin {
        nth: usize,
    },
    Dismiss {
        target: u8,
    },
    DiskFull,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        3 => (0..6u8, 0..3u8, 0..40u64).prop_map(|(target, etag, bytes)| Event::Fetch { target, etag, bytes }),
        3 => (0..6u8).prop_map(|target| Event::Pin { target }),
        2 => (0..8usize).prop_map(|nth| Event::Unpin { nth }),
        1 => (0..6u8).prop_map(|target| Event::Dismiss { target }),
        1 => Just(Event::DiskFull),
    ];
    proptest::collection::vec(event, 0..60)
}

/// Departures must never be pinned; those whose bytes stay reserved are released as if deleted.
fn depart(ledger: &mut Ledger, pinned: &[ArchiveKey], departures: &[Departure], reserved: bool) {
    for departure in departures {
        assert!(!pinned.contains(&departure.key), "{departure:?} was pinned");
        if reserved {
            ledger.release(departure.bytes);
        }
    }
}

fn apply(ledger: &mut Ledger, pinned: &mut Vec<ArchiveKey>, event: Event) {
    match event {
        Event::Fetch { target, etag, bytes } => {
            let before = ledger.used();
            match ledger.reserve(bytes) {
                Ok(departures) => {
                    depart(ledger, pinned, &departures, false);
                    assert!(ledger.used() + bytes <= ledger.capacity);
                    if let Some((_, rest)) = departures.split_last() {
                        let freed: u64 = rest.iter().map(|departure| departure.bytes).sum();
                        assert!(before - freed + bytes > ledger.capacity, "more was evicted than needed");
                    }
                    ledger.release(bytes);
                    let (_, departures) = insert(ledger, &key(target, etag), bytes);
                    depart(ledger, pinned, &departures, true);
                    assert!(ledger.newest(&key(target, etag).target).is_some());
                }
                Err(shortage) => {
                    assert!(shortage.pinned + bytes > ledger.capacity, "everything that nobody pins can go");
                    assert_eq!(ledger.used(), before, "nothing changes on a shortage");
                }
            }
        }
        Event::Pin { target } => {
            let newest = ledger.newest(&key(target, 0).target);
            if let Some(newest) = newest {
                ledger.pin(&newest).expect("the newest version is recorded");
                pinned.push(newest);
            }
        }
        Event::Unpin { nth } if nth < pinned.len() => {
            let key = pinned.remove(nth);
            let departures: Vec<Departure> = ledger.unpin(&key).into_iter().collect();
            depart(ledger, pinned, &departures, true);
        }
        Event::Unpin { .. } => {}
        Event::Dismiss { target } => {
            let departures = ledger.dismiss(&key(target, 0).target);
            depart(ledger, pinned, &departures, true);
            assert!(ledger.newest(&key(target, 0).target).is_none());
        }
        Event::DiskFull => {
            let departures: Vec<Departure> = ledger.evict_one().into_iter().collect();
            depart(ledger, pinned, &departures, false);
        }
    }
}

proptest! {
    #[test]
    fn the_books_stay_right(events in events()) {
        let (mut ledger, mut pinned) = (Ledger::new(100), Vec::new());
        for event in events {
            apply(&mut ledger, &mut pinned, event);
            let bytes: u64 = ledger.iter().map(|(_, bytes)| bytes).sum();
            prop_assert_eq!(ledger.used(), bytes);
            prop_assert_eq!(ledger.reserved, 0);
            for key in &pinned {
                prop_assert!(ledger.records.contains(key), "{:?} is pinned and gone", key);
            }
            let mut serving: Vec<&TargetModel> =
                ledger.records.iter().filter(|(_, record)| !record.leaving).map(|(key, _)| &key.target).collect();
            serving.sort();
            let count = serving.len();
            serving.dedup();
            prop_assert_eq!(serving.len(), count, "one version of each target serves");
            prop_assert_eq!(ledger.newest.len(), count);
        }
    }
}

#[test]
fn the_least_recently_used_goes_first() {
    let mut ledger = Ledger::new(30);
    let (a, b, c) = (key(0, 0), key(1, 0), key(2, 0));
    for key in [&a, &b, &c] {
        insert(&mut ledger, key, 10);
    }
    ledger.pin(&a);
    ledger.unpin(&a);
    ledger.pin(&b);
    let gone = ledger.reserve(5).expect("c can go");
    assert_eq!(gone.iter().map(|departure| &departure.key).collect::<Vec<_>>(), [&c]);
    let shortage = ledger.reserve(20).expect_err("b is pinned");
    assert_eq!(shortage, Shortage { capacity: 30, pinned: 10, reserved: 5 });
}

#[test]
fn a_replaced_version_stays_while_it_is_pinned() {
    let mut ledger = Ledger::new(100);
    let (old, new) = (key(0, 0), key(0, 1));
    insert(&mut ledger, &old, 10);
    ledger.pin(&old);
    assert_eq!(insert(&mut ledger, &new, 20), (true, Vec::new()));
    assert_eq!(ledger.newest(&old.target), Some(new));
    let gone = ledger.unpin(&old).expect("its last pin");
    assert_eq!((gone.key, gone.bytes), (old, 10));
    assert_eq!((ledger.used(), ledger.reserved), (20, 10));
}

#[test]
fn a_version_that_comes_back_while_it_is_pinned_serves_again() {
    let mut ledger = Ledger::new(100);
    let (old, new) = (key(0, 0), key(0, 1));
    insert(&mut ledger, &old, 10);
    ledger.pin(&old);
    insert(&mut ledger, &new, 20);
    let gone = ledger.confirm(&old).expect("still recorded");
    assert_eq!(gone.iter().map(|departure| &departure.key).collect::<Vec<_>>(), [&new]);
    assert_eq!(ledger.newest(&old.target), Some(old.clone()));
    assert_eq!(ledger.unpin(&old), None, "it stays");
    assert_eq!(ledger.confirm(&new), None);
}
