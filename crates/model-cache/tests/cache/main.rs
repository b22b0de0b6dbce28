//! The model cache with a real folder store and disk cache, and a backend that does what each test scripts.

mod by_name;
mod devices;
mod faults;
mod harness;
mod interference;
mod overdue;
mod refresh;
mod repositories;
mod restart;
mod revival;
mod room;
mod streams;
mod warmup;
