//! A request, free of any wire format.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::{ModelKey, NamedTensor, Tensor, TensorName, Trace};

/// The value of a request's or response's parameter (KServe v2, "Parameters").
#[derive(Clone, Debug, PartialEq)]
pub enum Parameter {
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int64(i64),
    /// A number with a fraction.
    Double(f64),
    /// A string.
    String(String),
}

/// Parameters by name.
pub type Parameters = BTreeMap<String, Parameter>;

/// One inference.
#[derive(Clone, Debug, Default)]
pub struct InferRequest {
    /// Which model.
    pub model: ModelKey,
    /// The client's own identifier; empty when it gave none.
    pub id: String,
    /// Input tensors, in any order; each name once.
    pub inputs: Vec<NamedTensor>,
    /// The outputs that are wanted; empty for all.
    pub outputs: Vec<TensorName>,
    /// Parameters that no front end has used up.
    pub parameters: Parameters,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
    /// When the caller stops waiting for the model to be in memory, where that is sooner.
    pub load_deadline: Option<Instant>,
    /// Where the request's spans belong, if it is traced.
    pub trace: Option<Trace>,
}

impl InferRequest {
    /// When the model has to be in memory.
    pub fn loaded_by(&self) -> Option<Instant> {
        self.deadline.into_iter().chain(self.load_deadline).min()
    }

    /// The input of this name.
    pub fn input(&self, name: &str) -> Option<&Tensor> {
        self.inputs.iter().find(|input| &*input.name == name).map(|input| &input.tensor)
    }

    /// Whether the caller wants this output.
    pub fn wants(&self, output: &str) -> bool {
        self.outputs.is_empty() || self.outputs.iter().any(|name| &**name == output)
    }

    /// The request's identifier as messages show it, in Triton's words.
    pub fn display_id(&self) -> &str {
        if self.id.is_empty() { "<id_unknown>" } else { &self.id }
    }
}
