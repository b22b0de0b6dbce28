//! `sequence_batching`, and what of it contradicts itself or the rest.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use inference::{
    DataType, SequenceBatching, SequenceControl, SequenceFlag, SequenceSignal, SequenceState, SequenceStrategy, Shape,
    Tensor,
};
use protocol::model_config::model_sequence_batching::control::Kind;
use protocol::model_config::model_sequence_batching::initial_state::StateData;
use protocol::model_config::model_sequence_batching::{Control, InitialState, State, StrategyChoice};
use protocol::model_config::{ModelConfig, ModelSequenceBatching};

use super::{Findings, batching, stays_inside, tensors};

const PATH: &str = "sequence_batching";
/// How long a sequence may be idle where the configuration does not say, as Triton has it.
const DEFAULT_IDLE: Duration = Duration::from_secs(1);
/// The most sequences that an instance may have at a time.
const MOST_SEQUENCES: i32 = 65_536;
/// The most that all states of a sequence may begin with, in bytes.
const LARGEST_STATE: usize = 1 << 30;

/// What the scheduler needs of it. A state that begins with a file begins with zeros here.
pub(super) fn sequences(
    given: &ModelSequenceBatching,
    config: &ModelConfig,
    max_batch_size: u32,
    findings: &mut Findings,
) -> SequenceBatching {
    let counts = [("control_input", given.control_input.len()), ("state", given.state.len())];
    let counts = counts.map(|(list, count)| tensors::check_count(&format!("{PATH}.{list}"), count, findings));
    let (controls, states) = match counts {
        [true, true] => {
            let made = (controls(given, findings), states(given, findings));
            check_names(given, config, findings);
            made
        }
        _ => (Vec::new(), Vec::new()),
    };
    SequenceBatching {
        strategy: strategy(given, max_batch_size, findings),
        max_idle: match given.max_sequence_idle_microseconds {
            0 => DEFAULT_IDLE,
            microseconds => Duration::from_micros(microseconds),
        },
        controls,
        states,
    }
}

fn strategy(given: &ModelSequenceBatching, max_batch_size: u32, findings: &mut Findings) -> SequenceStrategy {
    match &given.strategy_choice {
        None => SequenceStrategy::Direct { max_queue_delay: Duration::ZERO, minimum_slot_utilization: 0.0 },
        Some(StrategyChoice::Direct(direct)) => {
            let part = direct.minimum_slot_utilization;
            if !(0.0..=1.0).contains(&part) {
                findings.add(
                    format!("{PATH}.direct.minimum_slot_utilization"),
                    format!("`minimum_slot_utilization` must be between 0 and 1, got {part}"),
                );
            }
            SequenceStrategy::Direct {
                max_queue_delay: Duration::from_micros(direct.max_queue_delay_microseconds),
                minimum_slot_utilization: part,
            }
        }
        Some(StrategyChoice::Oldest(oldest)) => {
            let path = format!("{PATH}.oldest");
            let most = oldest.max_candidate_sequences;
            if !(0..=MOST_SEQUENCES).contains(&most) {
                findings.add(
                    format!("{path}.max_candidate_sequences"),
                    format!("`max_candidate_sequences` must be between 1 and {MOST_SEQUENCES}, got {most}"),
                );
            }
            let preferred = &oldest.preferred_batch_size;
            SequenceStrategy::Oldest {
                max_candidate_sequences: u32::try_from(most).unwrap_or(0),
                preferred_batch_sizes: batching::preferred(&path, preferred, max_batch_size, findings),
                max_queue_delay: Duration::from_micros(oldest.max_queue_delay_microseconds),
                preserve_ordering: oldest.preserve_ordering,
            }
        }
    }
}

fn controls(given: &ModelSequenceBatching, findings: &mut Findings) -> Vec<SequenceControl> {
    let mut seen = Vec::new();
    let mut controls = Vec::new();
    for (index, input) in given.control_input.iter().enumerate() {
        let path = format!("{PATH}.control_input[{index}]");
        let [control] = input.control.as_slice() else {
            let message =
                format!("`control` of `{}` must say exactly one thing, got {}", input.name, input.control.len());
            findings.add(path, message);
            continue;
        };
        let path = format!("{path}.control[0]");
        let kind = control.kind();
        if seen.contains(&kind) {
            findings.add(format!("{path}.kind"), format!("there is another control input for {}", kind.as_str_name()));
        }
        seen.push(kind);
        let flag = match kind {
            Kind::ControlSequenceStart => Some(SequenceFlag::Start),
            Kind::ControlSequenceEnd => Some(SequenceFlag::End),
            Kind::ControlSequenceReady => Some(SequenceFlag::Ready),
            Kind::ControlSequenceCorrid => None,
        };
        let signal =
            match flag {
                Some(flag) => flag_values(&path, kind, control, findings)
                    .map(|(datatype, no_yes)| SequenceSignal::Flag { flag, datatype, no_yes }),
                None => correlation_id(&path, control, findings),
            };
        controls.extend(signal.map(|signal| SequenceControl { input: input.name.as_str().into(), signal }));
    }
    controls
}

