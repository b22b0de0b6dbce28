//! Warm-up: requests that every instance of a model runs before the model counts as ready. They are in no statistics.

mod clock;
mod discard;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Instant;

use bytes::Bytes;
use inference::{
    Batch, DataType, Error, InferRequest, LoadedModel, ModelInstance, ModelSpec, NamedTensor, Result, Tensor,
    WarmupData, WarmupInput, WarmupSample, encode_bytes_elements,
};

use crate::answer::prepare;
use crate::joint::join_requests;
use clock::Clock;

/// Files of samples, by the path that the configuration gives.
pub type WarmupFiles = BTreeMap<PathBuf, Bytes>;

/// Runs the model's samples on each of its instances. Blocks. Within a runtime, what runs at `until` is cancelled then.
///
/// # Errors
/// What went wrong with the first sample that fails, naming it; DeadlineExceeded when they are not done by `until`.
pub fn warm_up(spec: &ModelSpec, loaded: &mut LoadedModel, files: &WarmupFiles, until: Option<Instant>) -> Result<()> {
    let clock = Clock::start(until);
    for (index, sample) in spec.warmup.iter().enumerate() {
        let name = if sample.name.is_empty() { format!("[{index}]") } else { format!("'{}'", sample.name) };
        let warmed = request(spec, sample, files).and_then(|request| run(spec, loaded, &request, sample.count, &clock));
        warmed.map_err(|error| error.context(format_args!("model_warmup sample {name}")).with_model(&*spec.name))?;
    }
    Ok(())
}

fn run(spec: &ModelSpec, loaded: &mut LoadedModel, request: &InferRequest, count: u32, clock: &Clock) -> Result<()> {
    for instance in &mut loaded.instances {
        for _ in 0..count {
            clock.check()?;
            let (request, _) = prepare(spec, request.clone())?;
            let executed = catch_unwind(AssertUnwindSafe(|| match spec.decoupled {
                true => discard::stream(&mut **instance, request, clock),
                false => execute(spec, &mut **instance, request, clock),
            }));
            let executed = executed.map_err(|_| Error::internal("the model panicked").from_model())?;
            executed.or_else(|error| clock.check().and(Err(error)))?;
        }
    }
    Ok(())
}

/// Runs one request in the form in which the model takes its batches.
fn execute(spec: &ModelSpec, instance: &mut dyn ModelInstance, request: InferRequest, clock: &Clock) -> Result<()> {
    let request = match spec.ragged.is_empty() {
        true => request,
        false => join_requests(spec, &[request])?.request,
    };
    let batch = Batch { requests: vec![request], cancellation: clock.cancellation() };
    instance.execute(batch).into_iter().try_for_each(|result| result.map(drop))
}

/// The request of a sample. Pure: equal samples give equal requests.
///
/// # Errors
/// InvalidArgument when a file does not hold what the sample says.
fn request(spec: &ModelSpec, sample: &WarmupSample, files: &WarmupFiles) -> Result<InferRequest> {
    let rows = usize::try_from(sample.batch_size).unwrap_or(usize::MAX);
    let mut request = InferRequest::default();
    for input in &sample.inputs {
        let row = row(input, files).map_err(|error| error.context(format_args!("input '{}'", input.name)))?;
        let tensor = match spec.batches() {
            true => {
                let shape = input.dims.with_batch(i64::from(sample.batch_size));
                Tensor::new(input.datatype, shape, row.data().repeat(rows).into())?
            }
            false => row,
        };
        request.inputs.push(NamedTensor { name: input.name.clone(), tensor });
    }
    Ok(request)
}

/// One row of an input.
fn row(input: &WarmupInput, files: &WarmupFiles) -> Result<Tensor> {
    let count = input.dims.element_count().unwrap_or(0);
    let data = match (&input.data, input.datatype.size()) {
        (WarmupData::File(path), _) => {
            let name = path.display();
            let data = files.get(path).ok_or_else(|| Error::internal(format!("'{name}' was not read")))?;
            let tensor = Tensor::new(input.datatype, input.dims.clone(), data.clone());
            return tensor.map_err(|error| error.context(format_args!("input_data_file \"{name}\"")));
        }
        (WarmupData::Zero, Some(size)) => vec![0; count * size].into(),
        (WarmupData::Zero, None) => encode_bytes_elements(std::iter::repeat_n(&[][..], count)),
        (WarmupData::Random, _) => random(input.datatype, count),
    };
    Tensor::new(input.datatype, input.dims.clone(), data)
}

