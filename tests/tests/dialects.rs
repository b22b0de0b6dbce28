//! Each dialect of `config.pbtxt` in the fixtures: the good ones serve, the bad ones are refused with line and column.

use std::fs;
use std::path::Path;

use e2e::{Answer, FolderStore, Store, fp32, generated_model, infer, texts};
use serde_json::{Value, json};
use test_util::archive::ArchiveBuilder;

use crate::{ask_echo, assert_has};

fn fixture(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/protocol/fixtures/config");
    fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn no_fixture_is_forgotten() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/protocol/fixtures/config");
    let files = fs::read_dir(folder).expect("the fixtures are there");
    let mut names: Vec<_> =
        files.map(|file| file.expect("a file").file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name.ends_with(".pbtxt"));
    names.sort();
    let tested = [
        "bad_two_problems.pbtxt",
        "bad_unclosed.pbtxt",
        "bad_unknown_field.pbtxt",
        "ensemble_lists.pbtxt",
        "full_scheduling.pbtxt",
        "parameters_colon_comma.pbtxt",
        "parameters_list.pbtxt",
        "repeated_blocks.pbtxt",
    ];
    assert_eq!(names, tested);
}

async fn ask(archive: ArchiveBuilder, request: &Value) -> Answer {
    let store = FolderStore::new();
    store.put("dialect.tar.gz", &archive.gzip());
    let server = store.launch().start().await;
    let answer = server.invoke("dialect.tar.gz", request).await;
    server.stop().await;
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_blocks() {
    let onnx = generated_model("dialect_repeated_blocks");
    let archive = ArchiveBuilder::new()
        .file("unnamed/config.pbtxt", fixture("repeated_blocks.pbtxt"))
        .file("unnamed/labels.txt", "only\n")
        .file("unnamed/1/model.onnx", onnx);
    let pixels: Vec<f32> = (0..2).flat_map(|row| vec![row as f32 + 1.0; 3 * 224 * 224]).collect();
    let image = json!({ "name": "x", "datatype": "FP32", "shape": [2, 3, 224, 224], "data": pixels });
    // `scale` reaches the model without its dimension of 1.
    let scale = json!({ "name": "scale", "datatype": "FP32", "shape": [2, 1], "data": [10.0, 100.0] });
    let answer = ask(archive.clone(), &infer(&[image.clone(), scale])).await.ok();
    assert_eq!((answer.numbers("y"), &answer.output("y")["shape"]), (vec![10.0, 200.0], &json!([2, 1])));
    // It is optional.
    let answer = ask(archive, &infer(&[image])).await.ok();
    assert_eq!(answer.numbers("y"), [1.0, 2.0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn full_scheduling() {
    let onnx = generated_model("dialect_full_scheduling");
    let archive = ["1", "2"]
        .iter()
        .fold(ArchiveBuilder::new(), |archive, version| archive.file(&format!("ranker/{version}/ranker.onnx"), &onnx));
    let archive = archive.file("ranker/config.pbtxt", fixture("full_scheduling.pbtxt"));
    let features = json!({ "name": "features", "datatype": "FP32", "shape": [1, 64], "data": vec![0.5; 64] });
    let answer = ask(archive, &infer(&[features])).await.ok();
    assert_eq!((answer.numbers("score"), &answer.json()["model_version"]), (vec![32.0], &json!("2")));
}

#[tokio::test(flavor = "multi_thread")]
async fn ensemble_lists() {
    let tokenize = "backend: \"tokenizer\" max_batch_size: 16
        input [ { name: \"TEXT\" data_type: TYPE_STRING dims: [ 1 ] } ]
        output [ { name: \"input_ids\" data_type: TYPE_INT64 dims: [ -1 ] },
                 { name: \"attention_mask\" data_type: TYPE_INT64 dims: [ -1 ] } ]";
    let encoder = "platform: \"onnxruntime_onnx\" max_batch_size: 16
        input [ { name: \"token_ids\" data_type: TYPE_INT64 dims: [ -1 ] },
                { name: \"attn_mask\" data_type: TYPE_INT64 dims: [ -1 ] } ]
        output [ { name: \"output\" data_type: TYPE_FP32 dims: [ -1, 384 ] } ]";
    let pool = "backend: \"pooling\" max_batch_size: 16
        input [ { name: \"TOKENS\" data_type: TYPE_FP32 dims: [ -1, 384 ] },
                { name: \"MASK\" data_type: TYPE_INT64 dims: [ -1 ] } ]
        output [ { name: \"SENTENCE\" data_type: TYPE_FP32 dims: [ 384 ] } ]";
    let archive = ArchiveBuilder::new()
        .file("sentence_pipeline/config.pbtxt", fixture("ensemble_lists.pbtxt"))
        .directory("sentence_pipeline/1")
        .file("tokenize/config.pbtxt", tokenize)
        .file("tokenize/1/vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\nworld\n")
        .file("encoder/config.pbtxt", encoder)
        .file("encoder/1/model.onnx", generated_model("dialect_ensemble_lists"))
        .file("pool/config.pbtxt", pool)
        .directory("pool/1");
    let answer = ask(archive, &infer(&[texts("TEXT", &["hello world", "Hello"])])).await.ok();
    // The model multiplies each token's id by 0, 1, 2 … 383: the mean of the ids is to be seen in each column.
    let means = [(2 + 5 + 6 + 3) as f64 / 4.0, (2 + 5 + 3) as f64 / 3.0];
    let embeddings = answer.numbers("EMBEDDING");
    assert_eq!(embeddings.len(), 2 * 384);
    for (index, number) in embeddings.iter().enumerate() {
        let expected = means[index / 384] * (index % 384) as f64;
        assert!((number - expected).abs() <= 1e-4 * expected.max(1.0), "{index}: {number} instead of {expected}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn backends_that_are_not_built_in_are_named_with_those_that_are() {
    let store = FolderStore::new();
    let server = store.launch().start().await;
    for (fixture_name, folder, backend) in [
        ("parameters_colon_comma.pbtxt", "inpaint", "'python'"),
        ("parameters_list.pbtxt", "preprocess_images", "'dali'"),
    ] {
        let archive = ArchiveBuilder::new().file(&format!("{folder}/config.pbtxt"), fixture(fixture_name));
        store.put(fixture_name, &archive.file(&format!("{folder}/1/model"), "x").gzip());
        let answer = server.invoke(fixture_name, &infer(&[fp32("X", &[1.0])])).await;
        assert_eq!(answer.status, 501, "{answer:?}");
        assert_has(&answer.error(), &[folder, backend, "identity", "onnxruntime", "tokenizer", "pooling", "ensemble"]);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_ones_are_refused_with_line_and_column() {
    let store = FolderStore::new();
    store.put("good", &e2e::echo());
    let server = store.launch().start().await;
    let cases: [(&str, &[&str]); 3] = [
        ("bad_unknown_field.pbtxt", &["m/config.pbtxt:4:1", "max_batchsize", "max_batch_size"]),
        ("bad_unclosed.pbtxt", &["m/config.pbtxt:4:"]),
        ("bad_two_problems.pbtxt", &["m/config.pbtxt:5:", "TYPE_FLOAT32", "TYPE_FP32", "m/config.pbtxt:6:", "dims"]),
    ];
    for (name, parts) in cases {
        store
            .put(name, &ArchiveBuilder::new().file("m/config.pbtxt", fixture(name)).file("m/1/model.onnx", "x").gzip());
        let answer = server.invoke(name, &infer(&[fp32("x", &[1.0])])).await;
        assert_eq!(answer.status, 400, "{name}: {answer:?}");
        assert_has(&answer.error(), parts);
        ask_echo(&server, "good", &[1.0]).await.ok();
    }
    server.stop().await;
}
