//! Which sequence a request belongs to: Triton's request parameters `sequence_id`, `sequence_start` and `sequence_end`.

use std::fmt;
use std::sync::Arc;

use crate::{Error, Parameter, Parameters, Result};

const ID: &str = "sequence_id";
const START: &str = "sequence_start";
const END: &str = "sequence_end";

/// What names a sequence; cheap to clone. A number and a text are never equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CorrelationId {
    /// A number; not 0.
    Number(u64),
    /// A text; not empty.
    Text(Arc<str>),
}

impl fmt::Display for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CorrelationId::Number(number) => number.fmt(f),
            CorrelationId::Text(text) => text.fmt(f),
        }
    }
}

/// A request's place in its sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequencePlace {
    /// Which sequence.
    pub id: CorrelationId,
    /// It is the first.
    pub starts: bool,
    /// It is the last.
    pub ends: bool,
}

impl SequencePlace {
    /// Whether a parameter speaks of sequences, and so to the server and not to the model.
    pub fn is_parameter(name: &str) -> bool {
        matches!(name, ID | START | END)
    }

    /// The value of a parameter that was given as an unsigned number: a sequence may have any of those for its name, and
    /// keeps its bits. `None` for a number that is too large for the other parameters.
    pub fn unsigned(name: &str, number: u64) -> Option<Parameter> {
        match i64::try_from(number) {
            Ok(number) => Some(Parameter::Int64(number)),
            Err(_) if name == ID => Some(Parameter::Int64(number.cast_signed())),
            Err(_) => None,
        }
    }

    /// What a request's parameters say; `None` where they name no sequence. A negative number is the unsigned one of the
    /// same bits, since gRPC's parameters have signed integers only.
    ///
    /// # Errors
    /// InvalidArgument for a parameter of a wrong type.
    pub fn of(parameters: &Parameters) -> Result<Option<SequencePlace>> {
        let flag = |name: &str| match parameters.get(name) {
            None => Ok(false),
            Some(Parameter::Bool(value)) => Ok(*value),
            Some(_) => Err(wrong_type(name, "bool_param")),
        };
        let (starts, ends) = (flag(START)?, flag(END)?);
        let id = match parameters.get(ID) {
            None | Some(Parameter::Int64(0)) => return Ok(None),
            Some(Parameter::Int64(number)) => CorrelationId::Number(number.cast_unsigned()),
            Some(Parameter::String(text)) if text.is_empty() => return Ok(None),
            Some(Parameter::String(text)) => CorrelationId::Text(text.as_str().into()),
            Some(_) => return Err(wrong_type(ID, "int64_param or string_param")),
        };
        Ok(Some(SequencePlace { id, starts, ends }))
    }
}

fn wrong_type(name: &str, expected: &str) -> Error {
    Error::invalid_argument(format!("invalid value type for '{name}' parameter, expected {expected}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(given: &[(&str, Parameter)]) -> Result<Option<SequencePlace>> {
        SequencePlace::of(&given.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
    }

    #[test]
    fn a_sequence_is_named_by_a_number_or_a_text() {
        let number = |number| (ID, Parameter::Int64(number));
        let text = |text: &str| (ID, Parameter::String(text.to_owned()));
        let flag = |name, value| (name, Parameter::Bool(value));
        let place = |id, starts, ends| Some(SequencePlace { id, starts, ends });
        let cases = [
            (vec![], None),
            (vec![number(0), flag(START, true)], None),
            (vec![text("")], None),
            (vec![flag(END, true)], None),
            (vec![number(7)], place(CorrelationId::Number(7), false, false)),
            (vec![number(-1), flag(START, true)], place(CorrelationId::Number(u64::MAX), true, false)),
            (vec![text("7"), flag(START, false), flag(END, true)], place(CorrelationId::Text("7".into()), false, true)),
        ];
        for (given, expected) in cases {
            assert_eq!(of(&given).expect("right"), expected, "{given:?}");
        }
        assert_ne!(CorrelationId::Number(7), CorrelationId::Text("7".into()));
    }

    #[test]
    fn unsigned_numbers_keep_their_bits_as_names_of_sequences_alone() {
        let large = u64::MAX - 1;
        let named = SequencePlace::unsigned(ID, large).expect("any number");
        let place = of(&[(ID, named)]).expect("right").expect("named");
        assert_eq!(place.id, CorrelationId::Number(large));
        assert_eq!(SequencePlace::unsigned("other", large), None);
        assert_eq!(SequencePlace::unsigned("other", 7), Some(Parameter::Int64(7)));
    }

    #[test]
    fn wrong_types_are_refused_in_tritons_words() {
        let cases = [
            ((ID, Parameter::Bool(true)), "'sequence_id' parameter, expected int64_param or string_param."),
            ((ID, Parameter::Double(1.5)), "'sequence_id' parameter, expected int64_param or string_param."),
            ((START, Parameter::Int64(1)), "'sequence_start' parameter, expected bool_param."),
            ((END, Parameter::String("true".to_owned())), "'sequence_end' parameter, expected bool_param."),
        ];
        for (given, expected) in cases {
            let error = of(&[given]).expect_err(expected);
            assert_eq!(error.message(), format!("invalid value type for {expected}"));
        }
    }
}
