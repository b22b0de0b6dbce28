//! Checks a complete configuration against the model's signature, and reports every contradiction at once. Pure.

use inference::{BatchInputKind, DataType, Error, ErrorKind, ModelSpec, Result, Shape};

use crate::signature::{Port, PortKind, Signature};

/// Checks names, types and shapes of everything that the configuration declares, and that it leaves no input out which
/// the model needs. Outputs that the configuration does not declare do not matter.
///
/// # Errors
/// InvalidArgument that lists every contradiction; Unsupported when the only trouble is that declared inputs or outputs
/// are no tensors of KServe's types.
pub(crate) fn verify(spec: &ModelSpec, signature: &Signature) -> Result<()> {
    let mut problems = Vec::new();
    for input in &spec.inputs {
        let declared = Declared { role: "input", name: &input.name, datatype: input.datatype };
        let port = signature.input(&input.name);
        if spec.ragged.is_ragged(&input.name) {
            problems.extend(declared.contradiction_of_made(port, 1, &signature.inputs));
            continue;
        }
        problems.extend(declared.contradiction(spec, port, &input.dims, input.reshape.as_ref(), &signature.inputs));
    }
    for made in &spec.ragged.batch_inputs {
        let rank = if made.kind == BatchInputKind::ItemShape { 2 } else { 1 };
        for name in &made.targets {
            let declared = Declared { role: "input", name, datatype: made.datatype };
            problems.extend(declared.contradiction_of_made(signature.input(name), rank, &signature.inputs));
        }
    }
    for output in &spec.outputs {
        let declared = Declared { role: "output", name: &output.name, datatype: output.datatype };
        let port = signature.output(&output.name);
        if spec.ragged.scattered_by(&output.name).is_some() {
            // Its elements are what counts.
            problems.extend(declared.contradiction_of_type(port, &signature.outputs));
            continue;
        }
        problems.extend(declared.contradiction(spec, port, &output.dims, output.reshape.as_ref(), &signature.outputs));
    }
    let is_given = |name: &str| spec.input(name).is_some() || spec.ragged.batch_input(name).is_some();
    for port in signature.inputs.iter().filter(|port| !is_given(&port.name)) {
        problems.push((
            ErrorKind::InvalidArgument,
            format!("the model needs an input '{}', which the configuration does not declare", port.name),
        ));
    }
    into_result(spec, &problems)
}

type Problem = (ErrorKind, String);

fn into_result(spec: &ModelSpec, problems: &[Problem]) -> Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    let all_unsupported = problems.iter().all(|(kind, _)| *kind == ErrorKind::Unsupported);
    let kind = if all_unsupported { ErrorKind::Unsupported } else { ErrorKind::InvalidArgument };
    let list: Vec<&str> = problems.iter().map(|(_, text)| text.as_str()).collect();
    let message = format!("model '{}': the configuration contradicts the model file: {}", spec.name, list.join("; "));
    Err(Error::new(kind, message).with_model(&*spec.name))
}

/// An input or output as the configuration has it.
struct Declared<'a> {
    role: &'a str,
    name: &'a str,
    datatype: DataType,
}

impl Declared<'_> {
    fn contradiction(
        &self,
        spec: &ModelSpec,
        port: Option<&Port>,
        dims: &Shape,
        reshape: Option<&Shape>,
        known: &[Port],
    ) -> Option<Problem> {
        let Declared { role, name, .. } = self;
        let invalid = |text: String| Some((ErrorKind::InvalidArgument, text));
        if let Some(problem) = self.contradiction_of_type(port, known) {
            return Some(problem);
        }
        match port.map(|port| &port.kind) {
            Some(PortKind::Tensor { shape: Some(actual), .. }) => {
                let shape = spec.full_shape(reshape.unwrap_or(dims));
                if spec.batches() && actual.first() != Some(&-1) {
                    return invalid(format!(
                        "max_batch_size is {}, but the first dimension of {role} '{name}' is not -1: its shape is \
                         {actual} (set max_batch_size to 0)",
                        spec.max_batch_size
                    ));
                }
                let note = if spec.batches() { ", with the batch dimension," } else { "" };
                (!shape.is_compatible_with(actual)).then(|| {
                    let text = format!("{role} '{name}' is configured as {shape}{note} the model has {actual}");
                    (ErrorKind::InvalidArgument, text)
                })
            }
            _ => None,
        }
    }

    /// Whether the server makes it as a tensor of `rank` dimensions, whatever the configuration says of what clients send.
    fn contradiction_of_made(&self, port: Option<&Port>, rank: usize, known: &[Port]) -> Option<Problem> {
        if let Some(problem) = self.contradiction_of_type(port, known) {
            return Some(problem);
        }
        let Some(PortKind::Tensor { shape: Some(actual), .. }) = port.map(|port| &port.kind) else { return None };
        let fits = actual.len() == rank && actual.first() == Some(&-1);
        let (role, name) = (self.role, self.name);
        (!fits).then(|| {
            let text = format!(
                "{role} '{name}' comes to the model with {rank} dimensions, the first of any size, for a ragged batch; the \
                 model has {actual}"
            );
            (ErrorKind::InvalidArgument, text)
        })
    }

    fn contradiction_of_type(&self, port: Option<&Port>, known: &[Port]) -> Option<Problem> {
        let Declared { role, name, datatype } = self;
        let Some(port) = port else {
            let known: Vec<&str> = known.iter().map(|port| port.name.as_str()).collect();
            let text = format!("the model has no {role} '{name}'; its {role}s are {known:?}");
            return Some((ErrorKind::InvalidArgument, text));
        };
        match &port.kind {
            PortKind::Other(kind) => Some((
                ErrorKind::Unsupported,
                format!("{role} '{name}' is {kind}, and only tensors of KServe's types can be served"),
            )),
            PortKind::Tensor { datatype: actual, .. } if actual != datatype => Some((
                ErrorKind::InvalidArgument,
                format!("{role} '{name}' is configured as {datatype}, the model has {actual}"),
            )),
            PortKind::Tensor { .. } => None,
        }
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
