//! Model archives: from the store's bytes to a directory tree, checking everything on the way.

mod entry;
mod gunzip;
mod limits;
mod pax;
mod source;
mod tar_reader;
mod tree;
mod unpack;
mod write;

pub use limits::UnpackLimits;
pub(crate) use source::Source;
pub(crate) use unpack::unpack;
pub(crate) use write::{Room, retry_when_full};
