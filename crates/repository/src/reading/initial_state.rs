//! The states with which sequences begin, where they are in files.

use std::io::Read as _;
use std::path::Path;

use bytes::Bytes;
use inference::{DataType, ModelSpec, SequenceState, Tensor};
use protocol::model_config::ModelConfig;
use protocol::model_config::model_config::SchedulingChoice;
use protocol::model_config::model_sequence_batching::initial_state::StateData;

use super::spec::Finding;

/// The directory within a model's that has the files.
const DIRECTORY: &str = "initial_state";
/// The largest file of strings; that of numbers must have exactly the state's size.
const LARGEST_STRINGS: u64 = 64 << 20;

/// Reads the initial states that a model's configuration takes from files; returns what is wrong with them.
pub(super) fn read(directory: &Path, config: &ModelConfig, spec: &mut ModelSpec) -> Vec<Finding> {
    let Some(SchedulingChoice::SequenceBatching(given)) = &config.scheduling_choice else { return Vec::new() };
    let states = spec.sequence_batching.iter_mut().flat_map(|sequences| &mut sequences.states);
    let mut findings = Vec::new();
    for (index, (state, given)) in states.zip(&given.state).enumerate() {
        let Some(StateData::DataFile(file)) =
            given.initial_state.first().and_then(|initial| initial.state_data.clone())
        else {
            continue;
        };
        match tensor(&directory.join(DIRECTORY).join(&file), state) {
            Ok(tensor) => state.initial = tensor,
            Err(why) => findings.push(Finding {
                path: format!("sequence_batching.state[{index}].initial_state[0].data_file"),
                message: format!("cannot read the initial state from \"{DIRECTORY}/{file}\": {why}"),
            }),
        }
    }
    findings
}

fn tensor(file: &Path, state: &SequenceState) -> Result<Tensor, String> {
    let shape = state.initial.shape().clone();
    let most = match state.datatype {
        DataType::Bytes => LARGEST_STRINGS,
        _ => state.initial.data().len() as u64,
    };
    let mut data = Vec::new();
    let read = std::fs::File::open(file).and_then(|file| file.take(most + 1).read_to_end(&mut data));
    read.map_err(|error| error.to_string())?;
    if data.len() as u64 > most {
        return Err(format!("the file has more than the {most} bytes that a state of {} {shape} has", state.datatype));
    }
    Tensor::new(state.datatype, shape, Bytes::from(data)).map_err(|error| error.message().to_owned())
}
