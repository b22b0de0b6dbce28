//! What is fuzzed, from which seeds, and within which memory.

use frontend::fuzzing;

use crate::archive;

/// Something that reads bytes of strangers.
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// Reads an input; whether it was accepted.
    pub read: fn(&[u8]) -> bool,
    /// Inputs to begin with.
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
    /// What mutations put in.
    pub(crate) words: &'static [&'static [u8]],
    /// Bytes that any input may make it hold.
    pub(crate) fixed_bytes: usize,
    /// Bytes that each byte of an input may make it hold besides.
    pub(crate) bytes_per_byte: usize,
}

const JSON: &[&[u8]] = &[
    b"\"inputs\":",
    b"\"outputs\":",
    b"\"parameters\":",
    b"\"shape\":[",
    b"\"datatype\":\"BYTES\"",
    b"\"datatype\":\"FP16\"",
    b"\"data\":[",
    b"\"binary_data_size\":4",
    b"\"classification\":2",
    b"\"timeout\":9",
    b"\"shared_memory_region\":\"r\"",
    b"[[",
    b"]]",
    b"{",
    b"}",
    b",",
    b"\"\\u00e9\"",
    b"\\ud800",
    b"true",
    b"null",
    b"\"id\":\"x\"",
    b" \n",
    b"\xff",
];
const PROTOBUF: &[&[u8]] = &[
    b"\x2a\x00",
    b"\x3a\x04\0\0\0\0",
    b"\x0a\x01m",
    b"\x12\x04FP32",
    b"\x12\x05BYTES",
    b"\x1a\x01\x02",
    b"\x22\x00",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x1a\x09\x0a\x07timeout",
    b"\x80\x80\x80\x80\x08",
    b"\x0b",
    b"\x0c",
];
const PBTXT: &[&[u8]] = &[
    b"input [ {",
    b"} ]",
    b"output {",
    b"name: \"x\"",
    b"data_type: TYPE_FP32",
    b"dims: [ -1, 3 ]",
    b"max_batch_size: 8",
    b"dynamic_batching { }",
    b"instance_group [ { count: 2 kind: KIND_CPU } ]",
    b"ensemble_scheduling { step [ {",
    b"parameters { key: \"a\" value: { string_value: \"b\" } }",
    b"#",
    b"'",
    b"\\x",
    b"<",
    b">",
    b";",
    b"platform:",
    b"[",
];

const TAR: &[&[u8]] = &[
    b"../x",
    b"/etc/x",
    b"./",
    b"m/1/x",
    b"ustar\0",
    b"ustar  \0",
    b"00000000010\0",
    b"77777777777\0",
    b"\x80\0\0\0\0\0\0\x01",
    b"12 path=m/y\n",
    b"20 linkpath=../../x\n",
    b"12 size=999\n",
];

