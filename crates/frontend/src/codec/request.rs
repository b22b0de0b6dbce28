//! Reads the body of an inference request (KServe v2 "Inference Request JSON Object", with Triton's extensions).

use std::collections::HashSet;
use std::time::Instant;

use bytes::Bytes;
use inference::{
    DataType, Error, InferRequest, ModelKey, NamedTensor, Parameter, Parameters, Result, SequencePlace, Shape, Tensor,
    TensorName,
};

use super::cursor::Cursor;
use super::framing::Layout;
use super::input::{self, Pending};
use super::number;
use crate::shared_memory::{self, Place, PlaceParts, SharedInput};

/// The most inputs, outputs and parameters, of each, that one request may have: more than models have, and few enough for
/// looking them up by name to stay cheap.
pub(super) const MAX_TENSORS: usize = 4096;

/// An inference request as the wire has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct WireRequest {
    pub(crate) id: String,
    pub(crate) inputs: Vec<NamedTensor>,
    /// Inputs that lie in shared memory, and are still to be read.
    pub(crate) shared_inputs: Vec<SharedInput>,
    pub(crate) outputs: Vec<OutputChoice>,
    pub(crate) parameters: Parameters,
    /// `binary_data_output`: outputs that do not say themselves are binary.
    pub(crate) binary_output: Option<bool>,
}

impl WireRequest {
    /// The request for a model, not traced yet. Takes the inputs, once those in shared memory are among them, and the
    /// parameters; the rest is still needed to write answers.
    pub(crate) fn take_request(&mut self, model: ModelKey, deadline: Option<Instant>) -> InferRequest {
        InferRequest {
            model,
            id: self.id.clone(),
            inputs: std::mem::take(&mut self.inputs),
            outputs: self.outputs.iter().map(|output| output.name.clone()).collect(),
            parameters: std::mem::take(&mut self.parameters),
            deadline,
            load_deadline: None,
            trace: None,
        }
    }
}

/// A requested output.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OutputChoice {
    pub(crate) name: TensorName,
    /// `binary_data`.
    pub(crate) binary: Option<bool>,
    /// `classification`: the best so many classes instead of the tensor.
    pub(crate) classes: Option<usize>,
    /// Where in shared memory it is to be written, instead of into the answer.
    pub(crate) place: Option<Place>,
}

/// Reads a request whose body is laid out as `layout` says; a raw one needs [`raw_input`] instead.
///
/// # Errors
/// InvalidArgument that names the input, the place, and what was expected.
pub(crate) fn parse(body: &Bytes, layout: Layout, max_depth: usize) -> Result<WireRequest> {
    let json_length = match layout {
        Layout::Binary(length) => length,
        Layout::Json | Layout::Raw => body.len(),
    };
    let Some(json) = body.get(..json_length) else {
        return Err(Error::invalid_argument(format!(
            "the head announces {json_length} bytes of JSON, but the body has only {}",
            body.len()
        )));
    };
    let mut cursor = Cursor::new(json, max_depth);
    let mut request = WireRequest::default();
    let pending = request_object(&mut cursor, &mut request)?;
    if cursor.peek().is_some() {
        return Err(cursor.expected("the end of the JSON"));
    }
    let Some(pending) = pending else {
        return Err(Error::invalid_argument(
            "unable to parse 'inputs': the request's JSON has no member 'inputs'; expected an array of tensors",
        ));
    };
    (request.inputs, request.shared_inputs) = input::attach(pending, body.slice(json_length..))?;
    Ok(request)
}

fn request_object(cursor: &mut Cursor<'_>, request: &mut WireRequest) -> Result<Option<Vec<Pending>>> {
    let mut pending = None;
    cursor.object("the request as a JSON object", |cursor, key| {
        match key {
            "id" => request.id = cursor.string("'id' as a string")?.into_owned(),
            "inputs" => pending = Some(input::read_all(cursor)?),
            "outputs" => request.outputs = outputs(cursor)?,
            "parameters" => parameters(cursor, request)?,
            _ => cursor.skip()?,
        }
        Ok(())
    })?;
    Ok(pending)
}

