//! How far one run of an ensemble is: which tensors are there, which steps may start. Pure.

use inference::{NamedTensor, Tensor};

use crate::ensemble_plan::{Demand, Edge, EnsemblePlan};

/// The state of one run.
///
/// A tensor is here from the moment that it is made until its last user has taken it. `missing[s]` counts the inputs of
/// step `s` whose producers have not ended; a step is handed out once, when that becomes 0.
pub(crate) struct Progress<'p> {
    plan: &'p EnsemblePlan,
    demand: &'p Demand,
    tensors: Vec<Option<Tensor>>,
    uses_left: Vec<u32>,
    missing: Vec<usize>,
}

impl<'p> Progress<'p> {
    /// A run that begins with these inputs; optional ones may be absent, and what nobody needs is dropped.
    pub(crate) fn new(plan: &'p EnsemblePlan, demand: &'p Demand, inputs: Vec<NamedTensor>) -> Self {
        let made_by_step = |edge: &&Edge| plan.tensors[edge.tensor].producer.is_some();
        let missing = plan.steps.iter().map(|step| step.inputs.iter().filter(made_by_step).count()).collect();
        let tensors = vec![None; plan.tensors.len()];
        let mut progress = Progress { plan, demand, tensors, uses_left: demand.uses.clone(), missing };
        for input in inputs {
            if let Some((_, tensor)) = plan.inputs.iter().find(|(name, _)| *name == input.name) {
                progress.put(*tensor, input.tensor);
            }
        }
        progress
    }

    /// The steps that may start at once.
    pub(crate) fn first_steps(&self) -> Vec<usize> {
        (0..self.missing.len()).filter(|step| self.demand.steps[*step] && self.missing[*step] == 0).collect()
    }

    /// The inputs of a step that may start; absent ones are left out. To be asked once per step.
    pub(crate) fn take_inputs(&mut self, step: usize) -> Vec<NamedTensor> {
        let plan = self.plan;
        plan.steps[step].inputs.iter().filter_map(|edge| self.take(edge)).collect()
    }

    /// Takes over what a step has made, and returns the steps that may start now.
    pub(crate) fn complete(&mut self, step: usize, outputs: Vec<NamedTensor>) -> Vec<usize> {
        let plan = self.plan;
        for output in outputs {
            let mapped = plan.steps[step].outputs.iter().filter(|(name, _)| *name == output.name);
            mapped.for_each(|(_, tensor)| self.put(*tensor, output.tensor.clone()));
        }
        let mut ready = Vec::new();
        for consumer in plan.steps[step].outputs.iter().flat_map(|(_, tensor)| &plan.tensors[*tensor].consumers) {
            self.missing[*consumer] -= 1;
            if self.missing[*consumer] == 0 && self.demand.steps[*consumer] {
                ready.push(*consumer);
            }
        }
        ready
    }

    /// The ensemble's outputs that were wanted, as far as they were made.
    pub(crate) fn into_outputs(mut self, wanted: impl Fn(&str) -> bool) -> Vec<NamedTensor> {
        let plan = self.plan;
        plan.outputs.iter().filter(|edge| wanted(&edge.name)).filter_map(|edge| self.take(edge)).collect()
    }

    fn put(&mut self, tensor: usize, value: Tensor) {
        if self.uses_left[tensor] > 0 {
            self.tensors[tensor] = Some(value);
        }
    }

    /// The tensor as the other end of `edge` wants it; the last user takes it away.
    fn take(&mut self, edge: &Edge) -> Option<NamedTensor> {
        let left = &mut self.uses_left[edge.tensor];
        *left -= 1;
        let slot = &mut self.tensors[edge.tensor];
        let tensor = if *left == 0 { slot.take() } else { slot.clone() }?;
        let fitted = edge.declared.fit(tensor.shape()).and_then(|shape| tensor.with_shape(shape).ok());
        Some(NamedTensor { name: edge.name.clone(), tensor: fitted.unwrap_or(tensor) })
    }
}