/// Every target.
pub const TARGETS: [Target; 14] = [
    Target {
        name: "json",
        read: fuzzing::json_body,
        seeds: json_seeds,
        words: JSON,
        fixed_bytes: 64 << 10,
        bytes_per_byte: 64,
    },
    Target {
        name: "generate",
        read: fuzzing::generate_body,
        seeds: generate_seeds,
        words: JSON,
        fixed_bytes: 64 << 10,
        bytes_per_byte: 64,
    },
    Target {
        name: "binary",
        read: fuzzing::raw_body,
        seeds: || vec![vec![0; 12], vec![1, 0, 0, 0, 7], vec![0xff; 64], Vec::new()],
        words: &[b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x01\0\0\0a"],
        fixed_bytes: 64 << 10,
        bytes_per_byte: 16,
    },
    Target {
        name: "mixed",
        read: fuzzing::mixed_body,
        seeds: mixed_seeds,
        words: JSON,
        fixed_bytes: 64 << 10,
        bytes_per_byte: 64,
    },
    Target {
        name: "config",
        read: config,
        seeds: config_seeds,
        words: PBTXT,
        // Half of it are the tables of known fields, made once.
        fixed_bytes: 4 << 20,
        bytes_per_byte: 1024,
    },
    Target {
        name: "grpc",
        read: fuzzing::grpc_message,
        seeds: grpc_seeds,
        words: PROTOBUF,
        fixed_bytes: 64 << 10,
        bytes_per_byte: 64,
    },
    Target {
        name: "grpc_stream",
        read: fuzzing::grpc_stream,
        seeds: grpc_stream_seeds,
        words: PROTOBUF,
        // What a message's head promises is reserved, up to the largest message.
        fixed_bytes: 192 << 10,
        // Pieces of one byte have dozens each around them.
        bytes_per_byte: 128,
    },
    Target {
        name: "compressed",
        read: fuzzing::compressed_body,
        seeds: compressed_seeds,
        words: &[b"\x1f\x8b\x08", b"\x78\x9c", b"\0\0\xff\xff"],
        fixed_bytes: 4 << 20,
        bytes_per_byte: 64,
    },
    Target {
        name: "load",
        read: fuzzing::load_body,
        seeds: load_seeds,
        words: JSON,
        fixed_bytes: 64 << 10,
        bytes_per_byte: 64,
    },
    Target {
        name: "settings",
        read: fuzzing::settings_body,
        seeds: settings_seeds,
        words: JSON,
        fixed_bytes: 64 << 10,
        bytes_per_byte: 128,
    },
    Target {
        name: "registration",
        read: fuzzing::registration,
        seeds: registration_seeds,
        words: JSON,
        fixed_bytes: 64 << 10,
        bytes_per_byte: 128,
    },
    Target {
        name: "header",
        read: fuzzing::header,
        seeds: header_seeds,
        words: &[b"00-", b"-01", b";q=0.5", b", gzip", b"json-header-size="],
        fixed_bytes: 64 << 10,
        bytes_per_byte: 64,
    },
    Target {
        name: "path",
        read: fuzzing::path,
        seeds: path_seeds,
        words: &[b"/", b"//", b"%2F", b"/versions/1", b"/infer", b"/trace/setting", b"?x=/y"],
        fixed_bytes: 64 << 10,
        bytes_per_byte: 64,
    },
    Target {
        name: "archive",
        read: archive::tar,
        seeds: archive::tars,
        words: TAR,
        fixed_bytes: 4 << 20,
        bytes_per_byte: 64,
    },
];

fn config(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let (_, problems) = protocol::read_model_config(&text);
    problems.is_empty()
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn json_seeds() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"id":"1","inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[[1,2.5],[-3e2,4]]}]}"#,
        r#"{"inputs":[{"name":"x","shape":[2],"datatype":"BYTES","data":["a","\u00e9\n"]}],"outputs":[{"name":"y"}]}"#,
        r#"{"parameters":{"timeout":5,"a":true,"b":"c"},"inputs":[{"data":[1,2],"datatype":"UINT8","shape":[2],"name":"x"}]}"#,
        r#"{"inputs":[{"name":"x","shape":[1],"datatype":"BOOL","data":[true]},{"name":"z","shape":[0],"datatype":"INT64","data":[]}],"outputs":[{"name":"y","parameters":{"classification":3,"binary_data":true}}]}"#,
    ])
}

fn generate_seeds() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"text":"hello","numbers":[1,2,3,4],"id":"7","temperature":0.5}"#,
        r#"{"parameters":{"text":["a","b"],"numbers":[[1,2],[3,4]],"top_k":3},"flag":true}"#,
    ])
}

/// As [`fuzzing::mixed_body`] wants them: two bytes of the JSON's length, the JSON, the tensors.
fn mixed_seeds() -> Vec<Vec<u8>> {
    let json = br#"{"inputs":[{"name":"x","shape":[2],"datatype":"FP32","parameters":{"binary_data_size":8}},{"name":"t","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":5}}]}"#;
    let length = (json.len() as u16).to_le_bytes();
    vec![[&length[..], json, &[0; 8], &[1, 0, 0, 0, b'a']].concat()]
}

