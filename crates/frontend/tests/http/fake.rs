//! Models that answer by name, behind the real routers on real sockets.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

#[path = "figures.rs"]
mod figures;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use frontend::{
    Admission, DrainReport, FrontendConfig, LogChange, LogControl, LogSettings, LogTime, ServeConfig, Services,
    SharedMemory, Tracing,
};
use futures::StreamExt;
use inference::{
    BoxFuture, BoxStream, CacheOutcome, CacheTier, DataType, Description, Error, ErrorKind, IndexEntry, InferRequest,
    InferResponse, InferenceService, InputSpec, LoadOverrides, LoadTiming, ModelControl, ModelInfo, ModelKey,
    ModelSpec, ModelState, ModelStatistics, NamedTensor, OutputSpec, Parameter, RegisteredModel, Result, Shape, Tensor,
    Trace,
};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What every model of these tests looks like: one FP32 input and output of any length, in batches.
pub fn model_info(name: &str) -> Arc<ModelInfo> {
    model_of(name, DataType::Fp32)
}

/// The same with another type.
fn model_of(name: &str, datatype: DataType) -> Arc<ModelInfo> {
    let dims = Shape::from([-1]);
    let input = InputSpec { name: "INPUT0".into(), datatype, dims: dims.clone(), reshape: None, optional: false };
    let output = OutputSpec { name: "OUTPUT0".into(), datatype, dims, reshape: None, label_filename: None };
    let spec =
        ModelSpec { max_batch_size: 8, inputs: vec![input], outputs: vec![output], ..ModelSpec::new(name, "identity") };
    let config = protocol::model_config::ModelConfig { name: name.to_owned(), max_batch_size: 8, ..Default::default() };
    let labels = vec!["cat".to_owned(), "dog".to_owned(), "emu".to_owned()];
    Arc::new(ModelInfo {
        spec: Arc::new(spec),
        version: 1,
        versions: vec![1],
        config: protocol::encode_model_config(&config).into(),
        labels: HashMap::from([("OUTPUT0".into(), labels)]),
    })
}

/// Of an archive that had to be fetched.
fn loaded() -> CacheOutcome {
    let milliseconds = Duration::from_millis;
    let load = LoadTiming { download: milliseconds(12), unpack: milliseconds(3), load: milliseconds(40) };
    CacheOutcome { tier: CacheTier::Store, version: "\"etag-1\"".into(), load: Some(load) }
}

/// Counts a request that was given up.
struct Abandoned<'a>(Option<&'a AtomicUsize>);

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        if let Some(count) = self.0 {
            count.fetch_add(1, Ordering::SeqCst);
        }
    }
}

pub struct Fake {
    pub ready: AtomicBool,
    pub registered: Mutex<Vec<RegisteredModel>>,
    /// Loads (with their overrides) and unloads (with whether dependents go too) by name.
    pub control_calls: Mutex<Vec<(String, Option<LoadOverrides>, bool)>>,
    pub log: Mutex<LogSettings>,
    /// Every request that came this far.
    pub requests: Mutex<Vec<InferRequest>>,
    /// Opens once for each request to `slow`, or to `repeat` with a gate, that may finish.
    pub gate: Semaphore,
    /// Requests to `slow` whose future was dropped before it finished.
    pub abandoned: AtomicUsize,
    /// Held by every answer until it was written.
    pub guard: Arc<()>,
}

impl Fake {
    pub fn new() -> Arc<Self> {
        Arc::new(Fake {
            ready: AtomicBool::new(true),
            registered: Mutex::default(),
            control_calls: Mutex::default(),
            log: Mutex::new(LogSettings {
                info: true,
                warning: true,
                error: true,
                verbose_level: 0,
                time: LogTime::Default,
            }),
            requests: Mutex::default(),
            gate: Semaphore::new(0),
            abandoned: AtomicUsize::new(0),
            guard: Arc::new(()),
        })
    }

    pub fn last_request(&self) -> InferRequest {
        self.requests.lock().expect("not poisoned").last().cloned().expect("a request came through")
    }

