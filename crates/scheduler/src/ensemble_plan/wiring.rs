//! How an ensemble's tensors connect its inputs, steps and outputs.

use std::collections::{BTreeMap, BTreeSet};

use inference::{ModelSpec, StepSpec, TensorName};

use super::problems::step_path;
use super::{Declared, Demand, Edge, EnsemblePlan, PlanProblem, PlannedStep, PlannedTensor};

/// Where an end of an edge is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Input(usize),
    Step(usize),
    Output(usize),
}

/// One end of an edge: something that makes or takes a tensor.
pub(super) struct End {
    pub(super) place: Place,
    /// The name there: of the ensemble's input or output, or of the composing model's.
    pub(super) name: TensorName,
    /// `None` where the composing model is missing or has nothing of this name; that is a problem of its own.
    pub(super) declared: Option<Declared>,
}

/// What makes and what takes one tensor.
#[derive(Default)]
pub(super) struct Ends {
    pub(super) producers: Vec<End>,
    pub(super) consumers: Vec<End>,
}

/// An ensemble with its composing models looked up.
pub(super) struct Wiring<'a> {
    pub(super) ensemble: &'a ModelSpec,
    pub(super) steps: &'a [StepSpec],
    pub(super) members: Vec<Option<&'a ModelSpec>>,
    pub(super) tensors: BTreeMap<TensorName, Ends>,
    /// Problems that were found while composing models were looked up.
    pub(super) lookup: Vec<PlanProblem>,
}

impl<'a> Wiring<'a> {
    pub(super) fn of(ensemble: &'a ModelSpec, member: &impl Fn(&str, Option<u64>) -> Option<&'a ModelSpec>) -> Self {
        let steps = ensemble.ensemble.as_ref().map_or(&[][..], |scheduling| &scheduling.steps);
        let mut lookup = Vec::new();
        let find =
            |(index, step)| find_member(ensemble, index, step, member).map_err(|problem| lookup.push(problem)).ok();
        let members = steps.iter().enumerate().map(find).collect();
        let mut wiring = Wiring { ensemble, steps, members, tensors: BTreeMap::new(), lookup };
        wiring.connect();
        wiring
    }

    fn connect(&mut self) {
        let batches = self.ensemble.batches();
        for (index, input) in self.ensemble.inputs.iter().enumerate() {
            let declared =
                Declared { datatype: input.datatype, dims: input.dims.clone(), batches, optional: input.optional };
            let end = End { place: Place::Input(index), name: input.name.clone(), declared: Some(declared) };
            self.tensors.entry(input.name.clone()).or_default().producers.push(end);
        }
        for (index, step) in self.steps.iter().enumerate() {
            for (name, tensor) in &step.inputs {
                let declared = self.members[index].and_then(|member| input_of(member, name));
                let end = End { place: Place::Step(index), name: name.clone(), declared };
                self.tensors.entry(tensor.clone()).or_default().consumers.push(end);
            }
            for (name, tensor) in &step.outputs {
                let declared = self.members[index].and_then(|member| output_of(member, name));
                let end = End { place: Place::Step(index), name: name.clone(), declared };
                self.tensors.entry(tensor.clone()).or_default().producers.push(end);
            }
        }
        for (index, output) in self.ensemble.outputs.iter().enumerate() {
            let end = End {
                place: Place::Output(index),
                name: output.name.clone(),
                declared: output_of(self.ensemble, &output.name),
            };
            self.tensors.entry(output.name.clone()).or_default().consumers.push(end);
        }
    }

    /// The plan of an ensemble without problems.
    pub(super) fn into_plan(self) -> EnsemblePlan {
        let ids: BTreeMap<&TensorName, usize> = self.tensors.keys().enumerate().map(|(id, name)| (name, id)).collect();
        let mut plan = EnsemblePlan {
            steps: Vec::new(),
            inputs: self.ensemble.inputs.iter().map(|input| (input.name.clone(), ids[&input.name])).collect(),
            outputs: Vec::new(),
            tensors: Vec::new(),
            everything: Demand::default(),
        };
        plan.steps.extend(self.steps.iter().zip(&self.members).map(|(step, member)| PlannedStep {
            model: step.model.clone(),
            version: step.version,
            is_decoupled: member.is_some_and(|member| member.decoupled),
            inputs: Vec::new(),
            outputs: step.outputs.iter().map(|(name, tensor)| (name.clone(), ids[tensor])).collect(),
        }));
        for (tensor, ends) in self.tensors.values().enumerate() {
            let producer = ends.producers.first().map(|end| end.place);
            let mut planned = PlannedTensor { producer: None, consumers: Vec::new() };
            if let Some(Place::Step(step)) = producer {
                planned.producer = Some(step);
            }
            for end in &ends.consumers {
                let Some(declared) = end.declared.clone() else { continue };
                let edge = Edge { name: end.name.clone(), tensor, declared };
                match end.place {
                    Place::Step(step) => {
                        plan.steps[step].inputs.push(edge);
                        planned.consumers.push(step);
                    }
                    Place::Output(_) | Place::Input(_) => plan.outputs.push(edge),
                }
            }
            plan.tensors.push(planned);
        }
        plan.everything = Demand::of(&plan, |_| true);
        plan
    }
}

fn find_member<'a>(
    ensemble: &ModelSpec,
    index: usize,
    step: &StepSpec,
    member: &impl Fn(&str, Option<u64>) -> Option<&'a ModelSpec>,
) -> Result<&'a ModelSpec, PlanProblem> {
    let problem = |field: &str, message: String| PlanProblem { path: format!("{}.{field}", step_path(index)), message };
    if step.model == ensemble.name {
        return Err(problem("model_name", format!("ensemble '{}' cannot be a step of itself", ensemble.name)));
    }
    let Some(found) = member(&step.model, step.version) else {
        return Err(match step.version {
            Some(version) if member(&step.model, None).is_some() => {
                problem("model_version", format!("model '{}' has no version {version} that is served", step.model))
            }
            _ => {
                problem("model_name", format!("there is no model '{}' beside ensemble '{}'", step.model, ensemble.name))
            }
        });
    };
    match contains(found, &ensemble.name, member, &mut BTreeSet::new()) {
        true => Err(problem(
            "model_name",
            format!("ensemble '{}' cannot be a step of itself, but '{}' leads back to it", ensemble.name, step.model),
        )),
        false => Ok(found),
    }
}

/// Whether a model runs `name` as a step, or as a step of a step.
fn contains<'a>(
    model: &'a ModelSpec,
    name: &str,
    member: &impl Fn(&str, Option<u64>) -> Option<&'a ModelSpec>,
    seen: &mut BTreeSet<&'a str>,
) -> bool {
    let steps = model.ensemble.as_ref().map_or(&[][..], |scheduling| &scheduling.steps);
    steps.iter().any(|step| {
        let unseen = seen.insert(&step.model);
        &*step.model == name
            || unseen && member(&step.model, step.version).is_some_and(|inner| contains(inner, name, member, seen))
    })
}

fn input_of(model: &ModelSpec, name: &str) -> Option<Declared> {
    let input = model.input(name)?;
    let (batches, optional) = (model.batches(), input.optional);
    Some(Declared { datatype: input.datatype, dims: input.dims.clone(), batches, optional })
}

fn output_of(model: &ModelSpec, name: &str) -> Option<Declared> {
    let output = model.output(name)?;
    Some(Declared { datatype: output.datatype, dims: output.dims.clone(), batches: model.batches(), optional: false })
}
