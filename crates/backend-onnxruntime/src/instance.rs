//! One instance of a loaded model: a permit to run its session on one request at a time.

use std::sync::Arc;
use std::time::Instant;

use inference::{
    Batch, Cancellation, ComputeTiming, DataType, Error, Growth, InferRequest, InferResponse, ModelInstance,
    NamedTensor, Result, Tensor,
};
use ort::error::ErrorCode;
use ort::session::RunOptions;

use crate::run::{self, InstanceRuns};
use crate::served::Served;
use crate::session::{InputSlot, LoadedSession, OutputSlot};
use crate::value::{InputValue, output_tensor};

/// Runs a session, which it may share with other instances.
pub(crate) struct SessionInstance {
    served: Served,
    runs: InstanceRuns,
}

impl SessionInstance {
    /// # Errors
    /// Internal when ONNX Runtime fails.
    pub(crate) fn new(served: Served) -> Result<Self> {
        let runs = InstanceRuns::new().map_err(|error| failure(&served.session(), &error))?;
        Ok(SessionInstance { served, runs })
    }
}

impl ModelInstance for SessionInstance {
    /// Runs the requests one after the other, each on its own.
    fn execute(&mut self, batch: Batch) -> Vec<Result<InferResponse>> {
        let SessionInstance { served, runs } = self;
        let session = served.session();
        let Batch { requests, cancellation } = batch;
        let _entered = session.arena().enter();
        runs.interruptible(&cancellation, |options| {
            let answer = |request| {
                let answer = answer(&session, options, &cancellation, request)?;
                served.ran(request, answer.timing.infer);
                Ok(answer)
            };
            requests.iter().map(answer).collect()
        })
    }

    fn growth(&self) -> Option<Arc<dyn Growth>> {
        match &self.served {
            Served::Fixed(_) => None,
            Served::ByUse(by_use) => Some(by_use.clone()),
        }
    }
}

/// Runs one request.
///
/// # Errors
/// What is wrong with it; what ONNX Runtime says; that nobody waits for it any more.
pub(crate) fn answer(
    session: &Arc<LoadedSession>,
    options: &RunOptions,
    cancellation: &Cancellation,
    request: &InferRequest,
) -> Result<InferResponse> {
    cancellation.check(session.model())?;
    let started = Instant::now();
    let (slots, values) = lend_inputs(session, request)?;
    let inputs: Vec<_> = slots.into_iter().zip(&values).collect();
    let wanted: Vec<&OutputSlot> = session.outputs().iter().filter(|slot| request.wants(&slot.name)).collect();
    let prepared = Instant::now();
    let results = run::run(session.session(), options, &inputs, &wanted);
    let ran = Instant::now();
    session.arena().after_run(ran - prepared);
    let trimmed = Instant::now();
    let results = results.map_err(|error| match cancellation.check(session.model()) {
        Ok(()) => failure(session, &error),
        Err(cancelled) => cancelled,
    })?;
    let outputs = wanted.iter().zip(results).map(|(slot, value)| {
        let tensor = output_tensor(value, &values, session)
            .map_err(|error| failure(session, &error).context(format!("output '{}'", slot.name)))?;
        Ok(NamedTensor { name: slot.name.clone(), tensor })
    });
    let mut response = InferResponse::new(outputs.collect::<Result<_>>()?);
    response.timing = ComputeTiming { input: prepared - started, infer: ran - prepared, output: trimmed.elapsed() };
    Ok(response)
}

/// Values over the request's tensors, and the inputs they are for. An input that is left out gets no value, so that the
/// model's initializer is used.
fn lend_inputs<'a>(
    session: &'a LoadedSession,
    request: &InferRequest,
) -> Result<(Vec<&'a InputSlot>, Vec<InputValue>)> {
    let mut slots = Vec::with_capacity(session.inputs().len());
    let mut values = Vec::with_capacity(session.inputs().len());
    for slot in session.inputs() {
        let Some(tensor) = request.input(&slot.name) else {
            if slot.required {
                return Err(invalid(
                    session,
                    &format!("input '{}' is missing, and the model has no value for it", slot.name),
                ));
            }
            continue;
        };
        check_bools(tensor).map_err(|why| invalid(session, &format!("input '{}' {why}", slot.name)))?;
        let value = InputValue::new(tensor, session.host_memory(), session.copies())
            .map_err(|error| failure(session, &error).context(format!("input '{}'", slot.name)))?;
        slots.push(slot);
        values.push(value);
    }
    Ok((slots, values))
}

/// In C++ a bool that is neither 0 nor 1 is undefined behaviour.
fn check_bools(tensor: &Tensor) -> Result<(), String> {
    if tensor.datatype() != DataType::Bool {
        return Ok(());
    }
    match tensor.data().iter().position(|byte| *byte > 1) {
        Some(position) => Err(format!("holds {} at element {position}; a BOOL is 0 or 1", tensor.data()[position])),
        None => Ok(()),
    }
}

fn invalid(session: &LoadedSession, text: &str) -> Error {
    let model = session.model();
    Error::invalid_argument(format!("model '{model}': {text}")).with_model(model)
}

/// What ONNX Runtime says of a run that failed. It calls inputs of wrong shapes invalid arguments; the rest is a failure
/// of the model.
fn failure(session: &LoadedSession, error: &ort::Error) -> Error {
    let model = session.model();
    let message = format!("model '{model}': {}", error.message());
    let error = match error.code() {
        ErrorCode::InvalidArgument => Error::invalid_argument(message),
        _ => Error::internal(message),
    };
    error.with_model(model).from_model()
}
