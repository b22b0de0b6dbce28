//! test-util.