    /// How many answers have not been written yet.
    pub fn unwritten(&self) -> usize {
        Arc::strong_count(&self.guard) - 1
    }

    pub async fn wait_for_requests(&self, count: usize) {
        until(|| self.requests.lock().expect("not poisoned").len() >= count).await;
    }

    fn failure(key: &ModelKey) -> Error {
        let name = key.to_string();
        let kind = match name.as_str() {
            "overloaded" => ErrorKind::Overloaded,
            "noroom" => ErrorKind::NoRoom,
            "deadline" | "identity-deadline" => ErrorKind::DeadlineExceeded,
            "unavailable" => ErrorKind::Unavailable,
            "unsupported" => ErrorKind::Unsupported,
            "broken" | "modelbroken" => ErrorKind::Internal,
            "bad" => ErrorKind::InvalidArgument,
            _ => return Error::not_found(format!("Request for unknown model: '{name}' is not found")),
        };
        let error = Error::new(kind, format!("no luck with '{name}'"));
        if name == "modelbroken" { error.from_model() } else { error }
    }

    async fn run(&self, request: InferRequest) -> Result<InferResponse> {
        self.requests.lock().expect("not poisoned").push(request.clone());
        let key = request.model.clone();
        let name = key.to_string();
        let registered = self.is_registered(&name);
        match name.as_str() {
            "slow" => {
                let mut abandoned = Abandoned(Some(&self.abandoned));
                self.gate.acquire().await.expect("open").forget();
                abandoned.0 = None;
            }
            "panic" => panic!("this model panics"),
            "" | "identity" | "strings" | "x.tar.gz" | "team/x.tar.gz" | "cold.tar.gz" | "inner" => {}
            _ if registered && name != "noroom" => {}
            _ => return Err(Self::failure(&key)),
        }
        let outputs = request
            .inputs
            .iter()
            .map(|input| NamedTensor::new(input.name.replace("INPUT", "OUTPUT"), input.tensor.clone()));
        let outputs = outputs.filter(|output| request.wants(&output.name)).collect();
        let cache = match name.as_str() {
            // Describing it has loaded it.
            "cold.tar.gz" => Some(CacheOutcome { tier: CacheTier::Memory, load: None, ..loaded() }),
            name => name.ends_with(".tar.gz").then(loaded),
        };
        let model = Some(model_info("identity"));
        Ok(InferResponse { cache, model, guard: Some(self.guard.clone()), ..InferResponse::new(outputs) })
    }
}

impl InferenceService for Fake {
    fn infer(&self, request: InferRequest) -> BoxFuture<'_, Result<InferResponse>> {
        Box::pin(self.run(request))
    }

    /// `repeat` answers as often as its first input's first element says, and then as its parameter `then` says; others once.
    fn infer_stream(&self, request: InferRequest) -> BoxStream<'_, Result<InferResponse>> {
        if request.model.to_string() != "repeat" {
            return futures::stream::once(self.run(request)).boxed();
        }
        self.requests.lock().expect("not poisoned").push(request.clone());
        let count = request.inputs[0].tensor.to_elements::<f32>().expect("FP32")[0] as u32;
        let then = request.parameters.get("then").cloned();
        let answer = |number: u32| {
            let tensor = Tensor::from_vec(Shape::from([1, 1]), vec![number as f32]).expect("valid");
            let model = Some(model_info("repeat"));
            Ok(InferResponse { model, ..InferResponse::new(vec![NamedTensor::new("OUTPUT0", tensor)]) })
        };
        let end = futures::stream::once(async move {
            match then {
                None => None,
                Some(Parameter::String(then)) if then == "wait" => {
                    let _abandoned = Abandoned(Some(&self.abandoned));
                    futures::future::pending().await
                }
                Some(Parameter::String(then)) if then == "gate" => {
                    self.gate.acquire().await.expect("open").forget();
                    None
                }
                Some(Parameter::String(then)) if then == "panic" => panic!("this model panics"),
                Some(_) => Some(Err(Error::unavailable("no luck with 'repeat'"))),
            }
        });
        futures::stream::iter((0..count).map(answer)).chain(end.filter_map(async |end| end)).boxed()
    }
}

