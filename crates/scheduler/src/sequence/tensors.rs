//! The tensors that the server keeps to itself: control inputs, and states that go from one request to the next; pure.

use std::sync::Arc;

use bytes::Bytes;
use inference::{
    CorrelationId, DataType, Error, InferRequest, InferResponse, ModelSpec, NamedTensor, Result, SequenceBatching,
    SequenceControl, SequenceFlag, SequencePlace, SequenceSignal, SequenceStrategy, Shape, Tensor, TensorName,
};

use crate::batcher::signature::Signature;

/// The states of one sequence, in the configuration's order; cheap to clone.
pub(crate) type States = Arc<[Tensor]>;

/// What a model is told of its sequences, and keeps of them.
pub(crate) struct Tensors {
    spec: Arc<ModelSpec>,
    /// With control inputs and states.
    whole: Arc<ModelSpec>,
    sequences: SequenceBatching,
    initial: States,
    /// The states of two sequences may differ in shape.
    open_states: bool,
}

/// What control inputs say of a request.
pub(crate) struct Signals<'a> {
    pub(crate) id: &'a CorrelationId,
    pub(crate) starts: bool,
    pub(crate) ends: bool,
}

impl Tensors {
    pub(crate) fn new(spec: &Arc<ModelSpec>, sequences: &SequenceBatching) -> Self {
        let row = |tensor: &Tensor| match spec.batches() {
            true => tensor.with_shape(tensor.shape().with_batch(1)).unwrap_or_else(|_| tensor.clone()),
            false => tensor.clone(),
        };
        Tensors {
            spec: spec.clone(),
            whole: Arc::new(spec.with_sequence_tensors()),
            initial: sequences.states.iter().map(|state| row(&state.initial)).collect(),
            open_states: sequences.states.iter().any(|state| state.dims.contains(&-1)),
            sequences: sequences.clone(),
        }
    }

    /// The specification with control inputs and states.
    pub(crate) fn whole(&self) -> &ModelSpec {
        &self.whole
    }

    /// Whether a request may run again, and in another row: what the model knows of the sequence is here alone.
    pub(crate) fn hold_all(&self) -> bool {
        let in_any_row = matches!(self.sequences.strategy, SequenceStrategy::Oldest { .. });
        in_any_row && !self.sequences.states.is_empty()
    }

    /// Checks that the model can be told which sequence it is.
    ///
    /// # Errors
    /// InvalidArgument.
    pub(crate) fn check_id(&self, id: &CorrelationId) -> Result<()> {
        for SequenceControl { input, signal } in &self.sequences.controls {
            let SequenceSignal::CorrelationId(datatype) = signal else { continue };
            if number_or_text(id, *datatype).is_none() {
                let kind = match id {
                    CorrelationId::Number(_) => "number",
                    CorrelationId::Text(_) => "string",
                };
                return Err(Error::invalid_argument(format!(
                    "inference request for sequence {id} to model '{}' has a {kind} as correlation ID that its input '{input}' of \
                     type {datatype} cannot hold",
                    self.spec.name
                )));
            }
        }
        Ok(())
    }

    /// What decides who shares a batch, beside the request itself.
    pub(crate) fn signature(&self, request: &InferRequest, own: &Signature, states: Option<&States>) -> Signature {
        if !self.open_states {
            return own.clone();
        }
        let mut request = request.clone();
        self.add_states(&mut request, states);
        Signature::of(&self.whole, &request)
    }

    /// A request as the model gets it.
    pub(crate) fn complete(&self, request: &mut InferRequest, signals: &Signals<'_>, states: Option<&States>) {
        for SequenceControl { input, signal } in &self.sequences.controls {
            let (datatype, element) = match signal {
                SequenceSignal::Flag { flag, datatype, no_yes } => {
                    let says = match flag {
                        SequenceFlag::Start => signals.starts,
                        SequenceFlag::End => signals.ends,
                        SequenceFlag::Ready => true,
                    };
                    (*datatype, no_yes[usize::from(says)].clone())
                }
                SequenceSignal::CorrelationId(datatype) => {
                    (*datatype, number_or_text(signals.id, *datatype).unwrap_or_default())
                }
            };
            self.add_control(request, input, datatype, element);
        }
        self.add_states(request, states);
        if !request.outputs.is_empty() {
            for state in &self.sequences.states {
                if !request.outputs.contains(&state.output) {
                    request.outputs.push(state.output.clone());
                }
            }
        }
    }

