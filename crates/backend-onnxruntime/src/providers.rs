//! Execution providers: what ONNX Runtime is asked to run a session on.

use inference::ModelSpec;
use ort::ep::{CPU, CUDA, ExecutionProvider, ExecutionProviderDispatch, TensorRT};

/// The host. Triton's parameter `enable_mem_arena` = 0 gives memory back after each run, at the price of slower runs.
pub(crate) fn host(spec: &ModelSpec) -> Vec<ExecutionProviderDispatch> {
    let arena = spec.parameters.get("enable_mem_arena").is_none_or(|value| value.trim() != "0");
    vec![CPU::default().with_arena_allocator(arena).build().error_on_failure()]
}

/// One GPU, by its CUDA ordinal: through CUDA, and through TensorRT first where the parameter `execution_accelerator`
/// says `tensorrt`. What neither can run, ONNX Runtime runs on the host.
pub(crate) fn gpu(spec: &ModelSpec, ordinal: u32) -> Vec<ExecutionProviderDispatch> {
    let device = i32::try_from(ordinal).unwrap_or(i32::MAX);
    let accelerator = spec.parameters.get("execution_accelerator").map_or("", |value| value.trim());
    let tensorrt = accelerator.eq_ignore_ascii_case("tensorrt");
    let first = tensorrt.then(|| TensorRT::default().with_device_id(device).build().error_on_failure());
    first.into_iter().chain([CUDA::default().with_device_id(device).build().error_on_failure()]).collect()
}

/// Whether ONNX Runtime's library can run anything on a GPU.
pub(crate) fn can_use_gpus() -> bool {
    CUDA::is_available().unwrap_or(false)
}
