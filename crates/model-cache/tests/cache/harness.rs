//! A model cache over a folder store and a backend whose models do what their parameters say.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use inference::{
    Backend, Batch, DataType, Device, Error, InferRequest, InferResponse, InferenceService, LoadedModel, MemoryUsage,
    ModelArtifact, ModelInstance, ModelKey, NamedTensor, Parameter, Placement, Result, Shape, TargetModel, Tensor,
};
use model_cache::{AfterUnload, Archives, Backends, ModelCache, ModelCacheConfig};
use repository::{DiskCache, DiskCacheConfig, FolderStore, ModelStore};
use scheduler::{MetricOptions, SchedulerConfig};
use tempfile::TempDir;
use test_util::archive::ArchiveBuilder;

/// A backend that counts, and whose models answer with their own `mark`. Parameters: `estimate` and `actual` bytes; `fault`
/// = `load_error`, `load_panic`, `run_panic`; `gate` names a gate that a load or a run waits at. The bytes are on each GPU that
/// a model is placed on, or else on the host; with `falls_back` what was meant for a GPU ends on the host.
#[derive(Default)]
pub(crate) struct ScriptedBackend {
    /// How often it was asked what a model will take, which is before each load.
    pub(crate) estimates: AtomicUsize,
    pub(crate) loads: AtomicUsize,
    pub(crate) runs: Arc<AtomicUsize>,
    arrivals: Arc<AtomicUsize>,
    gates: Mutex<HashMap<String, mpsc::Receiver<()>>>,
}

impl ScriptedBackend {
    /// A gate that stays shut until its sender is used or dropped.
    pub(crate) fn gate(&self, name: &str) -> mpsc::Sender<()> {
        let (opener, gate) = mpsc::channel();
        self.gates.lock().expect("not poisoned").insert(name.to_owned(), gate);
        opener
    }

    fn take_gate(&self, model: &ModelArtifact, parameter: &str) -> Option<mpsc::Receiver<()>> {
        let name = model.spec.parameters.get(parameter)?;
        self.gates.lock().expect("not poisoned").remove(name)
    }
}

fn number(model: &ModelArtifact, parameter: &str) -> u64 {
    model.spec.parameters.get(parameter).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// So many bytes wherever the model is placed.
fn placed(bytes: u64, placement: &Placement) -> MemoryUsage {
    let mut usage = MemoryUsage::default();
    for device in &placement.instances {
        if usage.get(*device) == 0 {
            usage.add(*device, bytes);
        }
    }
    usage
}

impl Backend for ScriptedBackend {
    fn name(&self) -> &str {
        "scripted"
    }

    fn estimate(&self, model: &ModelArtifact, _: u64, placement: &Placement) -> MemoryUsage {
        self.estimates.fetch_add(1, Ordering::SeqCst);
        placed(number(model, "estimate"), placement)
    }

    fn load(&self, model: &ModelArtifact, placement: &Placement) -> Result<LoadedModel> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        if let Some(gate) = self.take_gate(model, "load_gate") {
            let _ = gate.recv();
        }
        let fault = model.spec.parameters.get("fault").map(String::as_str);
        match fault {
            Some("load_error") => return Err(Error::invalid_argument("the weights are bad")),
            Some("load_panic") => panic!("scripted"),
            _ => {}
        }
        let instance = || Instance {
            mark: number(model, "mark"),
            runs: self.runs.clone(),
            arrivals: self.arrivals.clone(),
            panics: fault == Some("run_panic"),
            gate: self.take_gate(model, "run_gate"),
        };
        let on_host = Placement::on_host(placement.instances.len());
        let falls_back = model.spec.parameters.contains_key("falls_back");
        let memory = placed(number(model, "actual"), if falls_back { &on_host } else { placement });
        let instances = placement.instances.iter().map(|_| Box::new(instance()) as Box<dyn ModelInstance>);
        Ok(LoadedModel { instances: instances.collect(), memory })
    }
}

struct Instance {
    mark: u64,
    runs: Arc<AtomicUsize>,
    arrivals: Arc<AtomicUsize>,
    panics: bool,
    gate: Option<mpsc::Receiver<()>>,
}

