//! Plans an ensemble when it is loaded: checks how its steps are wired and keeps what running it needs. Pure.

mod cycles;
mod demand;
mod problems;
mod streams;
#[cfg(test)]
mod tests;
mod wiring;

use inference::{DataType, ModelName, ModelSpec, Shape, TensorName};

pub(crate) use demand::Demand;
use wiring::Wiring;

/// One thing that is wrong with an ensemble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanProblem {
    /// Where in the ensemble's configuration: `ensemble_scheduling.step[1].input_map["x"]`, `output[0]`.
    pub path: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// An ensemble that can run: its tensors by number, and who makes and takes each.
///
/// Every tensor has one producer; the steps have no cycle; `steps` are in the configuration's order.
#[derive(Clone, Debug)]
pub struct EnsemblePlan {
    pub(crate) steps: Vec<PlannedStep>,
    pub(crate) inputs: Vec<(TensorName, TensorId)>,
    pub(crate) outputs: Vec<Edge>,
    pub(crate) tensors: Vec<PlannedTensor>,
    /// What a request for all outputs demands.
    pub(crate) everything: Demand,
}

/// A tensor's place in [`EnsemblePlan::tensors`].
pub(crate) type TensorId = usize;

/// One step of a planned ensemble.
#[derive(Clone, Debug)]
pub struct PlannedStep {
    /// The composing model.
    pub model: ModelName,
    /// Its version; `None` for the newest served.
    pub version: Option<u64>,
    /// It has any number of responses to a request.
    pub(crate) is_decoupled: bool,
    pub(crate) inputs: Vec<Edge>,
    /// The composing model's output, and the tensor that it becomes.
    pub(crate) outputs: Vec<(TensorName, TensorId)>,
}

/// A tensor of the ensemble.
#[derive(Clone, Debug)]
pub(crate) struct PlannedTensor {
    /// The step that makes it; `None` for an input of the ensemble.
    pub(crate) producer: Option<usize>,
    /// The steps that take it, once per mapping.
    pub(crate) consumers: Vec<usize>,
}

/// Where a tensor goes: a step's input, or an output of the ensemble.
#[derive(Clone, Debug)]
pub(crate) struct Edge {
    /// The name there.
    pub(crate) name: TensorName,
    pub(crate) tensor: TensorId,
    pub(crate) declared: Declared,
}

/// A tensor as one side of an edge declares it.
#[derive(Clone, Debug)]
pub(crate) struct Declared {
    pub(crate) datatype: DataType,
    /// Without the batch dimension.
    pub(crate) dims: Shape,
    /// Whether a batch dimension comes first.
    pub(crate) batches: bool,
    pub(crate) optional: bool,
}

impl Declared {
    fn full(&self) -> Shape {
        if self.batches { self.dims.with_batch(-1) } else { self.dims.clone() }
    }

    /// Whether this may feed `other`. Between a side that batches and one that does not, Triton compares the shapes with
    /// and without the batch dimension, and so do we: what then does not fit at run time is refused there.
    fn may_feed(&self, other: &Declared) -> bool {
        self.full().is_compatible_with(&other.full()) || self.dims.is_compatible_with(&other.dims)
    }

    /// The shape under which a tensor of shape `actual` fits here; `None` when it fits, or cannot fit, as it is. As in
    /// Triton a model that batches sees one row for a tensor without batch dimension, and one that does not batch sees
    /// the only row of a batch of 1 where its rank asks for that.
    pub(crate) fn fit(&self, actual: &Shape) -> Option<Shape> {
        if self.full().admits(actual) {
            None
        } else if self.batches {
            self.dims.admits(actual).then(|| actual.with_batch(1))
        } else {
            let only_row = actual.without_batch();
            (actual.first() == Some(&1) && self.dims.admits(&only_row)).then_some(only_row)
        }
    }
}

impl EnsemblePlan {
    /// The steps, in the configuration's order.
    pub fn steps(&self) -> &[PlannedStep] {
        &self.steps
    }

    /// Whether the ensemble has any number of responses to a request: as many as its last decoupled step has.
    pub fn is_decoupled(&self) -> bool {
        self.steps.iter().any(|step| step.is_decoupled)
    }
}

/// Plans an ensemble. `member` finds a composing model by name and version (`None`: the newest served).
///
/// # Errors
/// Every problem, in the order of the passes that find them: steps' models, wiring, dead steps, cycles.
pub fn plan<'a>(
    ensemble: &'a ModelSpec,
    member: impl Fn(&str, Option<u64>) -> Option<&'a ModelSpec>,
) -> Result<EnsemblePlan, Vec<PlanProblem>> {
    let wiring = Wiring::of(ensemble, &member);
    let problems = wiring.problems();
    if problems.is_empty() { Ok(wiring.into_plan()) } else { Err(problems) }
}
