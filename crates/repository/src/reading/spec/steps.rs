//! The steps of an ensemble, as far as each can be judged on its own; the scheduler plans them together.

use std::collections::BTreeMap;

use inference::{EnsembleSpec, StepSpec, TensorName};
use protocol::Positions;
use protocol::model_config::ModelEnsembling;
use protocol::model_config::model_ensembling::Step;

use super::Findings;

/// The most steps of an ensemble; real ones have fewer than ten.
const MOST_STEPS: usize = 1000;

/// The steps, in the configuration's order.
pub(super) fn ensemble(given: &ModelEnsembling, positions: &Positions, findings: &mut Findings) -> EnsembleSpec {
    if given.step.is_empty() {
        findings.add("ensemble_scheduling", "an ensemble needs at least one `step`");
    }
    if given.step.len() > MOST_STEPS {
        let message = format!("an ensemble cannot have {} steps; at most {MOST_STEPS} are allowed", given.step.len());
        findings.add(format!("ensemble_scheduling.step[{MOST_STEPS}]"), message);
        return EnsembleSpec::default();
    }
    let steps = given.step.iter().enumerate();
    let steps = steps.map(|(index, given)| {
        let path = format!("ensemble_scheduling.step[{index}]");
        if given.model_name.is_empty() {
            findings.add(&path, "`model_name` is missing in this step");
        }
        StepSpec {
            model: given.model_name.as_str().into(),
            version: version(&path, given, positions, findings),
            inputs: tensors(&format!("{path}.input_map"), &given.input_map, findings),
            outputs: tensors(&format!("{path}.output_map"), &given.output_map, findings),
        }
    });
    let max_inflight_requests = Some(given.max_inflight_requests).filter(|bound| *bound > 0);
    EnsembleSpec { steps: steps.collect(), max_inflight_requests }
}

/// -1, or nothing at all, means the newest version.
fn version(path: &str, given: &Step, positions: &Positions, findings: &mut Findings) -> Option<u64> {
    let path = format!("{path}.model_version");
    match given.model_version {
        -1 => None,
        0 if positions.exact(&path).is_none() => None,
        version => {
            let version = u64::try_from(version).ok().filter(|version| *version > 0);
            if version.is_none() {
                let message = format!("{} is no version; -1 means the newest", given.model_version);
                findings.add(path, message);
            }
            version
        }
    }
}

fn tensors(path: &str, given: &BTreeMap<String, String>, findings: &mut Findings) -> BTreeMap<TensorName, TensorName> {
    for (model, ensemble) in given {
        if model.is_empty() || ensemble.is_empty() {
            findings.add(format!("{path}[{model:?}]"), "an entry needs a `key` and a `value`, neither of them empty");
        }
    }
    given.iter().map(|(model, ensemble)| (model.as_str().into(), ensemble.as_str().into())).collect()
}
