//! Collects everything that is wrong in a repository, to report it at once.

use inference::{Error, Result};
use protocol::Position;

/// What is wrong, in the order in which it was found.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<String>);

impl Problems {
    /// Adds a problem of a file or directory, named relative to the repository.
    pub(super) fn add(&mut self, file: &str, position: Option<Position>, message: &str) {
        self.0.push(match position {
            Some(position) => format!("{file}:{position}: {message}"),
            None => format!("{file}: {message}"),
        });
    }

    /// InvalidArgument with one line per problem, if there are any.
    pub(super) fn into_result(self) -> Result<()> {
        match &self.0[..] {
            [] => Ok(()),
            [only] => Err(Error::invalid_argument(format!("bad model configuration:\n{only}"))),
            all => Err(Error::invalid_argument(format!(
                "bad model configuration, {} problems:\n{}",
                all.len(),
                all.join("\n")
            ))),
        }
    }
}
