//! Reads a `ModelInferRequest`. Raw tensors are slices of the message, and are not copied.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use inference::{
    DataType, Error, ModelKey, NamedTensor, Parameter, Result, SequencePlace, Shape, TargetModel, Tensor, TensorName,
};
use prost::Message;
use protocol::grpc_service::infer_parameter::ParameterChoice;
use protocol::grpc_service::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use protocol::grpc_service::{InferParameter, ModelInferRequest};

use super::{contents, weight};
use crate::admission::BodyShare;
use crate::codec::{OutputChoice, WireRequest, check_classes, check_timeout};
use crate::http::parse_version;
use crate::shared_memory::{self, Place, PlaceParts, SharedInput};

/// A request's parameter that asks for something about the stream, not about the model.
pub(super) const EMPTY_FINAL_RESPONSE: &str = "triton_enable_empty_final_response";

/// The message in `bytes`; `share` also has what it takes beside them from here on.
///
/// # Errors
/// InvalidArgument when the bytes are no request, Overloaded when all requests together would take too much.
pub(super) fn decode(bytes: Bytes, share: &mut BodyShare) -> Result<ModelInferRequest> {
    share.add(weight::of_request(&bytes)?)?;
    ModelInferRequest::decode(bytes).map_err(|error| {
        Error::invalid_argument(format!("the request message cannot be read: {error}")).with_source(error)
    })
}

/// The model that a call names.
///
/// # Errors
/// InvalidArgument when the version is not a number above 0.
pub(super) fn key(target: Option<TargetModel>, name: &str, version: &str) -> Result<ModelKey> {
    let version = (!version.is_empty()).then(|| parse_version(version)).transpose()?;
    Ok(ModelKey { target, model: (!name.is_empty()).then(|| name.into()), version })
}

/// What the message asks for, apart from the model.
///
/// # Errors
/// InvalidArgument that names the input, output or parameter, and what was expected.
pub(super) fn request(message: ModelInferRequest) -> Result<WireRequest> {
    let mut wire = WireRequest { id: message.id, ..WireRequest::default() };
    for (name, value) in message.parameters {
        match name.as_str() {
            EMPTY_FINAL_RESPONSE => {}
            _ => {
                let value = parameter(&name, value)?;
                check_timeout(&name, &value).map_err(Error::invalid_argument)?;
                wire.parameters.insert(name, value);
            }
        }
    }
    inputs(&mut wire, &message.model_name, message.inputs, message.raw_input_contents)?;
    wire.outputs = outputs(message.outputs)?;
    Ok(wire)
}

fn inputs(wire: &mut WireRequest, model: &str, inputs: Vec<InferInputTensor>, raw: Vec<Bytes>) -> Result<()> {
    let mut seen = HashSet::new();
    let uses_raw = !raw.is_empty();
    let mut raw = raw.into_iter();
    wire.inputs.reserve(inputs.len());
    for mut input in inputs {
        let name = TensorName::from(input.name.as_str());
        if !seen.insert(name.clone()) {
            return Err(Error::invalid_argument(format!("input '{name}' is given twice")));
        }
        match place(&input.name, &mut input.parameters).map_err(|error| error.context(format!("input '{name}'")))? {
            Some(place) => wire.shared_inputs.push(shared(name, model, input, place)?),
            None => wire.inputs.push(NamedTensor::new(name, tensor(model, input, uses_raw, &mut raw)?)),
        }
    }
    let surplus = raw.len();
    if surplus > 0 {
        return Err(Error::invalid_argument(format!(
            "unexpected additional input data: raw_input_contents has {surplus} more entries than there are inputs for \
             model '{model}'"
        )));
    }
    Ok(())
}

/// An input that lies in shared memory. No raw contents go with it.
fn shared(name: TensorName, model: &str, input: InferInputTensor, place: Place) -> Result<SharedInput> {
    if input.contents.is_some() {
        return Err(Error::invalid_argument(format!(
            "unexpected 'content' provided when using shared memory for input tensor '{name}' for model '{model}'"
        )));
    }
    let datatype = datatype(&input.datatype).map_err(|error| error.context(format!("input '{name}'")))?;
    Ok(SharedInput { name, datatype, shape: Shape::from(input.shape), place })
}

