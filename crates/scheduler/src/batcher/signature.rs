//! What requests must have in common to share a batch; pure.

use std::fmt::Write as _;

use inference::{InferRequest, ModelSpec, SequencePlace, Shape};

/// The parameter with a request's priority level.
pub(crate) const PRIORITY: &str = "priority";
/// The parameter with the microseconds that a request may wait.
pub(crate) const TIMEOUT: &str = "timeout";

/// Whether a parameter says how its request waits, not what it asks.
pub(crate) fn is_of_the_queue(parameter: &str) -> bool {
    [PRIORITY, TIMEOUT].contains(&parameter)
}

/// The inputs that a request has, their shapes but for the batch dimension (and but for those that may differ), and the
/// parameters that the model sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Signature {
    inputs: Vec<Option<Shape>>,
    parameters: String,
}

impl Signature {
    /// The signature of a request that has been checked. Its tensors have the shapes that the backend sees.
    pub(crate) fn of(spec: &ModelSpec, request: &InferRequest) -> Self {
        let shape = |name: &str| match request.input(name) {
            Some(_) if spec.ragged.is_ragged(name) => Some(Shape::default()),
            given => given.map(|tensor| tensor.shape().without_batch()),
        };
        let mut parameters = String::new();
        for (name, value) in &request.parameters {
            // A sequence is another model's business, where this one knows none.
            if !is_of_the_queue(name) && !SequencePlace::is_parameter(name) {
                // Writing to a string cannot fail.
                let _ = write!(parameters, "{name:?}:{value:?},");
            }
        }
        Signature { inputs: spec.inputs.iter().map(|input| shape(&input.name)).collect(), parameters }
    }
}

#[cfg(test)]
impl Signature {
    /// A signature that equals those of the same number alone.
    pub(crate) fn numbered(number: u32) -> Self {
        Signature { inputs: Vec::new(), parameters: number.to_string() }
    }
}
