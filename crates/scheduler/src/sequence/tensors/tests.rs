//! What control inputs and states hold, for requests and for rows without one.

use std::time::Duration;

use inference::{ErrorKind, InputSpec, OutputSpec, SequenceState};

use super::*;

const IDS: [DataType; 5] = [DataType::Uint64, DataType::Int64, DataType::Uint32, DataType::Int32, DataType::Bytes];

/// `x` STRING [2] in; one control input of each kind, IDs of type `id`, and a state FP32 [2] that begins with 1, 2.
fn tensors(id: DataType, max_batch_size: u32) -> Tensors {
    let control = |input: &str, signal| SequenceControl { input: input.into(), signal };
    let flag = |flag, datatype, no: &'static [u8], yes: &'static [u8]| SequenceSignal::Flag {
        flag,
        datatype,
        no_yes: [no, yes].map(Bytes::from_static),
    };
    let state = SequenceState {
        input: "past".into(),
        output: "present".into(),
        datatype: DataType::Fp32,
        dims: Shape::from([2]),
        initial: Tensor::from_vec(Shape::from([2]), vec![1f32, 2.0]).expect("fits"),
    };
    let sequences = SequenceBatching {
        strategy: SequenceStrategy::Direct { max_queue_delay: Duration::ZERO, minimum_slot_utilization: 0.0 },
        max_idle: Duration::from_secs(1),
        controls: vec![
            control("START", flag(SequenceFlag::Start, DataType::Int32, &[7, 0, 0, 0], &[9, 0, 0, 0])),
            control("END", flag(SequenceFlag::End, DataType::Fp32, &[0; 4], &[0, 0, 0x80, 0x3f])),
            control("READY", flag(SequenceFlag::Ready, DataType::Bool, &[0], &[1])),
            control("ID", SequenceSignal::CorrelationId(id)),
        ],
        states: vec![state],
    };
    let dims = Shape::from([2]);
    let x =
        InputSpec { name: "x".into(), datatype: DataType::Bytes, dims: dims.clone(), reshape: None, optional: false };
    let y = OutputSpec { name: "y".into(), datatype: DataType::Fp32, dims, reshape: None, label_filename: None };
    let spec = ModelSpec {
        max_batch_size,
        inputs: vec![x],
        outputs: vec![y],
        sequence_batching: Some(sequences.clone()),
        ..ModelSpec::new("m", "fake")
    };
    Tensors::new(&Arc::new(spec), &sequences)
}

fn request(shape: &[i64]) -> InferRequest {
    let x = Tensor::from_strings(Shape::new(shape), &["a", "bc"]).expect("fits");
    InferRequest { inputs: vec![NamedTensor::new("x", x)], outputs: vec!["y".into()], ..InferRequest::default() }
}

fn bytes<'a>(request: &'a InferRequest, input: &str) -> (&'a [i64], &'a [u8]) {
    let tensor = request.input(input).unwrap_or_else(|| panic!("{input}"));
    (tensor.shape(), tensor.data())
}

#[test]
fn a_request_is_told_where_it_is_and_what_was_before() {
    let id = CorrelationId::Number(5);
    for (max_batch_size, shape, one) in [(4, &[1, 2][..], &[1, 1][..]), (0, &[2], &[1])] {
        let tensors = tensors(DataType::Uint32, max_batch_size);
        let mut told = request(shape);
        tensors.complete(&mut told, &Signals { id: &id, starts: true, ends: false }, None);
        assert_eq!(bytes(&told, "START"), (one, &[9, 0, 0, 0][..]));
        assert_eq!(bytes(&told, "END"), (one, &[0; 4][..]));
        assert_eq!(bytes(&told, "READY"), (one, &[1][..]));
        assert_eq!(bytes(&told, "ID"), (one, &[5, 0, 0, 0][..]));
        assert_eq!(told.input("past").expect("fed").to_elements::<f32>().expect("FP32").as_ref(), [1.0, 2.0]);
        assert_eq!(told.input("past").expect("fed").shape(), &Shape::new(shape));
        assert_eq!(told.outputs, ["y".into(), "present".into()], "the state is wanted whatever the client wants");

        let nobody = tensors.nobody(&told);
        assert_eq!(bytes(&nobody, "START"), (one, &[7, 0, 0, 0][..]));
        assert_eq!(bytes(&nobody, "READY"), (one, &[0][..]));
        assert_eq!(bytes(&nobody, "ID"), (one, &[0; 4][..]));
        assert_eq!(bytes(&nobody, "past"), (shape, &[0; 8][..]));
        assert_eq!(bytes(&nobody, "x"), (shape, &[0; 8][..]), "two empty strings");
        assert_eq!((nobody.inputs.len(), &nobody.outputs), (told.inputs.len(), &told.outputs));
    }
}

#[test]
fn a_correlation_id_must_fit_the_models_input() {
    let text = |text: &str| CorrelationId::Text(text.into());
    let number = CorrelationId::Number;
    let cases = [
        (number(1), [true, true, true, true, false]),
        (number(u64::MAX), [true, true, false, true, false]),
        (number(1 << 40), [true, true, false, false, false]),
        (text("1"), [false, false, false, false, true]),
    ];
    for (id, fits) in cases {
        for (datatype, fits) in IDS.into_iter().zip(fits) {
            let checked = tensors(datatype, 4).check_id(&id);
            assert_eq!(checked.is_ok(), fits, "{id} as {datatype}");
            if let Err(error) = checked {
                assert_eq!(error.kind(), ErrorKind::InvalidArgument);
                assert!(error.message().contains("'ID'"), "{error}");
            }
        }
    }
    let mut told = request(&[1, 2]);
    let signals = Signals { id: &text("ü"), starts: false, ends: true };
    tensors(DataType::Bytes, 4).complete(&mut told, &signals, None);
    assert_eq!(bytes(&told, "ID").1, [2, 0, 0, 0, 0xc3, 0xbc]);
}

#[test]
fn states_are_taken_as_declared_and_kept_apart_from_the_batch() {
    let tensors = tensors(DataType::Uint64, 4);
    let whole = Tensor::from_vec(Shape::from([1, 2]), vec![3f32, 4.0]).expect("fits");
    let response = |present: Tensor| {
        InferResponse::new(vec![NamedTensor::new("y", whole.clone()), NamedTensor::new("present", present)])
    };
    for shared in [true, false] {
        let mut response = response(whole.clone());
        let states = tensors.take_states(&mut response, shared).expect("right").expect("it has some");
        assert_eq!(states[0], whole);
        assert_eq!(states[0].data().as_ptr() == whole.data().as_ptr(), !shared, "copied where others hold on to it");
        assert_eq!(response.outputs.len(), 1, "clients do not see it");
    }
    let wrong_shape = Tensor::from_vec(Shape::from([1, 3]), vec![0f32; 3]).expect("fits");
    let wrong_type = Tensor::from_vec(Shape::from([1, 2]), vec![0i32; 2]).expect("fits");
    for (wrong, what) in [(wrong_shape, "is FP32 of shape [1,3]"), (wrong_type, "is INT32 of shape [1,2]")] {
        let error = tensors.take_states(&mut response(wrong), false).expect_err(what);
        assert!(error.message().contains(what), "{error}");
    }
}
