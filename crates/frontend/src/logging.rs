//! Triton's logging extension: what the log is like, and changing that while the server runs.

use inference::{Error, Result};

/// How the log tells the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogTime {
    /// RFC 3339 with microseconds.
    #[default]
    Default,
    /// ISO 8601 with whole seconds.
    Iso8601,
}

impl LogTime {
    /// By Triton's name.
    pub const fn name(self) -> &'static str {
        match self {
            LogTime::Default => "default",
            LogTime::Iso8601 => "ISO8601",
        }
    }
}

/// What the log is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// Whether lines of this level are written, as far as the server's own setting lets them.
    pub info: bool,
    /// As `info`.
    pub warning: bool,
    /// As `info`.
    pub error: bool,
    /// 0 for none beyond these; 1 for debugging, 2 and more for tracing.
    pub verbose_level: u32,
    /// How the time is written (`log_format`).
    pub time: LogTime,
}

/// What is to change; `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogChange {
    /// See [`LogSettings::info`].
    pub info: Option<bool>,
    /// See [`LogSettings::warning`].
    pub warning: Option<bool>,
    /// See [`LogSettings::error`].
    pub error: Option<bool>,
    /// See [`LogSettings::verbose_level`].
    pub verbose_level: Option<u32>,
    /// See [`LogSettings::time`].
    pub time: Option<LogTime>,
}

/// The log of the process.
pub trait LogControl: Send + Sync {
    /// What it is like.
    fn settings(&self) -> LogSettings;

    /// Changes it at once, for all that is logged from then on.
    fn change(&self, change: LogChange);
}

/// A setting's value as a client sent it.
pub(crate) enum Value {
    Bool(bool),
    Unsigned(u32),
    String(String),
    /// Of no type that settings have.
    Other,
}

/// How a protocol says that a value is of the wrong type.
pub(crate) enum Wording {
    Http,
    Grpc,
}

impl Wording {
    fn wrong_type(&self, name: &str, expected: Expected) -> Error {
        Error::invalid_argument(match (self, expected) {
            (Wording::Http, Expected::Bool) => format!("attempt to access JSON non-boolean as boolean ('{name}')"),
            (Wording::Http, Expected::Unsigned) => {
                format!("attempt to access JSON non-unsigned-integer as unsigned-integer ('{name}')")
            }
            (Wording::Http, Expected::String) => format!("attempt to access JSON non-string as string ('{name}')"),
            (Wording::Grpc, Expected::Bool) => format!("expect boolean for '{name}'"),
            (Wording::Grpc, Expected::Unsigned) => format!("expect int32 for '{name}'"),
            (Wording::Grpc, Expected::String) => format!("expect string for '{name}'"),
        })
    }
}

#[derive(Clone, Copy)]
enum Expected {
    Bool,
    Unsigned,
    String,
}

/// The change that a client asks for.
///
/// # Errors
/// Unsupported for `log_file`; InvalidArgument for a value of the wrong type, and for a setting that does not exist.
pub(crate) fn change(settings: impl IntoIterator<Item = (String, Value)>, wording: &Wording) -> Result<LogChange> {
    let mut change = LogChange::default();
    for (name, value) in settings {
        let wrong = |expected| wording.wrong_type(&name, expected);
        match (name.as_str(), value) {
            ("log_file", _) => {
                return Err(Error::unsupported("log file location can not be updated through network protocol"));
            }
            ("log_info", Value::Bool(value)) => change.info = Some(value),
            ("log_warning", Value::Bool(value)) => change.warning = Some(value),
            ("log_error", Value::Bool(value)) => change.error = Some(value),
            ("log_info" | "log_warning" | "log_error", _) => return Err(wrong(Expected::Bool)),
            ("log_verbose_level", Value::Unsigned(value)) => change.verbose_level = Some(value),
            ("log_verbose_level", _) => return Err(wrong(Expected::Unsigned)),
            ("log_format", Value::String(value)) => change.time = Some(time(&value)?),
            ("log_format", _) => return Err(wrong(Expected::String)),
            _ => {
                return Err(Error::invalid_argument(format!(
                    "unknown log setting '{name}'; expected log_info, log_warning, log_error, log_verbose_level or log_format"
                )));
            }
        }
    }
    Ok(change)
}

fn time(name: &str) -> Result<LogTime> {
    [LogTime::Default, LogTime::Iso8601].into_iter().find(|time| time.name() == name).ok_or_else(|| {
        Error::invalid_argument(format!("invalid argument for log_format, got: {name}; expected default or ISO8601"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_all_or_none() {
        let one = |name: &str, value| change([(name.to_owned(), value)], &Wording::Grpc);
        assert_eq!(
            one("log_info", Value::Bool(false)).expect("valid"),
            LogChange { info: Some(false), ..LogChange::default() }
        );
        let format = one("log_format", Value::String("ISO8601".to_owned())).expect("valid");
        assert_eq!(format.time, Some(LogTime::Iso8601));
        assert_eq!(one("log_verbose_level", Value::Unsigned(3)).expect("valid").verbose_level, Some(3));
        for (name, value, text) in [
            (
                "log_file",
                Value::String("x".to_owned()),
                "log file location can not be updated through network protocol",
            ),
            ("log_error", Value::Unsigned(1), "expect boolean for 'log_error'"),
            ("log_verbose_level", Value::Other, "expect int32 for 'log_verbose_level'"),
            ("log_format", Value::Bool(true), "expect string for 'log_format'"),
            ("log_format", Value::String("iso".to_owned()), "invalid argument for log_format, got: iso"),
            ("log_colour", Value::Bool(true), "unknown log setting 'log_colour'"),
        ] {
            let settings = [("log_info".to_owned(), Value::Bool(true)), (name.to_owned(), value)];
            assert!(change(settings, &Wording::Grpc).expect_err("wrong").message().contains(text), "{text}");
        }
        let error = change([("log_info".to_owned(), Value::Other)], &Wording::Http).expect_err("wrong");
        assert!(error.message().starts_with("attempt to access JSON non-boolean as boolean"), "{error}");
    }
}
