//! The text format of protocol buffers, read into any message by its descriptor.
//!
//! `prost-reflect` has a parser too, but it stops at the first problem, gives no positions of what it has read, and does
//! not accept all spellings.
//! Specification: <https://protobuf.dev/reference/protobuf/textformat-spec/>. Left out: extensions and `Any`.

mod escape;
mod lexer;
mod reader;
mod recovery;
mod scalar;

use prost_reflect::{DynamicMessage, MessageDescriptor};

use crate::{ConfigProblem, Positions};

/// Past this many problems a file is not what it is taken for, and more of them help nobody.
pub(crate) const MOST_PROBLEMS: usize = 100;

/// Reads a message. Always returns what could be read; the problems are in no particular order.
pub(crate) fn read(text: &str, descriptor: MessageDescriptor) -> (DynamicMessage, Positions, Vec<ConfigProblem>) {
    let (tokens, problems) = lexer::tokens(text);
    let mut reader = reader::Reader::new(tokens, problems);
    let mut message = DynamicMessage::new(descriptor);
    reader.read_all(&mut message);
    let (positions, problems) = reader.finish();
    (message, positions, problems)
}
