//! Every target for a moment.

use std::time::Duration;

#[test]
fn no_input_makes_a_reader_panic_or_hold_too_much() {
    for target in &fuzz::TARGETS {
        let report = fuzz::run(target, Duration::from_secs(1), 42).unwrap_or_else(|failure| panic!("{failure}"));
        // Unpacking archives takes the time that a busy disk takes.
        assert!(report.tried > 20 && report.accepted > 0, "{}: {report:?}", target.name);
    }
}