fn tensor(
    model: &str,
    input: InferInputTensor,
    uses_raw: bool,
    raw: &mut impl Iterator<Item = Bytes>,
) -> Result<Tensor> {
    let name = &input.name;
    let datatype = datatype(&input.datatype).map_err(|error| error.context(format!("input '{name}'")))?;
    let shape = Shape::from(input.shape);
    match input.contents {
        Some(_) if uses_raw => Err(Error::invalid_argument(format!(
            "contents field must not be specified when using raw_input_contents for '{name}' for model '{model}'"
        ))),
        Some(contents) => contents::tensor(name, model, datatype, shape, contents),
        None => {
            let data = raw.next().ok_or_else(|| {
                Error::invalid_argument(format!(
                    "unable to find data for input tensor '{name}' for model '{model}' in request."
                ))
            })?;
            Tensor::new(datatype, shape, data).map_err(|error| error.context(format!("input '{name}'")))
        }
    }
}

fn datatype(name: &str) -> Result<DataType> {
    DataType::from_name(name).ok_or_else(|| {
        let known: Vec<&str> = DataType::ALL.iter().map(|datatype| datatype.name()).collect();
        Error::invalid_argument(format!("'datatype' is '{name}'; expected one of {}", known.join(", ")))
    })
}

fn outputs(requested: Vec<InferRequestedOutputTensor>) -> Result<Vec<OutputChoice>> {
    let mut seen = HashSet::new();
    let mut choices = Vec::with_capacity(requested.len());
    for mut output in requested {
        let name = TensorName::from(output.name.as_str());
        let in_output = |error: Error| error.context(format!("output '{name}'"));
        if !seen.insert(name.clone()) {
            return Err(Error::invalid_argument(format!("output '{name}' is requested twice")));
        }
        let classes = output.parameters.remove("classification");
        let classes = classes.map(|value| count("classification", value)).transpose().map_err(in_output)?;
        let classes = classes.and_then(|classes| usize::try_from(classes).ok()).filter(|classes| *classes > 0);
        let place = place(&name, &mut output.parameters)?;
        check_classes(classes, place.as_ref()).map_err(in_output)?;
        choices.push(OutputChoice { name, binary: Some(true), classes, place });
    }
    Ok(choices)
}

/// Where in shared memory a tensor lies, if it does.
fn place(tensor: &str, parameters: &mut BTreeMap<String, InferParameter>) -> Result<Option<Place>> {
    if parameters.is_empty() {
        return Ok(None);
    }
    let wrong = |name: &str, expected: &str| {
        let message = format!("invalid value type for '{name}' parameter for tensor '{tensor}', expected {expected}.");
        Error::invalid_argument(message)
    };
    let mut number = |name: &str| match parameters.remove(name).and_then(|value| value.parameter_choice) {
        Some(ParameterChoice::Int64Param(value)) => {
            u64::try_from(value).map(Some).map_err(|_| wrong(name, "0 or more"))
        }
        None => Ok(None),
        Some(_) => Err(wrong(name, "int64_param")),
    };
    let (offset, byte_size) = (number(shared_memory::OFFSET)?, number(shared_memory::BYTE_SIZE)?);
    let region = match parameters.remove(shared_memory::REGION).and_then(|value| value.parameter_choice) {
        Some(ParameterChoice::StringParam(region)) => Some(region),
        None => None,
        Some(_) => return Err(wrong(shared_memory::REGION, "string_param")),
    };
    PlaceParts { region, offset, byte_size }.place(tensor)
}

fn parameter(name: &str, value: InferParameter) -> Result<Parameter> {
    match value.parameter_choice {
        Some(ParameterChoice::BoolParam(value)) => Ok(Parameter::Bool(value)),
        Some(ParameterChoice::Int64Param(value)) => Ok(Parameter::Int64(value)),
        Some(ParameterChoice::Uint64Param(value)) => SequencePlace::unsigned(name, value).ok_or_else(|| {
            Error::invalid_argument(format!("parameter '{name}' is {value}; expected at most {}", i64::MAX))
        }),
        Some(ParameterChoice::DoubleParam(value)) => Ok(Parameter::Double(value)),
        Some(ParameterChoice::StringParam(value)) => Ok(Parameter::String(value)),
        None => Err(Error::invalid_argument(format!("parameter '{name}' has no value"))),
    }
}

/// A parameter that counts something.
fn count(name: &str, value: InferParameter) -> Result<u64> {
    match parameter(name, value)? {
        Parameter::Int64(value) => u64::try_from(value).map_err(|_| {
            Error::invalid_argument(format!("invalid value for '{name}' parameter: it is {value}; expected >= 0"))
        }),
        _ => Err(Error::invalid_argument(format!("invalid value type for '{name}' parameter, expected int64_param"))),
    }
}
