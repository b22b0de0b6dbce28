//! Dynamic batching over the wire: requests of different clients run together, and a bad one fails alone.

use e2e::{Answer, Config, FolderStore, Server, Store, generated_model, infer};
use futures::future::join_all;
use serde_json::{Value, json};
use test_util::archive::ArchiveBuilder;

/// Batches of four, which start as soon as they are full: whatever the machine does, four requests are one batch.
const FOURS: &str = "max_batch_size: 4 dynamic_batching { max_queue_delay_microseconds: 600000000 }";
const TARGET: &str = "batching.tar.gz";

async fn serve(models: &[(&str, Config, Option<Vec<u8>>)]) -> (FolderStore, Server) {
    let archive = models.iter().fold(ArchiveBuilder::new(), |archive, (name, config, onnx)| {
        let archive = archive.file(&format!("{name}/config.pbtxt"), config.text());
        match onnx {
            Some(onnx) => archive.file(&format!("{name}/1/model.onnx"), onnx),
            None => archive.directory(&format!("{name}/1")),
        }
    });
    let store = FolderStore::new();
    store.put(TARGET, &archive.gzip());
    let server = store.launch().start().await;
    (store, server)
}

/// Sends all of them at once, each over a connection of its own.
async fn at_once(server: &Server, requests: &[Value]) -> Vec<Answer> {
    join_all(requests.iter().map(|request| server.invoke(TARGET, request))).await
}

/// Of the one model whose label ends so: executions and inferences.
async fn ran(server: &Server, model: &str) -> (f64, f64) {
    let metrics = server.metrics().await;
    let labels = metrics.values("nv_inference_exec_count", "model");
    let label = labels.iter().find(|label| label.ends_with(model)).unwrap_or_else(|| panic!("{model} in {labels:?}"));
    let of = |metric| metrics.sum(metric, &[("model", label)]);
    (of("nv_inference_exec_count"), of("nv_inference_count"))
}

fn lookup() -> (&'static str, Config, Option<Vec<u8>>) {
    let config = Config::new("lookup", "onnxruntime").line(FOURS).input("x", "INT64", "1").output("y", "FP32", "1");
    ("lookup", config, Some(generated_model("lookup")))
}

