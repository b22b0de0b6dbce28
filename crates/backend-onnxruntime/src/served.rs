//! The session that instances run: one for good, or the one of two that their use is worth.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use inference::{
    Cancellation, Device, Growth, GrowthAdvice, InferRequest, MemoryGrant, MemoryUsage, ModelSpec, NamedTensor, Result,
    Tensor,
};
use ort::session::RunOptions;
use parking_lot::{Mutex, RwLock};

use crate::environment::Runtime;
use crate::instance::answer;
use crate::promotion::{RecentUse, is_worthwhile, should_grow, should_shrink};
use crate::session::LoadedSession;
use crate::{host, memory, metrics};

/// How often the same request is run both ways for a comparison.
const TRIALS: usize = 3;
/// A request whose inputs have more bytes is not kept for a comparison.
const LARGEST_SAMPLE: usize = 1 << 20;
/// How often a look is taken at whether requests have let go of a session.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// How long that is done; after it whoever is last lets go.
const LOOK_FOR: Duration = Duration::from_secs(10);

/// What instances run.
#[derive(Clone)]
pub(crate) enum Served {
    /// This, as long as the model is loaded.
    Fixed(Arc<LoadedSession>),
    /// What its use is worth.
    ByUse(Arc<ByUse>),
}

impl Served {
    /// The session to run now.
    pub(crate) fn session(&self) -> Arc<LoadedSession> {
        match self {
            Served::Fixed(session) => session.clone(),
            Served::ByUse(by_use) => by_use.current.read().clone(),
        }
    }

    /// Notes that a request has been run.
    pub(crate) fn ran(&self, request: &InferRequest, took: Duration) {
        if let Served::ByUse(by_use) = self {
            by_use.ran(request, took);
        }
    }
}

/// A model on the host whose weights are in its file, and in memory of its own while it is much used.
pub(crate) struct ByUse {
    runtime: Runtime,
    spec: ModelSpec,
    file: PathBuf,
    file_bytes: u64,
    mapped: Arc<LoadedSession>,
    current: RwLock<Arc<LoadedSession>>,
    recent: Mutex<RecentUse>,
    /// A copy of a request that was answered, to compare with; kept only while a comparison is due.
    sample: Mutex<Option<InferRequest>>,
    wants_sample: AtomicBool,
    /// It was tried, and made no difference or failed.
    is_pointless: AtomicBool,
}

impl ByUse {
    pub(crate) fn new(
        runtime: Runtime,
        spec: &ModelSpec,
        (file, file_bytes): (PathBuf, u64),
        mapped: Arc<LoadedSession>,
    ) -> Arc<Self> {
        Arc::new(ByUse {
            runtime,
            spec: spec.clone(),
            file,
            file_bytes,
            current: RwLock::new(mapped.clone()),
            mapped,
            recent: Mutex::new(RecentUse::none(Instant::now())),
            sample: Mutex::default(),
            wants_sample: AtomicBool::default(),
            is_pointless: AtomicBool::default(),
        })
    }

    fn ran(&self, request: &InferRequest, took: Duration) {
        self.recent.lock().add(took, Instant::now());
        if self.wants_sample.load(Ordering::Relaxed) && is_small(request) {
            self.wants_sample.store(false, Ordering::Relaxed);
            *self.sample.lock() = Some(copy(request));
        }
    }

    /// Whether its weights are in memory of its own. Then `current` is another session than `mapped`.
    fn has_grown(&self) -> bool {
        !Arc::ptr_eq(&self.current.read(), &self.mapped)
    }

    fn forget_sample(&self) {
        self.wants_sample.store(false, Ordering::Relaxed);
        *self.sample.lock() = None;
    }

    /// What weights of its own are expected to take.
    fn price(&self) -> MemoryUsage {
        MemoryUsage::on(Device::Host, memory::of_session(None, self.file_bytes))
    }

    /// The fastest of some runs of the same request by each session, in turn.
    fn compare(&self, private: &Arc<LoadedSession>, request: &InferRequest) -> Result<(Duration, Duration)> {
        let _entered = self.runtime.arena.enter();
        let cancellation = Cancellation::never();
        let options = RunOptions::new().map_err(|error| inference::Error::internal(error.message()))?;
        let mut fastest = [Duration::MAX; 2];
        for _ in 0..TRIALS {
            for (session, fastest) in [&self.mapped, private].into_iter().zip(&mut fastest) {
                *fastest = answer(session, &options, &cancellation, request)?.timing.infer.min(*fastest);
            }
        }
        Ok(fastest.into())
    }

