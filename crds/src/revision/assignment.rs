//! The revisions that a node is to run: a pure function of the revisions and the node's labels.

use std::collections::BTreeMap;

use super::BpfRevision;

/// Returns the revisions that a node with these labels is to run, by the BpfProgram's name: of the live ones that
/// select the node, the one with the highest sequence. Just after a BpfProgram was re-created, live revisions of two
/// UIDs can exist; their sequences go on, so the younger BpfProgram's wins.
pub fn assigned<'a>(
    revisions: impl IntoIterator<Item = &'a BpfRevision>,
    labels: &BTreeMap<String, String>,
) -> BTreeMap<&'a str, &'a BpfRevision> {
    let mut assigned: BTreeMap<&str, &BpfRevision> = BTreeMap::new();
    for revision in revisions.into_iter().filter(|r| r.is_live() && r.spec.template.selects(labels)) {
        let slot = assigned.entry(&revision.spec.program_ref.name).or_insert(revision);
        if revision.spec.sequence > slot.spec.sequence {
            *slot = revision;
        }
    }
    assigned
}