fn look_up(rows: &[i64]) -> Value {
    infer(&[json!({ "name": "x", "datatype": "INT64", "shape": [rows.len(), 1], "data": rows })])
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_different_clients_run_together() {
    let (_store, server) = serve(&[lookup()]).await;
    let answers = at_once(&server, &[look_up(&[3]), look_up(&[5, 6]), look_up(&[9])]).await;
    let numbers: Vec<Vec<f64>> = answers.into_iter().map(|answer| answer.ok().numbers("y")).collect();
    assert_eq!(numbers, [vec![30.0], vec![50.0, 60.0], vec![90.0]]);
    assert_eq!(ran(&server, TARGET).await, (1.0, 4.0), "one execution of four rows");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_fails_alone() {
    let (_store, server) = serve(&[lookup()]).await;
    let answers = at_once(&server, &[look_up(&[1]), look_up(&[77]), look_up(&[2]), look_up(&[3])]).await;
    let [first, bad, third, fourth] = answers.try_into().expect("four");
    assert!(bad.error().contains("indices element out of data bounds"), "{bad:?}");
    for (answer, expected) in [(first, 10.0), (third, 20.0), (fourth, 30.0)] {
        assert_eq!(answer.ok().numbers("y"), [expected], "its neighbour is not its fault");
    }
    assert_eq!(ran(&server, TARGET).await, (5.0, 3.0), "once together, then each alone");
    assert_eq!(server.metrics().await.sum("panoply_failed_batches_total", &[]), 1.0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_of_different_requests_of_an_ensemble_run_together() {
    let ports = |config: Config| config.input("x", "FP32", "512").output("y", "FP32", "512");
    let member = |name: &'static str, factor: u32| {
        let config = ports(Config::new(name, "onnxruntime").line(FOURS));
        (name, config, Some(generated_model(&format!("scaling_{factor}"))))
    };
    let ensemble = ports(Config::ensemble("chain").line("max_batch_size: 4"));
    let ensemble = ensemble.step("first", &[("x", "x")], &[("y", "middle")]);
    let ensemble = ensemble.step("second", &[("x", "middle")], &[("y", "y")]);
    let (_store, server) = serve(&[("chain", ensemble, None), member("first", 2), member("second", 5)]).await;
    let request = |number: usize| {
        infer(&[json!({ "name": "x", "datatype": "FP32", "shape": [1, 512], "data": vec![number; 512] })])
    };
    let answers = at_once(&server, &[1, 2, 3, 4].map(request)).await;
    for (number, answer) in (1..).zip(answers) {
        assert_eq!(answer.ok().numbers("y"), vec![f64::from(number * 10); 512]);
    }
    for (model, executions) in [("first", 1.0), ("second", 1.0), (TARGET, 4.0)] {
        assert_eq!(ran(&server, model).await, (executions, 4.0), "{model}");
    }
    server.stop().await;
}

/// Requests of different widths, which the model gets in one dimension, along with what the server tells it about them.
fn ragged(batching: &str) -> (&'static str, Config, Option<Vec<u8>>) {
    let made = |kind: &str, target: &str, datatype: &str| {
        format!("{{ kind: BATCH_{kind} target_name: '{target}' data_type: TYPE_{datatype} source_input: 'x' }}")
    };
    let batch_inputs = [
        made("ACCUMULATED_ELEMENT_COUNT_WITH_ZERO", "index", "INT32"),
        made("ELEMENT_COUNT", "count_of", "FP32"),
        made("MAX_ELEMENT_COUNT_AS_SHAPE", "most_of", "FP32"),
        made("ITEM_SHAPE", "shape_of", "INT32"),
    ];
    let config = Config::new("ragged", "onnxruntime").line(batching);
    let config = config.line("input { name: 'x' data_type: TYPE_FP32 dims: -1 allow_ragged_batch: true }");
    let config = config.line(&format!("batch_input [ {} ]", batch_inputs.join(", ")));
    let config = config.line("batch_output { target_name: 'twice' source_input: 'x' }");
    let config = config.output("sum", "FP32", "1").output("twice", "FP32", "-1");
    let config = config.output("count", "FP32", "1").output("most", "FP32", "1").output("width", "INT32", "1");
    ("ragged", config, Some(generated_model("ragged")))
}

fn row(numbers: &[f32]) -> Value {
    infer(&[json!({ "name": "x", "datatype": "FP32", "shape": [1, numbers.len()], "data": numbers })])
}

fn check_ragged(answer: &Answer, numbers: &[f32], most: f64) {
    let width = numbers.len() as f64;
    assert_eq!(answer.numbers("sum"), [f64::from(numbers.iter().sum::<f32>())]);
    assert_eq!(answer.output("twice")["shape"], json!([1, numbers.len()]));
    assert_eq!(answer.numbers("twice"), numbers.iter().map(|n| f64::from(n * 2.0)).collect::<Vec<_>>());
    assert_eq!((answer.numbers("count"), answer.numbers("width")), (vec![width], vec![width]));
    assert_eq!(answer.numbers("most"), [most]);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_different_shapes_run_together_without_padding() {
    let (_store, server) = serve(&[ragged(FOURS)]).await;
    let rows: [&[f32]; 4] = [&[1.0, 2.0, 3.0], &[10.0], &[4.0, 5.0, 6.0, 7.0, 8.0], &[0.5, 0.25]];
    for (answer, numbers) in at_once(&server, &rows.map(row)).await.into_iter().zip(rows) {
        check_ragged(&answer.ok(), numbers, 5.0);
    }
    assert_eq!(ran(&server, TARGET).await, (1.0, 4.0));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ragged_model_is_warmed_up_in_the_form_of_its_batches() {
    let input = "inputs { key: 'x' value { data_type: TYPE_FP32 dims: 3 random_data: true } }";
    let (_store, server) =
        serve(&[ragged(&format!("max_batch_size: 4 model_warmup {{ name: 's' batch_size: 4 {input} }}"))]).await;
    let numbers = [1.0, 2.0];
    check_ragged(&server.invoke(TARGET, &row(&numbers)).await.ok(), &numbers, 2.0);
    assert_eq!(ran(&server, TARGET).await, (1.0, 1.0));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ragged_model_without_dynamic_batching_gets_its_inputs_in_the_same_form() {
    let (_store, server) = serve(&[ragged("max_batch_size: 4")]).await;
    for numbers in [&[1.0, 2.0, 3.0][..], &[10.0]] {
        let answer = server.invoke(TARGET, &row(numbers)).await.ok();
        check_ragged(&answer, numbers, numbers.len() as f64);
    }
    assert_eq!(ran(&server, TARGET).await, (2.0, 2.0));
    server.stop().await;
}