/// The type of a flag, and its elements for no and yes.
fn flag_values(path: &str, kind: Kind, given: &Control, findings: &mut Findings) -> Option<(DataType, [Bytes; 2])> {
    let kind = kind.as_str_name();
    let integers = given.int32_false_true.iter().map(|value| Bytes::copy_from_slice(&value.to_le_bytes())).collect();
    let floats = given.fp32_false_true.iter().map(|value| Bytes::copy_from_slice(&value.to_le_bytes())).collect();
    let bools = given.bool_false_true.iter().map(|value| Bytes::copy_from_slice(&[u8::from(*value)])).collect();
    let lists: [(&str, DataType, Vec<Bytes>); 3] = [
        ("int32_false_true", DataType::Int32, integers),
        ("fp32_false_true", DataType::Fp32, floats),
        ("bool_false_true", DataType::Bool, bools),
    ];
    let mut set = lists.into_iter().filter(|(.., values)| !values.is_empty());
    match (set.next(), set.next()) {
        (Some((name, datatype, values)), None) => match <[Bytes; 2]>::try_from(values) {
            Ok(values) => Some((datatype, values)),
            Err(values) => {
                let count = values.len();
                findings.add(
                    format!("{path}.{name}"),
                    format!("`{name}` of {kind} must have exactly 2 entries, got {count}"),
                );
                None
            }
        },
        (Some((first, ..)), Some((second, ..))) => {
            findings
                .add(format!("{path}.{second}"), format!("{kind} has both `{first}` and `{second}`; give one of them"));
            None
        }
        (None, _) => {
            let message = format!("{kind} must have either `int32_false_true`, `fp32_false_true` or `bool_false_true`");
            findings.add(path, message);
            None
        }
    }
}

fn correlation_id(path: &str, given: &Control, findings: &mut Findings) -> Option<SequenceSignal> {
    const ALLOWED: [DataType; 5] =
        [DataType::Uint64, DataType::Int64, DataType::Uint32, DataType::Int32, DataType::Bytes];
    let values = given.int32_false_true.len() + given.fp32_false_true.len() + given.bool_false_true.len();
    if values > 0 {
        findings.add(path, "CONTROL_SEQUENCE_CORRID has a `data_type`, and no values for false and true");
    }
    let datatype = DataType::from_config_number(given.data_type).filter(|datatype| ALLOWED.contains(datatype));
    if datatype.is_none() {
        findings.add(
            format!("{path}.data_type"),
            "unexpected data type for control CONTROL_SEQUENCE_CORRID. Allowed data types are TYPE_UINT64, TYPE_INT64, \
             TYPE_UINT32, TYPE_INT32 and TYPE_STRING",
        );
    }
    datatype.map(SequenceSignal::CorrelationId)
}

fn states(given: &ModelSequenceBatching, findings: &mut Findings) -> Vec<SequenceState> {
    let before = findings.0.len();
    let mut total = 0;
    let sized: Vec<_> =
        given.state.iter().enumerate().filter_map(|(index, given)| state(index, given, &mut total, findings)).collect();
    // Nothing is allocated for what is refused.
    if findings.0.len() > before { Vec::new() } else { sized.into_iter().filter_map(SizedState::with_zeros).collect() }
}

/// A state, and the shape and bytes that it begins with.
struct SizedState<'g> {
    given: &'g State,
    datatype: DataType,
    dims: Shape,
    initial: Shape,
    bytes: usize,
}

impl SizedState<'_> {
    fn with_zeros(self) -> Option<SequenceState> {
        let SizedState { given, datatype, dims, initial, bytes } = self;
        let initial = Tensor::new(datatype, initial, Bytes::from(vec![0; bytes])).ok()?;
        let (input, output) = (given.input_name.as_str().into(), given.output_name.as_str().into());
        Some(SequenceState { input, output, datatype, dims, initial })
    }
}

