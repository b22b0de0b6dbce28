//! A model whose answers are cached.

use std::sync::Arc;
use std::time::Duration;

use inference::{BoxFuture, InferRequest, InferResponse, InferenceService, ModelInfo, Parameter, Result};
use tokio::time::Instant;

use super::key::key;
use super::{CacheMetrics, ResponseCache};
use crate::metric::ModelMetrics;
use crate::spans;

/// One version of one loaded model, or an ensemble, with the response cache in front. Only answers are cached, never errors;
/// a request that the cache answers is not checked anew, because the same one was good.
///
/// Dropping it forgets its answers.
pub struct CachedModel {
    number: u64,
    info: Arc<ModelInfo>,
    inner: Arc<dyn InferenceService>,
    cache: Arc<ResponseCache>,
    metrics: CacheMetrics,
}

impl CachedModel {
    /// Puts `cache` in front of `inner`, which must answer each request once, and equal ones equally.
    pub fn new(
        info: Arc<ModelInfo>,
        inner: Arc<dyn InferenceService>,
        cache: Arc<ResponseCache>,
        metrics: CacheMetrics,
    ) -> Arc<Self> {
        Arc::new(CachedModel { number: cache.next_model(), info, inner, cache, metrics })
    }

    async fn answer(&self, mut request: InferRequest) -> Result<InferResponse> {
        let arrived = Instant::now();
        let key = key(self.number, &request);
        let found = self.cache.find(&key);
        let looked_up = arrived.elapsed();
        self.cache.looked_up(found.is_some(), looked_up);
        if let Some(kept) = found {
            let (outputs, parameters) = (kept.outputs.clone(), kept.parameters.clone());
            self.metrics.hit(arrived.elapsed());
            if let Some(mut span) = spans::begin(&self.info, &mut request) {
                span.set("panoply.response_cache", Parameter::String("hit".to_owned()));
            }
            return Ok(InferResponse { parameters, model: Some(self.info.clone()), ..InferResponse::new(outputs) });
        }
        let response = self.inner.infer(request).await.inspect_err(|_| self.metrics.missed(looked_up))?;
        let computed = Instant::now();
        self.cache.keep(self.number, key, &response);
        let inserted: Duration = computed.elapsed();
        self.cache.inserted(inserted);
        self.metrics.missed(looked_up + inserted);
        Ok(response)
    }
}

impl InferenceService for CachedModel {
    fn infer(&self, request: InferRequest) -> BoxFuture<'_, Result<InferResponse>> {
        Box::pin(self.answer(request))
    }

    fn is_usable(&self) -> bool {
        self.inner.is_usable()
    }

    fn is_busy(&self) -> bool {
        self.inner.is_busy()
    }
}

impl Drop for CachedModel {
    fn drop(&mut self) {
        self.cache.forget(self.number);
    }
}

impl ModelMetrics {
    /// The same model's series of the response cache; every one exists, at 0, from here on.
    pub fn of_cache(&self) -> CacheMetrics {
        CacheMetrics::new(self)
    }
}
