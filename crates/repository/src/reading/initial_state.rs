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
/// The most that all files of strings have together; those of numbers must have exactly their states' sizes.
const LARGEST_STRINGS: usize = 64 << 20;

/// Reads the initial states that a model's configuration takes from files; returns what is wrong with them.
pub(super) fn read(directory: &Path, config: &ModelConfig, spec: &mut ModelSpec) -> Vec<Finding> {
    let Some(SchedulingChoice::SequenceBatching(given)) = &config.scheduling_choice else { return Vec::new() };
    let states = spec.sequence_batching.iter_mut().flat_map(|sequences| &mut sequences.states);
    let mut findings = Vec::new();
    let mut strings_left = LARGEST_STRINGS;
    for (index, (state, given)) in states.zip(&given.state).enumerate() {
        let Some(StateData::DataFile(file)) =
            given.initial_state.first().and_then(|initial| initial.state_data.clone())
        else {
            continue;
        };
        let most = match state.datatype {
            DataType::Bytes => strings_left,
            _ => state.initial.data().len(),
        };
        match tensor(&directory.join(DIRECTORY).join(&file), state, most) {
            Ok(tensor) => {
                if tensor.datatype() == DataType::Bytes {
                    strings_left -= tensor.data().len();
                }
                state.initial = tensor;
            }
            Err(why) => findings.push(Finding {
                path: format!("sequence_batching.state[{index}].initial_state[0].data_file"),
                message: format!("cannot read the initial state from \"{DIRECTORY}/{file}\": {why}"),
            }),
        }
    }
    findings
}

fn tensor(file: &Path, state: &SequenceState, most: usize) -> Result<Tensor, String> {
    let shape = state.initial.shape().clone();
    let mut data = Vec::new();
    let read = std::fs::File::open(file).and_then(|file| file.take(most as u64 + 1).read_to_end(&mut data));
    read.map_err(|error| error.to_string())?;
    if data.len() > most {
        return Err(format!(
            "the file has more than the {most} bytes that a state of {} {shape} may have",
            state.datatype
        ));
    }
    Tensor::new(state.datatype, shape, Bytes::from(data)).map_err(|error| error.message().to_owned())
}
