//! Ensembles over the wire: order, branches, pruning, errors, nesting, optional inputs, cancellation.

use std::sync::Arc;

use e2e::{
    Answer, Config, ENDLESS, Endless, FolderStore, Server, Store, fp32, generated_model, infer, prepared_model, until,
};
use serde_json::{Value, json};
use test_util::archive::ArchiveBuilder;

use crate::assert_has;

const TARGET: &str = "pipeline.tar.gz";

/// An archive of an ensemble and ONNX models, each under its name in `prepared` or `generated`.
fn archive(ensembles: &[(&str, Config)], onnx: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let archive = ensembles.iter().fold(ArchiveBuilder::new(), |archive, (name, config)| {
        archive.file(&format!("{name}/config.pbtxt"), config.text()).directory(&format!("{name}/1"))
    });
    onnx.iter().fold(archive, |archive, (name, model)| archive.file(&format!("{name}/1/model.onnx"), model)).gzip()
}

async fn serve(archive: &[u8]) -> (FolderStore, Arc<Server>) {
    let store = FolderStore::new();
    store.put(TARGET, archive);
    let server = store.launch().start().await;
    (store, Arc::new(server))
}

fn row(name: &str, data: [f32; 3]) -> Value {
    json!({ "name": name, "datatype": "FP32", "shape": [1, 3], "data": data })
}

/// Adds and subtracts twice: `TWICE_A` is 2a, `TWICE_B` is 2b, and `SUM` comes from the middle. The steps are listed
/// backwards; and `extra`, which depends on nothing but the inputs, makes `AGAIN`.
fn diamond() -> Vec<u8> {
    let rows = "3";
    let config = Config::ensemble("diamond").line("max_batch_size: 4");
    let config = config.input("A", "FP32", rows).input("B", "FP32", rows);
    let config =
        ["TWICE_A", "TWICE_B", "SUM", "AGAIN"].iter().fold(config, |config, name| config.output(name, "FP32", rows));
    let config = config
        .step("second", &[("a", "SUM"), ("b", "DIFFERENCE")], &[("sum", "TWICE_A"), ("difference", "TWICE_B")])
        .step("extra", &[("a", "A"), ("b", "B")], &[("sum", "AGAIN")])
        .step("first", &[("a", "A"), ("b", "B")], &[("sum", "SUM"), ("difference", "DIFFERENCE")]);
    let onnx = prepared_model("add_sub");
    archive(&[("diamond", config)], &["first", "second", "extra"].map(|name| (name, onnx.clone())))
}

