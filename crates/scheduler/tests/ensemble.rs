//! Runs of ensembles over fake steps in paused time: random graphs, failures, cancellations; and what must never happen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use inference::{
    BoxFuture, DataType, EnsembleSpec, Error, ErrorKind, InferRequest, InferResponse, InferenceService, InputSpec,
    ModelInfo, ModelSpec, NamedTensor, OutputSpec, Result, Shape, StepSpec, Tensor,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use proptest::prelude::*;
use scheduler::{Ensemble, ModelMetrics, SchedulerConfig, ensemble_plan};
use tokio::time::Instant;

const CONFIG: SchedulerConfig = SchedulerConfig {
    max_queue_size: 0,
    infer_timeout: Duration::from_secs(3600),
    adaptive_batching: false,
    stream: scheduler::StreamConfig::DEFAULT,
};

/// Counts the tensors that are alive: each holds a clone.
type Token = Arc<()>;

struct Counted(Vec<u8>, #[expect(dead_code, reason = "only its count matters")] Token);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn tensor(value: i64, token: &Token) -> Tensor {
    let owner = Counted(value.to_le_bytes().to_vec(), token.clone());
    Tensor::new(DataType::Int64, Shape::from([1]), bytes::Bytes::from_owner(owner)).expect("8 bytes")
}

fn value(tensor: &Tensor) -> i64 {
    tensor.to_elements::<i64>().expect("INT64")[0]
}

/// A step that takes some time and answers with a figure that depends on its inputs.
struct FakeStep {
    name: String,
    delay: Duration,
    fails: bool,
    token: Token,
    started: AtomicUsize,
    seen: Mutex<Vec<InferRequest>>,
    tasks: Mutex<Vec<Option<tokio::task::Id>>>,
    /// Tensors alive at each start, the step's own inputs included.
    alive: Mutex<Vec<usize>>,
}

impl FakeStep {
    fn new(name: &str, delay: u64, token: &Token) -> Self {
        FakeStep {
            name: name.to_owned(),
            delay: Duration::from_millis(delay),
            fails: false,
            token: token.clone(),
            started: AtomicUsize::new(0),
            seen: Mutex::default(),
            tasks: Mutex::default(),
            alive: Mutex::default(),
        }
    }

    fn starts(&self) -> usize {
        self.started.load(Ordering::SeqCst)
    }
}

/// What the step called `name` answers for its output `output`.
fn answer(name: &str, output: &str, inputs: impl Iterator<Item = i64>) -> i64 {
    let seed =
        name.bytes().chain(output.bytes()).fold(7i64, |sum, byte| sum.wrapping_mul(31).wrapping_add(i64::from(byte)));
    inputs.fold(seed, |sum, input| sum.wrapping_mul(17).wrapping_add(input))
}

impl InferenceService for FakeStep {
    fn infer(&self, request: InferRequest) -> BoxFuture<'_, Result<InferResponse>> {
        Box::pin(async move {
            self.started.fetch_add(1, Ordering::SeqCst);
            self.tasks.lock().expect("no panic").push(tokio::task::try_id());
            self.alive.lock().expect("no panic").push(Arc::strong_count(&self.token));
            let mut inputs: Vec<(String, i64)> =
                request.inputs.iter().map(|input| (input.name.to_string(), value(&input.tensor))).collect();
            inputs.sort();
            let outputs = request.outputs.clone();
            self.seen.lock().expect("no panic").push(InferRequest { inputs: Vec::new(), ..request });
            tokio::time::sleep(self.delay).await;
            if self.fails {
                return Err(Error::internal("it broke").from_model());
            }
            let tensors = outputs.iter().map(|output| {
                let figure = answer(&self.name, output, inputs.iter().map(|(_, value)| *value));
                NamedTensor { name: output.clone(), tensor: tensor(figure, &self.token) }
            });
            Ok(InferResponse::new(tensors.collect()))
        })
    }
}

fn input(name: &str, optional: bool) -> InputSpec {
    InputSpec { name: name.into(), datatype: DataType::Int64, dims: Shape::from([1]), reshape: None, optional }
}