    /// A row in which there is no request, in a batch with this one: everything is zero, and the controls say no.
    pub(crate) fn nobody(&self, like: &InferRequest) -> InferRequest {
        let zeros = |input: &NamedTensor| NamedTensor { name: input.name.clone(), tensor: zeros_like(&input.tensor) };
        let mut request = InferRequest {
            model: like.model.clone(),
            inputs: like.inputs.iter().filter(|input| !self.is_control(&input.name)).map(zeros).collect(),
            outputs: like.outputs.clone(),
            parameters: like.parameters.clone(),
            ..InferRequest::default()
        };
        for SequenceControl { input, signal } in &self.sequences.controls {
            let (datatype, element) = match signal {
                SequenceSignal::Flag { datatype, no_yes, .. } => (*datatype, no_yes[0].clone()),
                SequenceSignal::CorrelationId(datatype) => (*datatype, zero(*datatype)),
            };
            self.add_control(&mut request, input, datatype, element);
        }
        request
    }

    /// Takes the new states out of a response, and from it those that no client may ask for. `shared`: the tensors are parts
    /// of larger ones, which must not stay in memory with them.
    ///
    /// # Errors
    /// Internal, by the model, when it has not returned them, or other than its configuration says.
    pub(crate) fn take_states(&self, response: &mut InferResponse, shared: bool) -> Result<Option<States>> {
        if self.sequences.states.is_empty() {
            return Ok(None);
        }
        let mut states = Vec::with_capacity(self.sequences.states.len());
        for state in &self.sequences.states {
            let found = response.output(&state.output).ok_or_else(|| self.broken(&state.output, "is missing"))?;
            let expected = match self.spec.batches() {
                true => state.dims.with_batch(1),
                false => state.dims.clone(),
            };
            if found.datatype() != state.datatype || !expected.admits(found.shape()) {
                let (datatype, shape) = (found.datatype(), found.shape());
                let want = state.datatype;
                let what = format!("is {datatype} of shape {shape}; its configuration says {want} of shape {expected}");
                return Err(self.broken(&state.output, &what));
            }
            states.push(if shared { copied(found) } else { found.clone() });
        }
        response.outputs.retain(|output| self.spec.output(&output.name).is_some());
        Ok(Some(states.into()))
    }

    fn add_states(&self, request: &mut InferRequest, states: Option<&States>) {
        let values = states.unwrap_or(&self.initial).iter();
        for (state, value) in self.sequences.states.iter().zip(values) {
            request.inputs.push(NamedTensor { name: state.input.clone(), tensor: value.clone() });
        }
    }

    fn add_control(&self, request: &mut InferRequest, input: &TensorName, datatype: DataType, element: Bytes) {
        let shape = if self.spec.batches() { Shape::from([1, 1]) } else { Shape::from([1]) };
        if let Ok(tensor) = Tensor::new(datatype, shape, element) {
            request.inputs.push(NamedTensor { name: input.clone(), tensor });
        }
    }

    fn is_control(&self, input: &str) -> bool {
        self.sequences.controls.iter().any(|control| &*control.input == input)
    }

    fn broken(&self, output: &str, what: &str) -> Error {
        let name = &self.spec.name;
        let message = format!("model '{name}': state output '{output}' {what}; correct the model or its configuration");
        Error::internal(message).with_model(&**name).from_model()
    }
}

/// A control input's element for a correlation ID; `None` when the type cannot hold it.
fn number_or_text(id: &CorrelationId, datatype: DataType) -> Option<Bytes> {
    let bytes = |bytes: &[u8]| Some(Bytes::copy_from_slice(bytes));
    match (id, datatype) {
        (CorrelationId::Number(number), DataType::Uint64 | DataType::Int64) => bytes(&number.to_le_bytes()),
        (CorrelationId::Number(number), DataType::Uint32) => bytes(&u32::try_from(*number).ok()?.to_le_bytes()),
        (CorrelationId::Number(number), DataType::Int32) => {
            bytes(&i32::try_from(number.cast_signed()).ok()?.to_le_bytes())
        }
        (CorrelationId::Text(text), DataType::Bytes) => Some(inference::encode_bytes_elements([text.as_bytes()])),
        _ => None,
    }
}

/// An element of value 0; of an empty string.
fn zero(datatype: DataType) -> Bytes {
    Bytes::from_static(&[0; 8]).slice(..datatype.size().unwrap_or(4))
}

/// A tensor of this type and shape whose elements are 0, or empty strings.
fn zeros_like(tensor: &Tensor) -> Tensor {
    let element = tensor.datatype().size().unwrap_or(4);
    let data = Bytes::from(vec![0; tensor.element_count() * element]);
    Tensor::new(tensor.datatype(), tensor.shape().clone(), data).unwrap_or_else(|_| tensor.clone())
}

/// The same tensor in memory of its own.
fn copied(tensor: &Tensor) -> Tensor {
    let data = Bytes::copy_from_slice(tensor.data());
    Tensor::new(tensor.datatype(), tensor.shape().clone(), data).unwrap_or_else(|_| tensor.clone())
}

/// The parameters that only name the sequence are the server's; the model gets the rest.
pub(crate) fn without_place(request: &mut InferRequest) {
    request.parameters.retain(|name, _| !SequencePlace::is_parameter(name));
}

#[cfg(test)]
mod tests;
