//! Decides which way each model of an archive is placed: on the device with room, or else where the least has to leave. Pure.

use std::cmp::Reverse;

use inference::{Device, MemoryUsage};

use crate::churn::Held;

/// What a load asks for: for each of its models the ways in which it may be placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Demand {
    models: Vec<Vec<Need>>,
    /// What may be on a GPU is not to be on the host.
    is_for_gpus: bool,
}

/// What a model takes, placed in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) usage: MemoryUsage,
    /// It is known, and not estimated.
    pub(crate) is_sure: bool,
}

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// What all of it takes.
    pub(crate) usage: MemoryUsage,
    /// The way of each model: an index into its ways.
    pub(crate) ways: Vec<usize>,
}

impl Demand {
    /// The ways of each model; a model has at least one.
    pub(crate) fn new(models: Vec<Vec<Need>>) -> Self {
        debug_assert!(models.iter().all(|ways| !ways.is_empty()), "every model can be placed in one way at least");
        Demand { models, is_for_gpus: false }
    }

    /// The same without the host where a GPU would do.
    #[must_use]
    pub(crate) fn on_gpus(self) -> Self {
        Demand { is_for_gpus: true, ..self }
    }

    /// No fewer bytes than these must be free on one GPU at least.
    pub(crate) fn least_on_a_gpu(&self) -> u64 {
        let most = |need: &Need| need.usage.iter().filter(|(device, _)| *device != Device::Host).map(|on| on.1).max();
        let least = |model| self.ways(model).map(|(_, need)| most(need).unwrap_or(0)).min().unwrap_or(0);
        (0..self.models.len()).map(least).max().unwrap_or(0)
    }

    fn is_open(&self) -> bool {
        self.models.iter().any(|ways| ways.len() > 1)
    }

    /// The ways that a model may be placed in, by their index.
    fn ways(&self, model: usize) -> impl Iterator<Item = (usize, &Need)> {
        let ways = &self.models[model];
        let is_bound = self.is_for_gpus && ways.iter().any(Need::is_on_gpu);
        ways.iter().enumerate().filter(move |(_, need)| !is_bound || need.is_on_gpu())
    }
}

impl Need {
    fn is_on_gpu(&self) -> bool {
        self.usage.iter().any(|(device, _)| device != Device::Host)
    }
}

/// So much and nowhere else.
impl From<MemoryUsage> for Demand {
    fn from(usage: MemoryUsage) -> Self {
        Demand::new(vec![vec![Need { usage, is_sure: true }]])
    }
}

/// How well a device takes more; the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Grade {
    /// It has room.
    Fits,
    /// Others have to leave, and can.
    Evicts,
    /// Others are in the way and cannot leave now.
    Waits,
    /// It is too small.
    Never,
}

/// A way's worth; the least is the best. Of those with room, GPUs come before the host, and the GPU that has most left before
/// the others. Otherwise the way comes first for which the fewest bytes have to leave.
type Score = (Grade, u64, bool, Reverse<u64>);

/// Chooses a way for each model, the largest first. `evictable` is what could leave now; it is not asked for where there is
/// room. A model that may be on a GPU or on the host has nobody evicted while one of them has room.
pub(crate) fn choose(demand: &Demand, held: &Held, evictable: impl FnOnce() -> MemoryUsage) -> Choice {
    let nothing = MemoryUsage::default();
    let (choice, worst) = greedy(demand, &Devices { held, evictable: &nothing });
    if worst == Grade::Fits || !demand.is_open() {
        return choice;
    }
    greedy(demand, &Devices { held, evictable: &evictable() }).0
}

fn greedy(demand: &Demand, devices: &Devices<'_>) -> (Choice, Grade) {
    let least = |model: usize| demand.ways(model).map(|(_, need)| sum(&need.usage)).min().unwrap_or(0);
    let mut order: Vec<usize> = (0..demand.models.len()).collect();
    // Those that can be nowhere else first: the others go where these leave room.
    order.sort_by_key(|model| (demand.ways(*model).count() > 1, Reverse(least(*model))));
    let (mut taken, mut ways) = (Taken::default(), vec![0; demand.models.len()]);
    let mut worst = Grade::Fits;
    for model in order {
        let scored = demand.ways(model).map(|(way, need)| (devices.score(&taken, need), way));
        let Some((score, way)) = scored.min() else { continue };
        worst = worst.max(score.0);
        ways[model] = way;
        taken = taken.with(&demand.models[model][way]);
    }
    (Choice { usage: taken.asked(&devices.held.budget), ways }, worst)
}

fn sum(usage: &MemoryUsage) -> u64 {
    usage.iter().fold(0, |sum, (_, bytes)| sum.saturating_add(bytes))
}

/// What the models that have a place already take.
#[derive(Clone, Debug)]
struct Taken {
    usage: MemoryUsage,
    is_sure: bool,
}

impl Default for Taken {
    fn default() -> Self {
        Taken { usage: MemoryUsage::default(), is_sure: true }
    }
}

impl Taken {
    fn with(&self, need: &Need) -> Taken {
        let mut usage = self.usage.clone();
        usage.add_all(&need.usage);
        Taken { usage, is_sure: self.is_sure && need.is_sure }
    }

    /// What room is made for.
    fn asked(&self, budget: &MemoryUsage) -> MemoryUsage {
        if self.is_sure { self.usage.clone() } else { benefit_of_the_doubt(&self.usage, budget) }
    }
}

struct Devices<'a> {
    held: &'a Held,
    evictable: &'a MemoryUsage,
}

impl Devices<'_> {
    /// How good it is to place a model this way beside what is taken.
    fn score(&self, taken: &Taken, need: &Need) -> Score {
        let asked = taken.with(need).asked(&self.held.budget);
        let (mut grade, mut missing, mut left) = (Grade::Fits, 0_u64, u64::MAX);
        for (device, _) in need.usage.iter() {
            let (budget, used) = (self.held.budget.get(device), self.held.used.get(device));
            let after = used.saturating_add(asked.get(device));
            grade = grade.max(match after {
                _ if after <= budget => Grade::Fits,
                _ if asked.get(device) > budget => Grade::Never,
                _ if after.saturating_sub(self.evictable.get(device)) <= budget => Grade::Evicts,
                _ => Grade::Waits,
            });
            missing = missing.saturating_add(after.saturating_sub(budget));
            if device != Device::Host {
                left = left.min(budget.saturating_sub(after));
            }
        }
        let is_on_host = left == u64::MAX;
        (grade, missing, is_on_host, Reverse(left))
    }
}

/// What to make room for before an archive's first load. An estimate that is up to twice the budget may be wrong: the load
/// is tried with all the room there is, and what it really takes decides.
fn benefit_of_the_doubt(estimate: &MemoryUsage, budget: &MemoryUsage) -> MemoryUsage {
    let mut need = MemoryUsage::default();
    for (device, bytes) in estimate.iter() {
        let budget = budget.get(device);
        let doubtful = bytes > budget && bytes / 2 <= budget;
        need.add(device, if doubtful { budget } else { bytes });
    }
    need
}