fn parameters(cursor: &mut Cursor<'_>, request: &mut WireRequest) -> Result<()> {
    cursor.object("'parameters' as an object", |cursor, key| {
        match key {
            "binary_data_output" => request.binary_output = Some(flag(cursor, key)?),
            _ => add_parameter(cursor, key, &mut request.parameters)?,
        }
        Ok(())
    })
}

/// Reads the value of the parameter called `name`, and adds it to those that there are.
///
/// # Errors
/// InvalidArgument for what is no parameter, and for one too many: beside their text they take memory of their own.
pub(super) fn add_parameter(cursor: &mut Cursor<'_>, name: &str, parameters: &mut Parameters) -> Result<()> {
    check_count(cursor, "parameters", parameters.len())?;
    let value = parameter(cursor, name).map_err(|error| error.context(format!("parameter '{name}'")))?;
    check_timeout(name, &value).map_err(|message| cursor.fault(&message))?;
    parameters.insert(name.to_owned(), value);
    Ok(())
}

/// A request's `timeout` is how many microseconds it may wait in its model's queue, where the model's queue policy lets it
/// say so: Triton's meaning, for which no front end counts time.
///
/// # Errors
/// Triton's text when it is no such number.
pub(crate) fn check_timeout(name: &str, value: &Parameter) -> std::result::Result<(), String> {
    match value {
        _ if name != "timeout" => Ok(()),
        Parameter::Int64(0..) => Ok(()),
        Parameter::Int64(value) => {
            Err(format!("invalid value for 'timeout' parameter: it is {value}; expected microseconds, 0 or more"))
        }
        _ => Err("invalid value type for 'timeout' parameter, expected int64_param".to_owned()),
    }
}

/// Reads the value of the parameter called `name`.
fn parameter(cursor: &mut Cursor<'_>, name: &str) -> Result<Parameter> {
    match cursor.peek() {
        Some(b'"') => Ok(Parameter::String(cursor.string("a string")?.into_owned())),
        Some(b't' | b'f') => Ok(Parameter::Bool(cursor.boolean()?)),
        Some(b'-' | b'0'..=b'9') => {
            let end = cursor.rest().iter().position(|byte| !b"+-0123456789".contains(byte));
            let fractional = end.is_some_and(|end| matches!(cursor.rest()[end], b'.' | b'e' | b'E'));
            if fractional {
                return cursor.float().map(Parameter::Double);
            }
            // No error is made before it is known that there is one: telling where it is reads all of the text before it.
            let unsigned = number::integer::<u64>(cursor.rest());
            match unsigned.and_then(|(number, length)| Some((SequencePlace::unsigned(name, number)?, length))) {
                Some((value, length)) => {
                    cursor.advance(length);
                    Ok(value)
                }
                None => cursor.integer().map(Parameter::Int64),
            }
        }
        _ => Err(cursor.expected("a string, a number, true or false")),
    }
}

fn outputs(cursor: &mut Cursor<'_>) -> Result<Vec<OutputChoice>> {
    let mut outputs: Vec<OutputChoice> = Vec::new();
    let mut seen = HashSet::new();
    cursor.array("'outputs' as an array", |cursor, position| {
        check_count(cursor, "outputs", position)?;
        let output = output(cursor).map_err(|error| error.context(format!("outputs[{position}]")))?;
        if !seen.insert(output.name.clone()) {
            return Err(cursor.fault(&format!("output '{}' is requested twice", output.name)));
        }
        outputs.push(output);
        Ok(())
    })?;
    Ok(outputs)
}

/// Refuses the tensor or parameter at `position` when it is one too many.
pub(super) fn check_count(cursor: &Cursor<'_>, what: &str, position: usize) -> Result<()> {
    if position < MAX_TENSORS {
        return Ok(());
    }
    Err(cursor.fault(&format!("the request has more than the {MAX_TENSORS} {what} that one request may have")))
}

