//! What a model does whose use decides where its weights are. What comes of a comparison is for the machine to say, so these
//! tests adopt a session without one.

use std::path::Path;

use inference::{Backend, Batch, DataType, InferResponse, ModelArtifact, ModelInstance, Shape};

use super::*;
use crate::instance::SessionInstance;
use crate::{OnnxRuntimeBackend, OnnxRuntimeConfig, environment};

/// 512 × 512 weights, twice the identity, of a model that is mapped; `folder` gets its file.
fn mapped(folder: &Path) -> Arc<ByUse> {
    let file = folder.join(OnnxRuntimeBackend::DEFAULT_FILE);
    std::fs::copy(test_util::artifacts().join("test-models/weights.onnx"), &file).expect("copied");
    let library = test_util::artifacts().join("onnxruntime/libonnxruntime.so");
    let config = OnnxRuntimeConfig { library, ..OnnxRuntimeConfig::default() };
    let runtime = environment::start(&config).expect("ONNX Runtime starts");
    let artifact = ModelArtifact {
        spec: ModelSpec::new("weights", "onnxruntime").into(),
        version: 1,
        version_directory: folder.to_owned(),
        directory: folder.to_owned(),
        immutable: true,
    };
    let spec = OnnxRuntimeBackend::start(config).expect("starts").complete(&artifact).expect("completes");
    let file_bytes = memory::file_bytes(&file);
    let opened = host::open_in_files(&runtime, &spec, &file, file_bytes).expect("opens");
    assert!(opened.weights.is_some(), "its weights are mapped");
    let session = LoadedSession::new(opened.session, opened.weights, runtime.arena.clone(), &spec).expect("suits");
    ByUse::new(runtime, &spec, (file, file_bytes), Arc::new(session))
}

/// A session with weights of its own.
fn private(by_use: &ByUse) -> Arc<LoadedSession> {
    let ByUse { runtime, spec, file, file_bytes, .. } = by_use;
    let opened = host::open_private(runtime, spec, file, *file_bytes).expect("opens");
    Arc::new(LoadedSession::new(opened.session, None, runtime.arena.clone(), spec).expect("suits"))
}

fn request(rows: usize, data: impl AsRef<[u8]> + Send + 'static) -> InferRequest {
    let tensor = Tensor::new(DataType::Fp32, Shape::new(&[rows as i64, 512]), Bytes::from_owner(data)).expect("valid");
    InferRequest { inputs: vec![NamedTensor::new("x", tensor)], ..InferRequest::default() }
}

fn run(by_use: &Arc<ByUse>) -> InferResponse {
    let mut instance = SessionInstance::new(Served::ByUse(by_use.clone())).expect("an instance");
    let ones: Vec<u8> = 1f32.to_le_bytes().repeat(512);
    let response = instance.execute(Batch::new(vec![request(1, ones)])).remove(0).expect("runs");
    let twos = response.output("y").expect("y").to_elements::<f32>().expect("FP32");
    assert_eq!(*twos, [2.0; 512]);
    response
}

/// Bytes of a request, or a grant: counts those that are still there.
struct Counted(Vec<u8>, #[expect(dead_code, reason = "held, never read")] Arc<()>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

const HOT: Duration = Duration::from_secs(1000);

#[test]
fn what_was_granted_is_given_back_with_the_memory_and_not_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let by_use = mapped(folder.path());
    assert_eq!(by_use.held(), MemoryUsage::default());
    by_use.ran(&request(1, vec![0; 2048]), HOT);
    let now = Instant::now();
    let granted = Arc::new(());
    by_use.adopt(private(&by_use), Box::new(Counted(Vec::new(), granted.clone())));
    assert_eq!((by_use.held(), Arc::strong_count(&granted)), (by_use.price(), 2));
    assert_eq!(by_use.advice(now), GrowthAdvice::Stay, "it is much used");
    let much_later = now + Duration::from_secs(3600);
    assert_eq!(by_use.advice(much_later), GrowthAdvice::Shrink);

    let response = run(&by_use);
    by_use.leave(Duration::ZERO);
    assert_eq!(by_use.held(), MemoryUsage::default());
    assert_eq!(Arc::strong_count(&granted), 2, "an answer is on its way that lies in that memory");
    drop(response);
    assert_eq!(Arc::strong_count(&granted), 1);
    run(&by_use);

    let again = Arc::new(());
    by_use.adopt(private(&by_use), Box::new(Counted(Vec::new(), again.clone())));
    run(&by_use);
    by_use.shrink();
    assert_eq!((by_use.held(), Arc::strong_count(&again)), (MemoryUsage::default(), 1));
}

#[test]
fn only_a_small_copy_of_a_request_is_kept_and_only_while_it_is_needed() {
    let folder = tempfile::tempdir().expect("a folder");
    let by_use = mapped(folder.path());
    let bytes = Arc::new(());
    let ask = |rows: usize| by_use.ran(&request(rows, Counted(vec![0; rows * 2048], bytes.clone())), HOT);
    ask(1);
    assert!(by_use.sample.lock().is_none(), "nobody wants one");
    assert_eq!(by_use.advice(Instant::now()), GrowthAdvice::Stay);
    ask(513);
    assert!(by_use.sample.lock().is_none(), "more than a megabyte");
    ask(512);
    assert!(by_use.sample.lock().is_some());
    assert_eq!(Arc::strong_count(&bytes), 1, "the request itself is gone");
    assert_eq!(by_use.advice(Instant::now()), GrowthAdvice::Grow(by_use.price()));

    let much_later = Instant::now() + Duration::from_secs(86_400);
    assert_eq!(by_use.advice(much_later), GrowthAdvice::Stay);
    assert!(by_use.sample.lock().is_none(), "its use is not worth it any more");
    ask(1);
    assert!(by_use.sample.lock().is_none(), "nor is another one wanted");
}

#[test]
fn growth_that_failed_is_not_tried_again_and_growth_that_succeeded_may_be() {
    let folder = tempfile::tempdir().expect("a folder");
    let by_use = mapped(folder.path());
    let ask = || by_use.ran(&request(1, vec![0; 2048]), HOT);
    ask();
    by_use.advice(Instant::now());
    ask();
    assert_eq!(by_use.advice(Instant::now()), GrowthAdvice::Grow(by_use.price()));
    std::fs::rename(&by_use.file, folder.path().join("elsewhere")).expect("renamed");
    let granted = Arc::new(());
    by_use.grow(Box::new(Counted(Vec::new(), granted.clone()))).expect_err("there is no such file any more");
    assert_eq!((by_use.held(), Arc::strong_count(&granted)), (MemoryUsage::default(), 1));
    for _ in 0..2 {
        ask();
        assert_eq!(by_use.advice(Instant::now()), GrowthAdvice::Stay);
    }

    std::fs::rename(folder.path().join("elsewhere"), &by_use.file).expect("renamed");
    by_use.adopt(private(&by_use), Box::new(()));
    by_use.leave(Duration::ZERO);
    by_use.advice(Instant::now());
    ask();
    assert_eq!(by_use.advice(Instant::now()), GrowthAdvice::Grow(by_use.price()));
}