    /// A session with weights of its own, if the request runs faster by it.
    fn make_private(&self, request: &InferRequest) -> Result<Option<Arc<LoadedSession>>> {
        let opened = host::open_private(&self.runtime, &self.spec, &self.file, self.file_bytes)?;
        let private = LoadedSession::new(opened.session, None, self.runtime.arena.clone(), &self.spec)?;
        let private = Arc::new(private);
        let (mapped_took, private_took) = self.compare(&private, request)?;
        let seconds = [mapped_took, private_took].map(|took| took.as_secs_f64());
        let model = &*self.spec.name;
        if !is_worthwhile(mapped_took, private_took) {
            tracing::info!(model, mapped = seconds[0], private = seconds[1], "weights in memory gain nothing");
            return Ok(None);
        }
        tracing::info!(model, mapped = seconds[0], private = seconds[1], "the model's weights are in memory now");
        Ok(Some(private))
    }

    /// Runs this from now on, in memory that was granted.
    fn adopt(&self, private: Arc<LoadedSession>, grant: MemoryGrant) {
        private.keep(grant);
        *self.current.write() = private;
        self.is_pointless.store(false, Ordering::Relaxed);
        metrics::count_promotion();
    }

    /// Goes back to weights in the file, and waits so long for requests to let go of the others. Whoever is last lets go of
    /// the memory, and of its grant.
    fn leave(&self, patience: Duration) {
        let private = std::mem::replace(&mut *self.current.write(), self.mapped.clone());
        let until = Instant::now() + patience;
        while Arc::strong_count(&private) > 1 && Instant::now() < until {
            std::thread::sleep(LOOK_AGAIN);
        }
        drop(private);
        metrics::count_demotion();
        tracing::info!(model = &*self.spec.name, "the model's weights are in its file again");
    }
}

impl Growth for ByUse {
    fn advice(&self, now: Instant) -> GrowthAdvice {
        let recent = self.recent.lock().seconds(now);
        if self.has_grown() {
            return if should_shrink(recent, self.file_bytes) { GrowthAdvice::Shrink } else { GrowthAdvice::Stay };
        }
        if self.is_pointless.load(Ordering::Relaxed) || !should_grow(recent, self.file_bytes) {
            self.forget_sample();
            return GrowthAdvice::Stay;
        }
        if self.sample.lock().is_none() {
            // The next run leaves one.
            self.wants_sample.store(true, Ordering::Relaxed);
            return GrowthAdvice::Stay;
        }
        GrowthAdvice::Grow(self.price())
    }

    fn held(&self) -> MemoryUsage {
        if self.has_grown() { self.price() } else { MemoryUsage::default() }
    }

    fn grow(&self, grant: MemoryGrant) -> Result<bool> {
        let Some(request) = self.sample.lock().take() else { return Ok(false) };
        // Until it has succeeded, whatever comes of it: what fails once is not tried over and over.
        self.is_pointless.store(true, Ordering::Relaxed);
        let Some(private) = self.make_private(&request)? else { return Ok(false) };
        self.adopt(private, grant);
        Ok(true)
    }

    fn shrink(&self) {
        self.leave(LOOK_FOR);
    }
}

fn is_small(request: &InferRequest) -> bool {
    request.inputs.iter().map(|input| input.tensor.data().len()).sum::<usize>() <= LARGEST_SAMPLE
}

/// What a run needs of the request, in memory of its own: a request's may be part of something much larger, or another model's.
fn copy(request: &InferRequest) -> InferRequest {
    let copy = |input: &NamedTensor| {
        let NamedTensor { name, tensor } = input;
        let data = Bytes::copy_from_slice(tensor.data());
        let tensor = Tensor::new(tensor.datatype(), tensor.shape().clone(), data).expect("invariant: it is as long");
        NamedTensor { name: name.clone(), tensor }
    };
    let inputs = request.inputs.iter().map(copy).collect();
    InferRequest { inputs, outputs: request.outputs.clone(), ..InferRequest::default() }
}

#[cfg(test)]
#[path = "served_tests.rs"]
mod tests;
