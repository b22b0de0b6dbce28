//! Requests that a model runs before it counts as ready.

use std::path::PathBuf;

use crate::{DataType, Shape, TensorName};

/// One entry of `model_warmup`: a request that every instance of the model runs after its load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmupSample {
    /// How messages name it.
    pub name: String,
    /// Rows of the request; 1 where the model does not batch.
    pub batch_size: u32,
    /// How often it is run; at least 1.
    pub count: u32,
    /// Its inputs, by name.
    pub inputs: Vec<WarmupInput>,
}

/// An input of a [`WarmupSample`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmupInput {
    /// The input's name.
    pub name: TensorName,
    /// The element type.
    pub datatype: DataType,
    /// Dimensions without the batch dimension, none of them open.
    pub dims: Shape,
    /// Where the elements come from.
    pub data: WarmupData,
}

/// Where the elements of a [`WarmupInput`] come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WarmupData {
    /// Zeros; empty elements for BYTES.
    Zero,
    /// Any values: fractions from 0 to 1, small integers, short words.
    Random,
    /// A file below `warmup/` in the model's directory: one row, laid out as [`crate::Tensor`] says.
    File(PathBuf),
}
