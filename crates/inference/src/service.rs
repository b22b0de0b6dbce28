//! The seam between front ends and the models behind them.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use futures_core::Stream;

use crate::stream::once;
use crate::{
    CacheOutcome, InferRequest, InferResponse, LoadOverrides, ModelInfo, ModelKey, ModelStatistics, Result, Trace,
};

/// A boxed future that can move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A boxed stream that can move between threads.
pub type BoxStream<'a, T> = Pin<Box<dyn Stream<Item = T> + Send + 'a>>;

/// What answers requests: the model cache to a front end, a composing model to an ensemble.
///
/// Dropping the future cancels the request: what has not started will not start.
pub trait InferenceService: Send + Sync {
    /// Runs one request. Every call ends exactly once: in a response or in an error.
    ///
    /// # Errors
    /// Unsupported when the model is decoupled, apart from what the model and the way to it may end in.
    fn infer(&self, request: InferRequest) -> BoxFuture<'_, Result<InferResponse>>;

    /// Runs one request of a model that may answer any number of times (`decoupled`), or once. The stream ends after the
    /// last response or after the first error; dropping it cancels the request.
    fn infer_stream(&self, request: InferRequest) -> BoxStream<'_, Result<InferResponse>> {
        Box::pin(once(self.infer(request)))
    }

    /// Whether another request could still be answered; `false` once a crash has left nothing that could run it. Then it
    /// must be loaded anew.
    fn is_usable(&self) -> bool {
        true
    }

    /// Whether it holds something between requests that clients count on, such as the state of a sequence. Then it is not
    /// evicted to make room for others, though it may be unloaded on request.
    fn is_busy(&self) -> bool {
        false
    }
}

/// A model's place in its life, in Triton's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModelState {
    /// Answers at once.
    Ready,
    /// Being loaded.
    Loading,
    /// Being unloaded.
    Unloading,
    /// Known, not in memory; `reason` says why.
    Unavailable,
}

impl ModelState {
    /// The name in `/v2/repository/index`.
    pub const fn name(self) -> &'static str {
        match self {
            ModelState::Ready => "READY",
            ModelState::Loading => "LOADING",
            ModelState::Unloading => "UNLOADING",
            ModelState::Unavailable => "UNAVAILABLE",
        }
    }
}

/// One line of the repository index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The name to call it by: a model's name, or a target model.
    pub name: String,
    /// The version, where one is known.
    pub version: Option<u64>,
    /// Its state.
    pub state: ModelState,
    /// Why it is not ready; empty when it is.
    pub reason: String,
    /// The ordinals of the GPUs that it is on.
    pub gpus: Vec<u32>,
}

/// What can be told about a model, and where it was found.
#[derive(Clone, Debug)]
pub struct Description {
    /// The model.
    pub model: Arc<ModelInfo>,
    /// How it came to be in memory, for target models.
    pub cache: Option<CacheOutcome>,
}

/// A model that was registered by a container platform (SageMaker's `POST /models`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredModel {
    /// The platform's opaque name.
    pub name: String,
    /// Where its files are, as the platform said it.
    pub url: String,
}

/// What front ends ask about models, and tell the server to do with them.
pub trait ModelControl: Send + Sync {
    /// Whether the server accepts requests: start-up is over and it is not draining.
    fn is_server_ready(&self) -> bool;

    /// Whether a request for this model would be answered without waiting for a load. Never starts one.
    fn is_model_ready(&self, key: &ModelKey) -> bool;

    /// Whether a request for this model may have any number of responses; `None` where that is not known without a load.
    fn is_decoupled(&self, _key: &ModelKey) -> Option<bool> {
        None
    }

    /// The version of the archive that a request for this model would be answered by, as
    /// [`CacheOutcome::version`](crate::CacheOutcome::version); `None` for what is not in memory, or comes from no store.
    fn version_in_memory(&self, _key: &ModelKey) -> Option<Arc<str>> {
        None
    }

    /// What the models have done: all that are in memory for the empty key; for an archive its entry model, then its other
    /// models. Loads nothing: what is not in memory has only what is kept of it.
    ///
    /// # Errors
    /// NotFound when nothing is known of the model.
    fn statistics(&self, key: &ModelKey) -> Result<Vec<ModelStatistics>>;

    /// What the model is. Loads a target model that is not in memory, and waits for that until `deadline`; the load is told in
    /// `trace`, if the request is traced.
    ///
    /// # Errors
    /// NotFound, DeadlineExceeded, or what its load ended in.
    fn describe(
        &self,
        key: &ModelKey,
        deadline: Option<Instant>,
        trace: Option<Trace>,
    ) -> BoxFuture<'_, Result<Description>>;

    /// Every model that is known without asking the store: repositories', registered ones, and target models that are in
    /// memory, being loaded, in the disk cache, or have failed.
    fn index(&self) -> BoxFuture<'_, Vec<IndexEntry>>;

    /// Loads a model by name, and waits until it is ready: a target model is fetched if the store has a newer version, a
    /// repository's model is read anew if its files have changed. What served before serves until then, and goes on where
    /// this fails. The load goes on when the caller goes away.
    ///
    /// # Errors
    /// NotFound when there is no such model; InvalidArgument, with the reason, when it cannot be loaded; Unavailable where
    /// models are not loaded by name; what keeps it from being loaded now (NoRoom, DeadlineExceeded, …) as it is.
    fn load<'a>(&'a self, key: &'a ModelKey, overrides: LoadOverrides) -> BoxFuture<'a, Result<()>>;

    /// Unloads a model by name: new requests do not find it in memory from here on, its memory is free once those that run
    /// have ended. With `unload_dependents` an ensemble takes the models with it that were loaded for it alone. A model that
    /// is not loaded, or not known, is no error.
    ///
    /// # Errors
    /// Unavailable where models are not unloaded by name.
    fn unload<'a>(&'a self, key: &'a ModelKey, unload_dependents: bool) -> BoxFuture<'a, Result<()>>;

    /// Loads the repository at `directory` under `name`, and keeps it until [`ModelControl::unregister`].
    ///
    /// # Errors
    /// NotFound when nothing is there, AlreadyExists, NoRoom, or what its load ended in.
    fn register<'a>(&'a self, name: &'a str, directory: &'a Path) -> BoxFuture<'a, Result<()>>;

    /// Unloads a registered model; returns when its memory is free.
    ///
    /// # Errors
    /// NotFound.
    fn unregister<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>>;

    /// Every registered model, sorted by name.
    fn registered(&self) -> Vec<RegisteredModel>;

    /// Whether a model of this name is registered. Asked for each invocation, so worth answering without the whole list.
    fn is_registered(&self, name: &str) -> bool {
        self.registered().iter().any(|model| model.name == name)
    }
}
