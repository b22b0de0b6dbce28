//! Every type goes through a real model and comes back; memory is copied only where it must be.

mod fixture;

use bytes::Bytes;
use fixture::{completed, configured, execute, floats, input, load, output, request, values};
use inference::{DataType, ErrorKind, NamedTensor, Origin, Shape, Tensor};
use metrics_exporter_prometheus::PrometheusBuilder;

/// As `make_models.py` names them.
const TYPES: [(&str, DataType); 14] = [
    ("bool", DataType::Bool),
    ("uint8", DataType::Uint8),
    ("uint16", DataType::Uint16),
    ("uint32", DataType::Uint32),
    ("uint64", DataType::Uint64),
    ("int8", DataType::Int8),
    ("int16", DataType::Int16),
    ("int32", DataType::Int32),
    ("int64", DataType::Int64),
    ("float16", DataType::Fp16),
    ("bfloat16", DataType::Bf16),
    ("float", DataType::Fp32),
    ("double", DataType::Fp64),
    ("string", DataType::Bytes),
];

/// Bytes of `count` elements: no two neighbours alike, and valid for the type.
fn sample(datatype: DataType, count: usize) -> Bytes {
    let strings: [&[u8]; 4] = [b"", b"a\0b", &[0xff, 0xfe, 0x00], "\u{6a21}\u{578b}".as_bytes()];
    match datatype {
        DataType::Bytes => inference::encode_bytes_elements((0..count).map(|index| strings[index % strings.len()])),
        DataType::Bool => (0..count).map(|index| u8::from(index % 3 == 0)).collect(),
        other => (0..count * other.size().expect("not BYTES")).map(|index| (index * 37 + 1) as u8).collect(),
    }
}

#[test]
fn every_type_comes_back_as_it_went_in_at_any_size_and_alignment() {
    for (name, datatype) in TYPES {
        let artifact = completed(&format!("identity_{name}"));
        assert_eq!((artifact.spec.max_batch_size, artifact.spec.inputs[0].datatype), (4, datatype), "{name}");
        let mut model = load(&artifact);
        for dims in [[2, 3], [0, 3], [2, 0], [1, 1], [257, 5]] {
            let shape = Shape::from(dims);
            let data = sample(datatype, shape.element_count().expect("small"));
            for offset in [0, 1, 4] {
                let mut buffer = vec![0; offset];
                buffer.extend_from_slice(&data);
                let shifted = Bytes::from(buffer).slice(offset..);
                let tensor = Tensor::new(datatype, shape.clone(), shifted).expect("valid");
                let response = execute(&mut model, request(vec![NamedTensor::new("x", tensor.clone())])).expect(name);
                assert_eq!(response.output("y"), Some(&tensor), "{name} {shape} at {offset}");
            }
        }
    }
}

#[test]
fn a_scalar_has_no_dimensions_for_the_model_and_one_for_clients() {
    let artifact = completed("scalar");
    let declared = &artifact.spec.inputs[0];
    assert_eq!((&declared.dims, declared.reshape.as_ref()), (&Shape::from([1]), Some(&Shape::default())));
    let response = execute(&mut load(&artifact), request(vec![floats("x", &[], &[2.5])])).expect("runs");
    assert_eq!(response.output("y").expect("y").shape(), &Shape::default());
    assert_eq!(values(&response, "y"), [-2.5]);
}

#[test]
fn an_output_may_be_empty() {
    let mut model = load(&completed("nonzero"));
    let response = execute(&mut model, request(vec![floats("x", &[3], &[0.0; 3])])).expect("runs");
    let tensor = response.output("y").expect("y");
    assert_eq!((tensor.shape(), tensor.data().len()), (&Shape::from([1, 0]), 0));
}

