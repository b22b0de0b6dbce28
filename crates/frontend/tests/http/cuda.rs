//! Regions of GPUs' memory over HTTP, with GPUs whose memory is the host's.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use frontend::SharedMemory;
use inference::DeviceMemoryHandle;
use serde_json::{Value, json};
use test_util::FakeDevices;

use crate::fake::{Reply, Running, request, start_sharing, until};

const REGION: &str = "/v2/cudasharedmemory/region";

async fn start(devices: &FakeDevices) -> Running {
    let memory = SharedMemory::allowed(8, Ok(Arc::new(devices.clone())));
    start_sharing(memory).await
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn registration(handle: &DeviceMemoryHandle, gpu: u32, size: usize) -> Value {
    json!({"raw_handle": {"b64": BASE64.encode(handle.0)}, "device_id": gpu, "byte_size": size})
}

async fn register(server: &Running, name: &str, body: &Value) -> Reply {
    server.post(&format!("{REGION}/{name}/register"), &[], body.to_string()).await
}

fn place(region: &str, offset: u64, size: u64) -> Value {
    json!({"shared_memory_region": region, "shared_memory_offset": offset, "shared_memory_byte_size": size})
}

/// A request whose input and output lie in regions.
fn infer(elements: usize, input: &Value, output: &Value) -> String {
    json!({
        "inputs": [{"name": "INPUT0", "shape": [1, elements], "datatype": "FP32", "parameters": input}],
        "outputs": [{"name": "OUTPUT0", "parameters": output}],
    })
    .to_string()
}

#[tokio::test]
async fn tensors_lie_in_the_memory_of_gpus() {
    let devices = FakeDevices::new(2);
    let (given, taken) = (devices.allocate(0, &bytes(&[0.0, 1.5, 2.5])), devices.allocate(1, &[9; 16]));
    let server = start(&devices).await;
    let answer = register(&server, "in", &registration(&given, 0, 12)).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, ""));
    // As clients that break lines encode it.
    let mut broken = registration(&taken, 1, 16);
    let encoded = BASE64.encode(taken.0);
    broken["raw_handle"]["b64"] = format!("{}\n{}\n", &encoded[..72], &encoded[72..]).into();
    assert_eq!(register(&server, "out", &broken).await.status, 200);

    let one = json!({"name": "out", "device_id": 1, "byte_size": 16});
    let both = json!([{"name": "in", "device_id": 0, "byte_size": 12}, one]);
    assert_eq!(server.get("/v2/cudasharedmemory/status").await.json(), both);
    assert_eq!(server.get(&format!("{REGION}/out/status")).await.json(), json!([one]));
    assert_eq!(server.get("/v2/systemsharedmemory/status").await.json(), json!([]));
    let extensions = server.get("/v2").await.json()["extensions"].to_string();
    assert!(extensions.contains("\"cuda_shared_memory\""), "{extensions}");

    let body = infer(2, &place("in", 4, 8), &place("out", 4, 12));
    let answer = server.post("/v2/models/identity/infer", &[], body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let output = answer.json()["outputs"][0].clone();
    assert_eq!(output, json!({"name": "OUTPUT0", "shape": [1, 2], "datatype": "FP32"}));
    let expected = [&[9; 4][..], &bytes(&[1.5, 2.5]), &[9; 4]].concat();
    assert_eq!(devices.content(&taken), expected);

    for path in [format!("{REGION}/in/unregister"), "/v2/cudasharedmemory/unregister".to_owned()] {
        assert_eq!(server.post(&path, &[], "").await.status, 200);
    }
    assert_eq!((devices.opened(), devices.open()), (2, 0));
}

