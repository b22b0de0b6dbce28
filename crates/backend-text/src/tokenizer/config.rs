//! What a `tokenizer` model's configuration asks for; pure.

use inference::{DataType, ModelSpec, OutputSpec, Result, TensorName};

use crate::parameters::{Examination, backend_dims};

/// Used where neither the configuration nor the tokenizer's file gives a length.
pub(crate) const DEFAULT_MAX_LENGTH: usize = 512;

/// No model reads more; a larger figure is a mistake that would cost that much memory per text.
const LARGEST_MAX_LENGTH: usize = 1 << 20;

const PARAMETERS: [&str; 8] = [
    "max_length",
    "truncation",
    "padding",
    "add_special_tokens",
    "do_lower_case",
    "output_ids",
    "output_mask",
    "output_types",
];

/// To what length the rows of an answer are filled up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Padding {
    /// The longest row of the request.
    Longest,
    /// `max_length`.
    MaxLength,
}

/// What an output holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Ids,
    Mask,
    Types,
}

/// An output of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) name: TensorName,
    pub(crate) role: Role,
    /// INT64, otherwise INT32.
    pub(crate) wide: bool,
    /// Whether rows come first; false for a model without batch dimension that answers one text with one row.
    pub(crate) rows: bool,
    /// The length that the configuration promises.
    length: Option<usize>,
}

/// A configuration without contradictions.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The first text, and the second one of pairs.
    pub(crate) text: TensorName,
    pub(crate) pair: Option<TensorName>,
    pub(crate) outputs: Vec<Output>,
    /// `None`: as the tokenizer's file says, or [`DEFAULT_MAX_LENGTH`].
    pub(crate) max_length: Option<usize>,
    pub(crate) truncation: bool,
    pub(crate) padding: Padding,
    pub(crate) add_special_tokens: bool,
    /// `None` where the configuration does not say.
    pub(crate) do_lower_case: Option<bool>,
}

impl Config {
    /// Reads a specification.
    ///
    /// # Errors
    /// InvalidArgument with everything that is wrong.
    pub(crate) fn of(spec: &ModelSpec) -> Result<Self> {
        let mut examination = Examination::new(spec, &PARAMETERS);
        let inputs = inputs(&mut examination);
        let outputs = outputs(&mut examination);
        let max_length = examination.number("max_length");
        let truncation = examination.boolean("truncation", true);
        let padding =
            examination.choice("padding", &[("longest", Padding::Longest), ("max_length", Padding::MaxLength)]);
        let add_special_tokens = examination.boolean("add_special_tokens", true);
        let do_lower_case =
            examination.get("do_lower_case").is_some().then(|| examination.boolean("do_lower_case", true));
        let config = inputs.map(|(text, pair)| Config {
            text,
            pair,
            outputs,
            max_length,
            truncation,
            padding,
            add_special_tokens,
            do_lower_case,
        });
        examination.finish(config)
    }

    /// Holds the lengths that outputs promise against the one that is used.
    ///
    /// # Errors
    /// InvalidArgument with everything that is wrong.
    pub(crate) fn check_lengths(&self, spec: &ModelSpec, max_length: usize, added_tokens: usize) -> Result<()> {
        let mut examination = Examination::new(spec, &PARAMETERS);
        if max_length <= added_tokens {
            examination.problem(format!(
                "parameter 'max_length' is {max_length}, but the tokenizer adds {added_tokens} special tokens; make it larger"
            ));
        }
        if max_length > LARGEST_MAX_LENGTH {
            examination
                .problem(format!("parameter 'max_length' is {max_length}, expected at most {LARGEST_MAX_LENGTH}"));
        }
        for output in &self.outputs {
            let Some(length) = output.length else { continue };
            if self.padding != Padding::MaxLength || length != max_length {
                examination.problem(format!(
                    "output '{}' has a fixed length of {length}; set the parameters 'padding' to 'max_length' and \
                     'max_length' to '{length}', or declare the length as -1",
                    output.name
                ));
            }
        }
        examination.finish(Some(()))
    }
}

fn inputs(examination: &mut Examination<'_>) -> Option<(TensorName, Option<TensorName>)> {
    let spec = examination.spec;
    for input in &spec.inputs {
        if input.datatype != DataType::Bytes {
            let message = format!("input '{}' is {}, but a tokenizer takes BYTES", input.name, input.datatype);
            examination.problem(message);
        }
        let dims = backend_dims(spec, &input.dims, input.reshape.as_ref());
        if spec.batches() && !matches!(&dims[1..], [] | [1 | -1]) {
            examination.problem(format!("input '{}' must have dims [1]: one text per row", input.name));
        }
    }
    match &*spec.inputs {
        [text] | [text, _] if text.optional => {
            examination.problem(format!("input '{}' is the text and cannot be optional", text.name));
            None
        }
        [text] => Some((text.name.clone(), None)),
        [text, pair] => Some((text.name.clone(), Some(pair.name.clone()))),
        others => {
            let count = others.len();
            examination.problem(format!(
                "a tokenizer has 1 input, or 2 for pairs of texts; the configuration declares {count}"
            ));
            None
        }
    }
}

fn outputs(examination: &mut Examination<'_>) -> Vec<Output> {
    let spec = examination.spec;
    let name = |parameter: &str, default: &'static str| examination.get(parameter).unwrap_or(default).to_owned();
    let roles = [
        (name("output_ids", "input_ids"), Role::Ids),
        (name("output_mask", "attention_mask"), Role::Mask),
        (name("output_types", "token_type_ids"), Role::Types),
    ];
    if spec.outputs.is_empty() {
        examination.problem("a tokenizer needs at least one output");
    }
    let mut outputs = Vec::new();
    for declared in &spec.outputs {
        let Some((_, role)) = roles.iter().find(|(name, _)| **name == *declared.name) else {
            let [(ids, _), (mask, _), (types, _)] = &roles;
            examination.problem(format!(
                "output '{}' is none of '{ids}', '{mask}', '{types}'; the parameters 'output_ids', 'output_mask' and \
                 'output_types' give them other names",
                declared.name
            ));
            continue;
        };
        outputs.extend(output(examination, declared, *role));
    }
    outputs
}

fn output(examination: &mut Examination<'_>, declared: &OutputSpec, role: Role) -> Option<Output> {
    let (spec, name) = (examination.spec, declared.name.clone());
    if !matches!(declared.datatype, DataType::Int64 | DataType::Int32) {
        examination.problem(format!("output '{name}' is {}, but token ids are INT64 or INT32", declared.datatype));
    }
    let dims = backend_dims(spec, &declared.dims, declared.reshape.as_ref());
    let one_text = !spec.batches() && spec.inputs.iter().all(|input| input.dims.iter().all(|dim| *dim == 1));
    let rows = match dims.len() {
        2 => true,
        1 if one_text => false,
        _ => {
            let want = if spec.batches() { "[-1]" } else { "[-1,-1]" };
            examination.problem(format!("output '{name}' has dims {}, expected {want}", declared.dims));
            return None;
        }
    };
    let length = dims.last().and_then(|length| usize::try_from(*length).ok());
    Some(Output { name, role, wide: declared.datatype == DataType::Int64, rows, length })
}