fn output(cursor: &mut Cursor<'_>) -> Result<OutputChoice> {
    let mut name = None;
    let (mut binary, mut classes, mut place) = (None, None, PlaceParts::default());
    cursor.object("an output as an object", |cursor, key| match key {
        "name" => {
            name = Some(TensorName::from(&*cursor.string("'name' as a string")?));
            Ok(())
        }
        "parameters" => cursor.object("'parameters' as an object", |cursor, key| {
            match key {
                "binary_data" => binary = Some(flag(cursor, key)?),
                "classification" => classes = usize::try_from(count(cursor, key)?).ok().filter(|classes| *classes > 0),
                _ => placed(cursor, key, &mut place)?,
            }
            Ok(())
        }),
        _ => cursor.skip(),
    })?;
    let name = name.ok_or_else(|| cursor.fault("an output has no member 'name'"))?;
    let place = place.place(&name)?;
    check_classes(classes, place.as_ref())?;
    Ok(OutputChoice { name, binary, classes, place })
}

/// Classes have no size that a client could know beforehand.
///
/// # Errors
/// InvalidArgument, in the words of Triton's clients.
pub(crate) fn check_classes(classes: Option<usize>, place: Option<&Place>) -> Result<()> {
    if classes.is_some() && place.is_some() {
        return Err(Error::invalid_argument("shared memory can't be set on classification output"));
    }
    Ok(())
}

/// Reads a parameter of a tensor that may lie in shared memory.
pub(super) fn placed(cursor: &mut Cursor<'_>, key: &str, place: &mut PlaceParts) -> Result<()> {
    match key {
        shared_memory::REGION => place.region = Some(cursor.string("the name of a region as a string")?.into_owned()),
        shared_memory::OFFSET => place.offset = Some(count(cursor, key)?),
        shared_memory::BYTE_SIZE => place.byte_size = Some(count(cursor, key)?),
        _ => cursor.skip()?,
    }
    Ok(())
}

/// Reads a boolean parameter; Triton's clients also write 0 and 1.
pub(super) fn flag(cursor: &mut Cursor<'_>, name: &str) -> Result<bool> {
    let value = match cursor.peek() {
        Some(b'0' | b'1') => cursor.integer().map(|value: i64| value != 0),
        _ => cursor.boolean(),
    };
    value.map_err(|error| error.context(format!("parameter '{name}'")))
}

/// Reads a parameter that counts something.
pub(super) fn count(cursor: &mut Cursor<'_>, name: &str) -> Result<u64> {
    let value: i64 = cursor.integer().map_err(|error| error.context(format!("parameter '{name}'")))?;
    u64::try_from(value).map_err(|_| cursor.fault(&format!("parameter '{name}' is {value}; expected 0 or more")))
}

/// The one input of a raw binary request, whose body is its data: at most one dimension may be open, and takes what fits.
///
/// # Errors
/// InvalidArgument when the body cannot be this input.
pub(crate) fn raw_input(name: &TensorName, datatype: DataType, shape: &Shape, body: Bytes) -> Result<NamedTensor> {
    let open = shape.iter().filter(|dim| **dim == -1).count();
    let (elements, data) = match datatype.size() {
        Some(size) => (body.len() / size, body),
        // A raw BYTES input is one element without its length.
        None => (1, inference::encode_bytes_elements([&body[..]])),
    };
    let fixed = shape.iter().filter(|dim| **dim != -1).fold(1i64, |product, dim| product.saturating_mul(*dim));
    // The batch dimension comes first, and is the one that is 1 when another is open too.
    let leading_one = open == 2 && shape.first() == Some(&-1);
    if open > 1 && !leading_one {
        return Err(Error::invalid_argument(format!(
            "raw binary request: input '{name}' has shape {shape} with {open} open dimensions, so that the body's length \
             does not tell its shape; send a JSON header"
        )));
    }
    let fill = if fixed > 0 { elements as i64 / fixed } else { 0 };
    let mut skip_first = leading_one;
    let filled: Shape = shape
        .iter()
        .map(|dim| match dim {
            -1 if std::mem::take(&mut skip_first) => 1,
            -1 => fill,
            dim => *dim,
        })
        .collect();
    let tensor = Tensor::new(datatype, filled, data)
        .map_err(|error| error.context(format!("raw binary request: input '{name}'")))?;
    Ok(NamedTensor::new(name.clone(), tensor))
}
