//! Checks a request against a model's specification, in the words that Triton's clients know.

use std::collections::BTreeSet;

use crate::{Error, InferRequest, InputSpec, ModelSpec, NamedTensor, Result, Shape};

/// Checks names, types, shapes, batch sizes and requested outputs.
///
/// # Errors
/// InvalidArgument that names the input, what was got and what was expected.
pub fn check_request(spec: &ModelSpec, request: &InferRequest) -> Result<()> {
    check_inputs(spec, request).and_then(|()| check_outputs(spec, request)).map_err(|error| {
        let id = request.display_id();
        let message = format!("[request id: {id}] {}", error.message());
        Error::new(error.kind(), message).with_model(&*spec.name)
    })
}

fn check_inputs(spec: &ModelSpec, request: &InferRequest) -> Result<()> {
    let mut batch: Option<(&NamedTensor, i64)> = None;
    let mut seen = BTreeSet::new();
    for given in &request.inputs {
        let Some(declared) = spec.input(&given.name) else {
            let known: Vec<&str> = spec.inputs.iter().map(|input| &*input.name).collect();
            return Err(Error::invalid_argument(format!(
                "unexpected inference input '{}' for model '{}'; its inputs are {known:?}",
                given.name, spec.name
            )));
        };
        if !seen.insert(&*given.name) {
            return Err(Error::invalid_argument(format!(
                "input '{}' for model '{}' is given twice",
                given.name, spec.name
            )));
        }
        check_tensor(spec, declared, given)?;
        if spec.batches() {
            let size = given.tensor.shape()[0];
            match batch {
                Some((first, other)) if other != size => {
                    return Err(Error::invalid_argument(format!(
                        "input '{}' batch size does not match other inputs for '{}': {size} against {other} of '{}'",
                        given.name, spec.name, first.name
                    )));
                }
                _ => batch = Some((given, size)),
            }
        }
    }
    check_missing(spec, &seen)
}

fn check_missing(spec: &ModelSpec, seen: &BTreeSet<&str>) -> Result<()> {
    let missing: Vec<&str> =
        spec.inputs.iter().filter(|i| !i.optional && !seen.contains(&*i.name)).map(|i| &*i.name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let quote =
        |names: &mut dyn Iterator<Item = &str>| names.map(|name| format!("'{name}'")).collect::<Vec<_>>().join(",");
    Err(Error::invalid_argument(format!(
        "expected {} inputs but got {} inputs for model '{}'. Got input(s) [{}], but missing required input(s) [{}]. \
         Please provide all required input(s).",
        spec.inputs.len(),
        seen.len(),
        spec.name,
        quote(&mut seen.iter().copied()),
        quote(&mut missing.into_iter()),
    )))
}

fn check_tensor(spec: &ModelSpec, declared: &InputSpec, given: &NamedTensor) -> Result<()> {
    let (name, tensor) = (&given.name, &given.tensor);
    if tensor.datatype() != declared.datatype {
        return Err(Error::invalid_argument(format!(
            "inference input '{name}' data-type is '{}', but model '{}' expects '{}'",
            tensor.datatype(),
            spec.name,
            declared.datatype
        )));
    }
    let expected = spec.full_shape(&declared.dims);
    if !expected.admits(tensor.shape()) {
        return Err(unexpected_shape(spec, name, &expected, tensor.shape()));
    }
    let batch = if spec.batches() { tensor.shape()[0] } else { 1 };
    if spec.batches() && !(1..=i64::from(spec.max_batch_size)).contains(&batch) {
        return Err(Error::invalid_argument(format!(
            "inference request batch-size must be between 1 and {} for '{}', got {batch} in input '{name}'",
            spec.max_batch_size, spec.name
        )));
    }
    Ok(())
}

fn unexpected_shape(spec: &ModelSpec, name: &str, expected: &Shape, got: &Shape) -> Error {
    let note = if spec.batches() { ". NOTE: the first dimension is the batch" } else { "" };
    Error::invalid_argument(format!(
        "unexpected shape for input '{name}' for model '{}'. Expected {expected}, got {got}{note}",
        spec.name
    ))
}

fn check_outputs(spec: &ModelSpec, request: &InferRequest) -> Result<()> {
    match request.outputs.iter().find(|name| spec.output(name).is_none()) {
        Some(name) => Err(Error::invalid_argument(format!(
            "unexpected inference output '{name}' for model '{}'; its outputs are {:?}",
            spec.name,
            spec.outputs.iter().map(|output| &*output.name).collect::<Vec<_>>()
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DataType, OutputSpec, Tensor};

    fn spec(max_batch_size: u32) -> ModelSpec {
        let input = |name: &str, optional| InputSpec {
            name: name.into(),
            datatype: DataType::Fp32,
            dims: Shape::from([2]),
            reshape: None,
            optional,
        };
        let output = OutputSpec {
            name: "y".into(),
            datatype: DataType::Fp32,
            dims: Shape::from([2]),
            reshape: None,
            label_filename: None,
        };
        ModelSpec {
            max_batch_size,
            inputs: vec![input("a", false), input("b", false), input("c", true)],
            outputs: vec![output],
            ..ModelSpec::new("m", "identity")
        }
    }

    fn tensor(name: &str, dims: &[i64]) -> NamedTensor {
        let shape = Shape::new(dims);
        let count = shape.element_count().expect("small");
        NamedTensor::new(name, Tensor::from_vec(shape, vec![0f32; count]).expect("valid"))
    }

    fn check(max_batch_size: u32, inputs: Vec<NamedTensor>, outputs: &[&str]) -> String {
        let outputs = outputs.iter().map(|name| (*name).into()).collect();
        let request = InferRequest { inputs, outputs, ..InferRequest::default() };
        check_request(&spec(max_batch_size), &request).map_or_else(|error| error.to_string(), |()| "ok".to_owned())
    }

    #[test]
    fn accepts_what_fits_and_names_what_does_not() {
        let ok = || vec![tensor("a", &[3, 2]), tensor("b", &[3, 2])];
        let cases = [
            (check(4, ok(), &[]), "ok"),
            (check(4, ok(), &["y"]), "ok"),
            (check(4, ok(), &["z"]), "unexpected inference output 'z' for model 'm'"),
            (check(2, ok(), &[]), "batch-size must be between 1 and 2 for 'm', got 3"),
            (check(0, ok(), &[]), "unexpected shape for input 'a' for model 'm'. Expected [2], got [3,2]"),
            (
                check(4, vec![tensor("a", &[1, 2])], &[]),
                "expected 3 inputs but got 1 inputs for model 'm'. Got input(s) ['a'], but missing required input(s) ['b']",
            ),
            (check(4, vec![tensor("a", &[1, 2]), tensor("b", &[2, 2])], &[]), "batch size does not match"),
            (check(4, vec![tensor("q", &[1, 2])], &[]), "unexpected inference input 'q' for model 'm'"),
            (check(4, vec![tensor("a", &[1, 2]), tensor("a", &[1, 2])], &[]), "given twice"),
            (check(4, vec![tensor("a", &[1, 3])], &[]), "Expected [-1,2], got [1,3]"),
        ];
        for (got, expected) in cases {
            assert!(got.contains(expected), "{got}\nshould contain\n{expected}");
        }
    }
}
