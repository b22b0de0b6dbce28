//! Everything that can be wrong with an ensemble's wiring.

use std::collections::BTreeSet;

use inference::{ModelSpec, StepSpec, TensorName};

use super::PlanProblem;
use super::cycles::cycles;
use super::wiring::{End, Ends, Place, Wiring};

impl Wiring<'_> {
    /// Everything that is wrong.
    pub(super) fn problems(&self) -> Vec<PlanProblem> {
        let mut problems = self.lookup.clone();
        self.check_ensemble(&mut problems);
        for (index, step) in self.steps.iter().enumerate() {
            if let Some(member) = self.members[index] {
                self.check_step(index, step, member, &mut problems);
            }
        }
        for (tensor, ends) in &self.tensors {
            self.check_tensor(tensor, ends, &mut problems);
        }
        self.check_dead_steps(&mut problems);
        let found = problems.len();
        self.check_cycles(&mut problems);
        if problems.len() == found {
            self.check_streams(&mut problems);
        }
        problems
    }

    fn check_ensemble(&self, problems: &mut Vec<PlanProblem>) {
        if self.steps.is_empty() {
            report(problems, "ensemble_scheduling", "an ensemble needs at least one step");
        }
        let inputs = self.ensemble.inputs.iter().map(|input| input.reshape.is_some()).enumerate();
        let outputs = self.ensemble.outputs.iter().map(|output| output.reshape.is_some()).enumerate();
        let reshaped = inputs.map(|found| ("input", found)).chain(outputs.map(|found| ("output", found)));
        for (field, (index, _)) in reshaped.filter(|(_, (_, reshape))| *reshape) {
            let message = "an ensemble cannot have 'reshape'; put it into the composing model's configuration";
            report(problems, format!("{field}[{index}].reshape"), message);
        }
    }

    fn check_step(&self, index: usize, step: &StepSpec, member: &ModelSpec, problems: &mut Vec<PlanProblem>) {
        for name in step.inputs.keys().filter(|name| member.input(name).is_none()) {
            let known: Vec<&str> = member.inputs.iter().map(|input| &*input.name).collect();
            let message = format!("model '{}' has no input '{name}'; its inputs are {known:?}", step.model);
            report(problems, input_path(index, name), message);
        }
        for name in step.outputs.keys().filter(|name| member.output(name).is_none()) {
            let known: Vec<&str> = member.outputs.iter().map(|output| &*output.name).collect();
            let message = format!("model '{}' has no output '{name}'; its outputs are {known:?}", step.model);
            report(problems, output_path(index, name), message);
        }
        for input in member.inputs.iter().filter(|input| !input.optional && !step.inputs.contains_key(&input.name)) {
            let message =
                format!("required input '{}' of model '{}' is not mapped to a tensor", input.name, step.model);
            report(problems, format!("{}.input_map", step_path(index)), message);
        }
        if member.batches() && self.ensemble.max_batch_size > member.max_batch_size {
            let message = format!(
                "the ensemble allows batches of {}, but step {index} (model '{}') takes at most {}",
                self.ensemble.max_batch_size, step.model, member.max_batch_size
            );
            report(problems, "max_batch_size", message);
        }
    }

    fn check_tensor(&self, tensor: &str, ends: &Ends, problems: &mut Vec<PlanProblem>) {
        let Some(producer) = ends.producers.first() else {
            for consumer in &ends.consumers {
                let message =
                    format!("tensor '{tensor}' is neither an input of the ensemble nor an output that a step maps");
                report(problems, self.consumer_path(consumer), message);
            }
            return;
        };
        for other in &ends.producers[1..] {
            let message = format!("tensor '{tensor}' is made twice; {} makes it already", self.describe(producer));
            report(problems, producer_path(other), message);
        }
        if let (Place::Input(index), true) = (producer.place, ends.consumers.is_empty()) {
            let message =
                format!("no step uses the ensemble's input '{tensor}'; remove it or map it to a step's input");
            report(problems, format!("input[{index}]"), message);
        }
        for consumer in &ends.consumers {
            self.check_edge(tensor, producer, consumer, problems);
        }
    }

    fn check_edge(&self, tensor: &str, producer: &End, consumer: &End, problems: &mut Vec<PlanProblem>) {
        let (Some(from), Some(to)) = (&producer.declared, &consumer.declared) else { return };
        let path = self.consumer_path(consumer);
        let (source, sink) = (self.describe(producer), self.describe(consumer));
        if from.datatype != to.datatype {
            let (got, want) = (from.datatype, to.datatype);
            report(problems, path.clone(), format!("tensor '{tensor}' is {got} from {source}, but {want} in {sink}"));
        }
        if !from.may_feed(to) {
            let (got, want) = (from.full(), to.full());
            let message = format!("tensor '{tensor}' has shape {got} from {source}, but {want} in {sink}");
            report(problems, path.clone(), message);
        }
        let required = matches!(consumer.place, Place::Step(_)) && !to.optional;
        if from.optional && required {
            let message = format!("{source} is optional, but {sink} is required; declare both the same");
            report(problems, path, message);
        }
    }

    fn check_dead_steps(&self, problems: &mut Vec<PlanProblem>) {
        for (index, step) in self.steps.iter().enumerate() {
            let used = |tensor: &TensorName| self.tensors.get(tensor).is_some_and(|ends| !ends.consumers.is_empty());
            if !step.outputs.values().any(used) {
                let message = format!(
                    "no step and no output of the ensemble uses an output of this step (model '{}')",
                    step.model
                );
                report(problems, step_path(index), message);
            }
        }
    }

    fn check_cycles(&self, problems: &mut Vec<PlanProblem>) {
        let before: Vec<Vec<usize>> = (0..self.steps.len()).map(|step| self.steps_before(step)).collect();
        for cycle in cycles(&before) {
            let name = |step: &usize| format!("step {step} ('{}')", self.steps[*step].model);
            let around: Vec<String> = cycle.iter().chain(cycle.first()).map(name).collect();
            let message = format!("the steps wait for each other: {}", around.join(" -> "));
            report(problems, step_path(cycle[0]), message);
        }
    }

    fn steps_before(&self, step: usize) -> Vec<usize> {
        let tensors = self.steps[step].inputs.values().filter_map(|tensor| self.tensors.get(tensor));
        let producers = tensors.filter_map(|ends| ends.producers.first());
        let steps: BTreeSet<usize> =
            producers.filter_map(|end| if let Place::Step(before) = end.place { Some(before) } else { None }).collect();
        steps.into_iter().collect()
    }

    fn consumer_path(&self, end: &End) -> String {
        match end.place {
            Place::Step(step) => input_path(step, &end.name),
            Place::Input(index) => format!("input[{index}]"),
            Place::Output(index) => format!("output[{index}]"),
        }
    }

    fn describe(&self, end: &End) -> String {
        match end.place {
            Place::Input(_) => format!("the ensemble's input '{}'", end.name),
            Place::Output(_) => format!("the ensemble's output '{}'", end.name),
            Place::Step(step) => format!("'{}' of model '{}' (step {step})", end.name, self.steps[step].model),
        }
    }
}

fn producer_path(end: &End) -> String {
    match end.place {
        Place::Input(index) => format!("input[{index}]"),
        Place::Step(step) => output_path(step, &end.name),
        Place::Output(index) => format!("output[{index}]"),
    }
}

pub(super) fn step_path(step: usize) -> String {
    format!("ensemble_scheduling.step[{step}]")
}

fn input_path(step: usize, name: &str) -> String {
    format!("{}.input_map[\"{name}\"]", step_path(step))
}

fn output_path(step: usize, name: &str) -> String {
    format!("{}.output_map[\"{name}\"]", step_path(step))
}

fn report(problems: &mut Vec<PlanProblem>, path: impl Into<String>, message: impl Into<String>) {
    problems.push(PlanProblem { path: path.into(), message: message.into() });
}
