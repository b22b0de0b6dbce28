//! Ensembles with decoupled steps, over fake steps in paused time: every response flows on, in order and bounded in number;
//! failures and cancellations leave nothing behind.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use inference::{
    BoxFuture, BoxStream, DataType, EnsembleSpec, Error, ErrorKind, InferRequest, InferResponse, InferenceService,
    InputSpec, ModelInfo, ModelSpec, NamedTensor, OutputSpec, Result, Shape, StepSpec, Tensor,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use proptest::prelude::*;
use scheduler::{Ensemble, ModelMetrics, PlanProblem, SchedulerConfig, StreamConfig, ensemble_plan};
use tokio::time::Instant;

/// Counts the tensors that are alive: each holds a clone.
type Token = Arc<()>;

struct Counted([u8; 8], #[expect(dead_code, reason = "only its count matters")] Token);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn tensor(value: i64, token: &Token) -> Tensor {
    let bytes = bytes::Bytes::from_owner(Counted(value.to_le_bytes(), token.clone()));
    Tensor::new(DataType::Int64, Shape::from([1]), bytes).expect("8 bytes")
}

fn value(response: &InferResponse) -> i64 {
    response.outputs[0].tensor.to_elements::<i64>().expect("INT64")[0]
}

/// Answers once with ten times its input and its own number, or, if it is decoupled, with its input plus 0, 1, 2, …
struct Fake {
    number: i64,
    /// Responses, if it is decoupled.
    responses: Option<i64>,
    delay: Duration,
    /// The execution (or the response) that fails.
    fails_at: Option<usize>,
    token: Token,
    begun: AtomicUsize,
    running: Arc<AtomicUsize>,
    most: AtomicUsize,
}

/// Counts down when a run ends, however it ends.
struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Fake {
    fn begin(&self) -> (usize, Running) {
        self.most.fetch_max(self.running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        (self.begun.fetch_add(1, Ordering::SeqCst), Running(self.running.clone()))
    }

    fn answer(&self, index: usize, value: i64) -> Result<InferResponse> {
        match self.fails_at == Some(index) {
            true => Err(Error::internal("it broke").from_model()),
            false => Ok(InferResponse::new(vec![NamedTensor::new("y", tensor(value, &self.token))])),
        }
    }
}

impl InferenceService for Fake {
    fn infer(&self, request: InferRequest) -> BoxFuture<'_, Result<InferResponse>> {
        Box::pin(async move {
            let (index, _running) = self.begin();
            let given = request.inputs[0].tensor.to_elements::<i64>()?[0];
            drop(request);
            tokio::time::sleep(self.delay).await;
            self.answer(index, 10 * given + self.number)
        })
    }

    fn infer_stream(&self, request: InferRequest) -> BoxStream<'_, Result<InferResponse>> {
        let Some(count) = self.responses else { return Box::pin(futures::stream::once(self.infer(request))) };
        Box::pin(async_stream::try_stream! {
            let (_, _running) = self.begin();
            let given = request.inputs[0].tensor.to_elements::<i64>()?[0];
            drop(request);
            for index in 0..count {
                tokio::time::sleep(self.delay).await;
                yield self.answer(usize::try_from(index).expect("small"), given + index)?;
            }
        })
    }
}

/// What a chain of steps is like, one after the other.
#[derive(Clone, Debug)]
struct Step {
    responses: Option<i64>,
    delay: u64,
}

struct Bench {
    ensemble: Arc<Ensemble>,
    steps: Vec<Arc<Fake>>,
    token: Token,
    recorder: PrometheusRecorder,
}

fn input(name: &str) -> InputSpec {
    let dims = Shape::from([1]);
    InputSpec { name: name.into(), datatype: DataType::Int64, dims, reshape: None, optional: false }
}

fn output(name: &str) -> OutputSpec {
    let dims = Shape::from([1]);
    OutputSpec { name: name.into(), datatype: DataType::Int64, dims, reshape: None, label_filename: None }
}

fn member(name: &str, inputs: &[&str], decoupled: bool) -> ModelSpec {
    let inputs = inputs.iter().map(|name| input(name)).collect();
    ModelSpec { inputs, outputs: vec![output("y")], decoupled, ..ModelSpec::new(name, "fake") }
}

fn step(model: &str, inputs: &[(&str, &str)], output: &str) -> StepSpec {
    let inputs = inputs.iter().map(|(name, tensor)| ((*name).into(), (*tensor).into())).collect();
    StepSpec { model: model.into(), version: None, inputs, outputs: [("y".into(), output.into())].into() }
}