fn output(name: &str) -> OutputSpec {
    OutputSpec {
        name: name.into(),
        datatype: DataType::Int64,
        dims: Shape::from([1]),
        reshape: None,
        label_filename: None,
    }
}

/// A graph: each step takes tensors and makes tensors, all by name; a member's inputs and outputs are called as the
/// tensors are.
#[derive(Clone, Debug, Default)]
struct Graph {
    inputs: Vec<String>,
    steps: Vec<GraphStep>,
    outputs: Vec<String>,
}

#[derive(Clone, Debug)]
struct GraphStep {
    takes: BTreeSet<String>,
    makes: Vec<String>,
    delay: u64,
}

impl Graph {
    fn spec(&self) -> ModelSpec {
        let same = |names: &mut dyn Iterator<Item = &String>| {
            names.map(|name| (name.as_str().into(), name.as_str().into())).collect::<BTreeMap<_, _>>()
        };
        let steps = self.steps.iter().enumerate().map(|(index, step)| StepSpec {
            model: format!("step{index}").into(),
            version: None,
            inputs: same(&mut step.takes.iter()),
            outputs: same(&mut step.makes.iter()),
        });
        ModelSpec {
            inputs: self.inputs.iter().map(|name| input(name, false)).collect(),
            outputs: self.outputs.iter().map(|name| output(name)).collect(),
            ensemble: Some(EnsembleSpec::new(steps.collect())),
            ..ModelSpec::new("e", ModelSpec::ENSEMBLE)
        }
    }

    fn members(&self) -> Vec<ModelSpec> {
        let member = |(index, step): (usize, &GraphStep)| ModelSpec {
            inputs: step.takes.iter().map(|name| input(name, false)).collect(),
            outputs: step.makes.iter().map(|name| output(name)).collect(),
            ..ModelSpec::new(format!("step{index}"), "fake")
        };
        self.steps.iter().enumerate().map(member).collect()
    }

    fn maker(&self, tensor: &str) -> Option<usize> {
        self.steps.iter().position(|step| step.makes.iter().any(|made| made == tensor))
    }

    /// A tensor's value and when it is there, by recursion; `needed` collects the steps on the way.
    fn reference(&self, tensor: &str, needed: &mut BTreeSet<usize>) -> (i64, u64) {
        let Some(index) = self.maker(tensor) else {
            return (self.inputs.iter().position(|name| name == tensor).expect("an input") as i64, 0);
        };
        needed.insert(index);
        let step = &self.steps[index];
        let inputs: Vec<(i64, u64)> = step.takes.iter().map(|name| self.reference(name, needed)).collect();
        let ready = inputs.iter().map(|(_, at)| *at).max().unwrap_or(0);
        (answer(&format!("step{index}"), tensor, inputs.iter().map(|(value, _)| *value)), ready + step.delay)
    }

    fn request(&self, wanted: &[String], token: &Token) -> InferRequest {
        let tensors = self.inputs.iter().enumerate();
        InferRequest {
            id: "r".to_owned(),
            inputs: tensors.map(|(index, name)| NamedTensor::new(name.as_str(), tensor(index as i64, token))).collect(),
            outputs: wanted.iter().map(|name| name.as_str().into()).collect(),
            ..InferRequest::default()
        }
    }
}

/// An ensemble over a graph, and all that must be looked at afterwards.
struct Bench {
    graph: Graph,
    ensemble: Arc<Ensemble>,
    steps: Vec<Arc<FakeStep>>,
    token: Token,
    recorder: PrometheusRecorder,
}

fn info(spec: ModelSpec) -> Arc<ModelInfo> {
    let (config, labels) = Default::default();
    Arc::new(ModelInfo { spec: Arc::new(spec), version: 1, versions: vec![1], config, labels })
}