impl LogControl for Fake {
    fn settings(&self) -> LogSettings {
        self.log.lock().expect("not poisoned").clone()
    }

    fn change(&self, change: LogChange) {
        let mut log = self.log.lock().expect("not poisoned");
        *log = LogSettings {
            info: change.info.unwrap_or(log.info),
            warning: change.warning.unwrap_or(log.warning),
            error: change.error.unwrap_or(log.error),
            verbose_level: change.verbose_level.unwrap_or(log.verbose_level),
            time: change.time.unwrap_or(log.time),
        };
    }
}

impl ModelControl for Fake {
    fn is_server_ready(&self) -> bool {
        self.ready.load(Ordering::SeqCst)
    }

    fn is_model_ready(&self, key: &ModelKey) -> bool {
        let known = ["identity", "identity-deadline"].contains(&key.to_string().as_str());
        known && key.version.is_none_or(|version| version == 1)
    }

    fn describe(&self, key: &ModelKey, _: Option<Instant>, trace: Option<Trace>) -> BoxFuture<'_, Result<Description>> {
        let key = key.clone();
        Box::pin(async move {
            match key.to_string().as_str() {
                "identity" | "repeat" | "slow" | "team/x.tar.gz" => {
                    Ok(Description { model: model_info("identity"), cache: None })
                }
                "strings" => Ok(Description { model: model_of("strings", DataType::Bytes), cache: None }),
                "cold.tar.gz" => {
                    let _archive = trace.map(|trace| trace.begin("archive"));
                    Ok(Description { model: model_info("identity"), cache: Some(loaded()) })
                }
                _ => Err(Self::failure(&key)),
            }
        })
    }

    fn statistics(&self, key: &ModelKey) -> Result<Vec<ModelStatistics>> {
        match (key.to_string().as_str(), &key.target) {
            ("" | "identity", None) => Ok(vec![figures::of("identity")]),
            ("inner", Some(target)) => Ok(vec![figures::of(target.as_str())]),
            _ => Err(Self::failure(key)),
        }
    }

    fn index(&self) -> BoxFuture<'_, Vec<IndexEntry>> {
        let entry = |name: &str, version, state, reason: &str| IndexEntry {
            name: name.to_owned(),
            version,
            state,
            reason: reason.to_owned(),
            gpus: Vec::new(),
        };
        let index = vec![
            entry("broken", Some(1), ModelState::Unavailable, "no such file"),
            entry("cached", None, ModelState::Unavailable, ""),
            entry("identity", Some(1), ModelState::Ready, ""),
            IndexEntry { gpus: vec![0, 2], ..entry("on-gpus", Some(3), ModelState::Ready, "") },
        ];
        Box::pin(async move { index })
    }

    fn load<'a>(&'a self, key: &'a ModelKey, overrides: LoadOverrides) -> BoxFuture<'a, Result<()>> {
        self.control_calls.lock().expect("not poisoned").push((key.to_string(), Some(overrides), false));
        Box::pin(async move {
            let name = key.to_string();
            match name.as_str() {
                "nope" => {
                    Err(Error::not_found(format!("failed to load '{name}', failed to poll from model repository")))
                }
                _ => Ok(()),
            }
        })
    }

    fn unload<'a>(&'a self, key: &'a ModelKey, unload_dependents: bool) -> BoxFuture<'a, Result<()>> {
        self.control_calls.lock().expect("not poisoned").push((key.to_string(), None, unload_dependents));
        Box::pin(async { Ok(()) })
    }

    fn register<'a>(&'a self, name: &'a str, directory: &'a Path) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let url = directory.display().to_string();
            if url.contains("missing") {
                return Err(Error::not_found(format!("failed to register '{url}', repository not found")));
            }
            if url.contains("huge") {
                return Err(Error::no_room(format!("'{name}' does not fit")));
            }
            if url.contains("wrong") {
                return Err(Error::invalid_argument(format!("load failed for model '{name}'")));
            }
            if self.is_registered(name) {
                let message = format!("model '{name}' has already been registered");
                return Err(Error::new(ErrorKind::AlreadyExists, message));
            }
            let mut registered = self.registered.lock().expect("not poisoned");
            registered.push(RegisteredModel { name: name.to_owned(), url });
            registered.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(())
        })
    }

    fn unregister<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let mut registered = self.registered.lock().expect("not poisoned");
            let position = registered.iter().position(|model| model.name == name);
            position.map(|position| drop(registered.remove(position))).ok_or_else(|| Error::not_found("not registered"))
        })
    }

    fn registered(&self) -> Vec<RegisteredModel> {
        self.registered.lock().expect("not poisoned").clone()
    }
}

