//! Makes one request of several, and answers to each of the one that comes back; pure.

use inference::{Error, InferRequest, InferResponse, ModelSpec, NamedTensor, Result, Shape, Tensor, TensorName};

use crate::batcher::ragged::{flatten, made_inputs, scatter};
use crate::batcher::rows::{join, split};

/// One request for several.
pub(crate) struct Joint {
    pub(crate) request: InferRequest,
    /// How many tensors had to be copied for it.
    pub(crate) copies: u64,
}

/// One request with the rows of all, which wants what any of them wants; and with the inputs that the server makes.
///
/// # Errors
/// InvalidArgument when the requests do not fit together.
pub(crate) fn join_requests(spec: &ModelSpec, requests: &[InferRequest]) -> Result<Joint> {
    let first = requests.first().ok_or_else(|| Error::internal("a batch without requests"))?;
    let mut inputs = Vec::with_capacity(first.inputs.len());
    for input in &first.inputs {
        let tensors: Vec<&Tensor> = requests.iter().filter_map(|request| request.input(&input.name)).collect();
        let tensor = match spec.ragged.is_ragged(&input.name) {
            true => flatten(&tensors),
            false if tensors.len() == 1 => Ok(input.tensor.clone()),
            false => join(&tensors),
        };
        let tensor = tensor.map_err(|error| error.context(format!("input '{}'", input.name)))?;
        inputs.push(NamedTensor { name: input.name.clone(), tensor });
    }
    let copies = if requests.len() > 1 { inputs.len() as u64 } else { 0 };
    if !spec.ragged.is_empty() {
        inputs.extend(made_inputs(spec, requests)?);
    }
    let (model, parameters, outputs) = (first.model.clone(), first.parameters.clone(), wanted_by_any(requests));
    Ok(Joint { request: InferRequest { model, inputs, outputs, parameters, ..InferRequest::default() }, copies })
}

fn wanted_by_any(requests: &[InferRequest]) -> Vec<TensorName> {
    let mut outputs = Vec::new();
    if requests.iter().all(|request| !request.outputs.is_empty()) {
        for name in requests.iter().flat_map(|request| &request.outputs) {
            if !outputs.contains(name) {
                outputs.push(name.clone());
            }
        }
    }
    outputs
}

/// The answer to each of `requests`, which have so many `rows`, cut out of that to all. No bytes are copied. Each counts the
/// whole time of the batch, as Triton's statistics have it.
///
/// # Errors
/// Internal, by the model, when an output does not have the rows of all.
pub(crate) fn split_response(
    spec: &ModelSpec,
    response: InferResponse,
    requests: &[InferRequest],
    rows: &[u32],
) -> Result<Vec<InferResponse>> {
    let mut answers: Vec<InferResponse> = rows
        .iter()
        .map(|_| InferResponse {
            parameters: response.parameters.clone(),
            timing: response.timing,
            ..InferResponse::default()
        })
        .collect();
    for output in response.outputs {
        let parts = match spec.ragged.scattered_by(&output.name) {
            Some(source) => scatter_output(spec, &output, source, requests),
            None => split(&output.tensor, rows),
        };
        let parts = parts.ok_or_else(|| does_not_split(spec, &output, rows))?;
        for (answer, tensor) in answers.iter_mut().zip(parts) {
            answer.outputs.push(NamedTensor { name: output.name.clone(), tensor });
        }
    }
    Ok(answers)
}

fn scatter_output(
    spec: &ModelSpec,
    output: &NamedTensor,
    source: &str,
    requests: &[InferRequest],
) -> Option<Vec<Tensor>> {
    let declared = spec.output(&output.name)?;
    let declared = spec.full_shape(declared.reshape.as_ref().unwrap_or(&declared.dims));
    let shape = |request: &InferRequest| Some(request.input(source)?.shape().clone());
    scatter(&output.tensor, &declared, &requests.iter().map(shape).collect::<Option<Vec<Shape>>>()?)
}

fn does_not_split(spec: &ModelSpec, output: &NamedTensor, rows: &[u32]) -> Error {
    let (model, name, shape) = (&spec.name, &output.name, output.tensor.shape());
    let total: u64 = rows.iter().map(|rows| u64::from(*rows)).sum();
    Error::internal(match spec.ragged.scattered_by(name) {
        Some(source) => format!(
            "model '{model}' returned output '{name}' with shape {shape}, which does not have the elements that the shapes of \
             input '{source}' ask for; correct the model or its batch_output"
        ),
        None => format!(
            "model '{model}' returned output '{name}' with shape {shape} for a batch of {total} rows; correct the model or remove \
             dynamic_batching from its configuration"
        ),
    })
    .with_model(&**model)
    .from_model()
}
