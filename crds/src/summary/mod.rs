//! Computes `BpfProgram.status` from all BpfNodes. No IO: the operator and an agent without a cluster print the same
//! status.
//!
//! | module | noun |
//! |---|---|
//! | [`input`] | the BpfProgram and the nodes that a status is computed from |
//! | [`placement`] | the state of the program on one node |
//! | [`conditions`] | the conditions, from the states on all nodes |
//! | [`columns`] | the counts, the columns of `kubectl get` and the listed placements, from the states on all nodes |
//!
//! Guarantees:
//! - The same input gives the same status, to the byte, in whatever order the nodes come.
//! - Folding a status onto itself changes nothing.
//! - Nodes that are not live are counted. They delay neither `Attached` nor a deletion.

mod columns;
mod conditions;
mod input;
mod placement;
#[cfg(test)]
mod tests;
mod text;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use crate::{
    BpfProgramStatus, condition,
    program::{Dispatch, NodeCounts, Summary},
    revision::ProgramRef,
};
pub use columns::MAX_PLACEMENTS;
pub use conditions::MAX_QUOTED;
pub use input::{Acceptance, Liveness, NodeView, Subject};

/// Returns the status of a BpfProgram, computed from the reports of all nodes.
pub fn fold(
    subject: &Subject<'_>,
    nodes: &[NodeView<'_>],
    previous: &BpfProgramStatus,
    now: Timestamp,
) -> BpfProgramStatus {
    let Subject { program, generation, acceptance: _, dispatched, users: _ } = *subject;
    let placed = dispatched.map(|revision| placement::of(program, revision, nodes)).unwrap_or_default();
    let counts = columns::counts(&placed);
    let conditions = conditions::of(subject, &counts, &placed);
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
        conditions: condition::merge(&previous.conditions, conditions, generation, now),
    }
}

/// Returns the status of a BpfProgram that is being deleted: the nodes that still hold it.
pub fn fold_deletion(
    program: &ProgramRef,
    generation: i64,
    nodes: &[NodeView<'_>],
    previous: &BpfProgramStatus,
    now: Timestamp,
) -> BpfProgramStatus {
    let placed = placement::holders(program, nodes);
    let conditions = conditions::of_deletion(&previous.conditions, &placed);
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
        conditions: condition::merge(&previous.conditions, conditions, generation, now),
    }
}

/// Returns the names of the live nodes that hold the BpfProgram. A deletion waits for them and for no others.
pub fn holders<'a>(program: &ProgramRef, nodes: &[NodeView<'a>]) -> Vec<&'a str> {
    placement::holders(program, nodes).iter().map(|placed| placed.node).collect()
}

/// Returns the names of the nodes that are not live and whose last report says that they hold the BpfProgram. A
/// deletion does not wait for them.
pub fn absent_holders<'a>(program: &ProgramRef, nodes: &[NodeView<'a>]) -> Vec<&'a str> {
    let absent = nodes.iter().filter(|node| node.liveness != Liveness::Live);
    let mut names: Vec<&str> =
        absent.filter(|node| placement::find(program, node.report).0.is_some()).map(|node| node.name).collect();
    names.sort_unstable();
    names
}
