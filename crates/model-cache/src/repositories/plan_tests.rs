//! Tests of the plan of an update: examples, and properties over random repositories.

use proptest::prelude::*;

use super::*;

fn node(wanted: bool, changed: bool, loaded: bool, members: &[&str]) -> Node {
    Node { wanted, changed, loaded, members: members.iter().map(|name| ModelName::from(*name)).collect() }
}

fn nodes(list: &[(&str, Node)]) -> Nodes {
    list.iter().map(|(name, node)| (ModelName::from(*name), node.clone())).collect()
}

fn shown(plan: &Plan) -> String {
    let names = |names: &BTreeSet<ModelName>| names.iter().map(|name| &**name).collect::<Vec<_>>().join(",");
    let broken: Vec<_> = plan.broken.iter().map(|(name, member)| format!("{name}<{member}")).collect();
    let rounds: Vec<_> = plan.rounds.iter().map(names).collect();
    format!("unload {} broken {} load {}", names(&plan.unload), broken.join(","), rounds.join(" "))
}

#[test]
fn a_start_loads_members_first() {
    let all = nodes(&[
        ("a", node(true, true, false, &[])),
        ("b", node(true, true, false, &[])),
        ("inner", node(true, true, false, &["a"])),
        ("outer", node(true, true, false, &["b", "inner"])),
    ]);
    assert_eq!(shown(&plan(&all)), "unload  broken  load a,b inner outer");
}

#[test]
fn a_changed_member_reloads_what_is_composed_of_it_and_nothing_else() {
    let all = nodes(&[
        ("a", node(true, true, true, &[])),
        ("b", node(true, false, true, &[])),
        ("other", node(true, false, true, &["b"])),
        ("outer", node(true, false, true, &["a", "b"])),
    ]);
    assert_eq!(shown(&plan(&all)), "unload  broken  load a outer");
}

#[test]
fn who_loses_a_member_goes_and_comes_back_with_it() {
    let mut all = nodes(&[("a", node(false, false, true, &[])), ("outer", node(true, false, true, &["a"]))]);
    assert_eq!(shown(&plan(&all)), "unload a broken outer<a load ");
    all.insert("a".into(), node(true, true, false, &[]));
    all.insert("outer".into(), node(true, false, false, &["a"]));
    assert_eq!(shown(&plan(&all)), "unload  broken  load a outer");
    all.insert("a".into(), node(true, false, false, &[]));
    assert_eq!(shown(&plan(&all)), "unload  broken outer<a load ", "a failed load is not repeated");
}

#[test]
fn what_is_composed_of_itself_or_of_nothing_known_is_broken() {
    let all = nodes(&[
        ("a", node(true, true, false, &["b"])),
        ("b", node(true, true, false, &["a"])),
        ("c", node(true, true, false, &["nope"])),
        ("d", node(true, true, false, &[])),
    ]);
    let plan = plan(&all);
    assert_eq!(plan.broken.keys().map(|name| &**name).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(plan.rounds, [BTreeSet::from(["d".into()])]);
}

#[test]
fn dependents_go_unless_they_were_asked_for_or_are_still_in_use() {
    let all = nodes(&[
        ("a", node(true, false, true, &[])),
        ("b", node(true, false, true, &[])),
        ("c", node(true, false, true, &[])),
        ("deep", node(true, false, true, &[])),
        ("inner", node(true, false, true, &["deep"])),
        ("other", node(true, false, true, &["b"])),
        ("outer", node(true, false, true, &["a", "b", "c", "inner"])),
    ]);
    let gone = dependents(&"outer".into(), &all, |name| name == "c");
    assert_eq!(gone.iter().map(|name| &**name).collect::<Vec<_>>(), ["a", "deep", "inner"]);
}

fn names() -> impl Strategy<Value = BTreeSet<ModelName>> {
    proptest::collection::btree_set(0u8..9, 0..3).prop_map(|set| set.iter().map(|n| n.to_string().into()).collect())
}

fn repository() -> impl Strategy<Value = Nodes> {
    let node = (any::<bool>(), any::<bool>(), any::<bool>(), names())
        .prop_map(|(rarely, changed, loaded, members)| Node { wanted: rarely || changed, changed, loaded, members });
    proptest::collection::vec(node, 0..8)
        .prop_map(|list| list.into_iter().enumerate().map(|(index, node)| (index.to_string().into(), node)).collect())
}

proptest! {
    #[test]
    fn a_plan_is_whole_and_in_order(nodes in repository()) {
        let plan = plan(&nodes);
        let round_of = |name: &ModelName| plan.rounds.iter().position(|round| round.contains(name));
        let serves_after = |name: &ModelName| {
            let stays = nodes.get(name).is_some_and(|node| node.loaded && node.wanted) && !plan.broken.contains_key(name);
            round_of(name).is_some() || stays
        };
        for (name, node) in &nodes {
            let ways = [plan.unload.contains(name), plan.broken.contains_key(name), round_of(name).is_some()];
            prop_assert!(ways.iter().filter(|way| **way).count() <= 1, "{name} goes two ways");
            prop_assert_eq!(plan.unload.contains(name), node.loaded && !node.wanted);
            if serves_after(name) && node.wanted {
                prop_assert!(node.members.iter().all(serves_after), "{name} serves without a member");
            }
            if let Some(member) = plan.broken.get(name) {
                prop_assert!(node.wanted && node.members.contains(member) && !serves_after(member) , "{name} misses nothing");
            }
            let is_due = node.wanted && !plan.broken.contains_key(name);
            let has_cause = node.changed || node.members.iter().any(|member| round_of(member).is_some());
            prop_assert_eq!(round_of(name).is_some(), is_due && has_cause, "{} is loaded just when there is a cause", name);
            for member in &node.members {
                if let (Some(before), Some(after)) = (round_of(member), round_of(name)) {
                    prop_assert!(before < after, "{name} is loaded before its member {member}");
                }
            }
        }
    }

    #[test]
    fn a_plan_that_was_carried_out_leaves_nothing_to_do(mut nodes in repository()) {
        let first = plan(&nodes);
        for (name, node) in &mut nodes {
            let loads = first.rounds.iter().any(|round| round.contains(name));
            node.loaded = loads || (node.loaded && node.wanted && !first.broken.contains_key(name));
            node.changed = false;
        }
        let second = plan(&nodes);
        prop_assert!(second.unload.is_empty() && second.rounds.is_empty(), "{second:?}");
        let still: Vec<_> = second.broken.keys().collect();
        prop_assert_eq!(still, first.broken.keys().collect::<Vec<_>>());
    }
}
