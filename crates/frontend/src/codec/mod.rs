//! KServe v2 bodies: JSON, Triton's binary extension, its classification, generate and model repository extensions.

mod classification;
mod cursor;
mod data;
mod framing;
mod generate;
mod input;
mod load;
mod number;
mod numbers_out;
mod request;
mod response;
#[cfg(test)]
mod tests;

pub(crate) use framing::{Announce, Framing, Layout, announce};
pub(crate) use generate::{encode as encode_generated, not_one_response, parse as parse_generate};
pub(crate) use load::{parse_load, parse_unload};
pub(crate) use request::{OutputChoice, WireRequest, check_classes, check_timeout, parse, raw_input};
pub(crate) use response::{Answer, Encoded, classes_of, encode, too_large};
