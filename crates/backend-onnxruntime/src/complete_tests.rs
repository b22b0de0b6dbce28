//! Tests of completing a configuration.

use std::time::Duration;

use inference::{ErrorKind, SequenceControl, SequenceState, SequenceStrategy};

use super::*;
use crate::signature::tests::port;

fn signature(inputs: Vec<Port>, outputs: Vec<Port>) -> Signature {
    Signature { inputs, outputs, ..Signature::default() }
}

fn empty() -> ModelSpec {
    ModelSpec::new("m", "onnxruntime")
}

#[test]
fn a_model_with_symbolic_first_dimensions_batches() {
    let signature = signature(
        vec![port("x", DataType::Fp32, &[-1, 3, -1]), port("n", DataType::Int64, &[-1])],
        vec![port("y", DataType::Bytes, &[-1, 2])],
    );
    let spec = complete(&empty(), &signature).expect("complete");
    assert_eq!(spec.max_batch_size, DEFAULT_MAX_BATCH_SIZE);
    assert_eq!((&spec.inputs[0].dims, &spec.inputs[0].reshape), (&Shape::from([3, -1]), &None));
    // Only a batch dimension: one element per request.
    assert_eq!((&spec.inputs[1].dims, &spec.inputs[1].reshape), (&Shape::from([1]), &Some(Shape::default())));
    assert_eq!((&*spec.outputs[0].name, spec.outputs[0].datatype), ("y", DataType::Bytes));
}

#[test]
fn a_fixed_first_dimension_or_a_scalar_means_no_batching() {
    for dims in [&[1, 3][..], &[]] {
        let signature = signature(vec![port("x", DataType::Fp32, &[-1, 3])], vec![port("y", DataType::Fp32, dims)]);
        let spec = complete(&empty(), &signature).expect("complete");
        assert_eq!(spec.max_batch_size, 0);
        assert_eq!(spec.inputs[0].dims, Shape::from([-1, 3]));
    }
}

#[test]
fn what_the_configuration_says_stays() {
    let signature = signature(
        vec![port("x", DataType::Fp32, &[-1, 3])],
        vec![port("y", DataType::Fp32, &[-1]), port("z", DataType::Fp32, &[-1])],
    );
    let sixteen = ModelSpec { max_batch_size: 16, ..empty() };
    assert_eq!(complete(&sixteen, &signature).expect("complete").max_batch_size, 16);

    let output = |dims: Shape| OutputSpec {
        name: "y".into(),
        datatype: DataType::Fp32,
        dims,
        reshape: None,
        label_filename: Some("labels.txt".into()),
    };
    // The batch dimension is written out, so the model does not batch.
    let unbatched = ModelSpec { outputs: vec![output(Shape::from([-1]))], ..empty() };
    let spec = complete(&unbatched, &signature).expect("complete");
    assert_eq!((spec.max_batch_size, &spec.outputs), (0, &unbatched.outputs));
    assert_eq!(spec.inputs[0].dims, Shape::from([-1, 3]));
    // It is not, so it does.
    let batched = ModelSpec { outputs: vec![output(Shape::default())], ..empty() };
    assert_eq!(complete(&batched, &signature).expect("complete").max_batch_size, DEFAULT_MAX_BATCH_SIZE);
}

#[test]
fn what_cannot_be_served_is_named() {
    let other = |name: &str| Port { name: name.to_owned(), kind: PortKind::Other("a sequence".to_owned()) };
    let unranked =
        |name: &str| Port { name: name.to_owned(), kind: PortKind::Tensor { datatype: DataType::Fp32, shape: None } };
    let error =
        complete(&empty(), &signature(vec![unranked("x")], vec![other("p"), other("q")])).expect_err("sequences");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("output 'p' is a sequence, output 'q' is a sequence"), "{error}");

    let error = complete(&empty(), &signature(vec![unranked("x")], vec![])).expect_err("no rank");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.message().contains("how many dimensions input 'x' has"), "{error}");

    let spec = complete(&empty(), &signature(vec![], vec![unranked("y")])).expect("an output of any shape");
    assert_eq!((&spec.outputs[0].dims, &spec.outputs[0].reshape), (&Shape::from([-1]), &None));
}

#[test]
fn what_the_server_feeds_and_keeps_is_not_offered_to_clients() {
    let signature = signature(
        vec![port("x", DataType::Fp32, &[-1, 2]), port("ID", DataType::Uint64, &[-1, 1])],
        vec![port("y", DataType::Fp32, &[-1, 2]), port("present", DataType::Fp32, &[-1, 2])],
    );
    let state = SequenceState {
        input: "past".into(),
        output: "present".into(),
        datatype: DataType::Fp32,
        dims: Shape::from([2]),
        initial: inference::Tensor::from_vec(Shape::from([2]), vec![0f32; 2]).expect("fits"),
    };
    let id = SequenceControl { input: "ID".into(), signal: inference::SequenceSignal::CorrelationId(DataType::Uint64) };
    let sequences = SequenceBatching {
        strategy: SequenceStrategy::Direct { max_queue_delay: Duration::ZERO, minimum_slot_utilization: 0.0 },
        max_idle: Duration::from_secs(1),
        controls: vec![id],
        states: vec![state],
    };
    let spec = ModelSpec { sequence_batching: Some(sequences), ..empty() };
    let spec = complete(&spec, &signature).expect("complete");
    assert_eq!(spec.inputs.iter().map(|input| &*input.name).collect::<Vec<_>>(), ["x"]);
    assert_eq!(spec.outputs.iter().map(|output| &*output.name).collect::<Vec<_>>(), ["y"]);
}
