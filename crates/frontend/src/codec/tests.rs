//! The codec as a whole: good and bad requests behind one `check`, round trips of every type, and bytes of any kind.

use bytes::Bytes;
use half::{bf16, f16};
use inference::{DataType, InferResponse, ModelSpec, NamedTensor, Parameter, Shape, Tensor};
use proptest::prelude::*;

use super::cursor::FAULTS;
use super::input::MAX_DIMENSIONS;
use super::request::{MAX_TENSORS, OutputChoice};
use super::{Answer, Layout, WireRequest, encode, parse, parse_generate, raw_input};
use crate::shared_memory::Place;

const DEPTH: usize = 100;

fn read(json: &str) -> Result<WireRequest, String> {
    parse(&Bytes::copy_from_slice(json.as_bytes()), Layout::Json, DEPTH).map_err(|error| error.to_string())
}

/// A request with one input of this type, shape and data reads as `expected`.
fn check<T: inference::Element>(datatype: &str, shape: &[i64], data: &str, expected: &[T]) {
    let members = [
        format!(r#""name":"x","shape":{shape:?},"datatype":"{datatype}","data":{data}"#),
        format!(r#""data":{data},"name":"x","shape":{shape:?},"datatype":"{datatype}""#),
        format!(r#""name":"x","datatype":"{datatype}", "data" : {data} ,"unknown":{{"a":[null]}},"shape":{shape:?}"#),
    ];
    for members in members {
        let request = read(&format!(r#"{{"inputs":[{{{members}}}]}}"#)).expect(&members);
        let tensor = &request.inputs[0].tensor;
        assert_eq!(tensor.datatype().name(), datatype);
        assert_eq!(tensor.shape(), &Shape::new(shape));
        let bytes: Vec<u8> = bytemuck::cast_slice(expected).to_vec();
        assert_eq!(tensor.data(), &bytes, "{members}");
    }
}

#[test]
fn data_of_every_type_flat_and_nested() {
    check::<u8>("UINT8", &[3], "[0,255, 7]", &[0, 255, 7]);
    check::<u8>("UINT8", &[1, 2, 2], " [ [ [ 1 , 2 ] ,\n[3,4]]]", &[1, 2, 3, 4]);
    check::<u8>("UINT8", &[1, 2, 2], "[[1,2],[3,4]]", &[1, 2, 3, 4]);
    check::<u8>("BOOL", &[4], "[true,false,1,0]", &[1, 0, 1, 0]);
    check::<i8>("INT8", &[2], "[-128,127]", &[-128, 127]);
    check::<i16>("INT16", &[2, 1], "[[-1],[1]]", &[-1, 1]);
    check::<u16>("UINT16", &[1], "[65535]", &[65535]);
    check::<i32>("INT32", &[], "[5]", &[5]);
    check::<u32>("UINT32", &[1], "[4294967295]", &[u32::MAX]);
    check::<i64>("INT64", &[1], "[-9223372036854775808]", &[i64::MIN]);
    check::<u64>("UINT64", &[1], "[18446744073709551615]", &[u64::MAX]);
    check::<f32>("FP32", &[4], "[1,2.5,-1e-3,Infinity]", &[1.0, 2.5, -0.001, f32::INFINITY]);
    check::<f64>("FP64", &[2], "[0.1,1E5]", &[0.1, 1e5]);
    check::<f16>("FP16", &[2], "[0.5,65504]", &[f16::from_f32(0.5), f16::MAX]);
    check::<bf16>("BF16", &[1], "[1.5]", &[bf16::from_f32(1.5)]);
    check::<f32>("FP32", &[0, 3], "[]", &[]);
    check::<f32>("FP32", &[2, 0], "[[],[]]", &[]);
    check::<u8>("BYTES", &[2], r#"["a","\u00e9\n"]"#, b"\x01\0\0\0a\x03\0\0\0\xc3\xa9\n");
    check::<u8>("BYTES", &[1, 2], r#"[["",""]]"#, &[0; 8]);
}

#[test]
fn bad_requests_say_what_where_and_what_was_expected() {
    let input = |members: &str| format!(r#"{{"inputs":[{{"name":"x",{members}}}]}}"#);
    let data = |shape: &str, datatype: &str, data: &str| {
        input(&format!(r#""shape":{shape},"datatype":"{datatype}","data":{data}"#))
    };
    let deep = format!("{}1{}", "[".repeat(101), "]".repeat(101));
    let cases = [
        ("".to_owned(), "expected the request as a JSON object, found the end of the body (line 1, column 1"),
        ("{bad".to_owned(), "expected a member's name in quotes, found `bad` (line 1, column 2"),
        ("{}".to_owned(), "unable to parse 'inputs'"),
        ("[]".to_owned(), "expected the request as a JSON object"),
        (r#"{"inputs":[]} x"#.to_owned(), "expected the end of the JSON, found `x`"),
        (r#"{"inputs":{}}"#.to_owned(), "expected 'inputs' as an array"),
        (r#"{"inputs":[{}]}"#.to_owned(), "inputs[0]: unable to parse the input: it has no member 'name'"),
        (input(r#""shape":[1]"#), "input 'x': unable to parse the input: it has no member 'datatype'"),
        (input(r#""datatype":"FP32""#), "it has no member 'shape'"),
        (input(r#""shape":[1],"datatype":"FP32""#), "neither 'data' nor the parameter 'binary_data_size'"),
        (input(r#""shape":[1],"datatype":"FP8","data":[1]"#), "'datatype' is 'FP8'; expected one of BOOL"),
        (input(r#""shape":[-1],"datatype":"FP32","data":[1]"#), "'shape' holds -1"),
        (input(r#""shape":[1.5],"datatype":"FP32","data":[1]"#), "'shape': expected an integer"),
        (data("[2]", "UINT8", "[1,256]"), "input 'x': expected an unsigned integer of 8 bits (UINT8) as element 1, found `256`"),
        (data("[1]", "INT32", "[1.0]"), "expected an integer of 32 bits (INT32) as element 0, found `1.0`"),
        (data("[1]", "INT32", "[null]"), "found `null`"),
        (data("[1]", "FP32", "[\"a\"]"), "expected a number in its range (FP32) as element 0"),
        (data("[1]", "FP32", "[1e39]"), "found `1e39`"),
        (data("[1]", "BOOL", "[2]"), "expected true, false, 0 or 1 (BOOL)"),
        (data("[1]", "BYTES", "[1]"), "expected a string (BYTES) as element 0"),
        (data("[3]", "FP32", "[1,2]"), "shape does not match true shape of 'data' field: got 2 elements, expected 3"),
        (data("[1]", "FP32", "[1,2]"), "'data' holds more than the 1 elements of the shape"),
        (data("[2,2]", "FP32", "[[1,2],[3]]"), "'data' is ragged: rows of 2 and of 1 elements at nesting depth 2"),
        (data("[2,2]", "FP32", "[[1,2],3,4]"), "expected 'data' as an array"),
        (data("[3]", "FP32", "[1,[2,3]]"), "as element 1, found `[2`"),
        (data("[2,3]", "FP32", "[[1,2],[3,4],[5,6]]"), "'data' is nested as [3,2], which does not match shape [2,3]"),
        (data("[1]", "FP32", "1"), "expected 'data' as an array, found `1`"),
        (r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1"#.to_owned(), "found the end of the body"),
        (data("[1]", "FP32", "[1 2]"), "expected ',' or ']' in 'data', found `2`"),
        (data("[1]", "FP32", &deep), "JSON nests deeper than the limit of 100 levels"),
        (format!(r#"{{"more":{deep}}}"#), "JSON nests deeper than the limit of 100 levels"),
        (data("[9223372036854775807,9]", "FP32", "[1]"), "causes total element count to exceed maximum size of"),
        (format!("{}\n,]}}", r#"{"inputs":["#), "(line 2, column 1 of the JSON)"),
        (
            r#"{"inputs":[{"name":"x","shape":[1],"datatype":"INT8","data":[1]},{"name":"x","shape":[1],"datatype":"INT8","data":[1]}]}"#
                .to_owned(),
            "input 'x' is given twice",
        ),
        (r#"{"inputs":[],"outputs":[{"name":"y"},{"name":"y"}]}"#.to_owned(), "output 'y' is requested twice"),
        (r#"{"inputs":[],"outputs":[{}]}"#.to_owned(), "outputs[0]: an output has no member 'name'"),
        (r#"{"inputs":[],"parameters":{"p":[]}}"#.to_owned(), "parameter 'p': expected a string, a number, true or false"),
        (r#"{"inputs":[],"parameters":{"timeout":-1}}"#.to_owned(), "invalid value for 'timeout' parameter: it is -1"),
        (
            input(r#""shape":[1],"datatype":"INT8","parameters":{"shared_memory_region":"r"}"#),
            "'shared_memory_byte_size' must be specified along with 'shared_memory_region' parameter for tensor 'x'",
        ),
        (
            input(r#""shape":[1],"datatype":"INT8","data":[1],"parameters":{"shared_memory_region":"r","shared_memory_byte_size":1}"#),
            "the input has data of its own and the parameter 'shared_memory_region'",
        ),
        (
            r#"{"inputs":[],"outputs":[{"name":"y","parameters":{"classification":1,"shared_memory_region":"r","shared_memory_byte_size":1}}]}"#.to_owned(),
            "outputs[0]: shared memory can't be set on classification output",
        ),
    ];
    for (json, expected) in cases {
        let error = read(&json).expect_err(&json);
        assert!(error.contains(expected), "{json}\n  got: {error}\n  not: {expected}");
    }
}

#[test]
fn the_number_of_tensors_is_bounded() {
    let list = |count: usize, members: &str| {
        (0..count).map(|at| format!(r#"{{"name":"{at}"{members}}}"#)).collect::<Vec<_>>().join(",")
    };
    let request = |inputs: usize, outputs: usize| {
        let input = r#","shape":[1],"datatype":"INT8","data":[1]"#;
        format!(r#"{{"inputs":[{}],"outputs":[{}]}}"#, list(inputs, input), list(outputs, ""))
    };
    let most = read(&request(MAX_TENSORS, MAX_TENSORS)).expect("as many as there may be");
    assert_eq!((most.inputs.len(), most.outputs.len()), (MAX_TENSORS, MAX_TENSORS));
    // Comparing each with each of so many would hold a thread for minutes.
    for (json, what) in [(request(1, 400_000), "outputs"), (request(100_000, 1), "inputs")] {
        let error = read(&json).expect_err(what);
        assert!(error.contains(&format!("the request has more than the {MAX_TENSORS} {what}")), "{error}");
    }
}

#[test]
fn parameters_and_dimensions_are_bounded() {
    let spec = ModelSpec::new("m", "b");
    let generated = |text: &str| parse_generate(text.as_bytes(), &spec, DEPTH).map_err(|error| error.to_string());
    let parameters = |count: usize| {
        let list: Vec<_> = (0..count).map(|at| format!(r#""p{at}":{at}"#)).collect();
        format!(r#"{{"parameters":{{{}}},"inputs":[]}}"#, list.join(","))
    };
    let flat = |count: usize| parameters(count).replace(r#","inputs":[]"#, "");
    let most = [read(&parameters(MAX_TENSORS)), generated(&flat(MAX_TENSORS))];
    assert!(
        most.iter().all(|request| request.as_ref().expect("as many as there may be").parameters.len() == MAX_TENSORS)
    );
    for error in [read(&parameters(MAX_TENSORS + 1)), generated(&flat(MAX_TENSORS + 1))] {
        let error = error.expect_err("one more");
        assert!(
            error.contains(&format!("more than the {MAX_TENSORS} parameters that one request may have")),
            "{error}"
        );
    }

    let ones = |count: usize| {
        let dims = vec!["1"; count].join(",");
        read(&format!(r#"{{"inputs":[{{"name":"x","shape":[{dims}],"datatype":"INT8","data":[7]}}]}}"#))
    };
    assert_eq!(ones(MAX_DIMENSIONS).expect("as many as there may be").inputs[0].tensor.shape().len(), MAX_DIMENSIONS);
    let error = ones(MAX_DIMENSIONS + 1).expect_err("one more");
    assert!(error.contains("input 'x': 'shape' has more than the 64 dimensions that one may have"), "{error}");
}

#[test]
fn good_requests_make_no_errors_on_the_way() {
    // Making one reads all of the text before it, so that many of them take time in the square of the body's size.
    let many = |member: &str| vec![member; 10_000].join(",");
    let numbers = many(r#""sequence_id":18446744073709551615,"p":-1,"q":9223372036854775807,"r":1.5,"s":"","t":true"#);
    let outputs = many(r#""binary_data":1,"classification":2,"other":[null,{"a":0.5}]"#);
    let data = [many("[0.5,1e300]"), many(r#"["a"]"#), many("[1]")];
    let good = format!(
        r#"{{"parameters":{{{numbers}}},"outputs":[{{"name":"y","parameters":{{{outputs}}}}}],"inputs":[
            {{"data":[{}],"name":"f","datatype":"FP64","shape":[10000,2]}},
            {{"name":"b","datatype":"BYTES","shape":[10000,1],"data":[{}]}},
            {{"name":"t","datatype":"BOOL","shape":[10000,1],"data":[{}]}}]}}"#,
        data[0], data[1], data[2]
    );
    let before = FAULTS.get();
    let request = read(&good).expect("valid");
    assert_eq!(FAULTS.get() - before, 0);
    assert_eq!((request.parameters["sequence_id"].clone(), request.parameters.len()), (Parameter::Int64(-1), 6));
    read(r#"{"parameters":{"p":9223372036854775808},"inputs":[]}"#).expect_err("too large for any other");
    assert_eq!(FAULTS.get() - before, 1, "it counts");
}

#[test]
fn what_will_be_converted_is_what_is_not_sent_as_it_is() {
    let output = |name: &str, length: usize| {
        NamedTensor::new(name, Tensor::from_vec(Shape::from([length as i64]), vec![1u8; length]).expect("valid"))
    };
    let response = InferResponse::new(vec![output("a", 1), output("b", 10), output("c", 100)]);
    let choice = |name: &str, binary, classes| OutputChoice { name: name.into(), binary, classes, place: None };
    let converted = |binary, choices: &[OutputChoice]| {
        Answer { id: "", model_name: "m", choices, binary, max_size: 1000 }.converted_bytes(&response)
    };
    assert_eq!(converted(false, &[]), 111);
    assert_eq!(converted(true, &[]), 0);
    assert_eq!(converted(true, &[choice("b", Some(false), None), choice("c", None, None)]), 10);
    assert_eq!(converted(false, &[choice("c", Some(true), None)]), 11);
    let elsewhere = Place { region: "r".to_owned(), offset: 0, byte_size: 100 };
    assert_eq!(converted(false, &[OutputChoice { place: Some(elsewhere), ..choice("c", None, None) }]), 11);
    // All of an output is looked at to find its best classes, however these are sent.
    assert_eq!(converted(true, &[choice("c", Some(true), Some(2))]), 100);
}

#[test]
fn requests_carry_ids_parameters_and_outputs() {
    let request = read(
        r#"{"id":"4\"2","parameters":{"timeout":1500,"binary_data_output":true,"a":"s","b":-3,"c":0.5,"d":false,"sequence_id":18446744073709551615},
            "outputs":[{"name":"y","parameters":{"binary_data":false,"classification":3,"other":[1]}},{"name":"z"}],
            "inputs":[]}"#,
    )
    .expect("valid");
    assert_eq!(request.id, "4\"2");
    assert_eq!(request.binary_output, Some(true));
    let expected = [
        ("a", Parameter::String("s".to_owned())),
        ("b", Parameter::Int64(-3)),
        ("c", Parameter::Double(0.5)),
        ("d", Parameter::Bool(false)),
        ("sequence_id", Parameter::Int64(-1)),
        ("timeout", Parameter::Int64(1500)),
    ];
    assert_eq!(request.parameters, expected.map(|(name, value)| (name.to_owned(), value)).into());
    let first = OutputChoice { name: "y".into(), binary: Some(false), classes: Some(3), place: None };
    let second = OutputChoice { name: "z".into(), binary: None, classes: None, place: None };
    assert_eq!(request.outputs, [first, second]);
}

#[test]
fn tensors_in_shared_memory_are_told_apart_from_those_in_the_body() {
    let request = read(
        r#"{"inputs":[{"name":"x","shape":[2],"datatype":"INT8","parameters":{"shared_memory_region":"r",
                "shared_memory_offset":8,"shared_memory_byte_size":2}},{"name":"b","shape":[1],"datatype":"INT8","data":[9]}],
            "outputs":[{"name":"y","parameters":{"shared_memory_region":"s","shared_memory_byte_size":64}}]}"#,
    )
    .expect("valid");
    let place = |region: &str, offset, byte_size| Place { region: region.to_owned(), offset, byte_size };
    let [input] = &request.shared_inputs[..] else { panic!("one: {request:?}") };
    assert_eq!((&*input.name, input.datatype, &input.place), ("x", DataType::Int8, &place("r", 8, 2)));
    assert_eq!((request.inputs.len(), &*request.inputs[0].name), (1, "b"));
    assert_eq!(request.outputs[0].place, Some(place("s", 0, 64)));

    let tensor = Tensor::from_vec(Shape::from([2]), vec![1.0f32, 2.0]).expect("valid");
    let response = InferResponse::new(vec![NamedTensor::new("y", tensor)]);
    let choices = &request.outputs;
    let answer = Answer { id: "", model_name: "m", choices, binary: true, max_size: 1000 };
    let encoded = encode(&response, &answer).expect("small");
    let expected = r#"{"model_name":"m","outputs":[{"name":"y","datatype":"FP32","shape":[2]}]}"#;
    assert_eq!((encoded.json_length, &encoded.parts[..]), (None, &[Bytes::from_static(expected.as_bytes())][..]));
}

#[test]
fn binary_tensors_are_slices_of_the_body() {
    let json = r#"{"inputs":[{"name":"a","shape":[2],"datatype":"INT16","parameters":{"binary_data_size":4}},
                   {"name":"b","shape":[1],"datatype":"INT8","data":[9]},
                   {"name":"c","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":5}}]}"#;
    let mut body = json.as_bytes().to_vec();
    body.extend_from_slice(&[1, 0, 2, 0, 1, 0, 0, 0, b'x']);
    let body = Bytes::from(body);
    let request = parse(&body, Layout::Binary(json.len()), DEPTH).expect("valid");
    assert_eq!(request.inputs[0].tensor.data().as_ptr(), body[json.len()..].as_ptr());
    assert_eq!(request.inputs[2].tensor.strings().expect("BYTES").next(), Some(&b"x"[..]));

    let cases = [
        (body.slice(..body.len() - 1), json.len(), "input 'c' has binary_data_size 5, but only 4 bytes are left"),
        (Bytes::from([&body[..], b"!"].concat()), json.len(), "unexpected additional input data: 1 bytes"),
        (body.clone(), body.len() + 1, "but the body has only"),
    ];
    for (body, json_length, expected) in cases {
        let error = parse(&body, Layout::Binary(json_length), DEPTH).expect_err(expected);
        assert!(error.message().contains(expected), "{error}");
    }
}

#[test]
fn a_raw_body_is_the_only_input() {
    let raw = |datatype, shape: &[i64], bytes: &'static [u8]| {
        raw_input(&"x".into(), datatype, &Shape::new(shape), Bytes::from_static(bytes))
            .map(|input| input.tensor.shape().to_vec())
            .map_err(|error| error.to_string())
    };
    assert_eq!(raw(DataType::Int16, &[-1, 2], &[0; 8]), Ok(vec![2, 2]));
    assert_eq!(raw(DataType::Int16, &[-1, -1], &[0; 8]), Ok(vec![1, 4]));
    assert_eq!(raw(DataType::Bytes, &[-1, 1], b"abc"), Ok(vec![1, 1]));
    assert_eq!(raw(DataType::Int8, &[3], &[0; 3]), Ok(vec![3]));
    assert!(raw(DataType::Int8, &[3], &[0; 4]).expect_err("too long").contains("got 4 bytes of data, expected 3"));
    assert!(raw(DataType::Int8, &[-1, -1, -1], &[0; 4]).expect_err("open").contains("3 open dimensions"));
}

fn answer_text(tensor: Tensor, binary: bool, max_size: u64) -> Result<(String, Vec<Bytes>), String> {
    let response = InferResponse::new(vec![NamedTensor::new("y", tensor)]);
    let answer = Answer { id: "7", model_name: "m", choices: &[], binary, max_size };
    let encoded = encode(&response, &answer).map_err(|error| error.to_string())?;
    let text = String::from_utf8(encoded.parts[0].to_vec()).expect("JSON is UTF-8");
    assert_eq!(encoded.json_length.is_some(), binary);
    Ok((text, encoded.parts))
}

#[test]
fn numbers_are_written_as_triton_writes_them() {
    let tensor =
        Tensor::from_vec(Shape::from([5]), vec![1.0f32, 0.1, -2.5e-8, f32::NAN, f32::NEG_INFINITY]).expect("valid");
    let (text, _) = answer_text(tensor, false, 1000).expect("fits");
    let expected = r#"{"id":"7","model_name":"m","outputs":[{"name":"y","datatype":"FP32","shape":[5],"data":[1.0,0.1,-2.5e-8,NaN,-Infinity]}]}"#;
    assert_eq!(text, expected);
    let strings = Tensor::from_strings(Shape::from([1]), &["a\"\u{1}"]).expect("valid");
    assert!(answer_text(strings, false, 1000).expect("fits").0.contains(r#""data":["a\"\u0001"]"#));
    let bytes = Tensor::from_strings(Shape::from([1]), &[[0xff]]).expect("valid");
    assert!(answer_text(bytes, false, 1000).expect_err("not UTF-8").contains("output 'y': element 0 is not UTF-8"));
}

#[test]
fn a_binary_answer_hands_out_the_tensors_own_bytes() {
    let tensor = Tensor::from_vec(Shape::from([3]), vec![1i32, 2, 3]).expect("valid");
    let address = tensor.data().as_ptr();
    let (text, parts) = answer_text(tensor, true, 1000).expect("fits");
    assert!(text.contains(r#""parameters":{"binary_data_size":12}"#), "{text}");
    assert_eq!(parts[1].as_ptr(), address);
}

#[test]
fn an_answer_past_the_bound_names_it() {
    let tensor = Tensor::from_vec(Shape::from([100_000]), vec![1.0f64; 100_000]).expect("valid");
    for binary in [false, true] {
        let error = answer_text(tensor.clone(), binary, 50_000).expect_err("too large");
        assert!(error.contains("50000 bytes that --max-response-size allows"), "{error}");
    }
}

/// A tensor of any type, with bytes of any value; the floats among them are numbers, strings are UTF-8.
fn any_tensor() -> impl Strategy<Value = Tensor> {
    let shape = proptest::collection::vec(0i64..4, 0..4).prop_map(Shape::from);
    let datatype = proptest::sample::select(DataType::ALL.to_vec());
    (shape, datatype, proptest::collection::vec(any::<u64>(), 64), proptest::collection::vec(any::<String>(), 27))
        .prop_map(|(shape, datatype, raw, strings)| tensor(shape, datatype, &raw, &strings))
}

fn tensor(shape: Shape, datatype: DataType, raw: &[u64], strings: &[String]) -> Tensor {
    let count = shape.element_count().expect("small");
    let raw = &raw[..count];
    macro_rules! of {
        ($convert:expr) => {
            Tensor::from_vec_as(datatype, shape, raw.iter().copied().map($convert).collect::<Vec<_>>())
        };
    }
    let finite = |value: f32| if value.is_finite() { value } else { 0.0 };
    let tensor = match datatype {
        DataType::Bytes => Tensor::from_strings(shape, &strings[..count]),
        DataType::Bool => of!(|raw| raw as u8 & 1),
        DataType::Uint8 | DataType::Int8 => of!(|raw| raw as u8),
        DataType::Uint16 | DataType::Int16 => of!(|raw| raw as u16),
        DataType::Uint32 | DataType::Int32 => of!(|raw| raw as u32),
        DataType::Uint64 | DataType::Int64 => of!(|raw| raw),
        DataType::Fp16 => of!(|raw| if f16::from_bits(raw as u16).is_finite() { raw as u16 } else { 0 }),
        DataType::Bf16 => of!(|raw| if bf16::from_bits(raw as u16).is_finite() { raw as u16 } else { 0 }),
        DataType::Fp32 => of!(|raw| finite(f32::from_bits(raw as u32))),
        DataType::Fp64 => of!(|raw| if f64::from_bits(raw).is_finite() { f64::from_bits(raw) } else { 0.0 }),
    };
    tensor.expect("as many elements as the shape says")
}

fn nest(flat: &[String], shape: &[i64]) -> String {
    let Some((first, rest)) = shape.split_first() else { return flat.join(",") };
    let rows = *first as usize;
    let length = flat.len().checked_div(rows).unwrap_or(0);
    let rows: Vec<String> = (0..rows).map(|row| nest(&flat[row * length..(row + 1) * length], rest)).collect();
    format!("[{}]", rows.join(","))
}

proptest! {
    #[test]
    fn what_is_written_as_json_is_read_back_flat_or_nested(tensor in any_tensor()) {
        let (text, _) = answer_text(tensor.clone(), false, u64::MAX).expect("fits");
        let request = read(&text.replace("\"outputs\":", "\"inputs\":")).expect(&text);
        prop_assert_eq!(&request.inputs[0].tensor, &tensor);

        let json: serde_json::Value = serde_json::from_str(&text).expect("finite, so valid JSON");
        if !tensor.shape().is_empty() {
            let number = |value: &serde_json::Value| value.to_string();
            let exact = tensor.datatype() != DataType::Fp64;
            let flat: Vec<String> = json["outputs"][0]["data"].as_array().expect("an array").iter().map(number).collect();
            let (shape, datatype, nested) = (tensor.shape(), tensor.datatype(), nest(&flat, tensor.shape()));
            let text = format!(r#"{{"inputs":[{{"name":"y","data":{nested},"shape":{shape},"datatype":"{datatype}"}}]}}"#);
            let request = read(&text).expect(&text);
            // serde_json's own reading of doubles may differ in the last digit.
            prop_assert!(!exact || request.inputs[0].tensor == tensor);
        }
    }

    #[test]
    fn what_is_written_as_binary_is_read_back(tensor in any_tensor()) {
        let (text, parts) = answer_text(tensor.clone(), true, u64::MAX).expect("fits");
        let json = text.replace("\"outputs\":", "\"inputs\":");
        let tail = parts.get(1).cloned().unwrap_or_default();
        let body = Bytes::from([json.as_bytes(), &tail].concat());
        let request = parse(&body, Layout::Binary(json.len()), DEPTH).expect(&json);
        prop_assert_eq!(&request.inputs[0].tensor, &tensor);
    }

    #[test]
    fn any_bytes_are_judged_without_a_panic(body in any::<Vec<u8>>(), json_length in 0usize..40) {
        let body = Bytes::from(body);
        let _ = parse(&body, Layout::Json, DEPTH);
        let _ = parse(&body, Layout::Binary(json_length), DEPTH);
    }

    #[test]
    fn a_good_request_with_a_few_bytes_changed_is_judged_without_a_panic(
        changes in proptest::collection::vec((0usize..200, any::<u8>()), 1..4), cut in 0usize..200,
    ) {
        let good = br#"{"id":"1","inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[[1.5,-2e3]]},{"name":"s","shape":[1],"datatype":"BYTES","data":["\u00e9"]}],"outputs":[{"name":"y","parameters":{"classification":2}}]}"#;
        let mut body = good.to_vec();
        for (position, byte) in changes {
            body[position] = byte;
        }
        body.truncate(body.len().min(cut + 30));
        let _ = parse(&Bytes::from(body), Layout::Json, DEPTH);
    }
}
