//! `Stores`: what the watches have seen, as a reader finds it. Reads memory only; `watch` does the IO.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Resource as _, ResourceExt as _,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::reflector::{ObjectRef, Store, store::WriterDropped},
};
use sockeye_crds::{BpfNode, BpfProgram, BpfRevision, names, program::MapSpec};

use crate::{
    cluster::{Cluster, SlimNode, SlimPod},
    gather::Revisions,
};

/// A ConfigMap without its data.
pub type ConfigMapMeta = PartialObjectMeta<ConfigMap>;

/// A reader of each watched kind. Own kinds are guarded, so that an object that cannot be read stops nothing else.
#[derive(Clone)]
pub struct Stores {
    /// BpfPrograms, without the copy that `kubectl apply` keeps.
    pub programs: Store<DeserializeGuard<BpfProgram>>,
    /// BpfRevisions.
    pub revisions: Store<DeserializeGuard<BpfRevision>>,
    /// BpfNodes, without what no summary shows.
    pub reports: Store<DeserializeGuard<BpfNode>>,
    /// Nodes.
    pub nodes: Store<SlimNode>,
    /// The agents' pods.
    pub pods: Store<SlimPod>,
    /// ConfigMaps of the release namespace, without their data.
    pub config_maps: Store<ConfigMapMeta>,
}

impl Stores {
    /// Returns once every kind has been listed.
    pub async fn ready(&self) -> Result<(), WriterDropped> {
        let Self { programs, revisions, reports, nodes, pods, config_maps } = self;
        programs.wait_until_ready().await?;
        revisions.wait_until_ready().await?;
        reports.wait_until_ready().await?;
        nodes.wait_until_ready().await?;
        pods.wait_until_ready().await?;
        config_maps.wait_until_ready().await
    }

    /// The BpfProgram of that name.
    pub fn program(&self, name: &str) -> Option<Arc<DeserializeGuard<BpfProgram>>> {
        self.programs.get(&ObjectRef::new(name))
    }

    /// The names of all BpfPrograms.
    pub fn program_names(&self) -> Vec<String> {
        self.programs.state().iter().map(|program| program.name_any()).collect()
    }

    /// The names of the BpfPrograms that use a map of one, sorted: those that are to stay, for two that use each other's
    /// would wait for ever.
    pub fn users_of(&self, name: &str) -> Vec<String> {
        users(name, &self.programs.state(), &self.revisions.state())
    }

    /// The revisions of one BpfProgram, this very one.
    pub fn revisions_of(&self, uid: &str) -> Revisions {
        Revisions::of(uid, self.revisions.state().iter().map(Arc::as_ref))
    }

    /// The ConfigMap of that name in the release namespace.
    pub fn config_map(&self, namespace: &str, name: &str) -> Option<Arc<ConfigMapMeta>> {
        self.config_maps.get(&ObjectRef::new(name).within(namespace))
    }

    /// The digests whose bytes are stored.
    pub fn digests(&self) -> BTreeSet<String> {
        let stored = self.config_maps.state();
        let kept = stored.iter().filter(|stored| stored.metadata.deletion_timestamp.is_none());
        kept.filter_map(|stored| stored.metadata.name.as_deref().and_then(digest_of)).collect()
    }

    /// The nodes and what they say.
    pub fn cluster(&self) -> Cluster {
        Cluster::new(self.nodes.state(), self.pods.state(), self.reports.state())
    }
}

/// The names of the BpfPrograms whose maps these are.
pub fn lenders(maps: &[MapSpec]) -> impl Iterator<Item = &str> {
    maps.iter().filter_map(|map| map.from.as_ref()).map(|from| from.program.as_str())
}

