//! The built-in backends whose models are decoupled.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use inference::repeat::RepeatBackend;
use inference::square::SquareBackend;
use inference::{
    Backend, DataType, InferRequest, InferResponse, InputSpec, ModelArtifact, ModelInstance, ModelSpec, NamedTensor,
    OutputSpec, Placement, ResponseSink, Result, Shape, Tensor,
};

/// Notes what comes.
struct Notes {
    responses: Arc<Mutex<Vec<InferResponse>>>,
    pauses: Arc<Mutex<Vec<Duration>>>,
    ended: Sender<Result<()>>,
}

impl ResponseSink for Notes {
    fn send(&mut self, response: InferResponse) -> Result<()> {
        self.responses.lock().expect("no panic").push(response);
        Ok(())
    }

    fn pause(&mut self, duration: Duration) -> Result<()> {
        self.pauses.lock().expect("no panic").push(duration);
        Ok(())
    }

    fn is_open(&self) -> bool {
        true
    }

    fn end(self: Box<Self>, result: Result<()>) {
        self.ended.send(result).expect("the test waits");
    }
}

struct Heard {
    responses: Arc<Mutex<Vec<InferResponse>>>,
    pauses: Arc<Mutex<Vec<Duration>>>,
    ended: Receiver<Result<()>>,
}

fn sink() -> (Box<dyn ResponseSink>, Heard) {
    let (ended, end) = channel();
    let (responses, pauses) = <(Arc<Mutex<Vec<_>>>, Arc<Mutex<Vec<_>>>)>::default();
    let notes = Notes { responses: responses.clone(), pauses: pauses.clone(), ended };
    (Box::new(notes), Heard { responses, pauses, ended: end })
}

impl Heard {
    fn result(&self) -> Result<()> {
        self.ended.recv_timeout(Duration::from_secs(20)).expect("the request ends")
    }

    fn values<T: inference::Element>(&self, output: &str) -> Vec<T> {
        let responses = self.responses.lock().expect("no panic");
        responses.iter().map(|r| r.output(output).expect("there").to_elements::<T>().expect("typed")[0]).collect()
    }
}

fn artifact(spec: ModelSpec) -> ModelArtifact {
    ModelArtifact {
        spec: Arc::new(spec),
        version: 1,
        directory: PathBuf::new(),
        version_directory: PathBuf::new(),
        immutable: false,
    }
}

fn instance(backend: &dyn Backend, spec: ModelSpec) -> Result<Box<dyn ModelInstance>> {
    let completed = backend.complete(&artifact(spec))?;
    let mut loaded = backend.load(&artifact(completed), &Placement::on_host(1))?;
    Ok(loaded.instances.remove(0))
}

fn decoupled(backend: &str) -> ModelSpec {
    ModelSpec { decoupled: true, ..ModelSpec::new("m", backend) }
}

fn repeat(values: &[i32], delays: &[u32], wait: u32) -> InferRequest {
    let shape = |length: usize| Shape::from([length as i64]);
    let inputs = vec![
        NamedTensor::new("IN", Tensor::from_vec(shape(values.len()), values.to_vec()).expect("fits")),
        NamedTensor::new("DELAY", Tensor::from_vec(shape(delays.len()), delays.to_vec()).expect("fits")),
        NamedTensor::new("WAIT", Tensor::from_vec(Shape::from([1]), vec![wait]).expect("fits")),
    ];
    InferRequest { inputs, ..InferRequest::default() }
}

#[test]
fn repeat_answers_once_for_each_element() {
    let mut instance = instance(&RepeatBackend, decoupled("repeat")).expect("its signature is known");
    let (responses, heard) = sink();
    instance.stream(repeat(&[7, -8, 9], &[0, 5, 0], 0), responses);
    heard.result().expect("nothing is wrong");
    assert_eq!((heard.values::<i32>("OUT"), heard.values::<u32>("IDX")), (vec![7, -8, 9], vec![0, 1, 2]));
    assert_eq!(*heard.pauses.lock().expect("no panic"), [Duration::from_millis(5)]);

    let (responses, heard) = sink();
    instance.stream(repeat(&[], &[], 0), responses);
    heard.result().expect("no element, no response");
    assert!(heard.responses.lock().expect("no panic").is_empty());

    let (responses, heard) = sink();
    let began = Instant::now();
    instance.stream(InferRequest { outputs: vec!["IDX".into()], ..repeat(&[1], &[0], 30) }, responses);
    assert!(began.elapsed() >= Duration::from_millis(30), "the instance keeps the request for WAIT");
    heard.result().expect("nothing is wrong");
    assert_eq!(heard.responses.lock().expect("no panic")[0].outputs.len(), 1, "only what is wanted");
}

#[test]
fn repeat_says_what_is_wrong() {
    let mut good = instance(&RepeatBackend, decoupled("repeat")).expect("its signature is known");
    for (request, part) in [
        (repeat(&[1, 2], &[0], 0), "expected IN and DELAY shape to match, got [2] and [1]"),
        (repeat(&[1], &[0], 10_001), "WAIT is 10001 milliseconds"),
    ] {
        let (responses, heard) = sink();
        good.stream(request, responses);
        assert!(heard.result().expect_err(part).message().contains(part), "{part}");
    }
    let refused = |spec| instance(&RepeatBackend, spec).err().expect("it is refused").to_string();
    assert!(refused(ModelSpec::new("m", "repeat")).contains("model_transaction_policy { decoupled: true }"));
    assert!(refused(ModelSpec { max_batch_size: 2, ..decoupled("repeat") }).contains("max_batch_size: 0"));
    let outputs = vec![output("OUT", DataType::Fp32)];
    assert!(refused(ModelSpec { outputs, ..decoupled("repeat") }).contains("OUT (INT32)"));
}

fn output(name: &str, datatype: DataType) -> OutputSpec {
    OutputSpec { name: name.into(), datatype, dims: Shape::from([1]), reshape: None, label_filename: None }
}

#[test]
fn square_answers_as_often_as_it_is_told() {
    let (name, datatype, dims) = ("IN".into(), DataType::Int32, Shape::from([1]));
    let inputs = vec![InputSpec { name, datatype, dims, reshape: None, optional: false }];
    let spec = ModelSpec { inputs, outputs: vec![output("OUT", DataType::Int32)], ..decoupled("square") };
    let mut square = instance(&SquareBackend, spec.clone()).expect("right");
    for count in [0, 3, -1] {
        let (responses, heard) = sink();
        let tensor = Tensor::from_vec(Shape::from([1]), vec![count]).expect("fits");
        let request = InferRequest { inputs: vec![NamedTensor::new("IN", tensor)], ..InferRequest::default() };
        square.stream(request, responses);
        heard.result().expect("nothing is wrong");
        assert_eq!(heard.values::<i32>("OUT"), vec![count; count.max(0) as usize]);
    }
    let coupled = instance(&SquareBackend, ModelSpec { decoupled: false, ..spec });
    assert!(coupled.err().expect("it is refused").message().contains("decoupled: true"));
}
