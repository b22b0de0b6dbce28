//! `tritonclient`, unmodified, in the ways that [`crate::clients`] leaves out: every datatype, asynchronous calls, cancelled
//! ones, and classes instead of values.

use e2e::{Config, FolderStore, Server, Store, echo, python, spin_archive, until};
use test_util::archive::ArchiveBuilder;

const DATATYPES: [&str; 13] =
    ["BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BF16"];

async fn serve(name: &str, archive: Vec<u8>) -> (FolderStore, Server) {
    let store = FolderStore::new();
    store.put(name, &archive);
    let server = store.launch().start().await;
    (store, server)
}

async fn run(script: &str, server: &Server) {
    let output = python(script, &[&server.address(), &server.grpc_address()]).await;
    assert_eq!(output.trim_end().lines().last(), Some("all right"), "{output}");
}

/// An identity model with an optional input of every datatype.
fn every_datatype() -> Vec<u8> {
    // Configurations call BYTES otherwise.
    let types = DATATYPES.into_iter().map(|name| (name, name)).chain([("BYTES", "STRING")]);
    let config = types.fold(Config::new("types", "identity"), |config, (name, datatype)| {
        let config = config.optional_input(&format!("IN_{name}"), datatype, "-1, -1");
        config.output(&format!("OUT_{name}"), datatype, "-1, -1")
    });
    ArchiveBuilder::new().file("config.pbtxt", config.text()).gzip()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_datatype_comes_back_bit_for_bit() {
    let (_store, server) = serve("types.tar.gz", every_datatype()).await;
    run("triton_datatypes.py", &server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn futures_callbacks_and_asyncio_get_their_own_answers() {
    let (_store, server) = serve("team/echo.tar.gz", echo()).await;
    run("triton_asynchronous.py", &server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_calls_are_counted_and_leave_nothing_behind() {
    let (_store, server) = serve("spin.tar.gz", spin_archive()).await;
    let output = python("triton_cancellation.py", &[&server.grpc_address()]).await;
    assert_eq!(output.trim_end().lines().last(), Some("all right"), "{output}");
    until("no request is in flight", async || {
        (server.metrics().await.sum("panoply_requests_in_flight", &[]) == 0.0).then_some(())
    })
    .await;
    let metrics = server.metrics().await;
    let count = |labels: &[(&str, &str)]| metrics.sum("panoply_requests_total", labels);
    assert_eq!((count(&[("outcome", "success")]), count(&[])), (5.0, 10.0), "each request is counted once");
    // A call that is late may be cancelled by its client before the server notices.
    let cancelled = count(&[("outcome", "cancelled")]);
    assert!([4.0, 5.0].contains(&cancelled), "{cancelled} are cancelled");
    let kept = metrics.sum("nv_inference_pending_request_count", &[]);
    assert_eq!(kept, 0.0, "nothing waits for the model");
    server.stop().await;
}

/// Identity by position: scores with labels, counts without, numbers and letters.
fn classes() -> Vec<u8> {
    let config = "max_batch_size: 8\nbackend: \"identity\"\ninput [
        { name: \"scores\" data_type: TYPE_FP32 dims: [ 4 ] optional: true },
        { name: \"counts\" data_type: TYPE_INT64 dims: [ 4 ] optional: true },
        { name: \"numbers\" data_type: TYPE_FP32 dims: [ 2 ] optional: true },
        { name: \"letters\" data_type: TYPE_STRING dims: [ 1 ] optional: true }
    ]\noutput [
        { name: \"best\" data_type: TYPE_FP32 dims: [ 4 ] label_filename: \"labels.txt\" },
        { name: \"most\" data_type: TYPE_INT64 dims: [ 4 ] },
        { name: \"same\" data_type: TYPE_FP32 dims: [ 2 ] },
        { name: \"text\" data_type: TYPE_STRING dims: [ 1 ] }
    ]\n";
    let archive = ArchiveBuilder::new().file("classes/config.pbtxt", config).directory("classes/1");
    archive.file("classes/labels.txt", "cat\ndog\nemu\n").gzip()
}

#[tokio::test(flavor = "multi_thread")]
async fn classes_are_told_over_both_protocols() {
    let (_store, server) = serve("classes.tar.gz", classes()).await;
    run("triton_classification.py", &server).await;
    server.stop().await;
}
