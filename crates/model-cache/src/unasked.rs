//! Why a load ended that nobody had asked for: told from other ends, because who asks then begins a load of their own.

use std::fmt;

use inference::{Error, ErrorKind};

/// The source of such an error.
#[derive(Debug)]
struct NobodyAsked;

impl fmt::Display for NobodyAsked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("nobody had asked for it yet")
    }
}

impl std::error::Error for NobodyAsked {}

/// NoRoom for a load that would have been given room, had anybody asked for it.
pub(crate) fn no_room_unasked(message: impl Into<String>) -> Error {
    unasked(Error::no_room(message))
}

/// Whatever a load ended in that nobody can ask for: had it no room, a load that was asked for may have it all the same.
pub(crate) fn unasked(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NoRoom => error.with_source(NobodyAsked),
        _ => error,
    }
}

/// Whether a load ended only because nobody had asked for it until then.
pub(crate) fn is_for_want_of_asking(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<NobodyAsked>)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_from_other_errors_through_what_is_added_to_it() {
        let error = no_room_unasked("no room for a").with_model("a").with_version(&"1".into());
        assert!(is_for_want_of_asking(&error));
        assert_eq!(format!("{error:#}"), "no room for a: nobody had asked for it yet");
        assert!(!is_for_want_of_asking(&Error::no_room("no room for a")));
    }
}