impl ModelInstance for Instance {
    fn execute(&mut self, batch: Batch) -> Vec<Result<InferResponse>> {
        if let Some(gate) = &self.gate {
            self.arrivals.fetch_add(1, Ordering::SeqCst);
            let _ = gate.recv();
        }
        self.runs.fetch_add(1, Ordering::SeqCst);
        assert!(!self.panics, "scripted");
        let mark = Tensor::from_vec(Shape::from([1]), vec![self.mark]).expect("valid");
        batch.requests.iter().map(|_| Ok(InferResponse::new(vec![NamedTensor::new("mark", mark.clone())]))).collect()
    }
}

/// The cache under test, with what is around it.
pub(crate) struct Harness {
    pub(crate) cache: Arc<ModelCache>,
    pub(crate) backend: Arc<ScriptedBackend>,
    store: TempDir,
    disk: TempDir,
}

impl Harness {
    /// A cache with room for `budget` bytes of models.
    pub(crate) fn new(budget: u64, change: impl FnOnce(&mut ModelCacheConfig)) -> Self {
        Self::with_disk(budget, 1 << 30, change)
    }

    /// The same with room for `disk_bytes` of files.
    pub(crate) fn with_disk(budget: u64, disk_bytes: u64, change: impl FnOnce(&mut ModelCacheConfig)) -> Self {
        let (store, disk) = (tempfile::tempdir().expect("temporary"), tempfile::tempdir().expect("temporary"));
        let mut config = config(budget);
        change(&mut config);
        Self::over(store, disk, disk_bytes, &config)
    }

    /// Stops this cache in an orderly way and starts one with room for `budget` bytes of models over the same store and disk.
    pub(crate) async fn restarted(self, budget: u64) -> Self {
        self.restarted_with(budget, |_| {}).await
    }

    /// The same with other settings.
    pub(crate) async fn restarted_with(self, budget: u64, change: impl FnOnce(&mut ModelCacheConfig)) -> Self {
        let Harness { cache, store, disk, .. } = self;
        cache.unload_all().await;
        drop(cache);
        let mut config = config(budget);
        change(&mut config);
        Self::over(store, disk, 1 << 30, &config)
    }

    fn over(store: TempDir, disk: TempDir, disk_bytes: u64, config: &ModelCacheConfig) -> Self {
        let folder: Arc<dyn ModelStore> = Arc::new(FolderStore::open(store.path()).expect("a folder"));
        let open = || DiskCache::open(DiskCacheConfig::new(disk.path(), disk_bytes), folder.location());
        // Tasks of a cache before this one may still be ending.
        let cache = (0..6000).find_map(|_| open().map_err(|_| std::thread::sleep(Duration::from_millis(10))).ok());
        let cache = cache.expect("opens");
        let backend = Arc::new(ScriptedBackend::default());
        let archives = Archives::new(folder.clone(), cache, config);
        let cache = ModelCache::new(config, Backends::new([backend.clone() as Arc<dyn Backend>]), Some(archives));
        Harness { cache, backend, store, disk }
    }

    /// Whether it was noted for the next start what is in memory.
    pub(crate) fn has_noted(&self) -> bool {
        self.disk.path().join("resident.json").exists()
    }

    /// What is noted as being loaded again; nothing where there is no such file.
    pub(crate) fn restoring(&self) -> String {
        std::fs::read_to_string(self.disk.path().join("restoring.json")).unwrap_or_default()
    }

    /// Puts an archive of one model with these parameters into the store.
    pub(crate) fn put(&self, target: &str, parameters: &[(&str, &str)]) {
        self.put_config(target, &model_config(parameters));
    }

    /// Puts an archive with this `config.pbtxt` at its root into the store.
    pub(crate) fn put_config(&self, target: &str, config: &str) {
        let archive = ArchiveBuilder::new().file("config.pbtxt", config).file("1/model", "weights").gzip();
        // In one step: a reader must never see half of it.
        std::fs::write(self.path("put"), archive).expect("writable");
        std::fs::rename(self.path("put"), self.path(target)).expect("renamed");
    }

    /// Where an archive is in the store.
    pub(crate) fn path(&self, target: &str) -> PathBuf {
        self.store.path().join(target)
    }

    /// Deletes an archive from the store.
    pub(crate) fn delete(&self, target: &str) {
        std::fs::remove_file(self.path(target)).expect("it is there");
    }

