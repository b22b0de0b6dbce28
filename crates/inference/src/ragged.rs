//! Requests of different shapes in one batch, as `allow_ragged_batch`, `batch_input` and `batch_output` of a configuration say.

use crate::{DataType, TensorName};

/// What an input that the server makes for each batch tells the model about it (`BatchInput.Kind`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchInputKind {
    /// The source's element count in each request: shape `[requests]`.
    ElementCount,
    /// The running sum of these: shape `[requests]`.
    AccumulatedElementCount,
    /// The same with a 0 in front: shape `[requests + 1]`.
    AccumulatedElementCountWithZero,
    /// The largest of these, told by the shape alone; the data is 0.
    MaxElementCountAsShape,
    /// The source's shape for each row, without the batch dimension: shape `[rows, dimensions]`.
    ItemShape,
    /// The same in one dimension: shape `[rows × dimensions]`.
    ItemShapeFlatten,
}

/// Inputs that clients do not send: the server makes them for each batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchInput {
    /// What they hold.
    pub kind: BatchInputKind,
    /// The model's inputs that all get it.
    pub targets: Vec<TensorName>,
    /// The element type: [`DataType::Int32`] or [`DataType::Fp32`].
    pub datatype: DataType,
    /// The input that it is about.
    pub source: TensorName,
}

/// Outputs whose elements for all requests stand one after the other: each request gets as many as its own `source` has,
/// in the shape that the output declares, any open dimension being the source's (`BATCH_SCATTER_WITH_INPUT_SHAPE`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchOutput {
    /// The outputs.
    pub targets: Vec<TensorName>,
    /// The input whose shape in each request decides.
    pub source: TensorName,
}

/// How a model takes batches of requests whose inputs differ in shape; empty for most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RaggedBatching {
    /// Inputs whose shapes may differ. The model gets the elements of all requests one after the other, in one dimension,
    /// and does so even where a request runs alone.
    pub inputs: Vec<TensorName>,
    /// Inputs that the server makes.
    pub batch_inputs: Vec<BatchInput>,
    /// Outputs that are split by the shape of an input.
    pub batch_outputs: Vec<BatchOutput>,
}

impl RaggedBatching {
    /// Whether the model takes batches as others do: rows below each other.
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty() && self.batch_inputs.is_empty() && self.batch_outputs.is_empty()
    }

    /// Whether this input may differ in shape.
    pub fn is_ragged(&self, input: &str) -> bool {
        self.inputs.iter().any(|name| &**name == input)
    }

    /// How the server makes this input; `None` where clients send it.
    pub fn batch_input(&self, name: &str) -> Option<&BatchInput> {
        self.batch_inputs.iter().find(|made| made.targets.iter().any(|target| &**target == name))
    }

    /// The names of all inputs that the server makes.
    pub fn made_inputs(&self) -> impl Iterator<Item = &TensorName> {
        self.batch_inputs.iter().flat_map(|made| &made.targets)
    }

    /// The input whose shapes decide how this output is split; `None` where its rows do.
    pub fn scattered_by(&self, output: &str) -> Option<&TensorName> {
        let scattered = self.batch_outputs.iter().find(|given| given.targets.iter().any(|target| &**target == output));
        scattered.map(|given| &given.source)
    }
}
