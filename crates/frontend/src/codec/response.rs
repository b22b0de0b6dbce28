//! Writes the body of an answer (KServe v2 "Inference Response JSON Object", with Triton's extensions).

use std::borrow::Cow;

use bytes::Bytes;
use inference::{Error, InferResponse, NamedTensor, Parameter, Parameters, Result, Tensor};

use super::classification::classify;
use super::numbers_out;
use super::request::OutputChoice;

/// What an answer is made from, beside the response itself.
pub(crate) struct Answer<'a> {
    /// The request's `id`; left out when empty.
    pub(crate) id: &'a str,
    /// The name that the client used.
    pub(crate) model_name: &'a str,
    /// The outputs that the client asked for, if it did.
    pub(crate) choices: &'a [OutputChoice],
    /// Whether outputs that do not say are binary.
    pub(crate) binary: bool,
    /// The largest body, in bytes.
    pub(crate) max_size: u64,
}

/// An answer's body.
#[derive(Debug)]
pub(crate) struct Encoded {
    /// Bytes of JSON before the first binary tensor; `None` when there is none.
    pub(crate) json_length: Option<usize>,
    /// The parts, in order; tensors are the response's own bytes.
    pub(crate) parts: Vec<Bytes>,
}

impl Answer<'_> {
    fn choice(&self, output: &NamedTensor) -> Option<&OutputChoice> {
        self.choices.iter().find(|choice| choice.name == output.name)
    }

    fn is_binary(&self, choice: Option<&OutputChoice>) -> bool {
        choice.and_then(|choice| choice.binary).unwrap_or(self.binary)
    }

    /// Bytes of tensors that have to be looked at one by one: written as JSON, or sorted into classes. It says how long
    /// [`encode`] will take.
    pub(crate) fn converted_bytes(&self, response: &InferResponse) -> usize {
        let converted = |output: &&NamedTensor| {
            let choice = self.choice(output);
            let in_answer = choice.is_none_or(|choice| choice.place.is_none());
            in_answer && (!self.is_binary(choice) || choice.is_some_and(|choice| choice.classes.is_some()))
        };
        response.outputs.iter().filter(converted).map(|output| output.tensor.data().len()).sum()
    }
}

/// Writes a response.
///
/// # Errors
/// InvalidArgument when the body would be larger than the bound, or when a BYTES output that is not UTF-8 was to be JSON.
pub(crate) fn encode(response: &InferResponse, answer: &Answer<'_>) -> Result<Encoded> {
    let mut json = Json { text: Vec::with_capacity(256), max_size: answer.max_size };
    let mut binary = Vec::new();
    let mut size = 0;
    json.text.push(b'{');
    head(&mut json, response, answer);
    json.raw("\"outputs\":[");
    for (position, output) in response.outputs.iter().enumerate() {
        if position > 0 {
            json.text.push(b',');
        }
        let choice = answer.choice(output);
        if choice.is_some_and(|choice| choice.place.is_some()) {
            write_tensor_head(&mut json, &output.name, &output.tensor);
            // Without parameters, as Triton: its C++ client takes any for the announcement of binary data.
            json.text.pop();
            json.text.push(b'}');
            json.check_size(size)?;
            continue;
        }
        let tensor = match choice.and_then(|choice| choice.classes) {
            Some(classes) => Cow::Owned(classes_of(response, &output.name, &output.tensor, classes)?),
            None => Cow::Borrowed(&output.tensor),
        };
        let is_binary = answer.is_binary(choice);
        write_output(&mut json, &output.name, &tensor, is_binary)
            .map_err(|error| error.context(format!("output '{}'", output.name)))?;
        if is_binary {
            size += tensor.data().len() as u64;
            binary.push(tensor.data().clone());
        }
        json.check_size(size)?;
    }
    json.raw("]}");
    json.check_size(size)?;
    let json_length = (!binary.is_empty()).then_some(json.text.len());
    let parts = std::iter::once(Bytes::from(json.text)).chain(binary).collect();
    Ok(Encoded { json_length, parts })
}

/// The best classes of an output, with the model's labels.
pub(crate) fn classes_of(response: &InferResponse, name: &str, tensor: &Tensor, classes: usize) -> Result<Tensor> {
    let labels = response.model.as_ref().and_then(|model| model.labels.get(name)).map_or(&[][..], Vec::as_slice);
    let batches = response.model.as_ref().is_some_and(|model| model.spec.batches());
    classify(tensor, batches, classes, labels).map_err(|error| error.context(format!("output '{name}'")))
}

fn head(json: &mut Json, response: &InferResponse, answer: &Answer<'_>) {
    if !answer.id.is_empty() {
        json.member("id", answer.id);
    }
    json.member("model_name", answer.model_name);
    if let Some(model) = &response.model {
        json.member("model_version", &model.version.to_string());
    }
    if !response.parameters.is_empty() {
        json.parameters(&response.parameters);
    }
}

fn write_tensor_head(json: &mut Json, name: &str, tensor: &Tensor) {
    json.text.push(b'{');
    json.member("name", name);
    json.member("datatype", tensor.datatype().name());
    // A shape is written like JSON.
    json.raw(&format!("\"shape\":{},", tensor.shape()));
}

fn write_output(json: &mut Json, name: &str, tensor: &Tensor, binary: bool) -> Result<()> {
    write_tensor_head(json, name, tensor);
    if binary {
        json.raw(&format!("\"parameters\":{{\"binary_data_size\":{}}}}}", tensor.data().len()));
        return Ok(());
    }
    json.raw("\"data\":[");
    let limit = usize::try_from(json.max_size).unwrap_or(usize::MAX);
    if !numbers_out::write(&mut json.text, tensor, limit)? {
        return Err(too_large(json.max_size));
    }
    json.raw("]}");
    Ok(())
}

/// The error of a response that is over its bound.
pub(crate) fn too_large(max_size: u64) -> Error {
    Error::invalid_argument(format!(
        "the response is larger than the {max_size} bytes that --max-response-size allows; ask for fewer outputs, a smaller \
         batch or binary data, or raise it"
    ))
}

/// Appends a parameter's value.
pub(super) fn write_parameter(text: &mut Vec<u8>, value: &Parameter) {
    match value {
        Parameter::Bool(value) => text.extend_from_slice(if *value { b"true" } else { b"false" }),
        Parameter::Int64(value) => text.extend_from_slice(itoa::Buffer::new().format(*value).as_bytes()),
        Parameter::Double(value) => text.extend_from_slice(ryu::Buffer::new().format(*value).as_bytes()),
        Parameter::String(value) => numbers_out::write_string(text, value),
    }
}

/// JSON being written.
struct Json {
    text: Vec<u8>,
    max_size: u64,
}

impl Json {
    fn raw(&mut self, text: &str) {
        self.text.extend_from_slice(text.as_bytes());
    }

    /// `"name":"value",`
    fn member(&mut self, name: &str, value: &str) {
        self.string(name);
        self.text.push(b':');
        self.string(value);
        self.text.push(b',');
    }

    fn string(&mut self, value: &str) {
        numbers_out::write_string(&mut self.text, value);
    }

    fn parameters(&mut self, parameters: &Parameters) {
        self.raw("\"parameters\":{");
        for (position, (name, value)) in parameters.iter().enumerate() {
            if position > 0 {
                self.text.push(b',');
            }
            self.string(name);
            self.text.push(b':');
            write_parameter(&mut self.text, value);
        }
        self.raw("},");
    }

    fn check_size(&self, binary: u64) -> Result<()> {
        if self.text.len() as u64 + binary <= self.max_size { Ok(()) } else { Err(too_large(self.max_size)) }
    }
}
