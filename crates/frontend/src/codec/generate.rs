//! Triton's `generate` extension: a flat JSON object whose members are tensors by their names, or parameters; and an answer
//! of the same kind.

use std::collections::BTreeMap;

use inference::{Error, InferResponse, InputSpec, ModelSpec, NamedTensor, Result, Shape, Tensor};

use super::cursor::Cursor;
use super::request::{WireRequest, add_parameter};
use super::{data, numbers_out, response};

/// Reads a `generate` request to a model of this specification.
///
/// # Errors
/// InvalidArgument that names the member, the place, and what was expected.
pub(crate) fn parse(text: &[u8], spec: &ModelSpec, max_depth: usize) -> Result<WireRequest> {
    let mut cursor = Cursor::new(text, max_depth);
    let mut request = WireRequest::default();
    members(&mut cursor, spec, &mut request, true)?;
    if cursor.peek().is_some() {
        return Err(cursor.expected("the end of the JSON"));
    }
    Ok(request)
}

/// Reads an object's members; what the outermost object may hold, its `parameters` may hold too.
fn members(cursor: &mut Cursor<'_>, spec: &ModelSpec, request: &mut WireRequest, outermost: bool) -> Result<()> {
    let what = if outermost { "the request as a JSON object" } else { "'parameters' as an object" };
    cursor.object(what, |cursor, key| {
        if let Some(input) = spec.input(key) {
            if request.inputs.iter().any(|given| given.name == input.name) {
                return Err(cursor.fault(&format!("input '{key}' is given twice")));
            }
            let tensor = tensor(cursor, spec, input).map_err(|error| error.context(format!("input '{key}'")))?;
            request.inputs.push(NamedTensor::new(input.name.clone(), tensor));
            return Ok(());
        }
        match key {
            "id" if outermost => request.id = cursor.string("'id' as a string")?.into_owned(),
            "parameters" if outermost => members(cursor, spec, request, false)?,
            _ => other(cursor, key, request)?,
        }
        Ok(())
    })
}

/// Reads a member that is no input as a parameter.
fn other(cursor: &mut Cursor<'_>, key: &str, request: &mut WireRequest) -> Result<()> {
    if matches!(cursor.peek(), Some(b'[' | b'{' | b'n')) {
        return Err(cursor.fault(&format!(
            "parameter '{key}' has invalid type. It should be either 'int', 'bool', 'double', or 'string'; and the model has no \
             input of this name"
        )));
    }
    add_parameter(cursor, key, &mut request.parameters)
}

/// Reads one value, or a list, flat or nested, as an input.
fn tensor(cursor: &mut Cursor<'_>, spec: &ModelSpec, input: &InputSpec) -> Result<Tensor> {
    let (start, begin) = (cursor.mark(), cursor.rest());
    let mut lengths = Lengths::default();
    let elements = lengths.count(cursor, 0)?;
    let Some(shape) = shape(spec, input, elements, &lengths.0) else {
        return Err(cursor.fault(&format!(
            "{elements} elements do not fill the shape {} that model '{}' expects",
            spec.full_shape(&input.dims),
            spec.name
        )));
    };
    if lengths.0.is_empty() {
        // A list of the one value.
        let value = &begin[..begin.len() - cursor.rest().len()];
        let list = [b"[", value, b"]"].concat();
        return data::read(&mut Cursor::new(&list, usize::MAX), input.datatype, &shape);
    }
    data::read(&mut cursor.back_at(start), input.datatype, &shape)
}

/// How long the lists at each depth are, as the first at each depth says; empty for a value that is no list.
#[derive(Default)]
struct Lengths(Vec<usize>);

impl Lengths {
    /// Counts the elements at the cursor and goes past them.
    fn count(&mut self, cursor: &mut Cursor<'_>, depth: usize) -> Result<usize> {
        if cursor.peek() != Some(b'[') {
            return cursor.skip().map(|()| 1);
        }
        let (mut elements, mut length) = (0, 0);
        if self.0.len() == depth {
            self.0.push(0);
        }
        cursor.array("a list", |cursor, position| {
            elements += self.count(cursor, depth + 1)?;
            length = position + 1;
            Ok(())
        })?;
        self.0[depth] = self.0[depth].max(length);
        Ok(elements)
    }
}

