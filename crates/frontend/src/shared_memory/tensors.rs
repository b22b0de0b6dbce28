//! Inputs that are read from regions before a request runs, and outputs that are written into them after it.

use bytes::Bytes;
use inference::{DataType, Error, InferResponse, NamedTensor, Result, Shape, Tensor, TensorName};

use super::Place;
use super::region::Window;
use crate::admission::BodyShare;
use crate::codec::WireRequest;
use crate::infer::off_thread;
use crate::telemetry::count_copy;
use crate::{App, FrontendConfig};

/// Bytes that take longer to copy than a hop to another thread.
const LONG_COPY: usize = 1 << 20;

/// An input that lies in a region.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SharedInput {
    pub(crate) name: TensorName,
    pub(crate) datatype: DataType,
    pub(crate) shape: Shape,
    pub(crate) place: Place,
}

/// An output that is to be written into a region.
#[derive(Clone, Debug)]
pub(crate) struct SharedOutput {
    name: TensorName,
    window: Window,
}

/// Reads the inputs that lie in regions, and finds the places of outputs, so that a bad one is refused before anything runs.
/// What is read counts as part of the request's body.
///
/// # Errors
/// Unsupported where clients may not use shared memory; NotFound, InvalidArgument, Overloaded.
pub(crate) async fn fetch(app: &App, wire: &mut WireRequest, share: &mut BodyShare) -> Result<Vec<SharedOutput>> {
    let outputs = wire.outputs.iter().filter_map(|output| Some((output.name.clone(), output.place.as_ref()?)));
    let outputs: Vec<SharedOutput> = outputs
        .map(|(name, place)| {
            let window = app.services.shared_memory.find(place);
            let window = window.map_err(|error| error.context(format!("output '{name}'")))?;
            Ok(SharedOutput { name, window })
        })
        .collect::<Result<_>>()?;
    if wire.shared_inputs.is_empty() {
        return Ok(outputs);
    }
    let mut windows = Vec::with_capacity(wire.shared_inputs.len());
    for input in std::mem::take(&mut wire.shared_inputs) {
        let window = app.services.shared_memory.find(&input.place);
        let window = window.map_err(|error| error.context(format!("input '{}'", input.name)))?;
        windows.push((input, window));
    }
    let total = windows.iter().fold(0usize, |sum, (_, window)| sum.saturating_add(window.len()));
    check_size(total, &app.config)?;
    share.add(total)?;
    count_copy("shared_memory_in", total);
    let is_long = total > LONG_COPY || windows.iter().any(|(_, window)| window.waits());
    let read = move || windows.into_iter().map(|(input, window)| read(input, &window)).collect::<Result<Vec<_>>>();
    let tensors = if is_long { off_thread(read).await } else { read() };
    wire.inputs.extend(tensors?);
    Ok(outputs)
}

fn check_size(total: usize, config: &FrontendConfig) -> Result<()> {
    if total as u64 <= config.max_request_size {
        return Ok(());
    }
    Err(Error::invalid_argument(format!(
        "the request's inputs in shared memory have {total} bytes, more than the {} that --max-request-size allows; send a \
         smaller batch or raise it",
        config.max_request_size
    )))
}

fn read(input: SharedInput, window: &Window) -> Result<NamedTensor> {
    let SharedInput { name, datatype, shape, .. } = input;
    let tensor = window.read().and_then(|data| Tensor::new(datatype, shape, data));
    let tensor = tensor.map_err(|error| error.context(format!("input '{name}'")))?;
    Ok(NamedTensor::new(name, tensor))
}

/// Writes the outputs that were asked for in regions.
///
/// # Errors
/// InvalidArgument, in Triton's words, when one does not fit.
pub(crate) async fn store(outputs: &[SharedOutput], response: &InferResponse) -> Result<()> {
    let mut writes: Vec<(SharedOutput, Bytes)> = Vec::new();
    for output in outputs {
        let Some(tensor) = response.output(&output.name) else { continue };
        let (data, room) = (tensor.data(), output.window.len());
        if data.len() > room {
            return Err(Error::invalid_argument(format!(
                "shared memory size specified with the request for output '{}' ({room} bytes) should be at least {} bytes \
                 to hold the results",
                output.name,
                data.len()
            )));
        }
        writes.push((output.clone(), data.clone()));
    }
    let total = writes.iter().fold(0usize, |sum, (_, data)| sum.saturating_add(data.len()));
    if writes.is_empty() {
        return Ok(());
    }
    count_copy("shared_memory_out", total);
    let is_long = total > LONG_COPY || writes.iter().any(|(output, _)| output.window.waits());
    let write = move || {
        writes.iter().try_for_each(|(output, data)| {
            output.window.write(data).map_err(|error| error.context(format!("output '{}'", output.name)))
        })
    };
    if is_long { off_thread(write).await } else { write() }
}