/// Who uses a map by the latest spec, or by what agents run: an edit that is refused, or that cannot be read, takes away
/// nothing of that.
fn users(
    name: &str,
    programs: &[Arc<DeserializeGuard<BpfProgram>>],
    revisions: &[Arc<DeserializeGuard<BpfRevision>>],
) -> Vec<String> {
    let borrows = |maps: &[MapSpec]| lenders(maps).any(|of| of == name);
    let readable = revisions.iter().filter_map(|revision| revision.0.as_ref().ok());
    let run: BTreeSet<&str> = readable
        .filter(|revision| revision.is_live() && borrows(&revision.spec.maps))
        .map(|revision| revision.spec.program.uid.as_str())
        .collect();
    let uses = |program: &DeserializeGuard<BpfProgram>| {
        program.0.as_ref().is_ok_and(|readable| borrows(&readable.spec.maps))
            || program.meta().uid.as_deref().is_some_and(|uid| run.contains(uid))
    };
    let others = programs.iter().filter(|program| program.meta().name.as_deref() != Some(name));
    let stay = others.filter(|program| program.meta().deletion_timestamp.is_none());
    let mut users: Vec<String> = stay.filter(|program| uses(program)).map(|program| program.name_any()).collect();
    users.sort_unstable();
    users
}

/// The digest of the bytes that a ConfigMap of that name holds.
fn digest_of(config_map: &str) -> Option<String> {
    config_map.strip_prefix(&names::object_config_map("")).map(|hex| format!("{}{hex}", names::DIGEST_PREFIX))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn maps(from: Option<&str>) -> Value {
        from.map_or(json!([]), |of| json!([{"name": "m", "from": {"program": of, "map": "m"}}]))
    }

    fn program(name: &str, from: Option<&str>) -> Value {
        json!({"apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfProgram", "metadata": {"name": name, "uid": name},
            "spec": {"bytecode": {"builtin": "tcp-events"}, "programs": [], "maps": maps(from)}})
    }

    fn revision(of: &str, live: bool, from: Option<&str>) -> Value {
        let object = json!({"programs": [], "maps": [], "license": "GPL", "btf": true});
        let labels = json!({names::LABEL_LIVE: live.to_string()});
        json!({"apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfRevision",
            "metadata": {"name": format!("{of}-1"), "labels": labels},
            "spec": {"program": {"name": of, "uid": of}, "generation": 1, "sequence": 1, "digest": "", "object": object,
                "programs": [], "maps": maps(from)}})
    }

    fn users_of_a(programs: &[Value], revisions: &[Value]) -> Vec<String> {
        fn read<K: serde::de::DeserializeOwned>(values: &[Value]) -> Vec<Arc<K>> {
            values.iter().map(|value| Arc::new(serde_json::from_value(value.clone()).unwrap())).collect()
        }
        let revisions: Vec<Arc<DeserializeGuard<BpfRevision>>> = read(revisions);
        assert!(revisions.iter().all(|revision| revision.0.is_ok()), "{revisions:?}");
        users("a", &read(programs), &revisions)
    }

    #[test]
    fn who_is_to_use_a_map_uses_it_and_so_does_who_runs_with_it() {
        assert_eq!(users_of_a(&[program("c", Some("a")), program("b", Some("a"))], &[]), ["b", "c"]);
        let edited = |runs: Value| users_of_a(&[program("b", None)], &[runs]);
        assert_eq!(edited(revision("b", true, Some("a"))), ["b"], "the edit was refused");
        assert!(edited(revision("b", true, None)).is_empty(), "it was accepted");
        assert!(edited(revision("b", false, Some("a"))).is_empty(), "it was withdrawn");
        assert!(edited(revision("d", true, Some("a"))).is_empty(), "of one that is not there");
    }

    #[test]
    fn one_that_cannot_be_read_uses_what_it_runs_with() {
        let mut broken = program("b", None);
        broken["spec"] = json!({"programs": 7});
        assert_eq!(users_of_a(&[broken], &[revision("b", true, Some("a"))]), ["b"]);
    }

    #[test]
    fn one_that_is_to_go_uses_nothing() {
        let mut going = program("b", Some("a"));
        going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        let run = [revision("b", true, Some("a")), revision("a", true, Some("a"))];
        assert!(users_of_a(&[going, program("a", Some("a"))], &run).is_empty());
    }
}
