//! `model_warmup`.

use std::path::PathBuf;

use inference::{DataType, Shape, WarmupData, WarmupInput, WarmupSample};
use protocol::model_config::model_warmup::Input;
use protocol::model_config::model_warmup::input::InputDataType;
use protocol::model_config::{ModelConfig, ModelWarmup};

use super::{Findings, stays_inside};

/// The most samples of a model, and how often one of them may be run.
const MOST_SAMPLES: usize = 1000;
const MOST_RUNS: u32 = 10_000;
/// The most elements of one input of a sample: a warm-up is no place for more.
const MOST_ELEMENTS: usize = 1 << 28;

/// The samples, in the configuration's order.
pub(super) fn samples(config: &ModelConfig, max_batch_size: u32, findings: &mut Findings) -> Vec<WarmupSample> {
    if config.model_warmup.len() > MOST_SAMPLES {
        let count = config.model_warmup.len();
        let message = format!("a model cannot have {count} samples; at most {MOST_SAMPLES} are allowed");
        findings.add(format!("model_warmup[{MOST_SAMPLES}]"), message);
        return Vec::new();
    }
    let samples = config.model_warmup.iter().enumerate();
    samples.map(|(index, given)| sample(&format!("model_warmup[{index}]"), given, max_batch_size, findings)).collect()
}

fn sample(path: &str, given: &ModelWarmup, max_batch_size: u32, findings: &mut Findings) -> WarmupSample {
    let batch_size = given.batch_size.max(1);
    let most = max_batch_size.max(1);
    if batch_size > most {
        let message = format!("`batch_size` is {batch_size}, but `max_batch_size` allows {most}");
        findings.add(format!("{path}.batch_size"), message);
    }
    if given.count > MOST_RUNS {
        let message = format!("a sample cannot be run {} times; at most {MOST_RUNS} are allowed", given.count);
        findings.add(format!("{path}.count"), message);
    }
    let inputs = given.inputs.iter();
    let inputs = inputs.filter_map(|(name, given)| {
        let path = format!("{path}.inputs[{name:?}]");
        input(&path, name, given, batch_size, findings)
    });
    WarmupSample { name: given.name.clone(), batch_size, count: given.count.max(1), inputs: inputs.collect() }
}

fn input(path: &str, name: &str, given: &Input, batch_size: u32, findings: &mut Findings) -> Option<WarmupInput> {
    let dims = Shape::new(&given.dims);
    let rows = usize::try_from(batch_size).unwrap_or(usize::MAX);
    match dims.element_count().and_then(|count| count.checked_mul(rows)) {
        None => findings.add(format!("{path}.dims"), "the dimensions of a warm-up's input must be sizes, not open"),
        Some(count) if count > MOST_ELEMENTS => {
            let message = format!("an input of {count} elements is too large; at most {MOST_ELEMENTS} are allowed");
            findings.add(format!("{path}.dims"), message);
        }
        Some(_) => {}
    }
    let datatype = DataType::from_config_number(given.data_type);
    if datatype.is_none() {
        findings
            .add(format!("{path}.data_type"), "`data_type` must be a type that tensors can have, such as TYPE_FP32");
    }
    let data = match &given.input_data_type {
        Some(InputDataType::ZeroData(_)) => Some(WarmupData::Zero),
        Some(InputDataType::RandomData(_)) => Some(WarmupData::Random),
        Some(InputDataType::InputDataFile(file)) if !file.is_empty() && stays_inside(file) => {
            Some(WarmupData::File(PathBuf::from(file)))
        }
        Some(InputDataType::InputDataFile(file)) => {
            let message = format!("\"{file}\" must be a path within `warmup` in the model's directory");
            findings.add(format!("{path}.input_data_file"), message);
            None
        }
        None => {
            findings.add(path, "an input needs one of `zero_data`, `random_data` and `input_data_file`");
            None
        }
    };
    Some(WarmupInput { name: name.into(), datatype: datatype?, dims, data: data? })
}