impl Bench {
    fn new(graph: Graph, failing: Option<usize>) -> Self {
        let token = Token::default();
        let steps: Vec<Arc<FakeStep>> = graph
            .steps
            .iter()
            .enumerate()
            .map(|(index, step)| {
                let fake = FakeStep::new(&format!("step{index}"), step.delay, &token);
                Arc::new(FakeStep { fails: failing == Some(index), ..fake })
            })
            .collect();
        let (spec, members) = (graph.spec(), graph.members());
        let plan = ensemble_plan::plan(&spec, |name, _| members.iter().find(|member| &*member.name == name));
        let plan = plan.expect("random graphs are right");
        let services = steps.iter().map(|step| step.clone() as Arc<dyn InferenceService>).collect();
        let recorder = PrometheusBuilder::new().build_recorder();
        let metrics = metrics::with_local_recorder(&recorder, || ModelMetrics::new("e", 1));
        let ensemble = Ensemble::new(info(spec), plan, services, CONFIG, metrics);
        Bench { graph, ensemble, steps, token, recorder }
    }

    /// A counter of the ensemble, all reasons together.
    fn count(&self, name: &str) -> u64 {
        let scrape = self.recorder.handle().render();
        let lines = scrape.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        lines.map(|line| line.rsplit(' ').next().expect("a value").parse::<u64>().expect("a count")).sum()
    }

    /// Every request ended once, and nothing is left of it.
    fn check_end(&self, successes: u64, failures: u64) {
        assert_eq!(self.count("nv_inference_request_success"), successes);
        assert_eq!(self.count("nv_inference_request_failure"), failures);
        for step in &self.steps {
            assert_eq!(Arc::strong_count(step), 2, "only the ensemble and this test hold a step");
        }
        let own = 1 + self.steps.len();
        assert_eq!(Arc::strong_count(&self.token), own, "no tensor is left");
    }
}

fn paused(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(test);
}

/// Lets aborted tasks be dropped.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// A random graph of up to 7 steps, listed in reverse; what no step takes is an output.
fn graphs() -> impl Strategy<Value = Graph> {
    let step = (proptest::collection::vec(any::<prop::sample::Index>(), 1..4), 1..3usize, 1..50u64);
    (1..3usize, proptest::collection::vec(step, 1..8)).prop_map(|(inputs, steps)| {
        let mut graph = Graph { inputs: (0..inputs).map(|index| format!("in{index}")).collect(), ..Graph::default() };
        let mut tensors = graph.inputs.clone();
        for (number, (takes, makes, delay)) in steps.into_iter().enumerate() {
            let mut takes: BTreeSet<String> = takes.iter().map(|index| index.get(&tensors).clone()).collect();
            if number == 0 {
                takes.extend(graph.inputs.iter().cloned());
            }
            let makes: Vec<String> = (0..makes).map(|output| format!("t{number}_{output}")).collect();
            tensors.extend(makes.iter().cloned());
            graph.steps.push(GraphStep { takes, makes, delay });
        }
        let taken: BTreeSet<String> = graph.steps.iter().flat_map(|step| step.takes.clone()).collect();
        graph.outputs = tensors.into_iter().filter(|tensor| !taken.contains(tensor)).collect();
        graph.steps.reverse();
        graph
    })
}

