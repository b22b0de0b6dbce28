//! `sequence_batching`: what is read of it, what is refused, and states from files.

use inference::{
    SequenceBatching, SequenceControl, SequenceFlag, SequenceSignal, SequenceState, SequenceStrategy, Tensor,
};

use super::*;

const FULL: &str = "backend: 'onnxruntime' max_batch_size: 4
input { name: 'x' data_type: TYPE_FP32 dims: 1 } output { name: 'y' data_type: TYPE_FP32 dims: 1 }
sequence_batching {
  max_sequence_idle_microseconds: 5000000
  oldest { max_candidate_sequences: 8 preferred_batch_size: [ 2, 4 ] max_queue_delay_microseconds: 100 preserve_ordering: true }
  control_input { name: 'START' control { kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] } }
  control_input [ { name: 'READY' control [ { kind: CONTROL_SEQUENCE_READY bool_false_true: [ false, true ] } ] } ]
  control_input { name: 'ID' control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_STRING } }
  state { input_name: 'a' output_name: 'b' data_type: TYPE_INT32 dims: [ 2, -1 ] use_growable_memory: true }
  state {
    input_name: 'c' output_name: 'd' data_type: TYPE_INT32 dims: -1
    initial_state { name: 'first' data_type: TYPE_INT32 dims: 1 data_file: 'c.bin' }
  }
}";

#[test]
fn everything_is_read() {
    let files = |state: &'static str| [("m/config.pbtxt", FULL), ("m/1/f.x", "x"), ("m/initial_state/c.bin", state)];
    let root = folder(&files("\x07\0\0\0"));
    let spec = read_archive(root.path(), "stem").expect("valid").models.remove(0).spec;
    let control = |input: &str, signal| SequenceControl { input: input.into(), signal };
    let flag = |flag, datatype, no: &'static [u8], yes: &'static [u8]| SequenceSignal::Flag {
        flag,
        datatype,
        no_yes: [no, yes].map(bytes::Bytes::from_static),
    };
    let state = |input: &str, output: &str, dims: &[i64], initial| SequenceState {
        input: input.into(),
        output: output.into(),
        datatype: DataType::Int32,
        dims: Shape::new(dims),
        initial,
    };
    let expected = SequenceBatching {
        strategy: SequenceStrategy::Oldest {
            max_candidate_sequences: 8,
            preferred_batch_sizes: vec![2, 4],
            max_queue_delay: Duration::from_micros(100),
            preserve_ordering: true,
        },
        max_idle: Duration::from_secs(5),
        controls: vec![
            control("START", flag(SequenceFlag::Start, DataType::Fp32, &[0; 4], &[0, 0, 0x80, 0x3f])),
            control("READY", flag(SequenceFlag::Ready, DataType::Bool, &[0], &[1])),
            control("ID", SequenceSignal::CorrelationId(DataType::Bytes)),
        ],
        states: vec![
            state("a", "b", &[2, -1], Tensor::from_vec(Shape::from([2, 1]), vec![0i32, 0]).expect("fits")),
            state("c", "d", &[-1], Tensor::from_vec(Shape::from([1]), vec![7i32]).expect("fits")),
        ],
    };
    assert_eq!(spec.sequence_batching, Some(expected));

    let spec = only("backend: 'onnxruntime' sequence_batching { }").expect("valid").spec;
    let direct = SequenceStrategy::Direct { max_queue_delay: Duration::ZERO, minimum_slot_utilization: 0.0 };
    let (max_idle, (controls, states)) = (Duration::from_secs(1), Default::default());
    assert_eq!(spec.sequence_batching, Some(SequenceBatching { strategy: direct, max_idle, controls, states }));

    for (state, expected) in [("", "got 0 bytes of data, expected 4"), ("12345", "has more than the 4 bytes")] {
        let root = folder(&files(state));
        let error = read_archive(root.path(), "stem").expect_err(expected).to_string();
        assert!(
            error.contains("m/config.pbtxt:12:65: cannot read the initial state from \"initial_state/c.bin\""),
            "{error}"
        );
        assert!(error.contains(expected), "{error}");
    }
    let error = only(FULL).expect_err("there is no file").to_string();
    assert!(
        error.contains("12:65: cannot read the initial state from \"initial_state/c.bin\": No such file"),
        "{error}"
    );
}

#[test]
fn contradictions_are_refused() {
    let config = "backend: 'onnxruntime' max_batch_size: 4 input { name: 'x' data_type: TYPE_FP32 dims: 1 }
output { name: 'y' data_type: TYPE_FP32 dims: 1 } sequence_batching {
  oldest { max_candidate_sequences: -1 preferred_batch_size: [ 8 ] }
  control_input { name: 'x' control { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0 ] } }
  control_input { name: 'e' control { kind: CONTROL_SEQUENCE_END } }
  control_input { name: 'r' control { kind: CONTROL_SEQUENCE_READY int32_false_true: [ 0, 1 ] fp32_false_true: [ 0, 1 ] } }
  control_input { name: 'i' control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_FP32 } }
  control_input { control { kind: CONTROL_SEQUENCE_START bool_false_true: [ false, true ] } }
  control_input { name: 'n' }
  state { input_name: 'r' output_name: 'y' data_type: TYPE_INT32 dims: 1 }
  state { input_name: 's' data_type: TYPE_INT32 dims: 0 initial_state { dims: [ -1 ] } }
  state { input_name: 't' output_name: 'y' data_type: TYPE_FP32 dims: [ 1 ] initial_state { dims: 1 data_file: '../x' } }
  state { input_name: 'u' output_name: 'v' data_type: TYPE_FP32 dims: [ 1000000000000 ] }
  iterative_sequence: true
}";
    check_problems(
        config,
        &[
            "3:12: `max_candidate_sequences` must be between 1 and 65536, got -1",
            "3:64: preferred batch size 8 is above `max_batch_size` 4",
            "4:19: the input `x` cannot be a control: it is an input already",
            "4:68: `int32_false_true` of CONTROL_SEQUENCE_START must have exactly 2 entries, got 1",
            "5:29: CONTROL_SEQUENCE_END must have either",
            "6:95: CONTROL_SEQUENCE_READY has both `int32_false_true` and `fp32_false_true`",
            "7:69: unexpected data type for control CONTROL_SEQUENCE_CORRID",
            "8:3: the name of the input of a control is missing",
            "8:29: there is another control input for CONTROL_SEQUENCE_START",
            "9:3: `control` of `n` must say exactly one thing, got 0",
            "10:11: the input `r` cannot be a state: it is a control already",
            "10:27: the output `y` has another `data_type` or `dims` than this state",
            "11:3: the name of the output of a state is missing",
            "11:49: dimension 0 is neither",
            "11:57: an initial state needs `zero_data: true` or a `data_file`",
            "11:73: `dims` of the initial state are [-1]; they must fit the state's [0]",
            "12:27: another state has the output `y`",
            "12:101: \"../x\" must be a path within",
            "13:65: with a state of shape [1000000000000] the states are larger than",
            "14:3: `iterative_sequence` is not supported yet (",
        ],
    );
    let config = "backend: 'onnxruntime' sequence_batching { direct { minimum_slot_utilization: 1.5 } }";
    check_problems(config, &["1:53: `minimum_slot_utilization` must be between 0 and 1, got 1.5"]);
    check_problems("backend: 'onnxruntime' sequence_batching { } dynamic_batching { }", &["1:46: "]);
}