impl Bench {
    fn new(chain: &[Step], bound: Option<u32>, failing: Option<(usize, usize)>) -> Self {
        let token = Token::default();
        let fake = |(index, step): (usize, &Step)| {
            Arc::new(Fake {
                number: index as i64,
                responses: step.responses,
                delay: Duration::from_millis(step.delay),
                fails_at: failing.filter(|(failing, _)| *failing == index).map(|(_, at)| at),
                token: token.clone(),
                begun: AtomicUsize::default(),
                running: Arc::default(),
                most: AtomicUsize::default(),
            })
        };
        let steps: Vec<Arc<Fake>> = chain.iter().enumerate().map(fake).collect();
        let name = |index: usize| format!("step{index}");
        let members: Vec<ModelSpec> =
            chain.iter().enumerate().map(|(i, step)| member(&name(i), &["x"], step.responses.is_some())).collect();
        let spec_of = |i| step(&name(i), &[("x", &format!("t{i}"))], &format!("t{}", i + 1));
        let mut scheduling = EnsembleSpec::new((0..chain.len()).map(spec_of).collect());
        scheduling.max_inflight_requests = bound;
        let spec = ModelSpec {
            inputs: vec![input("t0")],
            outputs: vec![output(&format!("t{}", chain.len()))],
            ensemble: Some(scheduling),
            decoupled: chain.iter().any(|step| step.responses.is_some()),
            ..ModelSpec::new("e", ModelSpec::ENSEMBLE)
        };
        let plan = ensemble_plan::plan(&spec, |name, _| members.iter().find(|member| &*member.name == name));
        let services = steps.iter().map(|step| step.clone() as Arc<dyn InferenceService>).collect();
        let (config, labels) = Default::default();
        let info = Arc::new(ModelInfo { spec: Arc::new(spec), version: 1, versions: vec![1], config, labels });
        let stream = StreamConfig { buffer_size: NonZeroUsize::new(3).expect("positive"), ..StreamConfig::DEFAULT };
        let config = SchedulerConfig {
            max_queue_size: 0,
            infer_timeout: Duration::from_secs(3600),
            adaptive_batching: false,
            stream,
        };
        let recorder = PrometheusBuilder::new().build_recorder();
        let metrics = metrics::with_local_recorder(&recorder, || ModelMetrics::new("e", 1));
        let ensemble = Ensemble::new(info, plan.expect("right"), services, config, metrics);
        Bench { ensemble, steps, token, recorder }
    }

    fn request(&self) -> InferRequest {
        let inputs = vec![NamedTensor::new("t0", tensor(1, &self.token))];
        InferRequest { id: "r".to_owned(), inputs, ..InferRequest::default() }
    }

    /// Every request ended once, and nothing is left of it.
    async fn check_end(&self, expected: (u64, u64)) {
        let begun = || self.steps.iter().map(|step| step.begun.load(Ordering::SeqCst)).sum::<usize>();
        let before = begun();
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(begun(), before, "no step starts after the end");
        let scrape = self.recorder.handle().render();
        let count = |name: &str| {
            let lines = scrape.lines().filter(|line| line.starts_with(&format!("{name}{{")));
            lines.map(|line| line.rsplit(' ').next().expect("a value").parse::<u64>().expect("a count")).sum::<u64>()
        };
        assert_eq!((count("nv_inference_request_success"), count("nv_inference_request_failure")), expected);
        for step in &self.steps {
            assert_eq!((Arc::strong_count(step), step.running.load(Ordering::SeqCst)), (2, 0), "nothing holds a step");
        }
        assert_eq!(Arc::strong_count(&self.token), 1 + self.steps.len(), "no tensor is left");
    }
}

/// What comes out of a chain, by recursion.
fn reference(chain: &[Step], index: usize, given: i64) -> Vec<i64> {
    match chain.get(index) {
        None => vec![given],
        Some(Step { responses: None, .. }) => reference(chain, index + 1, 10 * given + index as i64),
        Some(Step { responses: Some(count), .. }) => {
            (0..*count).flat_map(|response| reference(chain, index + 1, given + response)).collect()
        }
    }
}

/// One to four steps, at least one of them decoupled.
fn chains() -> impl Strategy<Value = Vec<Step>> {
    let step = (proptest::option::of(0..4i64), 1..30u64);
    let chain = proptest::collection::vec(step.prop_map(|(responses, delay)| Step { responses, delay }), 1..5);
    chain.prop_filter("decoupled", |chain| chain.iter().any(|step| step.responses.is_some()))
}

