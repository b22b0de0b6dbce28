//! Gathers errors so that a user sees all that is wrong with an archive at once.

use inference::{Error, ErrorKind, Result};

/// Errors found so far.
#[derive(Default)]
pub(crate) struct Problems(Vec<Error>);

impl Problems {
    /// Keeps the error, if there is one.
    pub(crate) fn note<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.0.push(error)).ok()
    }

    /// Keeps an error.
    pub(crate) fn add(&mut self, error: Error) {
        self.0.push(error);
    }

    /// Nothing, or one error that says everything.
    ///
    /// # Errors
    /// The only error; or one of the first's kind (InvalidArgument when kinds differ) with a line for each.
    pub(crate) fn into_result(mut self) -> Result<()> {
        match self.0.len() {
            0 => Ok(()),
            1 => Err(self.0.remove(0)),
            count => {
                let first = self.0[0].kind();
                let kind =
                    if self.0.iter().all(|error| error.kind() == first) { first } else { ErrorKind::InvalidArgument };
                let lines: Vec<String> = self.0.iter().map(|error| format!("  {}", error.message())).collect();
                Err(Error::new(kind, format!("{count} problems:\n{}", lines.join("\n"))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_everything_at_once() {
        assert!(Problems::default().into_result().is_ok());
        let mut problems = Problems::default();
        problems.note::<()>(Err(Error::unsupported("one")));
        problems.add(Error::invalid_argument("two"));
        let error = problems.into_result().expect_err("two problems");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert_eq!(error.message(), "2 problems:\n  one\n  two");
    }
}
