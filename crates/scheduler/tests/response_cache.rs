//! What the response cache copies, and what it leaves alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use inference::{
    BoxFuture, InferRequest, InferResponse, InferenceService, ModelInfo, ModelSpec, NamedTensor, Result, Shape, Tensor,
};
use metrics_exporter_prometheus::PrometheusBuilder;
use scheduler::{CachedModel, ModelMetrics, ResponseCache};

/// Answers with as many bytes as the request has, twice.
struct Echo(AtomicUsize);

impl InferenceService for Echo {
    fn infer(&self, request: InferRequest) -> BoxFuture<'_, Result<InferResponse>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let output = |name: &str| NamedTensor::new(name, request.inputs[0].tensor.clone());
        let response = InferResponse::new(vec![output("y"), output("z")]);
        Box::pin(std::future::ready(Ok(response)))
    }
}

#[tokio::test]
async fn an_answer_that_fits_is_copied_once_and_one_that_is_too_large_not_at_all() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let (config, labels) = Default::default();
    let spec = Arc::new(ModelSpec::new("m", "fake"));
    let info = Arc::new(ModelInfo { spec, version: 1, versions: vec![1], config, labels });
    let inner = Arc::new(Echo(AtomicUsize::new(0)));
    let model = metrics::with_local_recorder(&recorder, || {
        CachedModel::new(info, inner.clone(), ResponseCache::new(4096), ModelMetrics::new("m", 1).of_cache())
    });
    let request = |bytes: usize| {
        let tensor = Tensor::from_vec(Shape::from([bytes as i64]), vec![7u8; bytes]).expect("fits");
        InferRequest { inputs: vec![NamedTensor::new("x", tensor)], ..InferRequest::default() }
    };
    let copies = || {
        let scrape = recorder.handle().render();
        let value =
            scrape.lines().find_map(|l| l.strip_prefix("panoply_tensor_copies_total{reason=\"response_cache\"} "));
        value.map_or(0, |value| value.parse::<u64>().expect("a count"))
    };
    for (bytes, asked, copied) in [(1000, 1, 2), (1000, 1, 2), (3000, 2, 2), (3000, 3, 2), (1000, 3, 2), (1001, 4, 4)] {
        let response = model.infer(request(bytes)).await.expect("fine");
        assert_eq!(response.outputs[1].tensor.data().len(), bytes);
        assert_eq!((inner.0.load(Ordering::Relaxed), copies()), (asked, copied), "{bytes}");
    }
}