/// The shape that so many elements fill: that of the lists where they are nested as deep as the model's input, with or
/// without its batch dimension; otherwise, as in Triton, fixed dimensions take theirs, the last open one the rest, and the
/// others 1.
fn shape(spec: &ModelSpec, input: &InputSpec, elements: usize, lengths: &[usize]) -> Option<Shape> {
    let full = spec.full_shape(&input.dims);
    let nested: Shape = lengths.iter().map(|length| *length as i64).collect();
    if lengths.len() > 1 {
        if full.admits(&nested) {
            return Some(nested);
        }
        if spec.batches() && input.dims.admits(&nested) {
            return Some(nested.with_batch(1));
        }
    }
    let fixed = full.iter().filter(|dim| **dim != -1).try_fold(1i64, |product, dim| product.checked_mul(*dim))?;
    let elements = i64::try_from(elements).ok()?;
    let mut rest = match fixed {
        0 => (elements == 0).then_some(1)?,
        _ => (elements % fixed == 0).then_some(elements / fixed)?,
    };
    let mut dims = full.to_vec();
    dims.iter_mut().rev().filter(|dim| **dim == -1).for_each(|dim| *dim = std::mem::replace(&mut rest, 1));
    (rest == 1).then(|| Shape::from(dims))
}

/// Writes a response: outputs by their names (one element plain, more as a flat list), the model, the response's parameters
/// and the request's id, sorted by name as Triton has them.
///
/// # Errors
/// InvalidArgument when the text would be larger than `max_size` bytes, or when a BYTES output is not UTF-8.
pub(crate) fn encode(response: &InferResponse, id: &str, model_name: &str, max_size: u64) -> Result<Vec<u8>> {
    let string = |value: &str| {
        let mut text = Vec::new();
        numbers_out::write_string(&mut text, value);
        text
    };
    let mut members: BTreeMap<&str, Vec<u8>> = BTreeMap::from([("model_name", string(model_name))]);
    if let Some(model) = &response.model {
        members.insert("model_version", string(&model.version.to_string()));
    }
    if !id.is_empty() {
        members.insert("id", string(id));
    }
    for (name, value) in &response.parameters {
        let mut text = Vec::new();
        response::write_parameter(&mut text, value);
        members.insert(name, text);
    }
    let mut left = usize::try_from(max_size).unwrap_or(usize::MAX);
    for output in &response.outputs {
        let text = value(&output.tensor, left).map_err(|error| error.context(format!("output '{}'", output.name)))?;
        left =
            text.as_ref().and_then(|text| left.checked_sub(text.len())).ok_or_else(|| response::too_large(max_size))?;
        members.insert(&output.name, text.unwrap_or_default());
    }
    let mut text = Vec::with_capacity(members.iter().map(|(name, value)| name.len() + value.len() + 8).sum());
    for (name, value) in members {
        text.push(if text.is_empty() { b'{' } else { b',' });
        numbers_out::write_string(&mut text, name);
        text.push(b':');
        text.extend(value);
    }
    text.push(b'}');
    if text.len() as u64 > max_size { Err(response::too_large(max_size)) } else { Ok(text) }
}

/// A tensor's elements; `None` when they take more than `limit` bytes.
fn value(tensor: &Tensor, limit: usize) -> Result<Option<Vec<u8>>> {
    let mut text = vec![b'['];
    if !numbers_out::write(&mut text, tensor, limit)? {
        return Ok(None);
    }
    if tensor.element_count() == 1 {
        text.remove(0);
    } else {
        text.push(b']');
    }
    Ok(Some(text))
}

/// The error of a model that was asked through `generate` and answered any number of times but once.
pub(crate) fn not_one_response() -> Error {
    Error::unsupported(
        "generate expects model to produce exactly 1 response, use generate stream for model that generates various number \
         of responses",
    )
}

#[cfg(test)]
mod tests {
    use inference::{DataType, OutputSpec, Parameter};

    use super::*;

    fn spec(max_batch_size: u32, inputs: &[(&str, DataType, &[i64])]) -> ModelSpec {
        let inputs = inputs.iter().map(|(name, datatype, dims)| InputSpec {
            name: (*name).into(),
            datatype: *datatype,
            dims: Shape::new(dims),
            reshape: None,
            optional: false,
        });
        ModelSpec {
            max_batch_size,
            inputs: inputs.collect(),
            outputs: Vec::<OutputSpec>::new(),
            ..ModelSpec::new("m", "b")
        }
    }

