//! KServe v2 on the HTTP port: metadata, configuration, readiness, index, and tensors both ways.

use e2e::{Answer, Config, FolderStore, Server, Store, binary_request, bytes_tensor, echo, fp32, infer};
use http::Method;
use serde_json::{Value, json};
use test_util::archive::ArchiveBuilder;

use crate::assert_has;

/// One input and output of each of KServe's types.
const TYPES: [(&str, usize); 14] = [
    ("BOOL", 1),
    ("UINT8", 1),
    ("UINT16", 2),
    ("UINT32", 4),
    ("UINT64", 8),
    ("INT8", 1),
    ("INT16", 2),
    ("INT32", 4),
    ("INT64", 8),
    ("FP16", 2),
    ("BF16", 2),
    ("FP32", 4),
    ("FP64", 8),
    ("BYTES", 0),
];

fn any_type() -> Vec<u8> {
    let config = Config::new("types", "identity");
    let config = TYPES.iter().fold(config, |config, (name, _)| {
        let datatype = if *name == "BYTES" { "STRING" } else { name };
        let input = format!("{{ name: \"{name}\" data_type: TYPE_{datatype} dims: [ -1, 2 ] optional: true }}");
        config.line(&format!("input {input}")).output(&format!("{name}_OUT"), datatype, "-1, 2")
    });
    ArchiveBuilder::new().file("config.pbtxt", config.text()).gzip()
}

