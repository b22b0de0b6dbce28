//! What a request becomes before a model runs it, and what is demanded of the model's answer; pure.

use inference::{
    Error, InferRequest, ModelSpec, NamedTensor, OutputSpec, Result, Shape, Tensor, TensorName, check_request,
    to_model_shape, to_request_shape,
};

/// What must be known of a request to judge its answer.
#[derive(Clone, Debug)]
pub(crate) struct Expectation {
    /// Rows in the batch; `None` where the model does not batch, or was given nothing.
    pub(crate) batch: Option<i64>,
    wanted: Vec<TensorName>,
    /// An optional input was left out; an output that comes from it may then be missing as well.
    partial: bool,
}

impl Expectation {
    /// What `nv_inference_count` counts.
    pub(crate) fn batch_size(&self) -> u64 {
        self.batch.and_then(|batch| u64::try_from(batch).ok()).unwrap_or(1)
    }

    fn wants(&self, output: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|name| &**name == output)
    }
}

/// Checks a request and gives its tensors the shapes that the backend sees. No tensor bytes are copied.
///
/// # Errors
/// InvalidArgument.
pub(crate) fn prepare(spec: &ModelSpec, mut request: InferRequest) -> Result<(InferRequest, Expectation)> {
    check_request(spec, &request)?;
    let batch = match request.inputs.first() {
        Some(input) if spec.batches() => input.tensor.shape().first().copied(),
        _ => None,
    };
    let partial = request.inputs.len() < spec.inputs.len();
    let expectation = Expectation { batch, wanted: request.outputs.clone(), partial };
    for given in &mut request.inputs {
        let declared = spec.input(&given.name).filter(|declared| declared.reshape.is_some());
        let Some(declared) = declared else { continue };
        let shape = to_model_shape(spec.batches(), &declared.dims, declared.reshape.as_ref(), given.tensor.shape());
        let tensor = shape.and_then(|shape| given.tensor.with_shape(shape));
        given.tensor = tensor.map_err(|error| {
            error.context(format!("model '{}', input '{}'", spec.name, given.name)).with_model(&*spec.name)
        })?;
    }
    Ok((request, expectation))
}

/// The outputs that were wanted, in the specification's order, with the shapes that clients see.
///
/// # Errors
/// Internal, by the model, when it answered something else than it declares.
pub(crate) fn conform(
    spec: &ModelSpec,
    expected: &Expectation,
    mut given: Vec<NamedTensor>,
) -> Result<Vec<NamedTensor>> {
    let mut outputs = Vec::with_capacity(given.len());
    for declared in &spec.outputs {
        let position = given.iter().position(|tensor| tensor.name == declared.name);
        match position.map(|position| given.swap_remove(position)) {
            Some(_) if !expected.wants(&declared.name) => {}
            Some(found) => {
                let tensor = conform_one(spec, expected, declared, found.tensor)?;
                outputs.push(NamedTensor { name: declared.name.clone(), tensor });
            }
            None if expected.partial || !expected.wants(&declared.name) => {}
            None => return Err(broken(spec, &format!("did not return its output '{}'", declared.name))),
        }
    }
    match given.first() {
        Some(other) => Err(broken(spec, &format!("returned an output '{}' that it does not declare", other.name))),
        None => Ok(outputs),
    }
}

fn conform_one(spec: &ModelSpec, expected: &Expectation, declared: &OutputSpec, tensor: Tensor) -> Result<Tensor> {
    let name = &declared.name;
    if tensor.datatype() != declared.datatype {
        let (got, want) = (tensor.datatype(), declared.datatype);
        return Err(broken(spec, &format!("returned output '{name}' as {got}, its configuration says {want}")));
    }
    let as_returned = spec.full_shape(declared.reshape.as_ref().unwrap_or(&declared.dims));
    if !as_returned.admits(tensor.shape()) {
        return Err(wrong_shape(spec, name, tensor.shape(), &as_returned));
    }
    if let (Some(batch), Some(rows)) = (expected.batch, tensor.shape().first())
        && *rows != batch
    {
        let message = format!("returned output '{name}' with {rows} rows for a batch of {batch}");
        return Err(broken(spec, &message));
    }
    if declared.reshape.is_none() {
        return Ok(tensor);
    }
    to_request_shape(spec.batches(), &declared.dims, declared.reshape.as_ref(), tensor.shape())
        .and_then(|shape| tensor.with_shape(shape))
        .map_err(|error| broken(spec, &format!("returned output '{name}' that does not fit: {error}")))
}

fn wrong_shape(spec: &ModelSpec, name: &str, got: &Shape, want: &Shape) -> Error {
    broken(spec, &format!("returned output '{name}' with shape {got}, its configuration says {want}"))
}

fn broken(spec: &ModelSpec, what: &str) -> Error {
    Error::internal(format!("model '{}' {what}; correct the model or its configuration", spec.name))
        .with_model(&*spec.name)
        .from_model()
}
