//! Ragged batches: what is read, and what is wrong with them.

use inference::{BatchInput, BatchInputKind, BatchOutput, DataType, RaggedBatching};

use super::{check_problems, only};

#[test]
fn ragged_batching_is_read() {
    let spec = only(
        "backend: 'onnxruntime' max_batch_size: 8
input [ { name: 'x' data_type: TYPE_FP32 dims: -1 allow_ragged_batch: true }, { name: 'z' data_type: TYPE_FP32 dims: 2 } ]
batch_input [
  { kind: BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO target_name: [ 'index', 'again' ] data_type: TYPE_INT32 source_input: 'x' },
  { kind: BATCH_ITEM_SHAPE_FLATTEN target_name: 'shape' data_type: TYPE_FP32 source_input: 'z' }
]
output { name: 'y' data_type: TYPE_FP32 dims: -1 }
batch_output { target_name: 'y' kind: BATCH_SCATTER_WITH_INPUT_SHAPE source_input: 'x' }",
    )
    .expect("valid")
    .spec;
    let input = |kind, targets: &[&str], datatype, source: &str| BatchInput {
        kind,
        targets: targets.iter().map(|name| (*name).into()).collect(),
        datatype,
        source: source.into(),
    };
    let expected = RaggedBatching {
        inputs: vec!["x".into()],
        batch_inputs: vec![
            input(BatchInputKind::AccumulatedElementCountWithZero, &["index", "again"], DataType::Int32, "x"),
            input(BatchInputKind::ItemShapeFlatten, &["shape"], DataType::Fp32, "z"),
        ],
        batch_outputs: vec![BatchOutput { targets: vec!["y".into()], source: "x".into() }],
    };
    assert_eq!(spec.ragged, expected);
    assert!(only("backend: 'onnxruntime'").expect("valid").spec.ragged.is_empty());
}

#[test]
fn every_problem_of_batch_inputs_and_outputs_is_reported() {
    let config = "backend: 'onnxruntime' max_batch_size: 8
input [ { name: 'x' data_type: TYPE_FP32 dims: -1 }, { name: 'o' data_type: TYPE_FP32 dims: -1 optional: true } ]
output { name: 'y' data_type: TYPE_FP32 dims: [ 3, -1 ] }
batch_input { kind: BATCH_ELEMENT_COUNT target_name: 'x' data_type: TYPE_INT64 source_input: [ 'x', 'o' ] }
batch_input { kind: BATCH_ITEM_SHAPE data_type: TYPE_INT32 source_input: 'q' }
batch_input { target_name: [ 'a', 'a' ] data_type: TYPE_INT32 source_input: 'o' }
batch_output { target_name: 'y' source_input: 'x' }
batch_output { target_name: [ 'q', 'y' ] source_input: [] }";
    check_problems(
        config,
        &[
            "4:1: expects 1 source input, got 2",
            "4:41: `x` must be an input of the model that is named nowhere else",
            "4:58: `data_type` of a batch input must be TYPE_INT32 or TYPE_FP32",
            "5:1: `target_name` is missing",
            "5:60: unknown source input name `q`",
            "6:35: `a` must be an input of the model that is named nowhere else",
            "6:63: source input `o` must not be optional",
            "7:16: dimension 1 of `y` is open, and its source `x` has only 1",
            "8:1: expects 1 source input, got 0",
            "8:31: `q` is no output of the model",
            "8:36: `y` is split by another batch output already",
        ],
    );
}

#[test]
fn ragged_batches_need_batches() {
    let input = "input { name: 'x' data_type: TYPE_FP32 dims: -1 allow_ragged_batch: true }";
    check_problems(
        &format!("backend: 'onnxruntime' {input}"),
        &["1:72: the model has no batches; set `max_batch_size`"],
    );
    let ensemble = "platform: 'ensemble' max_batch_size: 4 ensemble_scheduling { step { model_name: 'a' } }";
    check_problems(&format!("{ensemble}\n{input}"), &["2:49: an ensemble forms no batches"]);
}
