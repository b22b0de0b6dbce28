//! Decides what an update of the repositories' models loads and unloads, and in which order. Pure.

use std::collections::{BTreeMap, BTreeSet};

use inference::ModelName;

/// A model as an update sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// It is meant to be served.
    pub(super) wanted: bool,
    /// It is to be loaded whatever its members do: it never was, or its files have changed.
    pub(super) changed: bool,
    /// It serves now.
    pub(super) loaded: bool,
    /// The models that it is composed of.
    pub(super) members: BTreeSet<ModelName>,
}

/// All models, by name.
pub(super) type Nodes = BTreeMap<ModelName, Node>;

/// What an update does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Models that serve and are not meant to.
    pub(super) unload: BTreeSet<ModelName>,
    /// Models that cannot serve, each with the member that it misses. Those that do serve are unloaded.
    pub(super) broken: BTreeMap<ModelName, ModelName>,
    /// Models to load (again): those of one round at once, a model after those that it is composed of.
    pub(super) rounds: Vec<BTreeSet<ModelName>>,
}

/// What becomes of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// It is not meant to serve, or its last load failed and nothing has changed since.
    Absent,
    /// It serves as it did.
    Serves,
    /// It is loaded in this round.
    Loads(usize),
    /// It misses this member.
    Broken(ModelName),
}

/// Plans an update: what is wanted and has changed is loaded, and what is composed of that after it; what has lost a member
/// is unloaded.
pub(super) fn plan(nodes: &Nodes) -> Plan {
    let mut fates = BTreeMap::new();
    for name in nodes.keys() {
        decide(name, nodes, &mut fates);
    }
    let mut plan = Plan::default();
    for (name, fate) in fates {
        let (name, fate) = (name.clone(), fate.unwrap_or(Fate::Absent));
        let is_unwanted = nodes.get(&name).is_some_and(|node| node.loaded && !node.wanted);
        match fate {
            Fate::Absent if is_unwanted => drop(plan.unload.insert(name)),
            Fate::Absent | Fate::Serves => {}
            Fate::Loads(round) => {
                plan.rounds.resize_with(plan.rounds.len().max(round + 1), BTreeSet::new);
                plan.rounds[round].insert(name);
            }
            Fate::Broken(member) => drop(plan.broken.insert(name, member)),
        }
    }
    plan
}

/// Decides about a model after its members; `None` stands for one that is being decided about, so that a model that is
/// composed of itself is broken.
fn decide<'n>(name: &'n ModelName, nodes: &'n Nodes, fates: &mut BTreeMap<&'n ModelName, Option<Fate>>) -> Fate {
    match fates.get(name) {
        Some(Some(fate)) => return fate.clone(),
        Some(None) => return Fate::Absent,
        None => {}
    }
    let Some(node) = nodes.get(name) else { return Fate::Absent };
    fates.insert(name, None);
    let fate = if node.wanted { fate(node, nodes, fates) } else { Fate::Absent };
    fates.insert(name, Some(fate.clone()));
    fate
}

fn fate<'n>(node: &'n Node, nodes: &'n Nodes, fates: &mut BTreeMap<&'n ModelName, Option<Fate>>) -> Fate {
    let mut round = node.changed.then_some(0);
    for member in &node.members {
        match decide(member, nodes, fates) {
            Fate::Absent | Fate::Broken(_) => return Fate::Broken(member.clone()),
            Fate::Serves => {}
            Fate::Loads(before) => round = Some(round.unwrap_or(0).max(before + 1)),
        }
    }
    match round {
        Some(round) => Fate::Loads(round),
        None if node.loaded => Fate::Serves,
        None => Fate::Absent,
    }
}

/// What an unload of `name` takes along when its dependents are to go too: members, and members of members, that were not
/// asked for by name and that nothing else is composed of.
pub(super) fn dependents(name: &ModelName, nodes: &Nodes, is_explicit: impl Fn(&str) -> bool) -> BTreeSet<ModelName> {
    let mut gone = BTreeSet::from([name.clone()]);
    let mut queue = vec![name.clone()];
    while let Some(left) = queue.pop() {
        for member in nodes.get(&left).iter().flat_map(|node| &node.members) {
            let is_user = |(user, node): (&ModelName, &Node)| {
                node.wanted && !gone.contains(user) && node.members.contains(member)
            };
            if !gone.contains(member) && !is_explicit(member) && !nodes.iter().any(is_user) {
                gone.insert(member.clone());
                queue.push(member.clone());
            }
        }
    }
    gone.remove(name);
    gone
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