/// `total` is how many bytes the states before it begin with.
fn state<'g>(index: usize, given: &'g State, total: &mut usize, findings: &mut Findings) -> Option<SizedState<'g>> {
    let path = format!("{PATH}.state[{index}]");
    let dims = tensors::dims(&path, &given.dims, findings);
    let datatype = tensors::datatype(&path, given.data_type, findings)?;
    let initial = match given.initial_state.as_slice() {
        // Triton leaves the values open; each dimension of any size is 1.
        [] => dims.iter().map(|dim| if *dim == -1 { 1 } else { *dim }).collect(),
        [initial] => initial_dims(&format!("{path}.initial_state[0]"), initial, given, &dims, findings)?,
        _ => {
            findings.add(format!("{path}.initial_state[1]"), "a state begins with one `initial_state`");
            return None;
        }
    };
    let bytes = initial.element_count().and_then(|count| count.checked_mul(datatype.size().unwrap_or(4)));
    let together = bytes.and_then(|bytes| bytes.checked_add(*total)).filter(|together| *together <= LARGEST_STATE);
    let (Some(bytes), Some(together)) = (bytes, together) else {
        let message = format!(
            "with a state of shape {initial} the states are larger than {LARGEST_STATE} bytes, the most that is kept of a sequence"
        );
        findings.add(format!("{path}.dims"), message);
        return None;
    };
    *total = together;
    Some(SizedState { given, datatype, dims, initial, bytes })
}

fn initial_dims(
    path: &str,
    given: &InitialState,
    state: &State,
    dims: &Shape,
    findings: &mut Findings,
) -> Option<Shape> {
    let before = findings.0.len();
    if given.data_type != 0 && given.data_type != state.data_type {
        findings.add(format!("{path}.data_type"), "the `data_type` of an initial state must be that of its state");
    }
    let initial = Shape::new(&given.dims);
    if !dims.admits(&initial) {
        let message =
            format!("`dims` of the initial state are {initial}; they must fit the state's {dims}, and none may be -1");
        findings.add(format!("{path}.dims"), message);
    }
    match &given.state_data {
        None => findings.add(path, "an initial state needs `zero_data: true` or a `data_file`"),
        Some(StateData::DataFile(file)) if file.is_empty() || !stays_inside(file) => {
            let message = format!("\"{file}\" must be a path within the model's directory `initial_state`");
            findings.add(format!("{path}.data_file"), message);
        }
        Some(_) => {}
    }
    (findings.0.len() == before).then_some(initial)
}

/// No two inputs, and no two states' outputs, may have one name.
fn check_names(given: &ModelSequenceBatching, config: &ModelConfig, findings: &mut Findings) {
    let mut inputs: BTreeMap<&str, &str> = config.input.iter().map(|input| (input.name.as_str(), "an input")).collect();
    inputs.extend(
        config.batch_input.iter().flat_map(|input| &input.target_name).map(|name| (name.as_str(), "a batch input")),
    );
    let controls = given.control_input.iter().enumerate();
    let controls =
        controls.map(|(index, input)| (format!("{PATH}.control_input[{index}].name"), &input.name, "a control"));
    let states = given.state.iter().enumerate();
    let states =
        states.map(|(index, state)| (format!("{PATH}.state[{index}].input_name"), &state.input_name, "a state"));
    for (path, name, role) in controls.chain(states) {
        if name.is_empty() {
            findings.add(path, format!("the name of the input of {role} is missing"));
        } else if let Some(other) = inputs.insert(name, role) {
            findings.add(path, format!("the input `{name}` cannot be {role}: it is {other} already"));
        }
    }
    let mut outputs = BTreeMap::new();
    for (index, state) in given.state.iter().enumerate() {
        let (path, name) = (format!("{PATH}.state[{index}].output_name"), state.output_name.as_str());
        if name.is_empty() {
            findings.add(path, "the name of the output of a state is missing");
        } else if outputs.insert(name, index).is_some() {
            findings.add(path, format!("another state has the output `{name}`"));
        } else if let Some(output) = config.output.iter().find(|output| output.name == name)
            && (output.data_type != state.data_type || output.dims != state.dims || output.reshape.is_some())
        {
            findings.add(path, format!("the output `{name}` has another `data_type` or `dims` than this state"));
        }
    }
}
