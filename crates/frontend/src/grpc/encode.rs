//! Writes a `ModelInferResponse`. Outputs are raw, and share the response's bytes.

use std::borrow::Cow;

use bytes::Bytes;
use http::HeaderMap;
use inference::{InferResponse, NamedTensor, Parameter, Result};
use protocol::grpc_service::infer_parameter::ParameterChoice;
use protocol::grpc_service::model_infer_response::InferOutputTensor;
use protocol::grpc_service::{InferParameter, ModelInferResponse};
use protocol::message_size;

use crate::codec::{OutputChoice, classes_of, too_large};
use crate::shared_memory::{self, Place};

/// The parameter of a stream's answer that says whether it is the request's last.
const FINAL_RESPONSE: &str = "triton_final_response";

/// Writes a response to the request `id`; `model_name` is the name that the client used.
///
/// # Errors
/// InvalidArgument when the message would be larger than `max_size` bytes, or when classes of something that is not numbers
/// were asked for.
pub(super) fn response(
    response: &InferResponse,
    id: String,
    model_name: String,
    choices: &[OutputChoice],
    max_size: u64,
) -> Result<ModelInferResponse> {
    let mut message = ModelInferResponse {
        id,
        model_name,
        model_version: response.model.as_ref().map_or_else(String::new, |model| model.version.to_string()),
        parameters: response.parameters.iter().map(|(name, value)| (name.clone(), parameter(value))).collect(),
        ..ModelInferResponse::default()
    };
    for output in &response.outputs {
        let choice = choices.iter().find(|choice| choice.name == output.name);
        if let Some(place) = choice.and_then(|choice| choice.place.as_ref()) {
            message.outputs.push(in_shared_memory(output, place));
            // Entries go with outputs by position.
            message.raw_output_contents.push(Bytes::new());
            continue;
        }
        let tensor = match choice.and_then(|choice| choice.classes) {
            Some(classes) => Cow::Owned(classes_of(response, &output.name, &output.tensor, classes)?),
            None => Cow::Borrowed(&output.tensor),
        };
        message.outputs.push(InferOutputTensor {
            name: output.name.to_string(),
            datatype: tensor.datatype().name().to_owned(),
            shape: tensor.shape().to_vec(),
            ..InferOutputTensor::default()
        });
        message.raw_output_contents.push(Bytes::clone(tensor.data()));
    }
    if message_size(&message) as u64 > max_size {
        return Err(too_large(max_size));
    }
    Ok(message)
}

/// An output that was written into shared memory.
fn in_shared_memory(output: &NamedTensor, place: &Place) -> InferOutputTensor {
    let integer = |value: u64| Parameter::Int64(i64::try_from(value).unwrap_or(i64::MAX));
    let mut parameters = vec![
        (shared_memory::REGION, Parameter::String(place.region.clone())),
        (shared_memory::BYTE_SIZE, integer(output.tensor.data().len() as u64)),
    ];
    if place.offset != 0 {
        parameters.push((shared_memory::OFFSET, integer(place.offset)));
    }
    InferOutputTensor {
        name: output.name.to_string(),
        datatype: output.tensor.datatype().name().to_owned(),
        shape: output.tensor.shape().to_vec(),
        parameters: parameters.into_iter().map(|(name, value)| (name.to_owned(), parameter(&value))).collect(),
        ..InferOutputTensor::default()
    }
}

/// Tells in an answer's parameters what a single call's metadata tells: a stream's metadata is gone before its first answer.
pub(super) fn tell(message: &mut ModelInferResponse, headers: &HeaderMap) {
    for (name, value) in headers {
        if let Ok(value) = value.to_str() {
            let value = parameter(&Parameter::String(value.to_owned()));
            message.parameters.insert(name.as_str().to_owned(), value);
        }
    }
}

/// Tells on a stream whether an answer is the last to its request.
pub(super) fn tell_last(message: &mut ModelInferResponse, is_last: bool) {
    message.parameters.insert(FINAL_RESPONSE.to_owned(), parameter(&Parameter::Bool(is_last)));
}

/// A parameter as the wire has it.
pub(super) fn parameter(value: &Parameter) -> InferParameter {
    let choice = match value {
        Parameter::Bool(value) => ParameterChoice::BoolParam(*value),
        Parameter::Int64(value) => ParameterChoice::Int64Param(*value),
        Parameter::Double(value) => ParameterChoice::DoubleParam(*value),
        Parameter::String(value) => ParameterChoice::StringParam(value.clone()),
    };
    InferParameter { parameter_choice: Some(choice) }
}
