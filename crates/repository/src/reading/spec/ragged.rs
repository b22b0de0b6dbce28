//! `allow_ragged_batch`, `batch_input` and `batch_output`, and what of them contradicts the rest.

use std::collections::BTreeSet;

use inference::{BatchInput, BatchInputKind, BatchOutput, DataType, RaggedBatching, TensorName};
use protocol::model_config::batch_input::Kind;
use protocol::model_config::{
    BatchInput as GivenInput, BatchOutput as GivenOutput, ModelConfig, ModelInput, ModelOutput, ModelTensorReshape,
};

use super::Findings;
use super::tensors::check_count;

/// What the scheduler and the backend need of them.
pub(super) fn ragged(config: &ModelConfig, findings: &mut Findings) -> RaggedBatching {
    let counts = [("batch_input", config.batch_input.len()), ("batch_output", config.batch_output.len())];
    if !counts.map(|(list, count)| check_count(list, count, findings)).iter().all(|right| *right) {
        return RaggedBatching::default();
    }
    check_place(config, findings);
    let ragged = config.input.iter().filter(|input| input.allow_ragged_batch);
    let mut taken: BTreeSet<&str> = config.input.iter().map(|input| input.name.as_str()).collect();
    let mut scattered = BTreeSet::new();
    RaggedBatching {
        inputs: ragged.map(|input| input.name.as_str().into()).collect(),
        batch_inputs: config
            .batch_input
            .iter()
            .enumerate()
            .filter_map(|(index, given)| input(config, index, given, &mut taken, findings))
            .collect(),
        batch_outputs: config
            .batch_output
            .iter()
            .enumerate()
            .filter_map(|(index, given)| output(config, index, given, &mut scattered, findings))
            .collect(),
    }
}

/// They speak of batches, so there must be some; and of the model's own, which an ensemble has not.
fn check_place(config: &ModelConfig, findings: &mut Findings) {
    let ragged = config.input.iter().position(|input| input.allow_ragged_batch);
    let first = ragged.map(|index| format!("input[{index}].allow_ragged_batch"));
    let first = first.or_else(|| (!config.batch_input.is_empty()).then(|| "batch_input[0]".to_owned()));
    let first = first.or_else(|| (!config.batch_output.is_empty()).then(|| "batch_output[0]".to_owned()));
    let Some(path) = first else { return };
    if config.platform == "ensemble" {
        findings.add(path, "an ensemble forms no batches; say it of the model that runs as its step");
    } else if config.max_batch_size < 1 {
        findings.add(path, "the model has no batches; set `max_batch_size`");
    }
}

fn input<'a>(
    config: &ModelConfig,
    index: usize,
    given: &'a GivenInput,
    taken: &mut BTreeSet<&'a str>,
    findings: &mut Findings,
) -> Option<BatchInput> {
    let path = format!("batch_input[{index}]");
    for (index, name) in given.target_name.iter().enumerate() {
        if name.is_empty() || !taken.insert(name) {
            let message = format!("`{name}` must be an input of the model that is named nowhere else");
            findings.add(format!("{path}.target_name[{index}]"), message);
        }
    }
    let datatype = DataType::from_config_number(given.data_type)
        .filter(|datatype| matches!(datatype, DataType::Int32 | DataType::Fp32));
    if datatype.is_none() {
        findings.add(format!("{path}.data_type"), "`data_type` of a batch input must be TYPE_INT32 or TYPE_FP32");
    }
    let kind = kind(given.kind);
    if kind.is_none() {
        findings.add(format!("{path}.kind"), format!("{} is no kind of batch input", given.kind));
    }
    let source = source(config, &path, &given.source_input, findings);
    let targets = targets(&path, &given.target_name, findings);
    Some(BatchInput { kind: kind?, targets: targets?, datatype: datatype?, source: source?.name.as_str().into() })
}

fn kind(number: i32) -> Option<BatchInputKind> {
    Some(match Kind::try_from(number).ok()? {
        Kind::BatchElementCount => BatchInputKind::ElementCount,
        Kind::BatchAccumulatedElementCount => BatchInputKind::AccumulatedElementCount,
        Kind::BatchAccumulatedElementCountWithZero => BatchInputKind::AccumulatedElementCountWithZero,
        Kind::BatchMaxElementCountAsShape => BatchInputKind::MaxElementCountAsShape,
        Kind::BatchItemShape => BatchInputKind::ItemShape,
        Kind::BatchItemShapeFlatten => BatchInputKind::ItemShapeFlatten,
    })
}

fn output<'a>(
    config: &ModelConfig,
    index: usize,
    given: &'a GivenOutput,
    scattered: &mut BTreeSet<&'a str>,
    findings: &mut Findings,
) -> Option<BatchOutput> {
    let path = format!("batch_output[{index}]");
    let source = source(config, &path, &given.source_input, findings);
    for (index, name) in given.target_name.iter().enumerate() {
        let path = format!("{path}.target_name[{index}]");
        // Where the outputs are left to the model's file, that is asked later.
        let declared = config.output.iter().find(|output| output.name == *name);
        if !config.output.is_empty() && declared.is_none() {
            findings.add(path, format!("`{name}` is no output of the model"));
        } else if !scattered.insert(name) {
            findings.add(path, format!("`{name}` is split by another batch output already"));
        } else if let (Some(output), Some(source)) = (declared, source) {
            check_open_dimensions(path, output, source, findings);
        }
    }
    let targets = targets(&path, &given.target_name, findings);
    Some(BatchOutput { targets: targets?, source: source?.name.as_str().into() })
}

/// An open dimension of the output is the source's at the same place, so there must be one.
fn check_open_dimensions(path: String, output: &ModelOutput, source: &ModelInput, findings: &mut Findings) {
    let dims = |dims: &[i64], reshape: &Option<ModelTensorReshape>| match reshape {
        Some(reshape) => reshape.shape.clone(),
        None => dims.to_vec(),
    };
    let (open, known) = (dims(&output.dims, &output.reshape), dims(&source.dims, &source.reshape).len());
    if let Some(index) = open.iter().rposition(|dim| *dim == -1).filter(|index| *index >= known) {
        let (output, source) = (&output.name, &source.name);
        findings
            .add(path, format!("dimension {index} of `{output}` is open, and its source `{source}` has only {known}"));
    }
}

/// The names, of which there must be one.
fn targets(path: &str, given: &[String], findings: &mut Findings) -> Option<Vec<TensorName>> {
    if given.is_empty() {
        findings.add(path, "`target_name` is missing: name the model's tensor");
        return None;
    }
    Some(given.iter().map(|name| name.as_str().into()).collect())
}

/// The one input that every request has, and that this is about.
fn source<'a>(
    config: &'a ModelConfig,
    path: &str,
    given: &[String],
    findings: &mut Findings,
) -> Option<&'a ModelInput> {
    let [name] = given else {
        findings.add(path, format!("expects 1 source input, got {}", given.len()));
        return None;
    };
    let path = format!("{path}.source_input[0]");
    let source = config.input.iter().find(|input| input.name == *name);
    match source {
        None => findings.add(path, format!("unknown source input name `{name}`; it must be in `input`")),
        Some(input) if input.optional => {
            findings.add(path, format!("source input `{name}` must not be optional, as each request needs it"));
        }
        Some(_) => {}
    }
    source
}
