//! What `model_warmup` says, and what it may not say.

use inference::{WarmupData, WarmupInput, WarmupSample};

use super::*;

fn with(inputs: &str) -> String {
    format!("{ONNX}\nmax_batch_size: 4\nmodel_warmup {{ name: 'w' batch_size: 2 {inputs} }}")
}

#[test]
fn samples_are_read() {
    let text = with(
        "count: 3 inputs { key: 'a' value { data_type: TYPE_FP32 dims: [ 2, 3 ] zero_data: true } }
         inputs { key: 'b' value { data_type: TYPE_STRING dims: 1 random_data: true } }
         inputs { key: 'c' value { data_type: TYPE_INT64 input_data_file: 'sub/c.bin' } }",
    );
    let model = only(&text).expect("valid");
    let input = |name: &str, datatype, dims: &[i64], data| WarmupInput {
        name: name.into(),
        datatype,
        dims: inference::Shape::new(dims),
        data,
    };
    let inputs = vec![
        input("a", DataType::Fp32, &[2, 3], WarmupData::Zero),
        input("b", DataType::Bytes, &[1], WarmupData::Random),
        input("c", DataType::Int64, &[], WarmupData::File("sub/c.bin".into())),
    ];
    let sample = WarmupSample { name: "w".to_owned(), batch_size: 2, count: 3, inputs };
    assert_eq!(model.spec.warmup, [sample]);
    let error = model.read_warmup_files().expect_err("there is no such file");
    assert!(error.message().contains("m/config.pbtxt:3:") && error.message().contains("warmup/sub/c.bin"), "{error}");
}

#[test]
fn what_makes_no_sense_is_refused_with_its_place() {
    let input = |value: &str| with(&format!("inputs {{ key: 'a' value {{ {value} }} }}"));
    let cases = [
        (input("data_type: TYPE_FP32 dims: [ -1 ] zero_data: true"), "must be sizes"),
        (input("data_type: TYPE_FP32 dims: [ 1000000, 1000000 ] zero_data: true"), "too large"),
        (input("data_type: TYPE_INVALID dims: 1 zero_data: true"), "`data_type` must be"),
        (input("data_type: TYPE_FP32 dims: 1"), "needs one of"),
        (input("data_type: TYPE_FP32 dims: 1 input_data_file: '../x'"), "a path within `warmup`"),
        (with("count: 10001"), "at most 10000"),
        (with("").replace("batch_size: 2", "batch_size: 5"), "`max_batch_size` allows 4"),
    ];
    for (config, message) in cases {
        let error = only(&config).expect_err(message);
        assert!(error.message().contains("m/config.pbtxt:3:") && error.message().contains(message), "{error}");
    }
}
