//! Tests of checking a configuration against a model.

use inference::{BatchInput, BatchOutput, InputSpec, OutputSpec, RaggedBatching};

use super::*;
use crate::signature::tests::port;

fn input(name: &str, datatype: DataType, dims: &[i64]) -> InputSpec {
    InputSpec { name: name.into(), datatype, dims: Shape::new(dims), reshape: None, optional: false }
}

fn output(name: &str, datatype: DataType, dims: &[i64]) -> OutputSpec {
    OutputSpec { name: name.into(), datatype, dims: Shape::new(dims), reshape: None, label_filename: None }
}

/// x FP32 [-1,3], optional k INT64 [1] → y FP32 [-1,2], a sequence s.
fn signature() -> Signature {
    Signature {
        inputs: vec![port("x", DataType::Fp32, &[-1, 3])],
        optional_inputs: vec![port("k", DataType::Int64, &[1])],
        outputs: vec![
            port("y", DataType::Fp32, &[-1, 2]),
            Port { name: "s".to_owned(), kind: PortKind::Other("a sequence".to_owned()) },
        ],
    }
}

fn spec(max_batch_size: u32, inputs: Vec<InputSpec>, outputs: Vec<OutputSpec>) -> ModelSpec {
    ModelSpec { max_batch_size, inputs, outputs, ..ModelSpec::new("m", "onnxruntime") }
}

#[test]
fn accepts_what_fits() {
    let x = || input("x", DataType::Fp32, &[3]);
    let y = || output("y", DataType::Fp32, &[2]);
    verify(&spec(8, vec![x()], vec![y()]), &signature()).expect("batching");
    verify(&spec(0, vec![input("x", DataType::Fp32, &[5, -1])], vec![]), &signature()).expect("a narrower shape");
    verify(
        &spec(8, vec![InputSpec { dims: Shape::from([3, 1]), reshape: Some(Shape::from([3])), ..x() }], vec![y()]),
        &signature(),
    )
    .expect("reshape");
    let k = input("k", DataType::Int64, &[1]);
    verify(&spec(0, vec![input("x", DataType::Fp32, &[-1, 3]), k], vec![]), &signature()).expect("an initializer");
}

/// x [-1,3] is no ragged input; n and shape can be made.
#[test]
fn checks_what_ragged_batches_give_the_model() {
    let made =
        |kind, target: &str, datatype| BatchInput { kind, targets: vec![target.into()], datatype, source: "x".into() };
    let batch_inputs = vec![
        made(BatchInputKind::ElementCount, "n", DataType::Int32),
        made(BatchInputKind::ItemShape, "shape", DataType::Fp32),
    ];
    let ragged = RaggedBatching {
        inputs: vec!["x".into()],
        batch_inputs,
        batch_outputs: vec![BatchOutput { targets: vec!["y".into()], source: "x".into() }],
    };
    let spec = |x: &[i64], y: &[i64]| ModelSpec {
        ragged: ragged.clone(),
        ..spec(8, vec![input("x", DataType::Fp32, x)], vec![output("y", DataType::Fp32, y)])
    };
    let model = |x: &[i64], n: &[i64], shape: &[i64]| Signature {
        inputs: vec![port("x", DataType::Fp32, x), port("n", DataType::Int32, n), port("shape", DataType::Fp32, shape)],
        optional_inputs: Vec::new(),
        outputs: vec![port("y", DataType::Fp32, &[-1])],
    };
    verify(&spec(&[5, -1], &[-1, 2]), &model(&[-1], &[-1], &[-1, 2])).expect("what clients see is another matter");
    let error = verify(&spec(&[-1], &[-1]), &model(&[-1, 3], &[1], &[-1])).expect_err("wrong");
    for part in [
        "input 'x' comes to the model with 1 dimensions, the first of any size, for a ragged batch; the model has [-1,3]",
        "input 'n' comes to the model with 1 dimensions",
        "input 'shape' comes to the model with 2 dimensions, the first of any size, for a ragged batch; the model has [-1]",
    ] {
        assert!(error.message().contains(part), "{error}\nshould contain\n{part}");
    }
}

#[test]
fn reports_every_contradiction_at_once() {
    let wrong = spec(
        0,
        vec![input("q", DataType::Fp32, &[3])],
        vec![
            output("y", DataType::Fp16, &[-1, 2]),
            output("z", DataType::Fp32, &[1]),
            output("s", DataType::Fp32, &[1]),
        ],
    );
    let error = verify(&wrong, &signature()).expect_err("wrong");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    for part in [
        "model 'm'",
        "no input 'q'; its inputs are [\"x\"]",
        "output 'y' is configured as FP16, the model has FP32",
        "no output 'z'; its outputs are [\"y\", \"s\"]",
        "output 's' is a sequence",
        "needs an input 'x'",
    ] {
        assert!(error.message().contains(part), "{error}\nshould contain {part}");
    }
}

#[test]
fn shapes_and_batches_must_fit() {
    let cases = [
        (
            spec(0, vec![input("x", DataType::Fp32, &[3])], vec![]),
            "input 'x' is configured as [3] the model has [-1,3]",
        ),
        (
            spec(4, vec![input("x", DataType::Fp32, &[4])], vec![]),
            "[-1,4], with the batch dimension, the model has [-1,3]",
        ),
        (
            spec(4, vec![input("x", DataType::Fp32, &[3]), input("k", DataType::Int64, &[1])], vec![]),
            "max_batch_size is 4, but the first dimension of input 'k' is not -1",
        ),
    ];
    for (spec, expected) in cases {
        let error = verify(&spec, &signature()).expect_err(expected);
        assert!(error.message().contains(expected), "{error}\nshould contain {expected}");
    }
}

#[test]
fn a_declared_sequence_alone_is_unsupported() {
    let spec = spec(8, vec![input("x", DataType::Fp32, &[3])], vec![output("s", DataType::Fp32, &[2])]);
    assert_eq!(verify(&spec, &signature()).expect_err("a sequence").kind(), ErrorKind::Unsupported);
}