fn pick(graph: &Graph, chosen: &[bool]) -> Vec<String> {
    graph.outputs.iter().zip(chosen).filter(|(_, chosen)| **chosen).map(|(name, _)| name.clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Values are right, only needed steps run, each starts the moment its inputs are there, and nothing is left over.
    #[test]
    fn random_graphs_answer_right_and_in_time(graph in graphs(), chosen in proptest::collection::vec(any::<bool>(), 16)) {
        paused(async {
            let bench = Bench::new(graph, None);
            let wanted = pick(&bench.graph, &chosen);
            let begin = Instant::now();
            let response = bench.ensemble.infer(bench.graph.request(&wanted, &bench.token)).await.expect("runs");
            let took = begin.elapsed();
            let expected = if wanted.is_empty() { bench.graph.outputs.clone() } else { wanted };
            let names: Vec<&str> = response.outputs.iter().map(|output| &*output.name).collect();
            assert_eq!(names, expected);
            let (mut needed, mut end) = (BTreeSet::new(), 0);
            for output in &response.outputs {
                let (figure, at) = bench.graph.reference(&output.name, &mut needed);
                assert_eq!(value(&output.tensor), figure, "{}", output.name);
                end = end.max(at);
            }
            assert_eq!(took.as_millis(), u128::from(end), "the critical path");
            for (index, step) in bench.steps.iter().enumerate() {
                assert_eq!(step.starts(), usize::from(needed.contains(&index)), "step {index}");
            }
            drop(response);
            settle().await;
            bench.check_end(1, 0);
        });
    }

    /// A failing step ends the request once, prefixed; what had not started does not start.
    #[test]
    fn a_failing_step_ends_the_request_once(graph in graphs(), failing in any::<prop::sample::Index>()) {
        paused(async {
            let failing = failing.index(graph.steps.len());
            let bench = Bench::new(graph, Some(failing));
            let error = bench.ensemble.infer(bench.graph.request(&[], &bench.token)).await.expect_err("one step fails");
            assert_eq!(error.message(), format!("in ensemble 'e', step 'step{failing}' ({failing}): it broke"));
            assert_eq!((error.kind(), error.origin()), (ErrorKind::Internal, inference::Origin::Model));
            let started: usize = bench.steps.iter().map(|step| step.starts()).sum();
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert_eq!(bench.steps.iter().map(|step| step.starts()).sum::<usize>(), started);
            bench.check_end(0, 1);
        });
    }

    /// A request that is dropped stops the steps that have not started, and counts once, as cancelled.
    #[test]
    fn a_cancelled_request_stops(graph in graphs(), after in 0..120u64) {
        paused(async {
            let bench = Bench::new(graph, None);
            let mut needed = BTreeSet::new();
            let names = bench.graph.outputs.iter();
            let end = names.map(|name| bench.graph.reference(name, &mut needed).1).max().expect("has outputs");
            let after = after % end;
            let request = bench.graph.request(&[], &bench.token);
            let cut = tokio::time::timeout(Duration::from_millis(after), bench.ensemble.infer(request)).await;
            assert!(cut.is_err(), "cancelled before its end");
            let started: usize = bench.steps.iter().map(|step| step.starts()).sum();
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert_eq!(bench.steps.iter().map(|step| step.starts()).sum::<usize>(), started);
            bench.check_end(0, 1);
        });
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn chain() -> Graph {
    let step = |takes: &[&str], makes: &str| GraphStep {
        takes: names(takes).into_iter().collect(),
        makes: names(&[makes]),
        delay: 1,
    };
    Graph {
        inputs: names(&["in"]),
        steps: vec![step(&["in"], "a"), step(&["a"], "b"), step(&["b"], "c")],
        outputs: names(&["c"]),
    }
}

#[test]
fn a_chain_runs_in_the_callers_task_and_frees_tensors_at_their_last_use() {
    paused(async {
        let bench = Bench::new(chain(), None);
        let (ensemble, request) = (bench.ensemble.clone(), bench.graph.request(&[], &bench.token));
        let task =
            tokio::spawn(async move { ensemble.infer(request).await.map(|response| (response, tokio::task::id())) });
        let (response, id) = task.await.expect("no panic").expect("runs");
        let own = 1 + bench.steps.len();
        for step in &bench.steps {
            assert_eq!(*step.tasks.lock().expect("no panic"), [Some(id)], "{}", step.name);
            assert_eq!(*step.alive.lock().expect("no panic"), [own + 1], "only the input of {} is alive", step.name);
        }
        drop(response);
        bench.check_end(1, 0);
    });
}

#[test]
fn steps_get_the_requests_id_parameters_and_the_earlier_deadline() {
    paused(async {
        let bench = Bench::new(chain(), None);
        let deadline = Instant::now().into_std() + Duration::from_secs(1);
        let parameters = [("p".to_owned(), inference::Parameter::Bool(true))].into();
        let request = InferRequest { deadline: Some(deadline), parameters, ..bench.graph.request(&[], &bench.token) };
        let timeout = Instant::now().into_std() + CONFIG.infer_timeout;
        bench.ensemble.infer(request.clone()).await.expect("runs");
        bench.ensemble.infer(InferRequest { deadline: None, ..request.clone() }).await.expect("runs");
        let seen = bench.steps[0].seen.lock().expect("no panic").clone();
        assert_eq!((seen[0].id.as_str(), &seen[0].parameters), ("r", &request.parameters));
        assert_eq!(seen[0].deadline, Some(deadline));
        assert_eq!(seen[0].model.model.as_deref(), Some("step0"));
        let from_timeout = seen[1].deadline.expect("a request without a deadline gets one");
        assert!(from_timeout >= timeout && from_timeout <= timeout + Duration::from_millis(10));
    });
}

#[test]
fn an_absent_optional_input_stays_absent() {
    paused(async {
        let token = Token::default();
        let mut spec = chain().spec();
        spec.inputs.push(input("maybe", true));
        let scheduling = spec.ensemble.as_mut().expect("an ensemble");
        scheduling.steps[2].inputs.insert("maybe".into(), "maybe".into());
        let mut members = chain().members();
        members[2].inputs.push(input("maybe", true));
        let plan =
            ensemble_plan::plan(&spec, |name, _| members.iter().find(|member| &*member.name == name)).expect("right");
        let steps: Vec<Arc<FakeStep>> =
            (0..3).map(|index| Arc::new(FakeStep::new(&format!("step{index}"), 1, &token))).collect();
        let services = steps.iter().map(|step| step.clone() as Arc<dyn InferenceService>).collect();
        let ensemble = Ensemble::new(info(spec), plan, services, CONFIG, ModelMetrics::new("e", 1));
        let without = chain().request(&[], &token);
        let mut with = without.clone();
        with.inputs.push(NamedTensor::new("maybe", tensor(9, &token)));
        let without = ensemble.infer(without).await.expect("runs");
        let with = ensemble.infer(with).await.expect("runs");
        let figure = |response: &InferResponse| value(response.output("c").expect("made"));
        let alone = value(response_of(&without, "c"));
        assert_eq!(figure(&without), alone);
        assert_ne!(figure(&with), figure(&without), "the optional input reaches its step");
    });
}

fn response_of<'a>(response: &'a InferResponse, name: &str) -> &'a Tensor {
    response.output(name).expect("made")
}

#[test]
fn an_ensemble_can_be_a_step_of_another_and_errors_name_both() {
    paused(async {
        for failing in [None, Some(1)] {
            let inner = Bench::new(chain(), failing);
            let inner_spec = ModelSpec { name: "inner".into(), ..chain().spec() };
            let spec = ModelSpec {
                inputs: vec![input("x", false)],
                outputs: vec![output("y")],
                ensemble: Some(EnsembleSpec::new(vec![StepSpec {
                    model: "inner".into(),
                    version: None,
                    inputs: [("in".into(), "x".into())].into(),
                    outputs: [("c".into(), "y".into())].into(),
                }])),
                ..ModelSpec::new("outer", ModelSpec::ENSEMBLE)
            };
            let plan = ensemble_plan::plan(&spec, |name, _| (name == "inner").then_some(&inner_spec)).expect("right");
            let steps: Vec<Arc<dyn InferenceService>> = vec![inner.ensemble.clone()];
            let outer = Ensemble::new(info(spec), plan, steps, CONFIG, ModelMetrics::new("outer", 1));
            let inputs = vec![NamedTensor::new("x", tensor(0, &inner.token))];
            let result = outer.infer(InferRequest { inputs, ..InferRequest::default() }).await;
            match failing {
                None => {
                    let expected = inner.graph.reference("c", &mut BTreeSet::new()).0;
                    assert_eq!(value(response_of(&result.expect("runs"), "y")), expected);
                }
                Some(_) => assert_eq!(
                    result.expect_err("fails").message(),
                    "in ensemble 'outer', step 'inner' (0): in ensemble 'e', step 'step1' (1): it broke"
                ),
            }
        }
    });
}