#[tokio::test]
async fn what_is_wrong_is_told_as_triton_tells_it() {
    let devices = FakeDevices::new(1);
    let handle = devices.allocate(0, &bytes(&[1.0, 2.0]));
    let server = start(&devices).await;
    let good = registration(&handle, 0, 8);
    let with = |key: &str, value: Value| {
        let mut body = good.clone();
        body[key] = value;
        body
    };
    let invalid = "'raw_handle' must be a valid base64 encoded cudaIpcMemHandle_t";
    let opening = "failed to register shared memory region: invalid args";
    for (body, text) in [
        (json!({"device_id": 0, "byte_size": 8}), "Shared memory register request has no 'raw_handle' field"),
        (with("raw_handle", json!({"b64": "???"})), invalid),
        (with("raw_handle", json!({"b64": BASE64.encode([0; 63])})), invalid),
        (with("raw_handle", json!({"b64": BASE64.encode([0; 64])})), opening),
        (with("device_id", json!(3)), opening),
        (with("device_id", json!(-1)), "the registration's body is not like"),
        (with("byte_size", json!(9)), "failed to register shared memory region 'r': invalid args"),
        (with("byte_size", json!(0)), "failed to register shared memory region 'r': invalid args"),
    ] {
        let answer = register(&server, "r", &body).await;
        assert_eq!(answer.status, 400, "{body}");
        let told = answer.json()["error"].as_str().unwrap_or_default().to_owned();
        assert!(told.starts_with(text), "{body}: {told}");
    }
    assert_eq!(devices.open(), 0);
    assert_eq!(register(&server, "r", &good).await.status, 200);
    let answer = register(&server, "r", &good).await;
    assert_eq!(answer.json()["error"], "shared memory region 'r' already in manager");
    let answer = server.get(&format!("{REGION}/s/status")).await;
    assert_eq!(
        (answer.status, answer.json()["error"].as_str()),
        (404, Some("Unable to find cuda shared memory region: 's'"))
    );

    let fine = place("r", 0, 8);
    for (body, text) in [
        (infer(2, &place("s", 0, 8), &fine), "Unable to find shared memory region: 's'"),
        (infer(2, &place("r", 8, 8), &fine), "Invalid offset for shared memory region: 'r'"),
        (infer(2, &place("r", 4, 8), &fine), "Invalid offset + byte size for shared memory region: 'r'"),
        (
            infer(2, &fine, &place("r", 0, 4)),
            "shared memory size specified with the request for output 'OUTPUT0' (4 bytes)",
        ),
    ] {
        let answer = server.post("/v2/models/identity/infer", &[], body).await;
        assert!((400..500).contains(&answer.status), "{}", answer.text());
        assert!(answer.text().contains(text), "{}", answer.text());
    }
}

#[tokio::test]
async fn a_region_that_is_taken_away_stays_mapped_for_the_requests_that_use_it() {
    let devices = FakeDevices::new(1);
    let handle = devices.allocate(0, &bytes(&[1.0, 2.0, 0.0, 0.0]));
    let server = start(&devices).await;
    assert_eq!(register(&server, "r", &registration(&handle, 0, 16)).await.status, 200);
    let body = infer(2, &place("r", 0, 8), &place("r", 8, 8));
    let (answer, ()) = tokio::join!(server.post("/v2/models/slow/infer", &[], body.clone()), async {
        server.fake.wait_for_requests(1).await;
        assert_eq!(server.post(&format!("{REGION}/r/unregister"), &[], "").await.status, 200);
        assert_eq!(server.get("/v2/cudasharedmemory/status").await.json(), json!([]));
        assert_eq!(devices.open(), 1, "the request is not done");
        let answer = server.post("/v2/models/identity/infer", &[], body).await;
        assert_eq!(answer.status, 404, "no other request finds it");
        server.fake.gate.add_permits(1);
    });
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(devices.content(&handle), bytes(&[1.0, 2.0, 1.0, 2.0]));
    until(|| devices.open() == 0).await;
    assert!(devices.none_was_closed_twice());
    // Requests without shared memory are as they were.
    assert_eq!(server.post("/v2/models/identity/infer", &[], request(&[1.0])).await.status, 200);
}
