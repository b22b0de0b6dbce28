//! The response cache: answers of models that ask for it (`response_cache`), bounded by bytes, shared by all of them.
//!
//! An answer is copied once, when it goes in: tensors may be slices of something larger, such as a request's body or a whole
//! batch, and would keep all of it. A hit shares those bytes. Nothing is hashed, copied or freed under the lock.

mod entries;
mod key;
mod metric;
mod service;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use inference::{InferResponse, NamedTensor, Parameter, Parameters, Tensor};
use parking_lot::Mutex;

use entries::Entries;
use key::Key;
pub use metric::CacheMetrics;
use metric::WholeCacheMetrics;
pub use service::CachedModel;

pub(crate) use metric::describe_metrics;

/// What an entry takes beside its tensors' bytes: its key twice, its place in the order of use, and the allocations.
const ENTRY_OVERHEAD: u64 = 256;

/// What a tensor takes beside its bytes.
const TENSOR_OVERHEAD: u64 = 128;

/// How many entries of a model that goes are taken out while the lock is held.
const TAKEN_AT_ONCE: usize = 256;

/// Answers that were computed already. Two equal requests that come at once are both computed; the later answer stays.
pub struct ResponseCache {
    capacity: u64,
    entries: Mutex<Entries<Key, Arc<Kept>>>,
    models: AtomicU64,
    metrics: WholeCacheMetrics,
}

/// An answer in the cache.
#[derive(Debug)]
struct Kept {
    outputs: Vec<NamedTensor>,
    parameters: Parameters,
}

impl ResponseCache {
    /// An empty cache of at most so many bytes.
    pub fn new(capacity: u64) -> Arc<Self> {
        let (entries, models) = (Mutex::new(Entries::new(capacity)), AtomicU64::new(0));
        Arc::new(ResponseCache { capacity, entries, models, metrics: WholeCacheMetrics::new() })
    }

    /// A number for a model that is being loaded. A model that is loaded again gets another one, and none of the answers.
    fn next_model(&self) -> u64 {
        self.models.fetch_add(1, Ordering::Relaxed)
    }

    fn find(&self, key: &Key) -> Option<Arc<Kept>> {
        self.entries.lock().get(key).cloned()
    }

    fn looked_up(&self, hit: bool, took: Duration) {
        self.metrics.looked_up(hit, took);
    }

    fn inserted(&self, took: Duration) {
        self.metrics.inserted(took);
    }

    fn keep(&self, model: u64, key: Key, response: &InferResponse) {
        let bytes = size(response);
        if bytes > self.capacity {
            return;
        }
        let kept = Arc::new(Kept::copy_of(response));
        self.metrics.copied(kept.outputs.len());
        let mut entries = self.entries.lock();
        let put = entries.put(model, key, kept, bytes);
        let (used, count) = (entries.used(), entries.len());
        drop(entries);
        self.metrics.holds(used, self.capacity, count);
        self.metrics.evicted(put.evicted.len());
    }

    /// Forgets the answers of a model that is gone.
    fn forget(&self, model: u64) {
        loop {
            let mut entries = self.entries.lock();
            let taken = entries.take_of(model, TAKEN_AT_ONCE);
            let (used, count) = (entries.used(), entries.len());
            drop(entries);
            self.metrics.holds(used, self.capacity, count);
            if taken.len() < TAKEN_AT_ONCE {
                return;
            }
        }
    }
}

impl Kept {
    /// An answer with bytes of its own.
    fn copy_of(response: &InferResponse) -> Self {
        let own = |NamedTensor { name, tensor }: &NamedTensor| {
            let data = Bytes::copy_from_slice(tensor.data());
            let tensor = Tensor::new(tensor.datatype(), tensor.shape().clone(), data);
            NamedTensor { name: name.clone(), tensor: tensor.expect("invariant: the same bytes under the same shape") }
        };
        Kept { outputs: response.outputs.iter().map(own).collect(), parameters: response.parameters.clone() }
    }
}

/// What an answer takes in the cache, in bytes.
fn size(response: &InferResponse) -> u64 {
    let tensor =
        |NamedTensor { name, tensor }: &NamedTensor| TENSOR_OVERHEAD + (name.len() + tensor.data().len()) as u64;
    let outputs = response.outputs.iter().map(tensor).sum::<u64>();
    ENTRY_OVERHEAD
        + outputs
        + response.parameters.iter().map(|(name, value)| size_of_parameter(name, value)).sum::<u64>()
}

fn size_of_parameter(name: &str, value: &Parameter) -> u64 {
    let text = if let Parameter::String(text) = value { text.len() } else { 0 };
    TENSOR_OVERHEAD + (name.len() + text) as u64
}
