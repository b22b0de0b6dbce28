//! Which steps and tensors a request needs, given the outputs that it wants.

use inference::TensorName;

use super::EnsemblePlan;

/// What one set of wanted outputs demands of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Demand {
    /// By step: whether it must run.
    pub(crate) steps: Vec<bool>,
    /// By step: the outputs of the composing model that somebody uses; not empty where the step must run.
    pub(crate) outputs: Vec<Vec<TensorName>>,
    /// By tensor: how often it is used, as a step's input or as an output of the ensemble.
    pub(crate) uses: Vec<u32>,
}

impl Demand {
    /// Follows the wanted outputs back to the inputs.
    pub(crate) fn of(plan: &EnsemblePlan, wanted: impl Fn(&str) -> bool) -> Self {
        let mut steps = vec![false; plan.steps.len()];
        let mut uses = vec![0; plan.tensors.len()];
        let mut open: Vec<_> = plan.outputs.iter().filter(|edge| wanted(&edge.name)).map(|edge| edge.tensor).collect();
        while let Some(tensor) = open.pop() {
            uses[tensor] += 1;
            let Some(step) = plan.tensors[tensor].producer else { continue };
            if !std::mem::replace(&mut steps[step], true) {
                open.extend(plan.steps[step].inputs.iter().map(|edge| edge.tensor));
            }
        }
        let used = |step: &super::PlannedStep| {
            step.outputs.iter().filter(|(_, tensor)| uses[*tensor] > 0).map(|(name, _)| name.clone()).collect()
        };
        let outputs = plan.steps.iter().map(used).collect();
        Demand { steps, outputs, uses }
    }
}