async fn serve() -> (FolderStore, Server) {
    let store = FolderStore::new();
    store.put("t/a.tar.gz", &echo());
    store.put("types", &any_type());
    let server = store.launch().start().await;
    (store, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_and_its_models_are() {
    let (_store, server) = serve().await;
    let metadata = server.get("/v2").await.ok().json();
    assert_eq!(metadata["name"], "panoply");
    assert_has(&metadata["extensions"].to_string(), &["binary_tensor_data", "model_configuration", "classification"]);
    assert_eq!(server.get("/v2/health/live").await.status, 200);

    let path = "/v2/models/t%2Fa.tar.gz";
    let not_ready = server.get(&format!("{path}/ready")).await;
    assert_eq!((not_ready.status, not_ready.error().as_str()), (400, "Model version not ready"));
    let model = server.get(path).await.ok().json();
    let tensor = |name: &str| json!([{ "name": name, "datatype": "FP32", "shape": [-1] }]);
    let expected = json!({
        "name": "t/a.tar.gz", "versions": ["1"], "platform": "identity", "inputs": tensor("X"), "outputs": tensor("Y")
    });
    assert_eq!(model, expected);
    assert_eq!(server.get(&format!("{path}/ready")).await.status, 200, "describing it has loaded it");
    assert_eq!(server.get(&format!("{path}/versions/1/ready")).await.status, 200);
    let config = server.get(&format!("{path}/config")).await.ok().json();
    assert_eq!((&config["name"], &config["backend"]), (&json!("echo"), &json!("identity")));
    assert_eq!(config["input"][0]["dims"], json!([-1]), "{config}");

    let index = async |body: &str| {
        server.http().send(Method::POST, &server.url("/v2/repository/index"), &[], body.to_owned()).await.ok().json()
    };
    let ready = json!([{ "name": "t/a.tar.gz", "version": "1", "state": "READY" }]);
    assert_eq!(index("").await, ready);
    assert_eq!(index("{\"ready\":true}").await, ready);
    let answer = server.http().post(&server.url(&format!("{path}/infer")), &infer(&[fp32("X", &[1.5])])).await.ok();
    assert_eq!((answer.json()["model_name"].clone(), answer.numbers("Y")), (json!("t/a.tar.gz"), vec![1.5]));
}

#[tokio::test(flavor = "multi_thread")]
async fn json_data_may_be_flat_or_nested_under_any_content_type() {
    let (_store, server) = serve().await;
    let url = server.url("/v2/models/types/infer");
    for (data, content_type) in [
        (json!([1, 2, 3, 4]), "application/json"),
        (json!([[1, 2], [3, 4]]), "application/octet-stream"),
        (json!([[1.0, 2e0], [3, 4.0]]), "text/plain"),
        (json!([[1, 2], [3, 4]]), "application/x-www-form-urlencoded"),
    ] {
        let input = json!({ "name": "FP32", "datatype": "FP32", "shape": [2, 2], "data": data });
        let request = json!({ "id": "42", "inputs": [input] });
        let headers = [("content-type", content_type)];
        let answer = server.http().send(Method::POST, &url, &headers, request.to_string()).await.ok();
        let output = json!([{ "name": "FP32_OUT", "datatype": "FP32", "shape": [2, 2], "data": [1.0, 2.0, 3.0, 4.0] }]);
        assert_eq!((&answer.json()["outputs"], &answer.json()["id"]), (&output, &json!("42")), "{content_type}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
}

/// Four elements of a type as they lie in memory.
fn elements(datatype: &str, size: usize) -> Vec<u8> {
    match datatype {
        "BYTES" => bytes_tensor(&[b"", b"\x00\xff", "zwölf".as_bytes(), b"{}"]),
        "BOOL" => vec![1, 0, 0, 1],
        // Bit patterns that are ordinary numbers in every float format.
        _ => (0..4 * size).map(|index| [0x11, 0x42, 0x37, 0x40][index % 4]).collect(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn binary_tensors_of_every_type_come_back_as_they_were() {
    let (_store, server) = serve().await;
    let tensors: Vec<Vec<u8>> = TYPES.iter().map(|(name, size)| elements(name, *size)).collect();
    let inputs: Vec<Value> = TYPES
        .iter()
        .zip(&tensors)
        .map(|((name, _), data)| {
            json!({ "name": name, "datatype": name, "shape": [2, 2], "parameters": { "binary_data_size": data.len() } })
        })
        .collect();
    let request = json!({ "inputs": inputs, "parameters": { "binary_data_output": true } });
    let slices: Vec<&[u8]> = tensors.iter().map(Vec::as_slice).collect();
    let (body, json_length) = binary_request(&request, &slices);
    let headers = [("inference-header-content-length", json_length.to_string())];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    let answer = server.http().send(Method::POST, &server.url("/v2/models/types/infer"), &headers, body).await.ok();
    let (json, mut data) = split_binary(&answer);
    for (((name, _), tensor), output) in TYPES.iter().zip(&tensors).zip(json["outputs"].as_array().expect("outputs")) {
        let size = output["parameters"]["binary_data_size"].as_u64().expect("a size") as usize;
        assert_eq!((&output["name"], &output["shape"]), (&json!(format!("{name}_OUT")), &json!([2, 2])));
        assert_eq!(&data[..size], &tensor[..], "{name}");
        data = &data[size..];
    }
    assert!(data.is_empty());
}

/// The JSON and the tensors of a binary answer.
fn split_binary(answer: &Answer) -> (Value, &[u8]) {
    let length =
        answer.header("inference-header-content-length").expect("the answer is binary").parse().expect("a number");
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    let (json, data) = answer.body.split_at(length);
    (serde_json::from_slice(json).expect("JSON"), data)
}

#[tokio::test(flavor = "multi_thread")]
async fn binary_and_json_mix_by_tensor() {
    let (_store, server) = serve().await;
    let data: Vec<u8> = [7i32, -7].iter().flat_map(|number| number.to_le_bytes()).collect();
    let request = json!({
        "inputs": [
            { "name": "INT32", "datatype": "INT32", "shape": [1, 2], "parameters": { "binary_data_size": 8 } },
            { "name": "BYTES", "datatype": "BYTES", "shape": [1, 2], "data": ["a", "ü"] },
        ],
        "outputs": [
            { "name": "BYTES_OUT", "parameters": { "binary_data": true } },
            { "name": "INT32_OUT", "parameters": { "binary_data": false } },
        ],
    });
    let (body, json_length) = binary_request(&request, &[&data]);
    let length = json_length.to_string();
    let headers = [("inference-header-content-length", length.as_str())];
    let answer = server.http().send(Method::POST, &server.url("/v2/models/types/infer"), &headers, body).await.ok();
    let (json, data) = split_binary(&answer);
    let outputs = json["outputs"].as_array().expect("outputs");
    let numbers = outputs.iter().find(|output| output["name"] == "INT32_OUT").expect("the numbers");
    assert_eq!(numbers["data"], json!([7, -7]));
    assert_eq!(data, bytes_tensor(&[b"a", "ü".as_bytes()]));

    // A body without any JSON is the one input's data.
    let raw: Vec<u8> = [1.5f32, 2.5, 3.5].iter().flat_map(|number| number.to_le_bytes()).collect();
    let headers = [("inference-header-content-length", "0")];
    let url = server.url("/v2/models/t%2Fa.tar.gz/infer");
    let answer = server.http().send(Method::POST, &url, &headers, raw.clone()).await.ok();
    assert_eq!(split_binary(&answer).1, raw);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_told_what_is_wrong() {
    let (_store, server) = serve().await;
    let url = server.url("/v2/models/t%2Fa.tar.gz/infer");
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let x = |rest: &str| format!("{{\"inputs\":[{{\"name\":\"X\",{rest}}}]}}");
    let cases: [(String, &[&str]); 11] = [
        ("not json".to_owned(), &["JSON"]),
        ("{}".to_owned(), &["inputs"]),
        ("{\"inputs\":[]}".to_owned(), &["expected 1 inputs but got 0", "X"]),
        (x("\"datatype\":\"FP32\",\"shape\":[2],\"data\":[1]"), &["X", "2", "1"]),
        (x("\"datatype\":\"FP32\",\"shape\":[1],\"data\":[\"one\"]"), &["X"]),
        (x("\"datatype\":\"INT64\",\"shape\":[1],\"data\":[1]"), &["X", "INT64", "FP32"]),
        (x("\"datatype\":\"FP33\",\"shape\":[1],\"data\":[1]"), &["FP33"]),
        (x("\"datatype\":\"FP32\",\"shape\":[1,1],\"data\":[1]"), &["X", "[1,1]"]),
        (x("\"datatype\":\"FP32\",\"shape\":[-1],\"data\":[1]"), &["X", "-1"]),
        (x(&format!("\"datatype\":\"FP32\",\"shape\":[1],\"data\":{deep}")), &["100"]),
        (
            "{\"inputs\":[{\"name\":\"X\",\"datatype\":\"FP32\",\"shape\":[1],\"data\":[1]}],\"outputs\":[{\"name\":\"Z\"}]}"
                .to_owned(),
            &["unexpected inference output 'Z'"],
        ),
    ];
    for (body, parts) in cases {
        let answer = server.http().send(Method::POST, &url, &[], body.clone()).await;
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        assert_has(&answer.error(), parts);
    }
    for (method, path, headers, status) in [
        (Method::GET, "/nowhere", [("x-none", "")], 404),
        (Method::DELETE, "/v2", [("x-none", "")], 405),
        (Method::POST, "/v2/models/nope/infer", [("x-none", "")], 404),
        (Method::GET, "/v2/models/nope", [("x-none", "")], 404),
        (Method::POST, "/v2/models/types/infer", [("content-encoding", "br")], 415),
        (Method::POST, "/v2/models/a%00b/infer", [("x-none", "")], 404),
        (Method::POST, "/v2/models/..%2F..%2Fetc%2Fpasswd/infer", [("x-none", "")], 404),
    ] {
        let body = infer(&[fp32("X", &[1.0])]).to_string();
        let answer = server.http().send(method, &server.url(path), &headers, body).await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert!(!answer.error().is_empty(), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_bounded() {
    let store = FolderStore::new();
    store.put("echo", &echo());
    let server = store.launch().option("--max-response-size", "300B").start().await;
    server.invoke("echo", &infer(&[fp32("X", &[1.5; 10])])).await.ok();
    let large = server.invoke("echo", &infer(&[fp32("X", &[1.5; 100])])).await;
    assert_eq!(large.status, 400, "{large:?}");
    assert_has(&large.error(), &["300", "--max-response-size"]);
}