/// So many elements that models take: fractions from 0 to 1, integers from 0 to 9, words of a letter.
fn random(datatype: DataType, count: usize) -> Bytes {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 11
    };
    let mut data = Vec::new();
    for _ in 0..count {
        let drawn = next();
        let fraction = drawn as f64 / (1u64 << 53) as f64;
        let digit = (drawn % 10) as u8;
        match datatype {
            DataType::Fp64 => data.extend(fraction.to_le_bytes()),
            DataType::Fp32 => data.extend((fraction as f32).to_le_bytes()),
            DataType::Fp16 => data.extend(half::f16::from_f64(fraction).to_le_bytes()),
            DataType::Bf16 => data.extend(half::bf16::from_f64(fraction).to_le_bytes()),
            DataType::Bool => data.push(digit % 2),
            DataType::Bytes => data.extend([1, 0, 0, 0, b'a' + digit]),
            integer => {
                data.push(digit);
                data.resize(data.len() + integer.size().unwrap_or(1) - 1, 0);
            }
        }
    }
    data.into()
}

#[cfg(test)]
mod tests {
    use inference::{
        Backend, BatchInput, BatchInputKind, InferResponse, InputSpec, MemoryUsage, ModelArtifact, Placement, Shape,
        repeat::RepeatBackend,
    };
    use proptest::prelude::*;

    use super::*;

    fn input(datatype: DataType, dims: &[i64], data: WarmupData) -> WarmupInput {
        WarmupInput { name: "x".into(), datatype, dims: Shape::new(dims), data }
    }

    fn spec(max_batch_size: u32, samples: Vec<WarmupSample>) -> ModelSpec {
        let input = InputSpec {
            name: "x".into(),
            datatype: DataType::Int32,
            dims: Shape::new(&[-1]),
            reshape: None,
            optional: false,
        };
        ModelSpec { max_batch_size, inputs: vec![input], warmup: samples, ..ModelSpec::new("m", "test") }
    }

    fn sample(name: &str, batch_size: u32, count: u32, data: WarmupData) -> WarmupSample {
        let inputs = vec![input(DataType::Int32, &[2], data)];
        WarmupSample { name: name.to_owned(), batch_size, count, inputs }
    }

    /// Fails on what begins with 7; panics on what begins with 8.
    #[derive(Default)]
    struct Recorder(std::sync::Arc<std::sync::Mutex<Vec<Vec<i32>>>>);

    impl ModelInstance for Recorder {
        fn execute(&mut self, batch: Batch) -> Vec<Result<InferResponse>> {
            let elements = batch.requests[0].inputs[0].tensor.to_elements::<i32>().expect("INT32").into_owned();
            assert!(elements[0] != 8, "scripted");
            let result = if elements[0] == 7 { Err(Error::invalid_argument("seven")) } else { Ok(Default::default()) };
            self.0.lock().expect("not poisoned").push(elements);
            vec![result]
        }
    }

    fn warm(samples: Vec<WarmupSample>, files: &WarmupFiles) -> (Result<()>, Vec<Vec<i32>>) {
        let seen = std::sync::Arc::default();
        let instance = || Box::new(Recorder(std::sync::Arc::clone(&seen))) as Box<dyn ModelInstance>;
        let mut loaded = LoadedModel { instances: vec![instance(), instance()], memory: MemoryUsage::default() };
        let result = warm_up(&spec(4, samples), &mut loaded, files, None);
        let seen = seen.lock().expect("not poisoned").clone();
        (result, seen)
    }

    fn file(elements: &[i32]) -> WarmupFiles {
        let data: Vec<u8> = elements.iter().flat_map(|element| element.to_le_bytes()).collect();
        BTreeMap::from([("f".into(), data.into())])
    }

    #[test]
    fn every_instance_runs_every_sample_as_often_as_it_says() {
        let samples = vec![sample("zero", 1, 2, WarmupData::Zero), sample("file", 3, 1, WarmupData::File("f".into()))];
        let (result, seen) = warm(samples, &file(&[5, 6]));
        result.expect("all succeed");
        let (zero, file) = (vec![0, 0], vec![5, 6, 5, 6, 5, 6]);
        assert_eq!(seen, [zero.clone(), zero.clone(), zero.clone(), zero, file.clone(), file]);
    }

    #[test]
    fn what_fails_names_the_sample() {
        let from_file = || sample("s", 1, 1, WarmupData::File("f".into()));
        for (elements, part) in [(&[7, 0][..], "seven"), (&[8, 0], "panicked"), (&[1], "input_data_file \"f\"")] {
            let error = warm(vec![from_file()], &file(elements)).0.expect_err(part);
            assert!(
                error.message().starts_with("model_warmup sample 's': ") && error.message().contains(part),
                "{error}"
            );
        }
        let wrong = WarmupSample { inputs: Vec::new(), ..sample("", 1, 1, WarmupData::Zero) };
        let error = warm(vec![wrong], &WarmupFiles::new()).0.expect_err("an input is missing");
        assert!(
            error.message().starts_with("model_warmup sample [0]: ") && error.message().contains("expected 1 inputs"),
            "{error}"
        );
        let mut loaded = LoadedModel { instances: vec![Box::<Recorder>::default()], memory: MemoryUsage::default() };
        let spec = spec(0, vec![sample("late", 1, 1, WarmupData::Zero)]);
        let error = warm_up(&spec, &mut loaded, &WarmupFiles::new(), Some(Instant::now())).expect_err("too late");
        assert_eq!(error.kind(), inference::ErrorKind::DeadlineExceeded);
    }