fn config_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "name: \"m\"\nbackend: \"onnxruntime\"\nmax_batch_size: 8\ninput [ { name: \"x\" data_type: TYPE_FP32 dims: [ -1 ] } ]\noutput { name: 'y' data_type: TYPE_INT64 dims: 3 }",
        "platform: \"ensemble\" ensemble_scheduling { step [ { model_name: \"a\" model_version: -1 input_map { key: \"x\" value: \"y\" } } ] }",
        "dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 } # comment\ninstance_group [ { count: 2; kind: KIND_GPU gpus: [ 0, 1 ] } ]",
    ])
}

/// Fields by hand: model, id, a raw input and one with contents, an output, parameters.
fn grpc_seeds() -> Vec<Vec<u8>> {
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8], bytes].concat();
    let input = |more: &[u8]| field(5, &[&field(1, b"x")[..], &field(2, b"FP32"), &field(3, &[2]), more].concat());
    let head = [field(1, b"m"), field(3, b"id")].concat();
    let raw = [&head[..], &input(b""), &field(7, &[0; 8])].concat();
    let typed = [&head[..], &input(&field(5, &field(6, &[0; 8])))].concat();
    let parameter = field(4, &[field(1, b"timeout"), field(2, &[2 << 3, 9])].concat());
    let output = field(6, &field(1, b"y"));
    vec![[&raw[..], &parameter, &output].concat(), raw, typed]
}

/// As [`fuzzing::grpc_stream`] wants them: the size of pieces, and messages behind their heads.
fn grpc_stream_seeds() -> Vec<Vec<u8>> {
    let framed = |message: &Vec<u8>| [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat();
    let messages: Vec<u8> = grpc_seeds().iter().flat_map(framed).collect();
    [1, 7, 255].map(|size| [&[size], &messages[..]].concat()).to_vec()
}

/// As [`fuzzing::compressed_body`] wants them: a byte that says how, the body.
fn compressed_seeds() -> Vec<Vec<u8>> {
    let zlib = b"\x78\x9c\x4b\x4c\x4a\x06\0\x02\x4d\x01\x27";
    vec![[b"\0", &archive::gzip(&[7; 2000])[..]].concat(), [&b"\x01"[..], zlib].concat()]
}

fn load_seeds() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"parameters":{"config":"{\"max_batch_size\":8}","file:1/model.onnx":"AQIDBA=="}}"#,
        r#"{"parameters":{"unload_dependents":true},"more":[null,{"a":1}]}"#,
        "",
    ])
}

fn settings_seeds() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"trace_level":["TIMESTAMPS","TENSORS"],"trace_rate":"7","trace_count":"-1","log_frequency":null}"#,
        r#"{"log_info":true,"log_verbose_level":1,"log_format":"ISO8601","log_file":null}"#,
    ])
}

fn registration_seeds() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"model_name":"a","url":"/opt/ml/models/a/model"}"#,
        r#"{"key":"/region","offset":8,"byte_size":64}"#,
        concat!(
            r#"{"raw_handle":{"b64":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH"#,
            r#"BwcHBwcHBwcHBwcHBwcHBwcHBw=="},"device_id":0,"byte_size":64}"#,
        ),
        "limit=10&next_page_token=YWJj",
    ])
}

fn header_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "application/vnd.sagemaker-triton.binary+json;json-header-size=12",
        "gzip;q=0.8, deflate, *;q=0",
    ])
}

fn path_seeds() -> Vec<Vec<u8>> {
    texts(&["/v2/models/team/x.tar.gz/infer", "/v2/models/a/b/versions/3/infer?x=/y", "/v2/repository/models/a/b/load"])
}