    #[test]
    fn shapes_are_found() {
        // batch, dims, value, shape (none: refused)
        type Case = (u32, &'static [i64], &'static str, Option<&'static [i64]>);
        let cases: [Case; 17] = [
            (0, &[1], "3", Some(&[1])),
            (0, &[], "3", Some(&[])),
            (0, &[-1], "[1,2,3]", Some(&[3])),
            (0, &[-1], "[]", Some(&[0])),
            (0, &[2, -1], "[1,2,3,4]", Some(&[2, 2])),
            (0, &[-1, -1], "[1,2]", Some(&[1, 2])),
            (0, &[-1, -1], "[[1,2],[3,4]]", Some(&[2, 2])),
            (0, &[2], "[1,2,3]", None),
            (0, &[2], "1", None),
            (8, &[1], "3", Some(&[1, 1])),
            (8, &[1], "[1,2]", Some(&[2, 1])),
            (8, &[-1], "[1,2]", Some(&[1, 2])),
            (8, &[-1], "[[1],[2]]", Some(&[2, 1])),
            (8, &[2, 2], "[[1,2],[3,4]]", Some(&[1, 2, 2])),
            (8, &[2, 2], "[1,2,3,4]", Some(&[1, 2, 2])),
            (0, &[-1, -1], "[[1,2],[3]]", None),
            (0, &[4], "[1,[2],3,4]", None),
        ];
        for (batch, dims, value, expected) in cases {
            let spec = spec(batch, &[("x", DataType::Int32, dims)]);
            let parsed = parse(format!(r#"{{"x":{value}}}"#).as_bytes(), &spec, 10);
            let shape = parsed.as_ref().ok().map(|request| request.inputs[0].tensor.shape().clone());
            assert_eq!(shape, expected.map(Shape::new), "{batch} {dims:?} {value}: {parsed:?}");
        }
    }

    #[test]
    fn members_are_inputs_or_parameters_wherever_they_stand() {
        let spec =
            spec(0, &[("text", DataType::Bytes, &[1]), ("on", DataType::Bool, &[1]), ("f", DataType::Fp32, &[-1])]);
        let text = r#"{"text":"a\"\u00e9","parameters":{"on":true,"top_k":5,"timeout":7},"id":"r1","x":0.5,"f":[1,2]}"#;
        let request = parse(text.as_bytes(), &spec, 10).expect("valid");
        let names: Vec<&str> = request.inputs.iter().map(|input| &*input.name).collect();
        assert_eq!((request.id.as_str(), &names[..]), ("r1", &["text", "on", "f"][..]));
        let strings: Vec<&[u8]> = request.inputs[0].tensor.strings().expect("BYTES").collect();
        assert_eq!(strings, ["a\"é".as_bytes()]);
        let expected =
            [("top_k", Parameter::Int64(5)), ("timeout", Parameter::Int64(7)), ("x", Parameter::Double(0.5))];
        assert_eq!(request.parameters, expected.map(|(name, value)| (name.to_owned(), value)).into());
        for (text, error) in [
            ("[]", "expected the request as a JSON object"),
            (r#"{"text":3}"#, "input 'text': expected a string (BYTES)"),
            (r#"{"text":"a","parameters":{"text":"b"}}"#, "input 'text' is given twice"),
            (
                r#"{"y":[1]}"#,
                "parameter 'y' has invalid type. It should be either 'int', 'bool', 'double', or 'string'",
            ),
            (r#"{"timeout":"x"}"#, "invalid value type for 'timeout' parameter"),
            (r#"{} {}"#, "expected the end of the JSON"),
            (r#"{"f":[[[[[[[[[[[1]]]]]]]]]]]}"#, "deeper than the limit of 10"),
        ] {
            let found = parse(text.as_bytes(), &spec, 10).expect_err(text);
            assert!(found.message().contains(error), "{text}: {found}");
        }
    }

    #[test]
    fn answers_are_flat_and_sorted() {
        let numbers = Tensor::from_vec(Shape::from([2]), vec![1.0f32, 2.5]).expect("valid");
        let text = Tensor::from_strings(Shape::from([1, 1]), &["a\n"]).expect("valid");
        let none = Tensor::from_vec(Shape::from([0]), Vec::<i32>::new()).expect("valid");
        let outputs = [("OUT", numbers), ("text", text), ("none", none)];
        let mut response = InferResponse::new(outputs.map(|(name, tensor)| NamedTensor::new(name, tensor)).into());
        response.parameters.insert("last".to_owned(), Parameter::Bool(true));
        let expected = r#"{"OUT":[1.0,2.5],"id":"7","last":true,"model_name":"m","none":[],"text":"a\n"}"#;
        let size = expected.len() as u64;
        assert_eq!(encode(&response, "7", "m", size).expect("fits"), expected.as_bytes());
        for limit in [size - 1, 10, 0] {
            let error = encode(&response, "7", "m", limit).expect_err("too large");
            assert!(error.message().contains("--max-response-size"), "{error}");
        }
    }
}
