//! Reading and writing messages, without sockets.

use std::collections::BTreeMap;

use bytes::Bytes;
use inference::{DataType, InferResponse, NamedTensor, Parameter, Shape, Tensor};
use proptest::prelude::*;
use protocol::grpc_service::infer_parameter::ParameterChoice;
use protocol::grpc_service::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use protocol::grpc_service::{InferParameter, InferTensorContents, ModelInferRequest};

use super::{decode, encode};
use crate::codec::WireRequest;
use crate::shared_memory::Place;

fn input(datatype: &str, shape: &[i64], contents: Option<InferTensorContents>) -> InferInputTensor {
    InferInputTensor {
        name: "x".to_owned(),
        datatype: datatype.to_owned(),
        shape: shape.to_vec(),
        contents,
        ..InferInputTensor::default()
    }
}

fn request(inputs: Vec<InferInputTensor>, raw: &[&'static [u8]]) -> ModelInferRequest {
    ModelInferRequest {
        model_name: "m".to_owned(),
        inputs,
        raw_input_contents: raw.iter().map(|bytes| Bytes::from_static(bytes)).collect(),
        ..ModelInferRequest::default()
    }
}

fn read(message: ModelInferRequest) -> Result<WireRequest, String> {
    decode::request(message).map_err(|error| error.message().to_owned())
}

fn typed(datatype: &str, shape: &[i64], contents: InferTensorContents) -> Result<Tensor, String> {
    read(request(vec![input(datatype, shape, Some(contents))], &[])).map(|wire| wire.inputs[0].tensor.clone())
}

fn parameters(name: &str, choice: ParameterChoice) -> BTreeMap<String, InferParameter> {
    BTreeMap::from([(name.to_owned(), InferParameter { parameter_choice: Some(choice) })])
}

#[test]
fn raw_inputs_share_the_messages_bytes() {
    let data: &'static [u8] = &[1, 2, 3, 4];
    let wire = read(request(vec![input("INT16", &[2], None)], &[data])).expect("valid");
    let tensor = &wire.inputs[0].tensor;
    assert_eq!((tensor.datatype(), tensor.shape()), (DataType::Int16, &Shape::from([2])));
    assert_eq!(tensor.data().as_ptr(), data.as_ptr());
}

#[test]
fn typed_contents_of_every_type() {
    let none = InferTensorContents::default;
    let ints = || InferTensorContents { int_contents: vec![-1, 127], ..none() };
    let uints = || InferTensorContents { uint_contents: vec![0, 255], ..none() };
    let cases = [
        ("BOOL", InferTensorContents { bool_contents: vec![true, false], ..none() }, vec![1, 0]),
        ("INT8", ints(), vec![255, 127]),
        ("INT16", ints(), vec![255, 255, 127, 0]),
        ("INT32", ints(), vec![255, 255, 255, 255, 127, 0, 0, 0]),
        (
            "INT64",
            InferTensorContents { int64_contents: vec![-1, 1], ..none() },
            [(-1i64).to_le_bytes(), 1i64.to_le_bytes()].concat(),
        ),
        ("UINT8", uints(), vec![0, 255]),
        ("UINT16", uints(), vec![0, 0, 255, 0]),
        ("UINT32", uints(), vec![0, 0, 0, 0, 255, 0, 0, 0]),
        ("UINT64", InferTensorContents { uint64_contents: vec![0, u64::MAX], ..none() }, [[0; 8], [255; 8]].concat()),
        (
            "FP32",
            InferTensorContents { fp32_contents: vec![1.5, 2.5], ..none() },
            [1.5f32.to_le_bytes(), 2.5f32.to_le_bytes()].concat(),
        ),
        (
            "FP64",
            InferTensorContents { fp64_contents: vec![1.5, 2.5], ..none() },
            [1.5f64.to_le_bytes(), 2.5f64.to_le_bytes()].concat(),
        ),
        (
            "BYTES",
            InferTensorContents { bytes_contents: vec![Bytes::from_static(b"a"), Bytes::new()], ..none() },
            vec![1, 0, 0, 0, b'a', 0, 0, 0, 0],
        ),
    ];
    for (datatype, contents, expected) in cases {
        let tensor = typed(datatype, &[2], contents).expect(datatype);
        assert_eq!((tensor.datatype().name(), &tensor.data()[..]), (datatype, &expected[..]));
    }
    assert!(typed("FP32", &[0], none()).expect("no elements").data().is_empty());
}

#[test]
fn what_cannot_be_is_refused_in_tritons_words() {
    let floats = |count| InferTensorContents { fp32_contents: vec![0.0; count], ..InferTensorContents::default() };
    let ints = InferTensorContents { int_contents: vec![300], ..InferTensorContents::default() };
    let both = InferTensorContents { int_contents: vec![1], ..floats(1) };
    let x = "for input tensor 'x' for model 'm'";
    let shared = InferInputTensor {
        parameters: parameters("shared_memory_region", ParameterChoice::StringParam("r".to_owned())),
        ..input("FP32", &[1], None)
    };
    let cases = [
        (
            typed("INT32", &[1], floats(1)).err(),
            format!("unexpected explicit tensor data {x} of type 'FP32', expected datatype 'INT32'"),
        ),
        (
            typed("FP16", &[1], floats(1)).err(),
            format!("unexpected explicit tensor data {x} of type 'FP32', expected datatype 'FP16'"),
        ),
        (
            typed("FP32", &[1], both).err(),
            format!("unexpected explicit tensor data {x}, binary data was already supplied."),
        ),
        (typed("FP32", &[2], floats(1)).err(), "input 'x': got 4 bytes of data, expected 8".to_owned()),
        (typed("INT8", &[1], ints).err(), "input 'x': element 0 is 300, which INT8 cannot hold".to_owned()),
        (typed("FP8", &[1], floats(1)).err(), "input 'x': 'datatype' is 'FP8'".to_owned()),
        (typed("FP32", &[-1], floats(1)).err(), "input 'x': shape [-1] is negative".to_owned()),
        (
            read(request(vec![input("FP32", &[1], Some(floats(1)))], &[&[0; 4]])).err(),
            "contents field must not be specified when using raw_input_contents for 'x' for model 'm'".to_owned(),
        ),
        (
            read(request(vec![input("FP32", &[1], None)], &[])).err(),
            "unable to find data for input tensor 'x' for model 'm' in request.".to_owned(),
        ),
        (
            read(request(vec![input("FP32", &[1], None)], &[&[0; 4], &[]])).err(),
            "unexpected additional input data".to_owned(),
        ),
        (
            read(request(vec![input("FP32", &[1], None), input("FP32", &[1], None)], &[&[0; 4], &[0; 4]])).err(),
            "given twice".to_owned(),
        ),
        (
            read(request(vec![shared], &[])).err(),
            "'shared_memory_byte_size' must be specified along with 'shared_memory_region' parameter for tensor 'x'"
                .to_owned(),
        ),
    ];
    for (error, expected) in cases {
        assert!(error.as_ref().is_some_and(|error| error.contains(&expected)), "{expected}: {error:?}");
    }
}

#[test]
fn inputs_in_shared_memory_take_no_raw_contents() {
    let mut shared = input("INT8", &[2], None);
    shared.parameters = parameters("shared_memory_region", ParameterChoice::StringParam("r".to_owned()));
    shared.parameters.extend(parameters("shared_memory_byte_size", ParameterChoice::Int64Param(2)));
    let other = InferInputTensor { name: "z".to_owned(), ..input("INT8", &[1], None) };
    let wire = read(request(vec![shared.clone(), other], &[&[7]])).expect("valid");
    assert_eq!((wire.inputs.len(), &wire.inputs[0].tensor.data()[..]), (1, &[7][..]));
    let Place { region, offset, byte_size } = &wire.shared_inputs[0].place;
    assert_eq!((region.as_str(), *offset, *byte_size), ("r", 0, 2));

    let mut wrong = shared.clone();
    wrong.parameters.extend(parameters("shared_memory_offset", ParameterChoice::Int64Param(-1)));
    assert!(read(request(vec![wrong], &[])).expect_err("negative").contains("'shared_memory_offset' parameter"));
    shared.contents = Some(InferTensorContents::default());
    let error = read(request(vec![shared], &[])).expect_err("twice");
    assert!(
        error.starts_with("unexpected 'content' provided when using shared memory for input tensor 'x'"),
        "{error}"
    );
}

#[test]
fn parameters_have_their_types_and_some_are_used_up() {
    let mut message = request(Vec::new(), &[]);
    message.parameters = parameters("timeout", ParameterChoice::Int64Param(1500));
    message.parameters.extend(parameters("priority", ParameterChoice::Uint64Param(2)));
    message.parameters.extend(parameters("sequence_id", ParameterChoice::Uint64Param(u64::MAX)));
    message.parameters.extend(parameters("scale", ParameterChoice::DoubleParam(0.5)));
    message.parameters.extend(parameters("triton_enable_empty_final_response", ParameterChoice::BoolParam(true)));
    let classes = parameters("classification", ParameterChoice::Int64Param(3));
    message.outputs = vec![InferRequestedOutputTensor { name: "y".to_owned(), parameters: classes }];
    let mut wire = read(message).expect("valid");
    let timeout = ("timeout".to_owned(), Parameter::Int64(1500));
    let expected =
        [("priority".to_owned(), Parameter::Int64(2)), ("scale".to_owned(), Parameter::Double(0.5)), timeout];
    assert_eq!(wire.parameters.remove("sequence_id"), Some(Parameter::Int64(-1)), "the same bits");
    assert_eq!(wire.parameters, BTreeMap::from(expected));
    assert_eq!((&*wire.outputs[0].name, wire.outputs[0].classes), ("y", Some(3)));

    for (choice, expected) in [
        (
            ParameterChoice::StringParam("soon".to_owned()),
            "invalid value type for 'timeout' parameter, expected int64_param",
        ),
        (ParameterChoice::Int64Param(-1), "invalid value for 'timeout' parameter"),
        (ParameterChoice::Uint64Param(u64::MAX), "expected at most"),
    ] {
        let message = ModelInferRequest { parameters: parameters("timeout", choice), ..ModelInferRequest::default() };
        assert!(read(message).expect_err("wrong").contains(expected), "{expected}");
    }
}

#[test]
fn outputs_are_the_responses_own_bytes_within_the_bound() {
    let tensor = Tensor::from_vec(Shape::from([2]), vec![1.0f32, 2.0]).expect("valid");
    let address = tensor.data().as_ptr();
    let response = InferResponse::new(vec![NamedTensor::new("y", tensor)]);
    let write = |bound| encode::response(&response, "id".to_owned(), "m".to_owned(), &[], bound);
    let message = write(1000).expect("small");
    assert_eq!(message.raw_output_contents[0].as_ptr(), address);
    assert_eq!((message.outputs[0].datatype.as_str(), message.outputs[0].shape.as_slice()), ("FP32", &[2][..]));
    let error = write(20).expect_err("large");
    assert!(error.message().contains("20 bytes that --max-response-size allows"), "{error}");
}

proptest! {
    #[test]
    fn any_message_is_judged_without_a_panic(
        datatype in prop_oneof!["FP32", "BYTES", "BOOL", "INT8", "[A-Z0-9]{0,5}"],
        shape in proptest::collection::vec(any::<i64>(), 0..4),
        raw in proptest::collection::vec(any::<Vec<u8>>(), 0..3),
        ints in any::<Option<Vec<i32>>>(),
    ) {
        let contents = ints.map(|ints| InferTensorContents { int_contents: ints, ..InferTensorContents::default() });
        let mut message = request(vec![input(&datatype, &shape, contents)], &[]);
        message.raw_input_contents = raw.into_iter().map(Bytes::from).collect();
        if let Ok(wire) = read(message) {
            prop_assert_eq!(wire.inputs[0].tensor.shape(), &Shape::from(shape));
        }
    }
}
