//! The model cache with a real folder store and disk cache, and a backend that does what each test scripts.

mod faults;
mod harness;
mod room;
mod streams;