#[test]
fn an_output_of_unknown_rank_has_the_shape_that_it_gets() {
    let artifact = completed("reshape");
    assert_eq!((artifact.spec.max_batch_size, &artifact.spec.outputs[0].dims), (0, &Shape::from([-1])));
    let mut model = load(&artifact);
    let shape = |dims: Vec<i64>| {
        let rank = dims.len() as i64;
        NamedTensor::new("shape", Tensor::from_vec(Shape::from([rank]), dims).expect("valid"))
    };
    let x = || floats("x", &[6], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let response = execute(&mut model, request(vec![x(), shape(vec![3, 1, 2])])).expect("runs");
    assert_eq!(response.output("y").expect("y").shape(), &Shape::from([3, 1, 2]));

    // A failure within the model is the model's, and the next request is served.
    let error = execute(&mut model, request(vec![x(), shape(vec![4])])).expect_err("6 are not 4");
    assert_eq!((error.kind(), error.origin(), error.model()), (ErrorKind::Internal, Origin::Model, Some("reshape")));
    assert!(error.message().contains("model 'reshape'") && error.message().contains("Reshape"), "{error}");
    execute(&mut model, request(vec![x(), shape(vec![6])])).expect("runs again");
}

#[test]
fn wrong_inputs_are_the_requests_fault() {
    let mut model = load(&completed("add_sub"));
    let a = || floats("a", &[1, 3], &[1.0; 3]);
    let error = execute(&mut model, request(vec![a()])).expect_err("b is missing");
    assert_eq!((error.kind(), error.origin()), (ErrorKind::InvalidArgument, Origin::Server));
    assert!(error.message().contains("input 'b' is missing"), "{error}");

    let error = execute(&mut model, request(vec![a(), floats("b", &[1, 4], &[1.0; 4])])).expect_err("4 are not 3");
    assert_eq!((error.kind(), error.origin()), (ErrorKind::InvalidArgument, Origin::Model));
    assert!(error.message().contains("invalid dimensions for input: b"), "{error}");

    let bools = Tensor::new(DataType::Bool, Shape::from([1, 2]), Bytes::from_static(&[1, 7])).expect("valid");
    let error = execute(&mut load(&completed("identity_bool")), request(vec![NamedTensor::new("x", bools)]));
    assert!(error.expect_err("7 is no BOOL").message().contains("holds 7 at element 1"));
}

#[test]
fn what_a_request_leaves_out_the_model_has_a_value_for() {
    let artifact = completed("optional_input");
    assert_eq!(artifact.spec.inputs.len(), 1);
    let artifact = configured(&artifact, |spec| {
        spec.max_batch_size = 0;
        let scale = inference::InputSpec { optional: true, ..input("scale", DataType::Fp32, &[1]) };
        spec.inputs = vec![input("x", DataType::Fp32, &[-1]), scale];
        spec.outputs = vec![output("y", DataType::Fp32, &[-1])];
    });
    let mut model = load(&artifact);
    let x = || floats("x", &[2], &[1.0, 2.0]);
    assert_eq!(values(&execute(&mut model, request(vec![x()])).expect("runs"), "y"), [10.0, 20.0]);
    let both = request(vec![floats("scale", &[1], &[3.0]), x()]);
    assert_eq!(values(&execute(&mut model, both).expect("runs"), "y"), [3.0, 6.0]);
}

#[test]
fn outputs_outlive_their_model_and_their_request() {
    let artifact = configured(&completed("aliases"), |spec| spec.max_batch_size = 0);
    let mut model = load(&artifact);
    let x = NamedTensor::new("x", Tensor::from_vec(Shape::from([4096]), vec![7f32; 4096]).expect("valid"));
    let response = execute(&mut model, request(vec![x])).expect("runs");
    drop(model);
    // Reuses the memory that was freed, if any was.
    let others: Vec<Vec<f32>> = (0..64).map(|_| vec![-1.0; 4096]).collect();
    assert_eq!(values(&response, "x"), [7.0; 4096]);
    assert_eq!(values(&response, "same"), [7.0; 4096]);
    let weight: Vec<f32> = (0..1000u16).map(f32::from).collect();
    assert_eq!(values(&response, "weight"), weight);
    assert_eq!(values(&response, "w"), weight);
    drop(others);
}

#[test]
fn only_forced_copies_are_made_and_they_are_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let rendered = metrics::with_local_recorder(&recorder, || {
        let mut model = load(&completed("identity_float"));
        let mut words = vec![0u8; 4 * 64 + 8];
        // An address that is not a multiple of 4, wherever the vector lies.
        words.drain(..1);
        let data = Bytes::from(words);
        let start = (1 + 4 - data.as_ptr().addr() % 4) % 4;
        let at = |offset: usize| {
            let tensor = Tensor::new(DataType::Fp32, Shape::from([1, 64]), data.slice(offset..offset + 256));
            request(vec![NamedTensor::new("x", tensor.expect("valid"))])
        };
        execute(&mut model, at((start + 3) % 4)).expect("aligned");
        execute(&mut model, at(start)).expect("misaligned");
        let mut model = load(&completed("identity_string"));
        let strings = Tensor::from_strings(Shape::from([1, 2]), &["abc", "de"]).expect("valid");
        execute(&mut model, request(vec![NamedTensor::new("x", strings)])).expect("strings");
        recorder.handle().render()
    });
    for line in [
        "panoply_tensor_copies_total{reason=\"alignment\"} 1",
        "panoply_tensor_copied_bytes_total{reason=\"alignment\"} 256",
        // In and out: 4 + 3 + 4 + 2 bytes each.
        "panoply_tensor_copies_total{reason=\"strings\"} 2",
        "panoply_tensor_copied_bytes_total{reason=\"strings\"} 26",
    ] {
        assert!(rendered.contains(line), "{rendered}\nshould contain {line}");
    }
}
