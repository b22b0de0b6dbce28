//! Finds cycles among an ensemble's steps.

/// Every step that is on a cycle, as one list per cycle, in the direction of the data; steps that share a cycle are
/// reported once. `before[s]` are the steps whose outputs step `s` takes.
pub(super) fn cycles(before: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut done = vec![false; before.len()];
    let mut found = Vec::new();
    loop {
        // What only waits for steps that are done can run.
        while let Some(step) = (0..before.len()).find(|step| !done[*step] && before[*step].iter().all(|b| done[*b])) {
            done[step] = true;
        }
        let Some(first) = done.iter().position(|done| !done) else { return found };
        let cycle = walk_back(before, &done, first);
        cycle.iter().for_each(|step| done[*step] = true);
        found.push(cycle);
    }
}

/// From a step that cannot run, walks against the data until a step comes up twice.
fn walk_back(before: &[Vec<usize>], done: &[bool], first: usize) -> Vec<usize> {
    let mut path = vec![first];
    loop {
        let last = path[path.len() - 1];
        let blocked_by = before[last].iter().find(|step| !done[**step]);
        let step = *blocked_by.expect("invariant: a step that cannot run waits for another one that cannot");
        if let Some(start) = path.iter().position(|seen| *seen == step) {
            let mut cycle = path.split_off(start);
            cycle.reverse();
            return cycle;
        }
        path.push(step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_each_cycle_once() {
        assert!(cycles(&[vec![], vec![0], vec![0, 1]]).is_empty());
        assert_eq!(cycles(&[vec![0]]), [vec![0]]);
        assert_eq!(cycles(&[vec![2], vec![0], vec![1], vec![2]]), [vec![1, 2, 0]]);
        assert_eq!(cycles(&[vec![1], vec![0], vec![3], vec![2]]).len(), 2);
    }
}
