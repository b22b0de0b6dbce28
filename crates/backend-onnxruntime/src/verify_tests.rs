//! Tests of checking a configuration against a model.

use inference::{InputSpec, OutputSpec};

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
