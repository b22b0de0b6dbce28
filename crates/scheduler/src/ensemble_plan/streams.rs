//! Which tensors of an ensemble belong together: those of one response of a decoupled step do, those of another do not.

use std::collections::BTreeMap;

use super::PlanProblem;
use super::problems::step_path;
use super::wiring::{End, Place, Wiring};

/// Where a tensor's stream of responses begins: `None` for the ensemble's own inputs, else the decoupled step.
type Origin = Option<usize>;

impl Wiring<'_> {
    /// Every step, and the ensemble's outputs, must take tensors of one stream only: which response would go with which? The
    /// steps must have no cycle.
    pub(super) fn check_streams(&self, problems: &mut Vec<PlanProblem>) {
        let mut known = BTreeMap::new();
        for step in 0..self.steps.len() {
            self.origin_of(step, &mut known, problems);
        }
        let is_output = |end: &&End| matches!(end.place, Place::Output(_));
        let tensors = self.tensors.iter().filter(|(_, ends)| ends.consumers.iter().any(|end| is_output(&end)));
        let origins = tensors.filter_map(|(name, ends)| {
            let origin = match ends.producers.first()?.place {
                Place::Step(step) => known.get(&step).copied().flatten(),
                Place::Input(_) | Place::Output(_) => None,
            };
            Some((origin, &**name))
        });
        if let Some(mixed) = self.mixed(origins) {
            let message = format!("the ensemble's outputs come from different decoupled models: {mixed}");
            problems.push(PlanProblem { path: "output".to_owned(), message });
        }
    }

    /// The stream that a step's outputs belong to.
    fn origin_of(&self, step: usize, known: &mut BTreeMap<usize, Origin>, problems: &mut Vec<PlanProblem>) -> Origin {
        if let Some(origin) = known.get(&step) {
            return *origin;
        }
        let mut origins = Vec::new();
        for tensor in self.steps[step].inputs.values() {
            let producer = self.tensors.get(tensor).and_then(|ends| ends.producers.first());
            let origin = match producer.map(|end| end.place) {
                Some(Place::Step(before)) => self.origin_of(before, known, problems),
                _ => None,
            };
            origins.push((origin, &**tensor));
        }
        if let Some(mixed) = self.mixed(origins.iter().copied()) {
            let message = format!(
                "step of model '{}' receives inputs originated from different decoupled models: {mixed}",
                self.steps[step].model
            );
            problems.push(PlanProblem { path: format!("{}.input_map", step_path(step)), message });
        }
        let taken = origins.iter().find_map(|(origin, _)| *origin);
        let origin = if self.members[step].is_some_and(|member| member.decoupled) { Some(step) } else { taken };
        known.insert(step, origin);
        origin
    }

    /// Says which tensors come from where, if that is not one place.
    fn mixed<'t>(&self, origins: impl Iterator<Item = (Origin, &'t str)>) -> Option<String> {
        let by_origin: BTreeMap<Origin, &str> = origins.collect();
        let from = |(origin, tensor): (&Origin, &&str)| match origin {
            None => format!("'{tensor}' from the ensemble's inputs"),
            Some(step) => format!("'{tensor}' from '{}' (step {step})", self.steps[*step].model),
        };
        (by_origin.len() > 1).then(|| by_origin.iter().map(from).collect::<Vec<_>>().join(", "))
    }
}