fn paused(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(test);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn all_responses_flow_on_in_order_and_bounded(chain in chains(), bound in proptest::option::of(1..4u32)) {
        paused(async {
            let bench = Bench::new(&chain, bound, None);
            let items: Vec<_> = bench.ensemble.infer_stream(bench.request()).collect().await;
            let values: Vec<i64> = items.iter().map(|item| value(item.as_ref().expect("nothing fails"))).collect();
            assert_eq!(values, reference(&chain, 0, 1));
            drop(items);
            // Buffers take no more than the bound, below each decoupled step.
            let most = bound.unwrap_or(3) as usize;
            let mut allowed = 1;
            for (step, fake) in chain.iter().zip(&bench.steps) {
                assert!(fake.most.load(Ordering::SeqCst) <= allowed, "{chain:?}, bound {most}");
                allowed *= if step.responses.is_some() { most } else { 1 };
            }
            bench.check_end((1, 0)).await;
        });
    }

    #[test]
    fn a_failure_ends_the_stream_once(chain in chains(), step in any::<prop::sample::Index>(), at in 0..3usize) {
        paused(async {
            let failing = step.index(chain.len());
            let bench = Bench::new(&chain, None, Some((failing, at)));
            let items: Vec<_> = bench.ensemble.infer_stream(bench.request()).collect().await;
            let right = reference(&chain, 0, 1);
            let failed = items.last().is_some_and(Result::is_err);
            let values: Vec<i64> = items.iter().filter_map(|item| item.as_ref().ok()).map(value).collect();
            assert_eq!(values, right[..values.len()], "what comes before the failure is right");
            if failed {
                let error = items.last().and_then(|item| item.as_ref().err()).expect("it failed");
                assert_eq!(error.message(), format!("in ensemble 'e', step 'step{failing}' ({failing}): it broke"));
            } else {
                assert_eq!(values.len(), right.len());
            }
            assert_eq!(items.len() - usize::from(failed), values.len(), "nothing comes after a failure");
            drop(items);
            bench.check_end(if failed { (0, 1) } else { (1, 0) }).await;
        });
    }

    #[test]
    fn a_client_that_goes_away_leaves_nothing_behind(chain in chains(), after in 0..60u64) {
        paused(async {
            let bench = Bench::new(&chain, None, None);
            let begin = Instant::now();
            let mut stream = bench.ensemble.infer_stream(bench.request());
            let until = begin + Duration::from_millis(after);
            let mut ended = false;
            while !ended {
                match tokio::time::timeout_at(until, stream.next()).await {
                    Ok(item) => ended = item.is_none(),
                    Err(_elapsed) => break,
                }
            }
            drop(stream);
            bench.check_end(if ended { (1, 0) } else { (0, 1) }).await;
        });
    }
}

#[test]
fn a_client_that_does_not_read_stops_all_steps() {
    paused(async {
        let chain = [Step { responses: Some(1000), delay: 1 }, Step { responses: None, delay: 1 }];
        let bench = Bench::new(&chain, Some(2), None);
        let mut stream = bench.ensemble.infer_stream(bench.request());
        assert_eq!(value(&stream.next().await.expect("one").expect("fine")), 11);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(bench.steps[1].begun.load(Ordering::SeqCst) <= 3, "what is read, and two more");
        drop(stream);
        bench.check_end((0, 1)).await;
    });
}

#[test]
fn a_call_for_one_answer_is_refused() {
    paused(async {
        let bench = Bench::new(&[Step { responses: Some(1), delay: 1 }], None, None);
        let error = bench.ensemble.infer(bench.request()).await.expect_err("it is decoupled");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    });
}

/// As Triton refuses them: nobody could say which response goes with which.
#[test]
fn tensors_of_different_streams_cannot_meet() {
    let members = [member("many", &["x"], true), member("one", &["x"], false), member("both", &["a", "b"], false)];
    let plan = |steps: Vec<StepSpec>, outputs: &[&str]| -> Vec<PlanProblem> {
        let spec = ModelSpec {
            inputs: vec![input("in")],
            outputs: outputs.iter().map(|name| output(name)).collect(),
            ensemble: Some(EnsembleSpec::new(steps)),
            ..ModelSpec::new("e", ModelSpec::ENSEMBLE)
        };
        let found = ensemble_plan::plan(&spec, |name, _| members.iter().find(|member| &*member.name == name));
        found.err().unwrap_or_default()
    };
    let many = || step("many", &[("x", "in")], "a");
    let joined = plan(vec![many(), step("both", &[("a", "a"), ("b", "in")], "out")], &["out"]);
    assert_eq!(joined[0].path, "ensemble_scheduling.step[1].input_map");
    let expected = "step of model 'both' receives inputs originated from different decoupled models: 'in' from the \
                    ensemble's inputs, 'a' from 'many' (step 0)";
    assert_eq!(joined[0].message, expected);
    let outputs = plan(vec![many(), step("one", &[("x", "in")], "b")], &["a", "b"]);
    assert_eq!((outputs.len(), outputs[0].path.as_str()), (1, "output"));
    assert!(outputs[0].message.contains("come from different decoupled models: 'b' from the ensemble's inputs, 'a'"));
    let fine =
        plan(vec![many(), step("one", &[("x", "a")], "b"), step("both", &[("a", "a"), ("b", "b")], "out")], &["out"]);
    assert_eq!(fine, []);
}
