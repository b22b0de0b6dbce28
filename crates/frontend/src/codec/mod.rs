//! KServe v2 bodies: JSON, Triton's binary extension, and its classification extension.

mod classification;
mod cursor;
mod data;
mod framing;
mod input;
mod number;
mod numbers_out;
mod request;
mod response;
#[cfg(test)]
mod tests;

pub(crate) use framing::{Announce, Framing, Layout, announce};
pub(crate) use request::{OutputChoice, WireRequest, check_classes, parse, raw_input};
pub(crate) use response::{Answer, Encoded, classes_of, encode, too_large};
