//! Computes `BpfProgram.status` from all BpfNodes. No IO: the operator and an agent without a cluster print the same
//! status.
//!
//! | module | noun |
//! |---|---|
//! | [`input`] | the BpfProgram and the nodes that a status is computed from |
//! | [`placement`] | the state of the program on one node |
//! | [`conditions`] | the conditions, from the states on all nodes |
//! | [`columns`] | the counts, the columns of `kubectl get` and the listed nodes, from the states on all nodes |
//!
//! Guarantees:
//! - The same input gives the same status, to the byte, in whatever order the nodes come.
//! - Folding a status onto itself changes nothing.
//! - A status has less than 128 KiB as JSON, whatever the nodes report.
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
    BpfProgramStatus, ObjectInfo, RevisionTemplate, condition,
    program::{BytecodeStatus, CurrentRevision, NodeCounts},
    revision::ProgramRef,
    size,
};
pub use columns::MAX_NODES;
pub use conditions::{MAX_QUOTED, without_warnings};
pub use input::{Acceptance, Liveness, NodeView, Subject};

/// The maximum size of the object's description in a status, in bytes of JSON.
const MAX_OBJECT_BYTES: usize = 24 << 10;

/// Returns the status of a BpfProgram, computed from the reports of all nodes.
pub fn fold(
    subject: &Subject<'_>,
    nodes: &[NodeView<'_>],
    previous: &BpfProgramStatus,
    now: Timestamp,
) -> BpfProgramStatus {
    let Subject { program, generation, acceptance: _, current, users: _ } = *subject;
    let placed = current.map(|revision| placement::of(program, revision, nodes)).unwrap_or_default();
    let counts = columns::counts(&placed);
    let conditions = conditions::of(subject, &counts, &placed);
    let name = current.map(|revision| revision.name_any());
    let (node_statuses, node_statuses_omitted) = columns::node_statuses(&placed, name.as_deref());
    BpfProgramStatus {
        observed_generation: Some(generation),
        current_revision: current.map(|revision| CurrentRevision {
            name: revision.name_any(),
            program_generation: revision.spec.program_generation,
            digest: revision.spec.template.digest.clone(),
        }),
        bytecode: current.and_then(|revision| bytecode(&revision.spec.template)),
        object: current.map(|revision| &revision.spec.template.object).filter(|object| is_short(object)).cloned(),
        summary: current.map(|revision| columns::summary(columns::program_type(revision), current, &placed)),
        nodes: Some(counts),
        entries: columns::entries(&placed),
        node_statuses,
        node_statuses_omitted,
        conditions: condition::merge(&previous.conditions, conditions, generation, now),
    }
}

/// Returns the origin of an object, if there is anything to say of it.
fn bytecode(template: &RevisionTemplate) -> Option<BytecodeStatus> {
    let image = template.image.clone();
    let (image_reference, image_digest) = image.map(|image| (image.reference, image.digest)).unzip();
    let architectures = template.variants.iter().map(|variant| variant.architecture.clone()).collect();
    let signed_by = template.signed_by.clone();
    let is_known = image_digest.is_some() || !signed_by.is_empty();
    is_known.then_some(BytecodeStatus { image_reference, image_digest, architectures, signed_by })
}

fn is_short(object: &ObjectInfo) -> bool {
    size::json_len(object) <= MAX_OBJECT_BYTES
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
    let (node_statuses, node_statuses_omitted) = columns::node_statuses(&placed, None);
    let program_type = previous.summary.as_ref().map(|summary| summary.program_type.clone()).unwrap_or_default();
    BpfProgramStatus {
        observed_generation: Some(generation),
        current_revision: None,
        bytecode: previous.bytecode.clone(),
        object: previous.object.clone(),
        nodes: Some(NodeCounts { attached: columns::attached(&placed), ..NodeCounts::default() }),
        entries: None,
        summary: Some(columns::summary(program_type, None, &placed)),
        node_statuses,
        node_statuses_omitted,
        conditions: condition::merge(&previous.conditions, conditions, generation, now),
    }
}

/// Returns the names of the live nodes that hold the BpfProgram, or have not reported yet. A deletion waits for them and
/// for no others.
pub fn holders<'a>(program: &ProgramRef, nodes: &[NodeView<'a>]) -> Vec<&'a str> {
    placement::holders(program, nodes).iter().map(|placed| placed.node).collect()
}

/// Returns the names of the nodes that are not live and whose last report says that they hold the BpfProgram. A
/// deletion does not wait for them.
pub fn absent_holders<'a>(program: &ProgramRef, nodes: &[NodeView<'a>]) -> Vec<&'a str> {
    let absent = nodes.iter().filter(|node| node.liveness != Liveness::Live);
    let mut names: Vec<&str> = absent.filter(|node| node.program(program).is_some()).map(|node| node.name).collect();
    names.sort_unstable();
    names
}
