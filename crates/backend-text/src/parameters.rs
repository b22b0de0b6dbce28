//! Reads a model's `parameters` and collects everything that is wrong with a configuration, to report it at once.

use std::str::FromStr;

use inference::{Error, ModelSpec, Result, Shape};

/// Parameters that every model may have, whatever its backend.
const COMMON: [&str; 2] = ["infer_timeout", "memory_bytes"];

/// A specification under examination.
pub(crate) struct Examination<'s> {
    pub(crate) spec: &'s ModelSpec,
    problems: Vec<String>,
}

impl<'s> Examination<'s> {
    /// Begins; warns of parameters that are not in `known`, because a mistyped one would be ignored.
    pub(crate) fn new(spec: &'s ModelSpec, known: &[&str]) -> Self {
        let strange = |name: &&String| !known.contains(&name.as_str()) && !COMMON.contains(&name.as_str());
        for name in spec.parameters.keys().filter(strange) {
            tracing::warn!(model = &*spec.name, parameter = name, ?known, "this parameter is ignored");
        }
        Examination { spec, problems: Vec::new() }
    }

    pub(crate) fn problem(&mut self, message: impl Into<String>) {
        self.problems.push(message.into());
    }

    /// A parameter's value, if it is set.
    pub(crate) fn get(&self, name: &str) -> Option<&'s str> {
        self.spec.parameters.get(name).map(String::as_str)
    }

    /// A parameter as a boolean.
    pub(crate) fn boolean(&mut self, name: &str, default: bool) -> bool {
        match self.get(name).map(str::to_ascii_lowercase).as_deref() {
            None => default,
            Some("true" | "1") => true,
            Some("false" | "0") => false,
            Some(other) => {
                self.problem(format!("parameter '{name}' is '{other}', expected 'true' or 'false'"));
                default
            }
        }
    }

    /// A parameter as a number.
    pub(crate) fn number<T: FromStr>(&mut self, name: &str) -> Option<T> {
        let text = self.get(name)?;
        let number = text.trim().parse().ok();
        if number.is_none() {
            self.problem(format!("parameter '{name}' is '{text}', expected a whole number"));
        }
        number
    }

    /// A parameter as one of several words; the first is the default.
    pub(crate) fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> T {
        let text = self.get(name).unwrap_or(choices[0].0);
        match choices.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)) {
            Some((_, choice)) => *choice,
            None => {
                let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
                self.problem(format!("parameter '{name}' is '{text}', expected one of {words:?}"));
                choices[0].1
            }
        }
    }

    /// `value` if nothing is wrong.
    ///
    /// # Errors
    /// InvalidArgument with every problem, one per line when there are several.
    pub(crate) fn finish<T>(self, value: Option<T>) -> Result<T> {
        match (value, self.problems.is_empty()) {
            (Some(value), true) => Ok(value),
            _ => {
                let message = format!("model '{}': {}", self.spec.name, self.problems.join("\n"));
                Err(Error::invalid_argument(message).with_model(&*self.spec.name))
            }
        }
    }
}

/// The dimensions that the backend sees, batch dimension included (as -1).
pub(crate) fn backend_dims(spec: &ModelSpec, dims: &Shape, reshape: Option<&Shape>) -> Shape {
    spec.full_shape(reshape.unwrap_or(dims))
}
