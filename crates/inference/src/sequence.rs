//! How requests that belong together reach a model, as `sequence_batching` of its configuration says.

use std::time::Duration;

use bytes::Bytes;

use crate::{DataType, InputSpec, ModelSpec, OutputSpec, Shape, Tensor, TensorName};

/// `ModelSequenceBatching`: the requests of a sequence run one after the other on one instance.
#[derive(Clone, Debug, PartialEq)]
pub struct SequenceBatching {
    /// Which sequences run together.
    pub strategy: SequenceStrategy,
    /// A sequence that has no request waiting or running for this long ends.
    pub max_idle: Duration,
    /// Inputs by which the model learns where in a sequence it is.
    pub controls: Vec<SequenceControl>,
    /// Tensors that the server keeps for each sequence from one request to the next.
    pub states: Vec<SequenceState>,
}

/// Which sequences run together.
#[derive(Clone, Debug, PartialEq)]
pub enum SequenceStrategy {
    /// A sequence has one row of its instance's batches for itself, as long as it lasts.
    Direct {
        /// How long a request may wait for requests in other rows.
        max_queue_delay: Duration,
        /// The part of the rows (0 to 1) with which a batch starts at once.
        minimum_slot_utilization: f32,
    },
    /// The requests that came first run together, at most one of each sequence.
    Oldest {
        /// How many sequences an instance has at a time.
        max_candidate_sequences: u32,
        /// Batch sizes that start at once, and are not outgrown; empty for the model's largest batch alone.
        preferred_batch_sizes: Vec<u32>,
        /// How long a request may wait for others.
        max_queue_delay: Duration,
        /// Responses of an instance leave in the order in which the requests came.
        preserve_ordering: bool,
    },
}

/// `ControlInput`: an input that the server fills in. Its tensor has one element for each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceControl {
    /// The model's input.
    pub input: TensorName,
    /// What it tells.
    pub signal: SequenceSignal,
}

/// What a control input tells the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SequenceSignal {
    /// Something that is so or is not.
    Flag {
        /// What.
        flag: SequenceFlag,
        /// The type of the input's elements.
        datatype: DataType,
        /// An element that says "no" and one that says "yes", as a tensor's bytes hold them.
        no_yes: [Bytes; 2],
    },
    /// Which sequence it is; 0 or an empty string for none. One of Triton's five types of correlation IDs.
    CorrelationId(DataType),
}

/// What a flag says of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceFlag {
    /// It is the first of its sequence.
    Start,
    /// It is the last of its sequence.
    End,
    /// There is a request in this row of the batch.
    Ready,
}

/// `State`: an output that is an input of the sequence's next request.
#[derive(Clone, Debug, PartialEq)]
pub struct SequenceState {
    /// The model's input.
    pub input: TensorName,
    /// The model's output.
    pub output: TensorName,
    /// The element type of both.
    pub datatype: DataType,
    /// Dimensions without the batch dimension; -1 where any size is accepted.
    pub dims: Shape,
    /// With what a sequence begins; without a batch dimension.
    pub initial: Tensor,
}

impl ModelSpec {
    /// The specification with all that a backend is given and returns: besides the tensors of requests and responses those
    /// that the server keeps to itself, the control inputs and states of sequences.
    #[must_use]
    pub fn with_sequence_tensors(&self) -> ModelSpec {
        let mut spec = self.clone();
        let Some(sequences) = &self.sequence_batching else { return spec };
        let input = |name: &TensorName, datatype, dims: Shape| InputSpec {
            name: name.clone(),
            datatype,
            dims,
            reshape: None,
            optional: false,
        };
        for control in &sequences.controls {
            let datatype = match &control.signal {
                SequenceSignal::Flag { datatype, .. } | SequenceSignal::CorrelationId(datatype) => *datatype,
            };
            spec.inputs.push(input(&control.input, datatype, Shape::from([1])));
        }
        for state in &sequences.states {
            spec.inputs.push(input(&state.input, state.datatype, state.dims.clone()));
            if spec.output(&state.output).is_none() {
                spec.outputs.push(OutputSpec {
                    name: state.output.clone(),
                    datatype: state.datatype,
                    dims: state.dims.clone(),
                    reshape: None,
                    label_filename: None,
                });
            }
        }
        spec
    }
}

impl SequenceBatching {
    /// Whether the server fills this input of the model in.
    pub fn feeds(&self, input: &str) -> bool {
        let control = self.controls.iter().any(|control| &*control.input == input);
        control || self.states.iter().any(|state| &*state.input == input)
    }

    /// Whether the server keeps this output of the model.
    pub fn keeps(&self, output: &str) -> bool {
        self.states.iter().any(|state| &*state.output == output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_sees_what_the_server_keeps_to_itself() {
        let output = |name: &str| OutputSpec {
            name: name.into(),
            datatype: DataType::Fp32,
            dims: Shape::from([2]),
            reshape: None,
            label_filename: None,
        };
        let state = |input: &str, output: &str| SequenceState {
            input: input.into(),
            output: output.into(),
            datatype: DataType::Fp32,
            dims: Shape::from([2]),
            initial: Tensor::from_vec(Shape::from([2]), vec![0f32; 2]).expect("fits"),
        };
        let sequences = SequenceBatching {
            strategy: SequenceStrategy::Direct { max_queue_delay: Duration::ZERO, minimum_slot_utilization: 0.0 },
            max_idle: Duration::from_secs(1),
            controls: vec![SequenceControl {
                input: "ID".into(),
                signal: SequenceSignal::CorrelationId(DataType::Uint64),
            }],
            states: vec![state("S_IN", "S_OUT"), state("T_IN", "Y")],
        };
        let spec = ModelSpec {
            outputs: vec![output("Y")],
            sequence_batching: Some(sequences.clone()),
            ..ModelSpec::new("m", "fake")
        };
        let all = spec.with_sequence_tensors();
        let inputs: Vec<_> = all.inputs.iter().map(|input| (&*input.name, input.datatype, input.dims[0])).collect();
        assert_eq!(inputs, [("ID", DataType::Uint64, 1), ("S_IN", DataType::Fp32, 2), ("T_IN", DataType::Fp32, 2)]);
        let outputs: Vec<_> = all.outputs.iter().map(|output| &*output.name).collect();
        assert_eq!(outputs, ["Y", "S_OUT"], "an output that clients may ask for as well is there once");
        assert!(["ID", "S_IN", "T_IN"].iter().all(|name| sequences.feeds(name)) && !sequences.feeds("Y"));
        assert!(sequences.keeps("Y") && sequences.keeps("S_OUT") && !sequences.keeps("ID"));
    }
}
