//! [`Stores`]: what the watches brought, for readers. IO: none; memory.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Resource as _, ResourceExt as _,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::reflector::{ObjectRef, Store, store::WriterDropped},
};
use sockeye_crds::{BpfNode, BpfProgram, BpfRevision, names, program::MapSpec};

use crate::watch::{
    nodes::{Nodes, PartialNode, PartialPod},
    revisions::Revisions,
};

/// A ConfigMap without its data.
pub type ConfigMapMeta = PartialObjectMeta<ConfigMap>;

/// A reader of each watched kind. Sockeye's own kinds are guarded, so an object that cannot be read affects no other.
#[derive(Clone)]
pub struct Stores {
    /// BpfPrograms, without the copy that `kubectl apply` keeps.
    pub programs: Store<DeserializeGuard<BpfProgram>>,
    /// BpfRevisions.
    pub revisions: Store<DeserializeGuard<BpfRevision>>,
    /// BpfNodes, without the strings that no status shows.
    pub reports: Store<DeserializeGuard<BpfNode>>,
    /// Nodes.
    pub nodes: Store<PartialNode>,
    /// The agents' pods.
    pub pods: Store<PartialPod>,
    /// ConfigMaps of the release namespace, without their data.
    pub config_maps: Store<ConfigMapMeta>,
}

impl Stores {
    /// Waits until every kind was listed.
    pub async fn wait_until_ready(&self) -> Result<(), WriterDropped> {
        let Self { programs, revisions, reports, nodes, pods, config_maps } = self;
        programs.wait_until_ready().await?;
        revisions.wait_until_ready().await?;
        reports.wait_until_ready().await?;
        nodes.wait_until_ready().await?;
        pods.wait_until_ready().await?;
        config_maps.wait_until_ready().await
    }

    /// Returns the BpfProgram of this name.
    pub fn program(&self, name: &str) -> Option<Arc<DeserializeGuard<BpfProgram>>> {
        self.programs.get(&ObjectRef::new(name))
    }

    /// Lists the names of all BpfPrograms.
    pub fn program_names(&self) -> Vec<String> {
        self.programs.state().iter().map(|program| program.name_any()).collect()
    }

    /// Lists the BpfPrograms that borrow a map of the one of this name, sorted. Those that are being deleted are left
    /// out: two that borrow from each other would wait for ever.
    pub fn borrowers_of(&self, name: &str) -> Vec<String> {
        borrowers(name, &self.programs.state(), &self.revisions.state())
    }

    /// Lists the BpfPrograms whose bytes this ConfigMap holds, as a user or the operator created it.
    pub fn programs_with_bytes_in(&self, config_map: &str) -> Vec<String> {
        let has_bytes = |program: &BpfProgram| {
            let source = program.spec.bytecode.config_map.as_ref();
            let dispatch = program.status.as_ref().and_then(|status| status.dispatch.as_ref());
            source.is_some_and(|source| source.name == config_map)
                || dispatch.is_some_and(|dispatch| names::object_config_map(&dispatch.digest) == config_map)
        };
        let programs = self.programs.state();
        let matching = programs.iter().filter(|program| program.0.as_ref().is_ok_and(has_bytes));
        matching.map(|program| program.name_any()).collect()
    }

    /// Returns the revisions of the BpfProgram with this UID.
    pub fn revisions_of(&self, uid: &str) -> Revisions {
        Revisions::of(uid, self.revisions.state().iter().map(Arc::as_ref))
    }

    /// Returns the ConfigMap of this name in the release namespace.
    pub fn config_map(&self, namespace: &str, name: &str) -> Option<Arc<ConfigMapMeta>> {
        self.config_maps.get(&ObjectRef::new(name).within(namespace))
    }

    /// Lists the digests of the stored bytes.
    pub fn stored_digests(&self) -> BTreeSet<String> {
        let config_maps = self.config_maps.state();
        let kept = config_maps.iter().filter(|config_map| config_map.metadata.deletion_timestamp.is_none());
        kept.filter_map(|config_map| config_map.metadata.name.as_deref().and_then(digest_of)).collect()
    }

    /// Joins the nodes and their agents' reports.
    pub fn nodes(&self) -> Nodes {
        Nodes::new(self.nodes.state(), self.pods.state(), self.reports.state())
    }
}

