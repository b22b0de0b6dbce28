//! A model that writes down which rows it gets and lists, row by row, what it was told of each sequence so far.

use std::sync::Arc;

use bytes::Bytes;
use inference::{
    Batch, DataType, InferRequest, InferResponse, ModelInstance, ModelSpec, NamedTensor, Parameter, Result,
    SequenceBatching, SequenceControl, SequenceFlag, SequenceSignal, SequenceState, SequenceStrategy, Shape, Tensor,
};
use parking_lot::Mutex;
use scheduler::{ScheduledModel, SchedulerConfig};

pub(crate) use crate::setup::{CONFIG, ms, numbers, y};
use crate::setup::{input, loaded, output, scheduled};

pub(crate) fn direct(utilization: f32, delay: u64) -> SequenceStrategy {
    SequenceStrategy::Direct { max_queue_delay: ms(delay), minimum_slot_utilization: utilization }
}

pub(crate) fn oldest(candidates: u32, delay: u64) -> SequenceStrategy {
    SequenceStrategy::Oldest {
        max_candidate_sequences: candidates,
        preferred_batch_sizes: Vec::new(),
        max_queue_delay: ms(delay),
        preserve_ordering: false,
    }
}

/// `x` INT32 [1] in, `y` INT32 [-1] out; `START`, `END`, `READY` and `ID` tell of the sequence; the state, of which `y` is a
/// copy, is every `x` of it so far. Batches of up to 4.
pub(crate) fn spec(strategy: SequenceStrategy) -> ModelSpec {
    let flag = |input: &str, flag| SequenceControl {
        input: input.into(),
        signal: SequenceSignal::Flag {
            flag,
            datatype: DataType::Int32,
            no_yes: [0i32, 1].map(|value| Bytes::copy_from_slice(&value.to_le_bytes())),
        },
    };
    let id = SequenceControl { input: "ID".into(), signal: SequenceSignal::CorrelationId(DataType::Uint64) };
    let state = SequenceState {
        input: "past".into(),
        output: "present".into(),
        datatype: DataType::Int32,
        dims: Shape::from([-1]),
        initial: Tensor::from_vec(Shape::from([0]), Vec::<i32>::new()).expect("fits"),
    };
    let sequences = SequenceBatching {
        strategy,
        max_idle: ms(1000),
        controls: vec![
            flag("START", SequenceFlag::Start),
            flag("END", SequenceFlag::End),
            flag("READY", SequenceFlag::Ready),
            id,
        ],
        states: vec![state],
    };
    ModelSpec {
        max_batch_size: 4,
        inputs: vec![input("x", 1, false)],
        outputs: vec![output("y", DataType::Int32, -1)],
        sequence_batching: Some(sequences),
        ..ModelSpec::new("m", "fake")
    }
}

/// A row of a batch as the model saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) ready: bool,
    pub(crate) starts: bool,
    pub(crate) ends: bool,
    pub(crate) id: u64,
    pub(crate) x: i32,
}

/// What each instance saw, batch after batch.
pub(crate) type Seen = Arc<Mutex<Vec<(usize, Vec<Row>)>>>;

pub(crate) fn rows(request: &InferRequest) -> Vec<Row> {
    let flag = |name: &str| numbers(request, name).into_iter().map(|flag| flag == 1).collect::<Vec<_>>();
    let (ready, starts, ends, x) = (flag("READY"), flag("START"), flag("END"), numbers(request, "x"));
    let ids = request.input("ID").expect("fed").to_elements::<u64>().expect("UINT64").into_owned();
    let row = |row: usize| Row { ready: ready[row], starts: starts[row], ends: ends[row], id: ids[row], x: x[row] };
    (0..x.len()).map(row).collect()
}

/// Adds each row's `x` to its state.
pub(crate) fn append(request: &InferRequest) -> InferResponse {
    let (past, x) = (request.input("past").expect("fed"), numbers(request, "x"));
    let width = usize::try_from(past.shape()[1]).expect("small");
    let past = past.to_elements::<i32>().expect("INT32");
    let mut present = Vec::new();
    for (row, x) in x.iter().enumerate() {
        present.extend_from_slice(&past[row * width..(row + 1) * width]);
        present.push(*x);
    }
    let shape = Shape::from([x.len() as i64, width as i64 + 1]);
    let present = Tensor::from_vec(shape, present).expect("fits");
    InferResponse::new(vec![NamedTensor::new("y", present.clone()), NamedTensor::new("present", present)])
}

struct Fake<F> {
    number: usize,
    seen: Seen,
    run: F,
}

impl<F: FnMut(&InferRequest) -> Result<InferResponse> + Send> ModelInstance for Fake<F> {
    fn execute(&mut self, batch: Batch) -> Vec<Result<InferResponse>> {
        let answer = |request: &InferRequest| {
            self.seen.lock().push((self.number, rows(request)));
            (self.run)(request)
        };
        batch.requests.iter().map(answer).collect()
    }
}

/// A model of `count` instances, each of which does what `run` says.
pub(crate) fn model<F>(spec: ModelSpec, config: SchedulerConfig, count: usize, run: F) -> (Arc<ScheduledModel>, Seen)
where
    F: FnMut(&InferRequest) -> Result<InferResponse> + Send + Clone + 'static,
{
    let seen = Seen::default();
    let loaded = loaded(count, |number| Fake { number, seen: seen.clone(), run: run.clone() });
    (scheduled(spec, config, loaded), seen)
}

/// A model that lists what it gets.
pub(crate) fn listing(strategy: SequenceStrategy, count: usize) -> (Arc<ScheduledModel>, Seen) {
    model(spec(strategy), CONFIG, count, |request| Ok(append(request)))
}

/// A model that lists what it gets, each batch once the test sends a message.
pub(crate) fn gated(
    strategy: SequenceStrategy,
    config: SchedulerConfig,
    count: usize,
) -> (Arc<ScheduledModel>, Seen, std::sync::mpsc::Sender<()>) {
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let gate = Arc::new(Mutex::new(gate));
    let (model, seen) = model(spec(strategy), config, count, move |request| {
        gate.lock().recv().expect("the test holds the other end");
        Ok(append(request))
    });
    (model, seen, open)
}

/// A request of a sequence; `marks` has an `s` if it starts it, and an `e` if it ends it.
pub(crate) fn request(id: i64, marks: &str, x: i32) -> InferRequest {
    let mut request = crate::setup::request(&[x]);
    let mut set = |name: &str, value| drop(request.parameters.insert(name.to_owned(), value));
    set("sequence_id", Parameter::Int64(id));
    set("sequence_start", Parameter::Bool(marks.contains('s')));
    set("sequence_end", Parameter::Bool(marks.contains('e')));
    request
}