/// Waits until something holds, and fails the test when it does not in a while.
pub async fn until(holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(20), "it never came to be");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub struct Running {
    pub fake: Arc<Fake>,
    pub client: reqwest::Client,
    pub http: SocketAddr,
    pub sagemaker: SocketAddr,
    pub drain: CancellationToken,
    pub servers: Vec<JoinHandle<DrainReport>>,
}

pub async fn start() -> Running {
    start_with(FrontendConfig::default(), ServeConfig::default()).await
}

pub async fn start_with(config: FrontendConfig, serve: ServeConfig) -> Running {
    start_admitting(Admission::default(), config, serve).await
}

pub async fn start_admitting(admission: Admission, config: FrontendConfig, serve: ServeConfig) -> Running {
    start_tracing(Tracing::default(), admission, config, serve).await
}

pub async fn start_tracing(
    tracing: Tracing,
    admission: Admission,
    config: FrontendConfig,
    serve: ServeConfig,
) -> Running {
    start_all(SharedMemory::off(), tracing, admission, config, serve).await
}

pub async fn start_sharing(shared_memory: SharedMemory) -> Running {
    let (admission, config, serve) = (Admission::default(), FrontendConfig::default(), ServeConfig::default());
    start_all(shared_memory, Tracing::default(), admission, config, serve).await
}

async fn start_all(
    shared_memory: SharedMemory,
    tracing: Tracing,
    admission: Admission,
    config: FrontendConfig,
    serve: ServeConfig,
) -> Running {
    let fake = Fake::new();
    let services = Services {
        inference: fake.clone(),
        control: fake.clone(),
        log: fake.clone(),
        admission,
        shared_memory,
        tracing,
    };
    let drain = CancellationToken::new();
    let mut addresses = Vec::new();
    let mut servers = Vec::new();
    let routers =
        [frontend::http_router(services.clone(), config.clone()), frontend::sagemaker_router(services, config)];
    for router in routers {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        addresses.push(listener.local_addr().expect("bound"));
        servers.push(tokio::spawn(frontend::serve(listener, router, drain.clone(), serve.clone())));
    }
    let client = reqwest::Client::new();
    Running { fake, client, http: addresses[0], sagemaker: addresses[1], drain, servers }
}

/// A whole answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ASCII"))
    }
}

impl Running {
    pub async fn call(
        &self,
        address: SocketAddr,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Reply {
        let method = method.parse().expect("a method");
        let mut request = self.client.request(method, format!("http://{address}{path}")).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Reply { status, headers, body: response.bytes().await.expect("a body").to_vec() }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.call(self.http, "GET", path, &[], "").await
    }

    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl Into<reqwest::Body>) -> Reply {
        self.call(self.http, "POST", path, headers, body).await
    }
}

/// A request with one FP32 input of shape [1, n].
pub fn request(values: &[f32]) -> String {
    format!(r#"{{"inputs":[{{"name":"INPUT0","shape":[1,{}],"datatype":"FP32","data":{values:?}}}]}}"#, values.len())
}