/// Lists the names of the BpfPrograms from which `maps` are borrowed.
pub fn lenders(maps: &[MapSpec]) -> impl Iterator<Item = &str> {
    maps.iter().filter_map(|map| map.from.as_ref()).map(|from| from.program.as_str())
}

/// Lists the BpfPrograms that borrow a map by their latest spec, or by the revision that agents run. The latter counts
/// while an edit is rejected or cannot be read.
fn borrowers(
    lender: &str,
    programs: &[Arc<DeserializeGuard<BpfProgram>>],
    revisions: &[Arc<DeserializeGuard<BpfRevision>>],
) -> Vec<String> {
    let is_borrowed = |maps: &[MapSpec]| lenders(maps).any(|name| name == lender);
    let readable = revisions.iter().filter_map(|revision| revision.0.as_ref().ok());
    let running_uids: BTreeSet<&str> = readable
        .filter(|revision| revision.is_live() && is_borrowed(&revision.spec.maps))
        .map(|revision| revision.spec.program.uid.as_str())
        .collect();
    let borrows = |program: &DeserializeGuard<BpfProgram>| {
        program.0.as_ref().is_ok_and(|readable| is_borrowed(&readable.spec.maps))
            || program.meta().uid.as_deref().is_some_and(|uid| running_uids.contains(uid))
    };
    let others = programs.iter().filter(|program| program.meta().name.as_deref() != Some(lender));
    let kept = others.filter(|program| program.meta().deletion_timestamp.is_none());
    let mut names: Vec<String> = kept.filter(|program| borrows(program)).map(|program| program.name_any()).collect();
    names.sort_unstable();
    names
}

/// Returns the digest of the bytes that a ConfigMap of this name stores.
fn digest_of(config_map: &str) -> Option<String> {
    config_map.strip_prefix(&names::object_config_map("")).map(|hex| format!("{}{hex}", names::DIGEST_PREFIX))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn maps(lender: Option<&str>) -> Value {
        lender.map_or(json!([]), |name| json!([{"name": "m", "from": {"program": name, "map": "m"}}]))
    }

    fn program(name: &str, lender: Option<&str>) -> Value {
        json!({"apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfProgram", "metadata": {"name": name, "uid": name},
            "spec": {"bytecode": {"builtin": "tcp-events"}, "programs": [], "maps": maps(lender)}})
    }

    fn revision(of: &str, live: bool, lender: Option<&str>) -> Value {
        let object = json!({"programs": [], "maps": [], "license": "GPL", "btf": true});
        let labels = json!({names::LABEL_LIVE: live.to_string()});
        json!({"apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfRevision",
            "metadata": {"name": format!("{of}-1"), "labels": labels},
            "spec": {"program": {"name": of, "uid": of}, "generation": 1, "sequence": 1, "digest": "", "object": object,
                "programs": [], "maps": maps(lender)}})
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
    fn a_program_borrows_a_map_by_its_spec_or_by_its_live_revision() {
        assert_eq!(borrowers_of_a(&[program("c", Some("a")), program("b", Some("a"))], &[]), ["b", "c"]);
        let after_edit = |running: Value| borrowers_of_a(&[program("b", None)], &[running]);
        assert_eq!(after_edit(revision("b", true, Some("a"))), ["b"], "the edit was rejected");
        assert!(after_edit(revision("b", true, None)).is_empty(), "the edit was accepted");
        assert!(after_edit(revision("b", false, Some("a"))).is_empty(), "the revision was withdrawn");
        assert!(after_edit(revision("d", true, Some("a"))).is_empty(), "its BpfProgram is gone");
    }

    #[test]
    fn an_unreadable_program_borrows_by_its_live_revision() {
        let mut broken = program("b", None);
        broken["spec"] = json!({"programs": 7});
        assert_eq!(borrowers_of_a(&[broken], &[revision("b", true, Some("a"))]), ["b"]);
    }

    #[test]
    fn a_program_that_is_being_deleted_borrows_nothing() {
        let mut deleted = program("b", Some("a"));
        deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        let running = [revision("b", true, Some("a")), revision("a", true, Some("a"))];
        assert!(borrowers_of_a(&[deleted, program("a", Some("a"))], &running).is_empty());
    }
}
