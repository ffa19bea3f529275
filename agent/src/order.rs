//! Order: where a program runs among others of ours at one cgroup and attach type. Pure.
//!
//! The kernel runs what is attached to a cgroup in the order of its list, which an attachment may name a place in
//! (`BPF_F_BEFORE`, Linux 6.17). Lower priorities stand first, equal ones as they were attached. A link keeps its place when
//! its program is replaced; it gets another only by being attached anew, so as few as possible move: one of the longest
//! sequences that are in order already stays.

use std::collections::BTreeSet;

use crate::held::LinkKey;

/// A link of ours at some cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The BpfProgram.
    pub program: String,
    /// Which of its links.
    pub key: LinkKey,
    /// Lower ones run first.
    pub priority: i64,
}

/// Those of a line that are to move, as indices.
pub fn astray(line: &[Neighbour]) -> BTreeSet<usize> {
    // A cgroup holds 64 programs of a type at most, so that the square of it is little. `best[i]` is the length of the
    // longest sequence in order that ends with `i`, and what is before `i` in it.
    let mut best: Vec<(usize, Option<usize>)> = Vec::with_capacity(line.len());
    for (i, one) in line.iter().enumerate() {
        let before = (0..i).filter(|&j| line[j].priority <= one.priority).max_by_key(|&j| best[j].0);
        best.push((before.map_or(0, |j| best[j].0) + 1, before));
    }
    let mut astray: BTreeSet<usize> = (0..line.len()).collect();
    let mut next = (0..line.len()).max_by_key(|&i| best[i].0);
    while let Some(i) = next {
        astray.remove(&i);
        next = best[i].1;
    }
    astray
}

/// Whether a link is to move.
pub fn is_astray(line: &[Neighbour], program: &str, key: &LinkKey) -> bool {
    let own = line.iter().position(|one| one.program == program && one.key == *key);
    own.is_some_and(|own| astray(line).contains(&own))
}

/// What a link of that priority is to be attached before; nothing where it goes to the end.
pub fn successor<'a>(line: &'a [Neighbour], program: &str, key: &LinkKey, priority: i64) -> Option<&'a Neighbour> {
    let astray = astray(line);
    let staying = line.iter().enumerate().filter(|(i, _)| !astray.contains(i)).map(|(_, one)| one);
    staying.filter(|one| one.program != program || one.key != *key).find(|one| one.priority > priority)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(priorities: &[i64]) -> Vec<Neighbour> {
        let key = || LinkKey { function: "f".into(), place: "1".into() };
        let one = |(i, &priority): (usize, &i64)| Neighbour { program: format!("p{i}"), key: key(), priority };
        priorities.iter().enumerate().map(one).collect()
    }

    #[test]
    fn what_is_in_order_stays() {
        assert!(astray(&line(&[])).is_empty());
        assert!(astray(&line(&[1, 1, 500, 500, 1000])).is_empty());
        assert_eq!(astray(&line(&[500, 500, 100, 500])), [2].into());
        assert_eq!(astray(&line(&[900, 100, 200, 300])), [0].into());
    }

    #[test]
    fn a_new_one_goes_before_the_first_that_is_to_run_later() {
        let key = LinkKey { function: "g".into(), place: "1".into() };
        let before = |priorities: &[i64], priority| {
            successor(&line(priorities), "new", &key, priority).map(|one| one.program.clone())
        };
        assert_eq!(before(&[], 500), None);
        assert_eq!(before(&[100, 500, 900], 500), Some("p2".into()));
        assert_eq!(before(&[100, 500, 900], 50), Some("p0".into()));
        assert_eq!(before(&[100, 500, 900], 900), None);
    }

    proptest! {
        /// However they stand, moving once each of those that are astray puts all in order, and equal ones that stayed keep
        /// theirs.
        #[test]
        fn moving_the_astray_once_puts_all_in_order(priorities in prop::collection::vec(0..4i64, 0..12), pick in any::<usize>()) {
            let mut line = line(&priorities);
            for left in (0..astray(&line).len()).rev() {
                let stray: Vec<usize> = astray(&line).into_iter().collect();
                let stray = stray[pick % stray.len()];
                let moving = line[stray].clone();
                let before = successor(&line, &moving.program, &moving.key, moving.priority).cloned();
                line.remove(stray);
                let at = before.map_or(line.len(), |before| line.iter().position(|one| *one == before).unwrap());
                line.insert(at, moving);
                prop_assert_eq!(astray(&line).len(), left);
            }
            prop_assert!(line.is_sorted_by_key(|one| one.priority), "{line:?}");
        }
    }
}
