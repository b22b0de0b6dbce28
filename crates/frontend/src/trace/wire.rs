//! Trace settings as Triton's clients read and write them: every value is text, or a list of texts.

use std::collections::BTreeMap;

use inference::{Error, Result};

use super::settings::{Edit, TraceEdit, TraceLevel, TraceSettings};

/// The one mode that there is.
pub(crate) const MODE: &str = "opentelemetry";

/// A setting as the wire has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    One(String),
    List(Vec<String>),
}

impl TraceLevel {
    fn names(self) -> Vec<String> {
        let names = [(self.timestamps, "TIMESTAMPS"), (self.tensors, "TENSORS"), (self.is_off(), "OFF")];
        names.into_iter().filter(|(there, _)| *there).map(|(_, name)| name.to_owned()).collect()
    }

    /// Reads `OFF`, or one or more of `TIMESTAMPS` and `TENSORS`.
    ///
    /// # Errors
    /// InvalidArgument.
    pub fn read<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<TraceLevel> {
        let mut level = TraceLevel::OFF;
        for name in names {
            match name {
                "OFF" => level = TraceLevel::OFF,
                "TIMESTAMPS" => level.timestamps = true,
                "TENSORS" => level.tensors = true,
                _ => {
                    return Err(Error::invalid_argument(format!(
                        "Unable to parse 'trace_level', got: {name}; expected OFF, TIMESTAMPS or TENSORS"
                    )));
                }
            }
        }
        Ok(level)
    }
}

impl TraceSettings {
    /// Reads `trace_rate`.
    ///
    /// # Errors
    /// InvalidArgument.
    pub fn read_rate(text: &str) -> Result<u32> {
        text.parse().ok().filter(|rate| *rate > 0).ok_or_else(|| unreadable("trace_rate", text, "a number above 0"))
    }

    /// Reads `trace_count`; -1 stands for no bound.
    ///
    /// # Errors
    /// InvalidArgument.
    pub fn read_count(text: &str) -> Result<Option<u32>> {
        match text {
            "-1" => Ok(None),
            _ => text.parse().map(Some).map_err(|_| unreadable("trace_count", text, "-1 or more")),
        }
    }

    /// Every setting by name. There is no trace file, and nothing is logged to one.
    pub(super) fn values(&self) -> BTreeMap<String, Value> {
        let one = |value: &str| Value::One(value.to_owned());
        let count = self.count.map_or_else(|| "-1".to_owned(), |count| count.to_string());
        let values = [
            ("trace_level", Value::List(self.level.names())),
            ("trace_rate", Value::One(self.rate.to_string())),
            ("trace_count", Value::One(count)),
            ("log_frequency", one("0")),
            ("trace_file", one("")),
            ("trace_mode", one(MODE)),
        ];
        values.map(|(name, value)| (name.to_owned(), value)).into()
    }
}

fn unreadable(name: &str, got: &str, expected: &str) -> Error {
    Error::invalid_argument(format!("Unable to parse '{name}', got: {got}; expected {expected}"))
}

impl TraceEdit {
    /// Adds what a client wants of one setting; no values put it back.
    ///
    /// # Errors
    /// InvalidArgument for an unknown name or a bad value, Unsupported for what only trace files have.
    pub(crate) fn add(&mut self, name: &str, values: &[String]) -> Result<()> {
        let one = || match values {
            [value] => Ok(value.as_str()),
            _ => Err(Error::invalid_argument(format!("expect only 1 value for '{name}'"))),
        };
        match (name, values) {
            ("trace_level", []) => self.level = Edit::Clear,
            ("trace_level", values) => self.level = Edit::Set(TraceLevel::read(values.iter().map(String::as_str))?),
            ("trace_rate", []) => self.rate = Edit::Clear,
            ("trace_rate", _) => self.rate = Edit::Set(TraceSettings::read_rate(one()?)?),
            ("trace_count", []) => self.count = Edit::Clear,
            ("trace_count", _) => self.count = Edit::Set(TraceSettings::read_count(one()?)?),
            ("trace_file" | "log_frequency" | "trace_mode", []) => {}
            ("trace_mode", _) if one()? == MODE => {}
            ("trace_file", _) if one()?.is_empty() => {}
            ("log_frequency", _) if one()? == "0" => {}
            ("trace_file", _) => {
                return Err(Error::unsupported("trace file location can not be updated through network protocol"));
            }
            ("trace_mode" | "log_frequency", _) => {
                return Err(Error::unsupported(format!(
                    "'{name}' can not be {}: this server writes no trace files, its trace_mode is {MODE}",
                    one()?
                )));
            }
            _ => {
                return Err(Error::invalid_argument(format!(
                    "unknown trace setting '{name}'; expected trace_level, trace_rate, trace_count, log_frequency, \
                     trace_file or trace_mode"
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(name: &str, values: &[&str]) -> Result<TraceEdit> {
        let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        let mut edit = TraceEdit::default();
        edit.add(name, &values).map(|()| edit)
    }

    #[test]
    fn settings_are_texts() {
        let edited = edit("trace_level", &["TIMESTAMPS", "TENSORS"]).expect("valid");
        assert_eq!(edited.level, Edit::Set(TraceLevel { timestamps: true, tensors: true }));
        assert_eq!(edit("trace_rate", &["7"]).expect("valid").rate, Edit::Set(7));
        assert_eq!(edit("trace_count", &["-1"]).expect("valid").count, Edit::Set(None));
        assert_eq!(edit("trace_count", &[]).expect("valid").count, Edit::Clear);
        assert_eq!(edit("trace_mode", &[MODE]).expect("valid"), TraceEdit::default());
        let values = TraceSettings::default().values();
        assert_eq!(values["trace_level"], Value::List(vec!["OFF".to_owned()]));
        assert_eq!(
            (&values["trace_rate"], &values["trace_count"]),
            (&Value::One("1000".to_owned()), &Value::One("-1".to_owned()))
        );
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_was_expected() {
        let cases: [(&str, &[&str], &str); 8] = [
            ("trace_level", &["LOUD"], "Unable to parse 'trace_level', got: LOUD"),
            ("trace_rate", &["often"], "Unable to parse 'trace_rate', got: often"),
            ("trace_rate", &["0"], "Unable to parse 'trace_rate', got: 0"),
            ("trace_rate", &["1", "2"], "expect only 1 value for 'trace_rate'"),
            ("trace_count", &["-2"], "Unable to parse 'trace_count', got: -2"),
            ("trace_file", &["/tmp/t"], "trace file location can not be updated through network protocol"),
            ("trace_mode", &["triton"], "'trace_mode' can not be triton"),
            ("colour", &["red"], "unknown trace setting 'colour'"),
        ];
        for (name, values, expected) in cases {
            let error = edit(name, values).expect_err(expected);
            assert!(error.message().contains(expected), "{error}");
        }
    }
}
