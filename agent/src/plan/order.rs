//! The attach order: the order in which BpfPrograms run at one cgroup and attach type. Pure.
//!
//! The kernel runs the programs of a cgroup in the order of its list, in which an attachment may name its position
//! (`BPF_F_BEFORE`, Linux 6.17). Lower priorities run first, and of equal ones those whose BpfProgram came to the node
//! first, so that the order is the same again after everything was detached. A link keeps its position when its program
//! is replaced, and gets another only by being attached anew. So as few links as possible move: those of one longest
//! sequence that is in order stay.

use std::collections::BTreeSet;

use crate::model::observed::LinkKey;

/// A link of any BpfProgram at a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The BpfProgram.
    pub program: String,
    /// The link.
    pub key: LinkKey,
    /// The BpfProgram's rank: lower ones run first.
    pub rank: Rank,
}

/// A BpfProgram's place among others: its priority, and the time at which it came to the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// The priority.
    pub priority: i64,
    /// The time, in microseconds since 1970; 0 where no note tells it.
    pub claimed: u64,
}

/// Returns the indices of the links that are to move.
pub fn misplaced(attach_order: &[Neighbour]) -> BTreeSet<usize> {
    // The longest sequence in order, in quadratic time: a cgroup holds at most 64 programs of a type. `best[i]` is the
    // length of the longest sequence that ends with `i`, and the index before `i` in it.
    let mut best: Vec<(usize, Option<usize>)> = Vec::with_capacity(attach_order.len());
    for (i, link) in attach_order.iter().enumerate() {
        let before = (0..i).filter(|&j| attach_order[j].rank <= link.rank).max_by_key(|&j| best[j].0);
        best.push((before.map_or(0, |j| best[j].0) + 1, before));
    }
    let mut misplaced: BTreeSet<usize> = (0..attach_order.len()).collect();
    let mut next = (0..attach_order.len()).max_by_key(|&i| best[i].0);
    while let Some(i) = next {
        misplaced.remove(&i);
        next = best[i].1;
    }
    misplaced
}

/// Returns whether a link is to move.
pub fn is_misplaced(attach_order: &[Neighbour], program: &str, key: &LinkKey) -> bool {
    let own = attach_order.iter().position(|link| link.program == program && link.key == *key);
    own.is_some_and(|own| misplaced(attach_order).contains(&own))
}

/// Returns the links before which a link with this rank is to be attached, in their order; none means last.
pub fn successors(attach_order: &[Neighbour], program: &str, key: &LinkKey, rank: Rank) -> Vec<Neighbour> {
    let misplaced = misplaced(attach_order);
    let staying = attach_order.iter().enumerate().filter(|(i, _)| !misplaced.contains(i)).map(|(_, link)| link);
    let others = staying.filter(|link| link.program != program || link.key != *key);
    others.filter(|link| link.rank > rank).cloned().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn attach_order(priorities: &[i64]) -> Vec<Neighbour> {
        let key = || LinkKey { function: "f".into(), place: "1".into() };
        let link = |(i, &priority): (usize, &i64)| Neighbour {
            program: format!("p{i}"),
            key: key(),
            rank: Rank { priority, claimed: 0 },
        };
        priorities.iter().enumerate().map(link).collect()
    }

    #[test]
    fn links_in_order_are_not_misplaced() {
        assert!(misplaced(&attach_order(&[])).is_empty());
        assert!(misplaced(&attach_order(&[1, 1, 500, 500, 1000])).is_empty());
        assert_eq!(misplaced(&attach_order(&[500, 500, 100, 500])), [2].into());
        assert_eq!(misplaced(&attach_order(&[900, 100, 200, 300])), [0].into());
    }

    #[test]
    fn a_new_link_goes_before_the_first_link_of_higher_priority_value() {
        let key = LinkKey { function: "g".into(), place: "1".into() };
        let before = |priorities: &[i64], priority| {
            let rank = Rank { priority, claimed: 1 };
            let successors = successors(&attach_order(priorities), "new", &key, rank);
            successors.into_iter().map(|link| link.program).collect::<Vec<_>>()
        };
        assert!(before(&[], 500).is_empty() && before(&[100, 500, 900], 900).is_empty());
        assert_eq!(before(&[100, 500, 900], 500), ["p2"]);
        assert_eq!(before(&[100, 500, 900], 50), ["p0", "p1", "p2"]);
    }

    #[test]
    fn a_link_that_comes_back_goes_before_those_that_came_to_the_node_later() {
        let ranked =
            |claimed: u64| Neighbour { rank: Rank { priority: 500, claimed }, ..attach_order(&[0])[0].clone() };
        let (later, earlier) = ([ranked(1), ranked(3)], [ranked(1), ranked(1)]);
        let key = LinkKey { function: "g".into(), place: "1".into() };
        let back = Rank { priority: 500, claimed: 2 };
        assert_eq!(successors(&later, "back", &key, back), later[1..]);
        assert_eq!(successors(&earlier, "back", &key, back), []);
        assert_eq!(misplaced(&[ranked(3), ranked(1)]).len(), 1);
    }

    proptest! {
        /// From any order, one move of each misplaced link puts all links in order.
        #[test]
        fn moving_each_misplaced_link_once_puts_all_in_order(
            priorities in prop::collection::vec(0..4i64, 0..12),
            pick in any::<usize>(),
        ) {
            let mut attach_order = attach_order(&priorities);
            for left in (0..misplaced(&attach_order).len()).rev() {
                let movable: Vec<usize> = misplaced(&attach_order).into_iter().collect();
                let moved = movable[pick % movable.len()];
                let moving = attach_order[moved].clone();
                let before = successors(&attach_order, &moving.program, &moving.key, moving.rank);
                attach_order.remove(moved);
                let index = |link: &Neighbour| attach_order.iter().position(|other| other == link).unwrap();
                let at = before.first().map_or(attach_order.len(), index);
                attach_order.insert(at, moving);
                prop_assert_eq!(misplaced(&attach_order).len(), left);
            }
            prop_assert!(attach_order.is_sorted_by_key(|link| link.rank), "{attach_order:?}");
        }
    }
}