async fn executions(server: &Server, model: &str) -> f64 {
    let metrics = server.metrics().await;
    let labels = metrics.values("nv_inference_exec_count", "model");
    let label = labels.iter().find(|label| label.ends_with(model)).unwrap_or_else(|| panic!("{model} in {labels:?}"));
    metrics.sum("nv_inference_exec_count", &[("model", label)])
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_run_when_their_inputs_are_there_and_only_when_needed() {
    let (_store, server) = serve(&diamond()).await;
    let inputs = [row("A", [1.0, 2.0, 3.0]), row("B", [10.0, 20.0, 30.0])];
    let all = server.invoke(TARGET, &infer(&inputs)).await.ok();
    assert_eq!(all.numbers("TWICE_A"), [2.0, 4.0, 6.0]);
    assert_eq!(all.numbers("TWICE_B"), [20.0, 40.0, 60.0]);
    assert_eq!(all.numbers("SUM"), [11.0, 22.0, 33.0]);
    assert_eq!(all.numbers("AGAIN"), [11.0, 22.0, 33.0]);
    assert_eq!(all.json()["model_name"], TARGET);

    for (wanted, runs) in [("SUM", [2.0, 1.0, 1.0]), ("TWICE_B", [3.0, 2.0, 1.0]), ("AGAIN", [3.0, 2.0, 2.0])] {
        let mut request = infer(&inputs);
        request["outputs"] = json!([{ "name": wanted }]);
        let answer = server.invoke(TARGET, &request).await.ok();
        assert_eq!(answer.output_names(), [wanted]);
        assert_eq!(answer.numbers(wanted), all.numbers(wanted));
        for (model, expected) in ["first", "second", "extra"].iter().zip(runs) {
            assert_eq!(executions(&server, model).await, expected, "'{model}' after '{wanted}' was wanted");
        }
    }
}

fn two_branches() -> Vec<u8> {
    let config = Config::ensemble("both").input("ROUNDS", "INT64", "1");
    let config = config.output("LEFT", "INT64", "1").output("RIGHT", "INT64", "1");
    let config = config.step("left", &[("rounds", "ROUNDS")], &[("done", "LEFT")]).step(
        "right",
        &[("rounds", "ROUNDS")],
        &[("done", "RIGHT")],
    );
    let onnx = generated_model("spin");
    archive(&[("both", config)], &["left", "right"].map(|name| (name, onnx.clone())))
}

fn rounds(count: u64) -> Value {
    infer(&[json!({ "name": "ROUNDS", "datatype": "INT64", "shape": [1], "data": [count] })])
}

#[tokio::test(flavor = "multi_thread")]
async fn independent_branches_run_at_the_same_time() {
    let (_store, server) = serve(&two_branches()).await;
    server.invoke(TARGET, &rounds(1)).await.ok();
    let duration = async |metric: &str, ending: &str| {
        let metrics = server.metrics().await;
        let labels = metrics.values(metric, "model");
        labels
            .iter()
            .filter(|label| label.ends_with(ending))
            .map(|label| metrics.sum(metric, &[("model", label)]))
            .sum::<f64>()
    };
    let answer = server.invoke(TARGET, &rounds(100_000)).await.ok();
    assert_eq!((answer.numbers("LEFT"), answer.numbers("RIGHT")), (vec![100_000.0], vec![100_000.0]));
    let branches = duration("nv_inference_compute_infer_duration_us", "left").await
        + duration("nv_inference_compute_infer_duration_us", "right").await;
    let whole = duration("nv_inference_request_duration_us", TARGET).await;
    // However busy the machine is: one after the other, the whole would take at least as long as both together.
    assert!(whole > 0.0 && whole < 0.9 * branches, "{whole} us for two branches of together {branches} us");
}

/// `reshape` fails on a shape that does not fit; the ensemble is within another one.
fn nested() -> Vec<u8> {
    let ports =
        |config: Config| config.input("X", "FP32", "-1").input("SHAPE", "INT64", "-1").output("Y", "FP32", "-1");
    let inner = ports(Config::ensemble("inner"));
    let inner = inner.step("reshape", &[("x", "X"), ("shape", "SHAPE")], &[("y", "Y")]);
    let outer = ports(Config::ensemble("outer"));
    let outer = outer.step("inner", &[("X", "X"), ("SHAPE", "SHAPE")], &[("Y", "Y")]);
    let reshape = Config::new("reshape", "onnxruntime");
    let reshape = reshape.input("x", "FP32", "-1").input("shape", "INT64", "-1").output("y", "FP32", "-1");
    archive(&[("outer", outer), ("inner", inner), ("reshape", reshape)], &[("reshape", prepared_model("reshape"))])
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_in_a_step_names_ensemble_and_step() {
    let (_store, server) = serve(&nested()).await;
    let request = |shape: i64| {
        let shape = json!({ "name": "SHAPE", "datatype": "INT64", "shape": [1], "data": [shape] });
        infer(&[fp32("X", &[1.0, 2.0, 3.0, 4.0]), shape])
    };
    let good = server.invoke(TARGET, &request(4)).await.ok();
    assert_eq!(good.numbers("Y"), [1.0, 2.0, 3.0, 4.0]);
    let bad = server.invoke(TARGET, &request(3)).await;
    assert!(bad.status == 400 || bad.status == 500, "{bad:?}");
    assert_has(&bad.error(), &["in ensemble 'outer', step 'inner' (0): in ensemble 'inner', step 'reshape' (0): "]);
    let metrics = server.metrics().await;
    assert_eq!(metrics.sum("nv_inference_request_failure", &[("model", TARGET), ("reason", "BACKEND")]), 1.0);
    assert_eq!(metrics.sum("nv_inference_request_success", &[("model", TARGET)]), 1.0);
    // SDKs are told that it was the model.
    let runtime = server.http().invoke(&server.url("/endpoints/e/invocations"), TARGET, &request(3)).await;
    assert_eq!((runtime.status, runtime.header("x-amzn-errortype")), (424, Some("ModelError")), "{runtime:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_optional_input_that_is_absent_stays_absent() {
    let ports =
        |config: Config| config.input("x", "FP32", "-1").optional_input("scale", "FP32", "1").output("y", "FP32", "-1");
    let scaled = ports(Config::new("scaled", "onnxruntime"));
    let config = ports(Config::ensemble("optional"));
    let config = config.step("scaled", &[("x", "x"), ("scale", "scale")], &[("y", "y")]);
    let (_store, server) =
        serve(&archive(&[("optional", config), ("scaled", scaled)], &[("scaled", prepared_model("optional_input"))]))
            .await;
    let ask = async |inputs: &[Value]| server.invoke(TARGET, &infer(inputs)).await;
    assert_eq!(ask(&[fp32("x", &[1.0, 2.0])]).await.ok().numbers("y"), [10.0, 20.0]);
    assert_eq!(ask(&[fp32("x", &[1.0, 2.0]), fp32("scale", &[3.0])]).await.ok().numbers("y"), [3.0, 6.0]);
    let without: Answer = ask(&[fp32("scale", &[3.0])]).await;
    assert_eq!(without.status, 400, "{without:?}");
    assert_has(&without.error(), &["x"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_is_wrong_with_an_ensemble_is_said_at_once() {
    let config =
        Config::ensemble("broken").input("A", "FP32", "3").input("UNUSED", "FP32", "3").output("OUT", "INT64", "3");
    let config = config.step("first", &[("a", "A"), ("b", "NOWHERE")], &[("sum", "OUT"), ("nothing", "LOST")]).step(
        "ghost",
        &[("a", "A")],
        &[("sum", "GHOST")],
    );
    let first = Config::new("first", "onnxruntime").input("a", "FP32", "3").input("b", "FP32", "3");
    let first = first.output("sum", "FP32", "3").output("difference", "FP32", "3");
    let (_store, server) =
        serve(&archive(&[("broken", config), ("first", first)], &[("first", prepared_model("fixed_batch"))])).await;
    let answer = server.invoke(TARGET, &infer(&[row("A", [1.0; 3])])).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    let error = answer.error();
    assert_has(&error, &["NOWHERE", "nothing", "ghost", "broken/config.pbtxt:"]);
    let places: Vec<_> = error.matches("broken/config.pbtxt:").collect();
    assert!(places.len() >= 3, "each with its place: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_of_a_client_that_went_away_do_not_start() {
    let config = Config::ensemble("chain").input("ROUNDS", "INT64", "1").output("DONE", "INT64", "1");
    let config = config.step("early", &[("rounds", "ROUNDS")], &[("done", "MIDDLE")]).step(
        "late",
        &[("rounds", "MIDDLE")],
        &[("done", "DONE")],
    );
    let onnx = generated_model("spin");
    let (_store, server) =
        serve(&archive(&[("chain", config)], &["early", "late"].map(|name| (name, onnx.clone())))).await;
    server.invoke(TARGET, &rounds(1)).await.ok();
    let url = server.url(&format!("/v2/models/{TARGET}/infer"));
    let request = Endless::post(&url, &rounds(ENDLESS));
    let in_flight = async || server.metrics().await.sum("panoply_requests_in_flight", &[]);
    until("the request is in flight", async || (in_flight().await == 1.0).then_some(())).await;
    drop(request);
    until("the request has ended", async || (in_flight().await == 0.0).then_some(())).await;
    assert_eq!(executions(&server, "late").await, 1.0, "the step started although nobody waited for it");
    assert_eq!(server.metrics().await.sum("panoply_requests_total", &[("outcome", "cancelled")]), 1.0);
    // The model is free again, although its run had no end.
    server.invoke(TARGET, &rounds(1)).await.ok();
}
