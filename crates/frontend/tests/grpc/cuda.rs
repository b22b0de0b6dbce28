//! Regions of GPUs' memory over gRPC, with GPUs whose memory is the host's.

use std::collections::BTreeMap;
use std::sync::Arc;

use frontend::{Admission, FrontendConfig, ServeConfig, SharedMemory};
use inference::DeviceMemoryHandle;
use protocol::grpc_service::infer_parameter::ParameterChoice;
use protocol::grpc_service::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use protocol::grpc_service::{
    CudaSharedMemoryRegisterRequest, CudaSharedMemoryStatusRequest, CudaSharedMemoryUnregisterRequest, InferParameter,
    ModelInferRequest,
};
use test_util::FakeDevices;
use tonic::Code;

use crate::fake::until;
use crate::{Client, Running, start_sharing};

async fn start(devices: &FakeDevices) -> Running {
    let memory = SharedMemory::allowed(8, Ok(Arc::new(devices.clone())));
    start_sharing(memory, Admission::default(), FrontendConfig::default(), ServeConfig::default()).await
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn registration(handle: &DeviceMemoryHandle, device_id: i64, byte_size: u64) -> CudaSharedMemoryRegisterRequest {
    let raw_handle = handle.0.to_vec().into();
    CudaSharedMemoryRegisterRequest { name: "r".to_owned(), raw_handle, device_id, byte_size }
}

/// Names and figures of all regions.
async fn status(client: &mut Client, name: &str) -> Result<Vec<(String, u64, u64)>, tonic::Status> {
    let about = CudaSharedMemoryStatusRequest { name: name.to_owned() };
    let regions = client.cuda_shared_memory_status(about).await?.into_inner().regions;
    Ok(regions.into_values().map(|region| (region.name, region.device_id, region.byte_size)).collect())
}

fn place(offset: i64, size: i64) -> BTreeMap<String, InferParameter> {
    let parameters = [
        ("shared_memory_region", ParameterChoice::StringParam("r".to_owned())),
        ("shared_memory_offset", ParameterChoice::Int64Param(offset)),
        ("shared_memory_byte_size", ParameterChoice::Int64Param(size)),
    ];
    let parameter = |choice| InferParameter { parameter_choice: Some(choice) };
    parameters.into_iter().map(|(name, choice)| (name.to_owned(), parameter(choice))).collect()
}

/// A request with two FP32 elements whose input and output lie in region `r`.
fn infer(model: &str, input: i64, output: i64) -> ModelInferRequest {
    ModelInferRequest {
        model_name: model.to_owned(),
        inputs: vec![InferInputTensor {
            name: "INPUT0".to_owned(),
            datatype: "FP32".to_owned(),
            shape: vec![1, 2],
            parameters: place(input, 8),
            ..InferInputTensor::default()
        }],
        outputs: vec![InferRequestedOutputTensor { name: "OUTPUT0".to_owned(), parameters: place(output, 8) }],
        ..ModelInferRequest::default()
    }
}

#[tokio::test]
async fn tensors_lie_in_the_memory_of_gpus() {
    let devices = FakeDevices::new(2);
    let handle = devices.allocate(1, &bytes(&[1.0, 2.0, 0.0, 0.0]));
    let mut server = start(&devices).await;
    let client = &mut server.client;
    client.cuda_shared_memory_register(registration(&handle, 1, 16)).await.expect("fits");
    for name in ["", "r"] {
        assert_eq!(status(client, name).await.expect("registered"), [("r".to_owned(), 1, 16)]);
    }
    let answer = client.model_infer(infer("identity", 0, 8)).await.expect("an answer").into_inner();
    assert!(answer.raw_output_contents.is_empty() || answer.raw_output_contents[0].is_empty(), "{answer:?}");
    assert_eq!(devices.content(&handle), bytes(&[1.0, 2.0, 1.0, 2.0]));

    for (offset, text) in [(16, "Invalid offset for"), (12, "Invalid offset + byte size for")] {
        let refused = client.model_infer(infer("identity", offset, 8)).await.expect_err("outside");
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().ends_with(&format!("{text} shared memory region: 'r'")), "{refused}");
    }
    let unregister = CudaSharedMemoryUnregisterRequest { name: "r".to_owned() };
    client.cuda_shared_memory_unregister(unregister).await.expect("known");
    assert_eq!((devices.opened(), devices.open()), (1, 0));
    let refused = status(client, "r").await.expect_err("gone");
    let expected = (Code::NotFound, "Unable to find cuda shared memory region: 'r'");
    assert_eq!((refused.code(), refused.message()), expected);
}

#[tokio::test]
async fn what_cannot_be_registered_is_told() {
    let devices = FakeDevices::new(1);
    let handle = devices.allocate(0, &[0; 8]);
    let mut server = start(&devices).await;
    let client = &mut server.client;
    let opening = "failed to register shared memory region: invalid args";
    let short = CudaSharedMemoryRegisterRequest { raw_handle: vec![0; 3].into(), ..registration(&handle, 0, 8) };
    for (request, text) in [
        (short, "'raw_handle': a cudaIpcMemHandle_t has 64 bytes, this handle has 3"),
        (registration(&DeviceMemoryHandle([0; 64]), 0, 8), opening),
        (registration(&handle, 1, 8), opening),
        (registration(&handle, -1, 8), opening),
        (registration(&handle, 0, 9), "failed to register shared memory region 'r': invalid args"),
    ] {
        let refused = client.cuda_shared_memory_register(request).await.expect_err("wrong");
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().starts_with(text), "{refused}");
    }
    assert_eq!(devices.open(), 0);
}

#[tokio::test]
async fn a_region_that_is_taken_away_stays_mapped_for_the_requests_that_use_it() {
    let devices = FakeDevices::new(1);
    let handle = devices.allocate(0, &bytes(&[1.0, 2.0, 0.0, 0.0]));
    let mut server = start(&devices).await;
    server.client.cuda_shared_memory_register(registration(&handle, 0, 16)).await.expect("fits");
    let mut other = server.client.clone();
    let (answer, ()) = tokio::join!(server.client.model_infer(infer("slow", 0, 8)), async {
        server.fake.wait_for_requests(1).await;
        other.cuda_shared_memory_unregister(CudaSharedMemoryUnregisterRequest::default()).await.expect("all");
        assert_eq!(status(&mut other, "").await.expect("all"), []);
        assert_eq!(devices.open(), 1, "the request is not done");
        server.fake.gate.add_permits(1);
    });
    answer.expect("an answer");
    assert_eq!(devices.content(&handle), bytes(&[1.0, 2.0, 1.0, 2.0]));
    until(|| devices.open() == 0).await;
    assert!(devices.none_was_closed_twice());
}
