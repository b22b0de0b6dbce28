//! Fills in what a configuration leaves out, from the model's signature, as Triton's auto-complete does. Pure.

use inference::{DataType, Error, InputSpec, ModelSpec, OutputSpec, Result, SequenceBatching, Shape};

use crate::signature::{Port, PortKind, Signature};

/// The batch size of a model that can batch and whose configuration does not say (Triton's `default-max-batch-size`).
pub(crate) const DEFAULT_MAX_BATCH_SIZE: u32 = 4;

/// Whether anything is left out: like Triton, only a configuration without inputs or without outputs is completed.
pub(crate) fn is_needed(spec: &ModelSpec) -> bool {
    spec.inputs.is_empty() || spec.outputs.is_empty()
}

/// The specification with inputs, outputs and batch size filled in. What it says already stays; a list that names some
/// inputs or outputs is not added to.
///
/// # Errors
/// InvalidArgument when the file does not tell an input's rank; Unsupported when an input or output is no tensor of a
/// type that KServe has. Both name every such input and output.
pub(crate) fn complete(spec: &ModelSpec, signature: &Signature) -> Result<ModelSpec> {
    let mut spec = spec.clone();
    if !is_needed(&spec) {
        return Ok(spec);
    }
    if spec.max_batch_size == 0 && signature.can_batch() && !counts_the_batch(&spec, signature) {
        spec.max_batch_size = DEFAULT_MAX_BATCH_SIZE;
    }
    let mut problems = Problems::default();
    // What the server feeds and keeps by itself is no input or output of requests.
    let sequences = spec.sequence_batching.clone();
    let is_own = |of: fn(&SequenceBatching, &str) -> bool, port: &Port| {
        sequences.as_ref().is_some_and(|sequences| of(sequences, &port.name))
    };
    if spec.inputs.is_empty() {
        let inputs = signature.inputs.iter().filter(|port| !is_own(SequenceBatching::feeds, port));
        let known = inputs.filter_map(|port| problems.take("input", port, spec.batches()));
        spec.inputs = known.map(|tensor| tensor.into_input()).collect();
    }
    if spec.outputs.is_empty() {
        let outputs = signature.outputs.iter().filter(|port| !is_own(SequenceBatching::keeps, port));
        let known = outputs.filter_map(|port| problems.take("output", port, spec.batches()));
        spec.outputs = known.map(|tensor| tensor.into_output()).collect();
    }
    problems.into_result(&spec)?;
    Ok(spec)
}

/// Whether the part of the configuration that is there writes the batch dimension out, as one without batching does.
fn counts_the_batch(spec: &ModelSpec, signature: &Signature) -> bool {
    let same_rank = |port: Option<&Port>, dims: &Shape| match port.map(|port| &port.kind) {
        Some(PortKind::Tensor { shape: Some(shape), .. }) => shape.len() == dims.len(),
        _ => false,
    };
    let inputs = spec.inputs.iter().any(|i| same_rank(signature.input(&i.name), i.reshape.as_ref().unwrap_or(&i.dims)));
    inputs || spec.outputs.iter().any(|o| same_rank(signature.output(&o.name), o.reshape.as_ref().unwrap_or(&o.dims)))
}

/// A tensor as a configuration writes it.
struct Tensor {
    name: String,
    datatype: DataType,
    dims: Shape,
    reshape: Option<Shape>,
}

impl Tensor {
    fn into_input(self) -> InputSpec {
        let Tensor { name, datatype, dims, reshape } = self;
        InputSpec { name: name.into(), datatype, dims, reshape, optional: false }
    }

    fn into_output(self) -> OutputSpec {
        let Tensor { name, datatype, dims, reshape } = self;
        OutputSpec { name: name.into(), datatype, dims, reshape, label_filename: None }
    }
}

/// What the signature cannot tell, or KServe cannot carry.
#[derive(Default)]
struct Problems {
    unranked: Vec<String>,
    unsupported: Vec<String>,
}

impl Problems {
    fn take(&mut self, role: &str, port: &Port, batches: bool) -> Option<Tensor> {
        let name = port.name.clone();
        match &port.kind {
            PortKind::Other(kind) => {
                self.unsupported.push(format!("{role} '{name}' is {kind}"));
                None
            }
            PortKind::Tensor { shape: None, .. } if role == "input" => {
                self.unranked.push(format!("'{name}'"));
                None
            }
            // Nothing checks an output's shape before it is there.
            PortKind::Tensor { datatype, shape: None } => {
                Some(Tensor { name, datatype: *datatype, dims: Shape::from([-1]), reshape: None })
            }
            PortKind::Tensor { datatype, shape: Some(shape) } => {
                let inner = if batches { shape.without_batch() } else { shape.clone() };
                // A configuration has no empty dims; Triton offers a scalar as one element.
                let scalar = inner.is_empty();
                let dims = if scalar { Shape::from([1]) } else { inner };
                Some(Tensor { name, datatype: *datatype, dims, reshape: scalar.then(Shape::default) })
            }
        }
    }

    fn into_result(self, spec: &ModelSpec) -> Result<()> {
        let model = &spec.name;
        if !self.unsupported.is_empty() {
            return Err(Error::unsupported(format!(
                "model '{model}': {}; only tensors of KServe's types can be served: name the other outputs in \
                 config.pbtxt, or change the model",
                self.unsupported.join(", ")
            )));
        }
        if !self.unranked.is_empty() {
            return Err(Error::invalid_argument(format!(
                "model '{model}': the file does not say how many dimensions input {} has; give name, data_type and dims \
                 of every input in config.pbtxt",
                self.unranked.join(", ")
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "complete_tests.rs"]
mod tests;