    /// Takes the store's folder away until what is returned is dropped.
    pub(crate) fn hide_store(&self) -> impl Drop + use<> {
        let (from, to) = (self.store.path().to_owned(), self.store.path().with_extension("hidden"));
        std::fs::rename(&from, &to).expect("a folder can be renamed");
        Hidden { from, to }
    }

    /// The mark of the model that answered.
    pub(crate) async fn mark(&self, target: &str) -> Result<u64> {
        mark(&self.cache, target).await
    }

    /// How often a run has come to its gate.
    pub(crate) fn arrivals(&self) -> usize {
        self.backend.arrivals.load(Ordering::SeqCst)
    }

    pub(crate) fn loads(&self) -> usize {
        self.backend.loads.load(Ordering::SeqCst)
    }
}

struct Hidden {
    from: PathBuf,
    to: PathBuf,
}

impl Drop for Hidden {
    fn drop(&mut self) {
        std::fs::rename(&self.to, &self.from).expect("a folder can be renamed");
    }
}

/// Asks a target model for its mark.
pub(crate) async fn mark(cache: &ModelCache, target: &str) -> Result<u64> {
    let response = cache.infer(request(target)).await?;
    let mark = response.output("mark").expect("declared").to_elements::<u64>().expect("UINT64")[0];
    Ok(mark)
}

/// A request to a target model's entry model.
pub(crate) fn request(target: &str) -> InferRequest {
    let target = TargetModel::new(target).expect("valid");
    let input = NamedTensor::new("x", Tensor::from_vec(Shape::from([1]), vec![0u8]).expect("valid"));
    InferRequest { model: ModelKey::of_target(target), inputs: vec![input], ..InferRequest::default() }
}

/// A request of sequence 1 to a target model.
pub(crate) fn in_sequence(target: &str, starts: bool, ends: bool) -> InferRequest {
    let mut request = request(target);
    let mut set = |name: &str, value| drop(request.parameters.insert(name.to_owned(), value));
    set("sequence_id", Parameter::Int64(1));
    set("sequence_start", Parameter::Bool(starts));
    set("sequence_end", Parameter::Bool(ends));
    request
}

/// Asks a model for its mark by its own name.
pub(crate) async fn mark_of(cache: &ModelCache, model: &str) -> Result<u64> {
    let request = InferRequest { model: ModelKey::of_model(model), ..request("-") };
    let response = cache.infer(request).await?;
    Ok(response.output("mark").expect("declared").to_elements::<u64>().expect("UINT64")[0])
}

/// A configuration of a scripted model.
pub(crate) fn model_config(parameters: &[(&str, &str)]) -> String {
    let mut config = format!(
        "backend: \"scripted\"\ninput [{{ name: \"x\" data_type: TYPE_{} dims: [1] }}]\n\
         output [{{ name: \"mark\" data_type: TYPE_{} dims: [1] }}]\n",
        DataType::Uint8,
        DataType::Uint64
    );
    for (key, value) in parameters {
        config.push_str(&format!("parameters {{ key: \"{key}\" value {{ string_value: \"{value}\" }} }}\n"));
    }
    config
}

fn config(budget: u64) -> ModelCacheConfig {
    let two = NonZeroUsize::new(2).expect("not zero");
    ModelCacheConfig {
        response_cache_bytes: None,
        metric_options: MetricOptions::default(),
        budget: MemoryUsage::on(Device::Host, budget),
        eviction_policy: model_cache::policy::EvictionPolicy::default(),
        gpus: Vec::new(),
        store_check_interval: Duration::from_secs(60),
        missing_key_ttl: Duration::ZERO,
        replace_without_room: model_cache::ReplaceWithoutRoom::Keep,
        download_timeout: Duration::from_secs(20),
        load_timeout: Duration::from_secs(20),
        room_timeout: Duration::from_secs(20),
        download_concurrency: NonZeroUsize::new(4).expect("not zero"),
        load_concurrency: two,
        load_queue_size: 100,
        execution_concurrency: NonZeroUsize::new(4).expect("not zero"),
        rate_limits: None,
        metrics_model_limit: 10,
        repositories: model_cache::RepositoryConfig::default(),
        scratch: std::env::temp_dir(),
        background: repository::Background::default(),
        after_unload: AfterUnload::default(),
        scheduler: SchedulerConfig {
            max_queue_size: 100,
            infer_timeout: Duration::from_secs(20),
            adaptive_batching: false,
            stream: scheduler::StreamConfig::DEFAULT,
        },
    }
}
