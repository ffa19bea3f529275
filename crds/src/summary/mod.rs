//! `BpfNode`s folded into `BpfProgram.status`: pure, so that the operator and an agent without a cluster print the same.
//!
//! | module | noun |
//! |---|---|
//! | [`standing`] | how the program stands on one node |
//! | [`verdict`] | what the standings make of the conditions |
//! | [`columns`] | what the standings make of counts, columns and placements |
//!
//! Guarantees: the same input gives the same status, to the byte, whatever the order of the nodes; folding a status onto
//! itself changes nothing; nodes that are not live are counted and hold up neither `Attached` nor a deletion.

mod columns;
mod standing;
#[cfg(test)]
mod tests;
mod verdict;

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use crate::{
    BpfNodeStatus, BpfProgramStatus, BpfRevision, Reason, condition, names,
    program::{Dispatch, NodeCounts, Summary},
    revision::ProgramRef,
};
use standing::Placed;
pub use verdict::MAX_QUOTED;

/// A status lists at most so many placements.
pub const MAX_PLACEMENTS: usize = 64;

/// A node as the fold sees it.
#[derive(Clone, Copy, Debug)]
pub struct NodeView<'a> {
    /// The node's name.
    pub name: &'a str,
    /// The Node's labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Whether its word can be relied on.
    pub liveness: Liveness,
    /// What its agent said last.
    pub report: Option<&'a BpfNodeStatus>,
}

/// Whether a node's word can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// The Node is Ready and so is its agent's pod.
    Live,
    /// The Node is not Ready, or its agent's pod is not: what runs there is not known.
    Unknown,
    /// The Node is Ready and has no agent's pod.
    WithoutAgent,
}

/// Whether the latest spec was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// It was, and what was dispatched says what it says.
    Accepted {
        /// What a user should know nevertheless, e.g. a pinning in the ELF that is ignored.
        notes: Vec<String>,
    },
    /// It was refused; what was dispatched before stays.
    Refused {
        /// Why, in one word.
        reason: Reason,
        /// Why, in words.
        message: String,
    },
}

/// What a status is about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The BpfProgram, by name and UID.
    pub program: &'a ProgramRef,
    /// Its latest generation.
    pub generation: i64,
    /// What became of that generation.
    pub acceptance: &'a Acceptance,
    /// What agents were told to run: the last accepted spec, if there was one.
    pub dispatched: Option<&'a BpfRevision>,
    /// Where it is to be deleted: the other BpfPrograms that use its maps, for which that waits, by name.
    pub users: &'a [String],
}

/// The status of a BpfProgram, from what its nodes say.
pub fn fold(
    subject: &Subject<'_>,
    nodes: &[NodeView<'_>],
    previous: &BpfProgramStatus,
    now: Timestamp,
) -> BpfProgramStatus {
    let Subject { program, generation, acceptance, dispatched, users } = *subject;
    let placed = dispatched.map(|revision| standing::of(program, revision, nodes)).unwrap_or_default();
    let counts = columns::counts(&placed);
    let verdicts = verdict::verdicts(acceptance, dispatched, users, &counts, &placed);
    let (placements, omitted) = columns::placements(&placed, dispatched);
    BpfProgramStatus {
        observed_generation: generation,
        dispatch: dispatched.map(|revision| Dispatch {
            revision: revision.name_any(),
            generation: revision.spec.generation,
            digest: revision.spec.digest.clone(),
        }),
        object: dispatched.map(|revision| revision.spec.object.clone()),
        summary: dispatched.map(|revision| columns::summary(revision, &counts, &placed)).unwrap_or_default(),
        nodes: counts,
        placements,
        omitted,
        conditions: condition::merge(&previous.conditions, verdicts, generation, now),
    }
}

/// The status of a BpfProgram that is being deleted: what is left of it, and where.
pub fn fold_deletion(
    program: &ProgramRef,
    generation: i64,
    nodes: &[NodeView<'_>],
    previous: &BpfProgramStatus,
    now: Timestamp,
) -> BpfProgramStatus {
    let placed = standing::leftovers(program, nodes);
    let verdicts = verdict::deletion(&previous.conditions, &placed);
    let (placements, omitted) = columns::placements(&placed, None);
    BpfProgramStatus {
        observed_generation: generation,
        dispatch: None,
        object: previous.object.clone(),
        nodes: NodeCounts { attached: columns::attached(&placed), ..NodeCounts::default() },
        summary: Summary {
            program_type: previous.summary.program_type.clone(),
            nodes: String::new(),
            program_ids: columns::program_ids(&placed),
            map_ids: columns::map_ids(&placed),
        },
        placements,
        omitted,
        conditions: condition::merge(&previous.conditions, verdicts, generation, now),
    }
}

/// The live nodes that report this very BpfProgram, by name: a deletion waits for these and for no others.
pub fn holders<'a>(program: &ProgramRef, nodes: &[NodeView<'a>]) -> Vec<&'a str> {
    standing::leftovers(program, nodes).iter().map(|placed| placed.node).collect()
}

/// The nodes that are not live and whose last word is that they hold this very BpfProgram, by name: nobody waits for them.
pub fn absent_holders<'a>(program: &ProgramRef, nodes: &[NodeView<'a>]) -> Vec<&'a str> {
    let absent = nodes.iter().filter(|node| node.liveness != Liveness::Live);
    let mut names: Vec<&str> =
        absent.filter(|node| standing::find(program, node.report).0.is_some()).map(|node| node.name).collect();
    names.sort_unstable();
    names
}

/// The first few of many, then how many more: "a, b, c, +4".
fn few<'a>(items: impl IntoIterator<Item = &'a str>, most: usize, separator: &str) -> String {
    let mut items = items.into_iter();
    let mut text = items.by_ref().take(most).collect::<Vec<_>>().join(separator);
    let more = items.count();
    if more > 0 {
        text += &format!("{separator}+{more}");
    }
    text
}

/// What a node said of its failure, in its own words where it gave any.
fn words(placed: &Placed<'_>, reason: Reason) -> String {
    match placed.message() {
        Some(message) if !message.trim().is_empty() => names::clip(message.trim(), 512),
        _ => reason.as_str(),
    }
}
