//! [`Lender`]: a BpfProgram whose maps others use; and the borrowers that use them. IO: none.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kube::{Resource as _, ResourceExt as _, core::DeserializeGuard};
use sockeye_crds::{BpfProgram, BpfProgramSpec, BpfRevision, program::MapSpec, target::AttachTarget};

/// A BpfProgram that others name as the lender of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lender {
    /// There is no such BpfProgram.
    Missing,
    /// None of its specs was accepted yet.
    NotDispatched,
    /// By its current revision it shares these maps.
    Sharing(BTreeSet<String>),
}

impl Lender {
    /// Returns the lender that has this current revision.
    pub fn of(current: &BpfRevision) -> Self {
        Self::Sharing(shared_maps(current).map(str::to_owned).collect())
    }
}

/// Lists the maps that a revision shares.
pub fn shared_maps(revision: &BpfRevision) -> impl Iterator<Item = &str> {
    revision.spec.template.maps.iter().filter(|map| map.is_shared()).map(|map| map.name.as_str())
}

/// Lists the names of the BpfPrograms from which a spec borrows maps, or to whose maps it attaches programs.
pub fn lenders(spec: &BpfProgramSpec) -> impl Iterator<Item = &str> {
    lenders_of(&spec.maps, spec.attach.iter().chain(spec.programs.iter().flat_map(|program| &program.attach)))
}

/// Lists the lenders of a revision's maps.
pub fn lenders_of_revision(revision: &BpfRevision) -> impl Iterator<Item = &str> {
    let template = &revision.spec.template;
    lenders_of(&template.maps, template.targets())
}

fn lenders_of<'a>(
    maps: &'a [MapSpec],
    targets: impl Iterator<Item = &'a AttachTarget>,
) -> impl Iterator<Item = &'a str> {
    let used = maps.iter().filter_map(|map| Some(map.map_ref.as_ref()?.program.as_str()));
    used.chain(targets.filter_map(|target| target.map()?.program.as_deref()))
}

/// Lists the BpfPrograms whose current revisions use a map of the lender. A spec that was not accepted uses none.
pub(super) fn borrowers(
    lender: &str,
    programs: &[Arc<DeserializeGuard<BpfProgram>>],
    revisions: &[Arc<DeserializeGuard<BpfRevision>>],
) -> Vec<String> {
    let mut current: BTreeMap<&str, &BpfRevision> = BTreeMap::new();
    for revision in revisions.iter().filter_map(|revision| revision.0.as_ref().ok()).filter(|one| one.is_live()) {
        let slot = current.entry(&revision.spec.program_ref.uid).or_insert(revision);
        if revision.spec.sequence > slot.spec.sequence {
            *slot = revision;
        }
    }
    let uses = |revision: &&BpfRevision| lenders_of_revision(revision).any(|name| name == lender);
    let borrows = |program: &DeserializeGuard<BpfProgram>| {
        program.meta().uid.as_deref().and_then(|uid| current.get(uid)).is_some_and(uses)
    };
    let others = programs.iter().filter(|program| program.meta().name.as_deref() != Some(lender));
    let kept = others.filter(|program| program.meta().deletion_timestamp.is_none());
    let mut names: Vec<String> = kept.filter(|program| borrows(program)).map(|program| program.name_any()).collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn maps(lender: Option<&str>) -> Value {
        lender.map_or(json!([]), |name| json!([{"name": "m", "mapRef": {"program": name, "name": "m"}}]))
    }

    fn program(name: &str, lender: Option<&str>) -> Value {
        json!({"apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfProgram", "metadata": {"name": name, "uid": name},
            "spec": {"bytecode": {"builtin": "tcp-events"}, "programs": [], "maps": maps(lender)}})
    }

    fn revision(of: &str, sequence: i64, state: &str, lender: Option<&str>) -> Value {
        let object = json!({"programs": [], "maps": [], "license": "GPL", "btf": true});
        let template = json!({"digest": "", "object": object, "programs": [], "maps": maps(lender)});
        json!({"apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfRevision",
            "metadata": {"name": format!("{of}-{sequence}")},
            "spec": {"state": state, "programRef": {"name": of, "uid": of}, "programGeneration": 1,
                "sequence": sequence, "template": template}})
    }

    fn borrowers_of_a(programs: &[Value], revisions: &[Value]) -> Vec<String> {
        fn read<K: serde::de::DeserializeOwned>(values: &[Value]) -> Vec<Arc<K>> {
            values.iter().map(|value| Arc::new(serde_json::from_value(value.clone()).unwrap())).collect()
        }
        let revisions: Vec<Arc<DeserializeGuard<BpfRevision>>> = read(revisions);
        assert!(revisions.iter().all(|revision| revision.0.is_ok()), "{revisions:?}");
        borrowers("a", &read(programs), &revisions)
    }

    #[test]
    fn a_program_borrows_a_map_by_its_current_revision_alone() {
        let (b, c) = (revision("b", 1, "Active", Some("a")), revision("c", 1, "Active", Some("a")));
        assert_eq!(borrowers_of_a(&[program("c", Some("a")), program("b", Some("a"))], &[b.clone(), c]), ["b", "c"]);
        assert!(borrowers_of_a(&[program("b", Some("a"))], &[]).is_empty(), "its spec was not accepted");
        let after_edit = |revisions: &[Value]| borrowers_of_a(&[program("b", None)], revisions);
        assert_eq!(after_edit(std::slice::from_ref(&b)), ["b"], "the edit was refused");
        assert!(after_edit(&[b.clone(), revision("b", 2, "Active", None)]).is_empty(), "the edit was accepted");
        assert_eq!(after_edit(&[b, revision("b", 2, "Retired", None)]), ["b"]);
        assert!(after_edit(&[revision("b", 1, "Retired", Some("a"))]).is_empty());
        assert!(after_edit(&[revision("d", 1, "Active", Some("a"))]).is_empty(), "its BpfProgram is gone");
    }

    #[test]
    fn a_program_that_is_attached_to_a_map_borrows_it() {
        let mut attached = revision("b", 1, "Active", None);
        let map = json!({"type": "Map", "map": {"name": "m", "program": "a"}});
        attached["spec"]["template"]["programs"] = json!([{"name": "f", "attach": [{"type": "Node"}, map]}]);
        assert_eq!(borrowers_of_a(&[program("b", None)], &[attached]), ["b"]);
    }

    #[test]
    fn an_unreadable_program_borrows_by_its_current_revision() {
        let mut broken = program("b", None);
        broken["spec"] = json!({"programs": 7});
        assert_eq!(borrowers_of_a(&[broken], &[revision("b", 1, "Active", Some("a"))]), ["b"]);
    }

    #[test]
    fn a_program_that_is_being_deleted_borrows_nothing() {
        let mut deleted = program("b", Some("a"));
        deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        let running = [revision("b", 1, "Active", Some("a")), revision("a", 1, "Active", Some("a"))];
        assert!(borrowers_of_a(&[deleted, program("a", Some("a"))], &running).is_empty());
    }
}