    /// What the instance of a ragged model is given, with the inputs that the server makes.
    struct Ragged(std::sync::mpsc::Sender<InferRequest>);

    impl ModelInstance for Ragged {
        fn execute(&mut self, mut batch: Batch) -> Vec<Result<InferResponse>> {
            self.0.send(batch.requests.remove(0)).expect("the test waits");
            vec![Ok(InferResponse::default())]
        }
    }

    #[test]
    fn a_ragged_model_gets_samples_in_the_form_of_its_batches() {
        let mut spec = spec(4, vec![sample("s", 3, 1, WarmupData::Zero)]);
        spec.ragged.inputs.push("x".into());
        spec.ragged.batch_inputs.push(BatchInput {
            kind: BatchInputKind::ElementCount,
            targets: vec!["count".into()],
            datatype: DataType::Fp32,
            source: "x".into(),
        });
        let (tell, told) = std::sync::mpsc::channel();
        let mut loaded = LoadedModel { instances: vec![Box::new(Ragged(tell))], memory: MemoryUsage::default() };
        warm_up(&spec, &mut loaded, &WarmupFiles::new(), None).expect("it takes them");
        let request = told.recv().expect("one");
        assert_eq!(request.input("x").expect("given").shape()[..], [6]);
        assert_eq!(*request.input("count").expect("made").to_elements::<f32>().expect("FP32"), [6.0]);
    }

    #[test]
    fn a_decoupled_model_is_done_when_its_responses_are() {
        let ints =
            |name: &str, datatype, dims: &[i64], data| WarmupInput { name: name.into(), ..input(datatype, dims, data) };
        let sample = |delays: WarmupData, length: i64| WarmupSample {
            name: "s".to_owned(),
            batch_size: 1,
            count: 2,
            inputs: vec![
                ints("IN", DataType::Int32, &[3], WarmupData::Zero),
                ints("DELAY", DataType::Uint32, &[length], delays),
                ints("WAIT", DataType::Uint32, &[1], WarmupData::Zero),
            ],
        };
        let spec = ModelSpec { decoupled: true, ..ModelSpec::new("m", RepeatBackend::NAME) };
        let mut artifact = ModelArtifact {
            spec: std::sync::Arc::new(spec),
            version: 1,
            directory: PathBuf::new(),
            version_directory: PathBuf::new(),
            immutable: false,
        };
        artifact.spec = std::sync::Arc::new(RepeatBackend.complete(&artifact).expect("complete"));
        let mut loaded = RepeatBackend.load(&artifact, &Placement::on_host(2)).expect("loads");
        let mut warm = |sample: WarmupSample, until: Option<Instant>| {
            let spec = ModelSpec { warmup: vec![sample], ..ModelSpec::clone(&artifact.spec) };
            let delays: Vec<u8> = [5u32, 5, 5].iter().flat_map(|delay| delay.to_le_bytes()).collect();
            warm_up(&spec, &mut loaded, &BTreeMap::from([("f".into(), delays.into())]), until)
        };
        let began = Instant::now();
        warm(sample(WarmupData::File("f".into()), 3), None).expect("it streams");
        assert!(began.elapsed().as_millis() >= 2 * 2 * 3 * 5, "each sample ran to its end");
        let error = warm(sample(WarmupData::Zero, 2), None).expect_err("the lengths differ");
        assert!(error.message().contains("model_warmup sample 's': expected IN and DELAY"), "{error}");
        let soon = Instant::now().checked_add(std::time::Duration::from_millis(7));
        let error = warm(sample(WarmupData::File("f".into()), 3), soon).expect_err("it takes 15 ms");
        assert_eq!(error.kind(), inference::ErrorKind::DeadlineExceeded);
    }

    proptest! {
        #[test]
        fn made_up_rows_are_tensors(kind in 0..DataType::ALL.len(), dims in proptest::collection::vec(0i64..5, 0..4), zero: bool) {
            let datatype = DataType::ALL[kind];
            let data = if zero { WarmupData::Zero } else { WarmupData::Random };
            let tensor = row(&input(datatype, &dims, data), &WarmupFiles::new()).expect("a tensor");
            prop_assert_eq!((tensor.datatype(), &tensor.shape()[..]), (datatype, &dims[..]));
            let in_range = match datatype {
                DataType::Fp32 => tensor.to_elements::<f32>().expect("FP32").iter().all(|x| (0.0..=1.0).contains(x)),
                DataType::Int64 => tensor.to_elements::<i64>().expect("INT64").iter().all(|x| (0..10).contains(x)),
                DataType::Bool => tensor.data().iter().all(|byte| *byte < 2),
                _ => true,
            };
            prop_assert!(in_range);
        }
    }
}
