//! Declared inputs and outputs.

use std::collections::BTreeSet;
use std::path::PathBuf;

use inference::{DataType, InputSpec, OutputSpec, Shape};
use protocol::model_config::{ModelConfig, ModelTensorReshape};

use super::{Findings, stays_inside};

/// The most inputs, and the most outputs, of a model: as many as a request may carry.
const MOST_TENSORS: usize = 4096;
/// The most dimensions of a tensor; NumPy's bound is 64.
const MOST_DIMS: usize = 64;

/// The inputs, in the configuration's order.
pub(super) fn inputs(config: &ModelConfig, findings: &mut Findings) -> Vec<InputSpec> {
    if !check_count("input", config.input.len(), findings) {
        return Vec::new();
    }
    let names = config.input.iter().map(|input| input.name.as_str());
    check_names("input", names, findings);
    let spec = |(index, input): (usize, &protocol::model_config::ModelInput)| {
        let path = format!("input[{index}]");
        let dims = dims(&path, &input.dims, findings);
        Some(InputSpec {
            name: input.name.as_str().into(),
            datatype: datatype(&path, input.data_type, findings)?,
            reshape: reshape(&path, &dims, input.reshape.as_ref(), findings),
            dims,
            optional: input.optional,
        })
    };
    config.input.iter().enumerate().filter_map(spec).collect()
}

/// The outputs, in the configuration's order.
pub(super) fn outputs(config: &ModelConfig, findings: &mut Findings) -> Vec<OutputSpec> {
    if !check_count("output", config.output.len(), findings) {
        return Vec::new();
    }
    let names = config.output.iter().map(|output| output.name.as_str());
    check_names("output", names, findings);
    let spec = |(index, output): (usize, &protocol::model_config::ModelOutput)| {
        let path = format!("output[{index}]");
        let dims = dims(&path, &output.dims, findings);
        Some(OutputSpec {
            name: output.name.as_str().into(),
            datatype: datatype(&path, output.data_type, findings)?,
            reshape: reshape(&path, &dims, output.reshape.as_ref(), findings),
            dims,
            label_filename: label_filename(&path, &output.label_filename, findings),
        })
    };
    config.output.iter().enumerate().filter_map(spec).collect()
}

/// Whether a list of tensors, such as the inputs, is not too long.
pub(super) fn check_count(list: &str, count: usize, findings: &mut Findings) -> bool {
    if count > MOST_TENSORS {
        let what = list.rsplit('.').next().unwrap_or(list);
        let message = format!("a model cannot have {count} {what}s; at most {MOST_TENSORS} are allowed");
        findings.add(format!("{list}[{MOST_TENSORS}]"), message);
    }
    count <= MOST_TENSORS
}

fn check_names<'a>(list: &str, names: impl Iterator<Item = &'a str>, findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    for (index, name) in names.enumerate() {
        if name.is_empty() {
            findings.add(format!("{list}[{index}].name"), format!("the name of this {list} is empty"));
        } else if !seen.insert(name) {
            findings.add(format!("{list}[{index}].name"), format!("there is another {list} called `{name}`"));
        }
    }
}

pub(super) fn datatype(path: &str, number: i32, findings: &mut Findings) -> Option<DataType> {
    let datatype = DataType::from_config_number(number);
    if datatype.is_none() {
        findings
            .add(format!("{path}.data_type"), "`data_type` must be a type that tensors can have, such as TYPE_FP32");
    }
    datatype
}

pub(super) fn dims(path: &str, dims: &[i64], findings: &mut Findings) -> Shape {
    check_dims(&format!("{path}.dims"), dims, findings);
    Shape::new(dims)
}

fn check_dims(path: &str, dims: &[i64], findings: &mut Findings) {
    if dims.len() > MOST_DIMS {
        let message = format!("a tensor cannot have {} dimensions; at most {MOST_DIMS} are allowed", dims.len());
        return findings.add(format!("{path}[{MOST_DIMS}]"), message);
    }
    for (index, dim) in dims.iter().enumerate() {
        if *dim != -1 && *dim < 1 {
            let message = format!("dimension {dim} is neither a size (1 or more) nor -1 for any size");
            findings.add(format!("{path}[{index}]"), message);
        }
    }
}

fn reshape(path: &str, dims: &Shape, given: Option<&ModelTensorReshape>, findings: &mut Findings) -> Option<Shape> {
    let shape = &given?.shape;
    let path = format!("{path}.reshape");
    check_dims(&format!("{path}.shape"), shape, findings);
    let reshape = Shape::new(shape);
    if let (Some(declared), Some(reshaped)) = (dims.element_count(), reshape.element_count())
        && declared != reshaped
    {
        let message = format!("{reshape} has {reshaped} elements, but `dims` {dims} has {declared}");
        findings.add(path, message);
    }
    Some(reshape)
}

fn label_filename(path: &str, name: &str, findings: &mut Findings) -> Option<PathBuf> {
    if name.is_empty() {
        return None;
    }
    if !stays_inside(name) {
        findings
            .add(format!("{path}.label_filename"), format!("\"{name}\" must be a path within the model's directory"));
    }
    Some(PathBuf::from(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protocol::model_config::ModelInput;

    use super::*;

    proptest! {
        #[test]
        fn dimensions_are_sizes_or_open(
            dims in proptest::collection::vec(-3i64..4, 0..5),
            shape in proptest::option::of(proptest::collection::vec(prop_oneof![-3i64..4, Just(i64::MAX)], 0..5)),
        ) {
            let reshape = shape.clone().map(|shape| ModelTensorReshape { shape });
            let input = ModelInput { name: "x".into(), data_type: 11, dims: dims.clone(), reshape, ..Default::default() };
            let mut findings = Findings::default();
            let inputs = inputs(&ModelConfig { input: vec![input], ..Default::default() }, &mut findings);
            prop_assert_eq!(inputs.len(), 1);
            let all = || dims.iter().chain(shape.iter().flatten());
            let bad = all().filter(|dim| **dim < -1 || **dim == 0).count();
            prop_assert!(findings.0.len() >= bad);
            prop_assert!(findings.0.len() <= bad + 1, "at most one more, for the count of elements");
            if bad == 0 && all().any(|dim| *dim == -1) {
                prop_assert!(findings.0.is_empty(), "open sizes may agree: {:?}", findings);
            }
        }
    }
}
