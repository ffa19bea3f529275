//! `Touched`: which BpfPrograms a change of a watched object may matter to, and how soon. Pure; told from the object
//! before and after, so that a heartbeat or our own write starts nothing, and a deletion always does.

use std::collections::BTreeSet;

use kube::{Resource as _, ResourceExt as _, core::DeserializeGuard};
use sockeye_crds::{BpfNode, BpfNodeStatus, BpfProgram, BpfRevision, names, node::Details, program::MapSpec};

use crate::{
    cluster::{SlimNode, SlimPod},
    stores::{ConfigMapMeta, lenders},
};

/// How soon a change is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pace {
    /// At once: what is wanted has changed.
    Now,
    /// At once if it was not looked at lately, else when its turn comes: what was observed has changed.
    Paced,
}

/// Which BpfPrograms to look at again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// None.
    Nothing,
    /// All of them.
    All,
    /// These.
    Programs(BTreeSet<String>, Pace),
    /// Those whose bytes come from the ConfigMap of that name, as its user wrote it or as the operator stored it.
    Bytecode(String),
}

impl Touched {
    fn program(name: String, pace: Pace) -> Self {
        Self::Programs(BTreeSet::from([name]), pace)
    }
}

/// A watched kind.
pub trait Watched: Sized {
    /// What the change from `old` to `new` touches; a creation has no old, a deletion no new.
    fn touched(old: Option<&Self>, new: Option<&Self>) -> Touched;

    /// Drops what nobody reads before the object is kept in memory.
    fn trim(&mut self);
}

impl Watched for DeserializeGuard<BpfProgram> {
    fn touched(old: Option<&Self>, new: Option<&Self>) -> Touched {
        let Some(name) = new.or(old).and_then(|o| o.meta().name.clone()) else { return Touched::Nothing };
        let intent = |o: &Self| {
            let meta = o.meta();
            (meta.uid.clone(), meta.generation, meta.finalizers.clone(), meta.deletion_timestamp.is_some())
        };
        // A change of the status alone is ours, or somebody else's that is to be put right: neither is urgent.
        if old.map(intent) == new.map(intent) {
            return Touched::program(name, Pace::Paced);
        }
        with_lenders(name, [old, new], |program| &program.spec.maps)
    }

    fn trim(&mut self) {
        let meta = self.meta_mut();
        meta.managed_fields = None;
        if let Some(annotations) = &mut meta.annotations {
            // A second copy of the inline bytes.
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
    }
}

/// A BpfProgram, and those whose maps it uses or used: they may wait with their deletion for that.
fn with_lenders<K>(
    name: String,
    states: [Option<&DeserializeGuard<K>>; 2],
    maps: impl Fn(&K) -> &[MapSpec],
) -> Touched {
    let readable = states.into_iter().flatten().filter_map(|state| state.0.as_ref().ok());
    let lenders = readable.flat_map(|state| lenders(maps(state))).map(str::to_owned);
    Touched::Programs(lenders.chain([name]).collect(), Pace::Now)
}

impl Watched for DeserializeGuard<BpfRevision> {
    fn touched(old: Option<&Self>, new: Option<&Self>) -> Touched {
        let label = |o: &Self| o.labels().get(names::LABEL_PROGRAM).cloned();
        let Some(name) = new.or(old).and_then(label) else { return Touched::Nothing };
        with_lenders(name, [old, new], |revision| &revision.spec.maps)
    }

    fn trim(&mut self) {
        self.meta_mut().managed_fields = None;
    }
}

impl Watched for DeserializeGuard<BpfNode> {
    fn touched(old: Option<&Self>, new: Option<&Self>) -> Touched {
        let status = |o: Option<&'_ Self>| -> BpfNodeStatus {
            o.and_then(|o| o.0.as_ref().ok()).and_then(|node| node.status.clone()).unwrap_or_default()
        };
        let owners = |o: Option<&Self>| o.map(|o| o.owner_references().to_vec());
        let names = changed(&status(old), &status(new), owners(old) != owners(new));
        if names.is_empty() { Touched::Nothing } else { Touched::Programs(names, Pace::Paced) }
    }

    fn trim(&mut self) {
        self.meta_mut().managed_fields = None;
        if let Ok(BpfNode { status: Some(status), .. }) = &mut self.0 {
            status.details.iter_mut().for_each(slim);
            status.order = Vec::new();
        }
    }
}

/// Drops the strings that no summary shows: on many nodes they would be most of the operator's memory.
fn slim(details: &mut Details) {
    let Details { name: _, wanted: _, message: _, verifier_log, notes, drift: _, programs, maps, cgroups: _, links } =
        details;
    *verifier_log = None;
    *notes = Vec::new();
    for program in programs {
        for text in [&mut program.kernel_name, &mut program.loaded_at, &mut program.pin_path] {
            *text = String::new();
        }
        program.map_ids = Vec::new();
    }
    for map in maps {
        (map.kernel_name, map.map_type, map.pin_path) = (String::new(), String::new(), None);
        (map.from, map.shared_by) = (None, Vec::new());
    }
    for link in links {
        (link.cgroup_path, link.link_type, link.attach_type) = (None, String::new(), String::new());
        (link.container, link.pin_path) = (None, String::new());
    }
}

/// The programs of which two reports of a node say different things.
fn changed(old: &BpfNodeStatus, new: &BpfNodeStatus, all: bool) -> BTreeSet<String> {
    let names: BTreeSet<&String> = [old, new].into_iter().flat_map(|s| &s.programs).map(|held| &held.name).collect();
    let said = |status: &'_ BpfNodeStatus, name: &str| {
        let held = status.programs.iter().find(|held| held.name == name).cloned();
        (held, status.details.iter().find(|details| details.name == name).cloned())
    };
    names.into_iter().filter(|name| all || said(old, name) != said(new, name)).cloned().collect()
}

impl Watched for SlimNode {
    fn touched(old: Option<&Self>, new: Option<&Self>) -> Touched {
        let matters = |o: &Self| (o.meta().uid.clone(), o.ready(), o.labels().clone());
        if old.map(matters) == new.map(matters) { Touched::Nothing } else { Touched::All }
    }

    fn trim(&mut self) {
        let meta = self.meta_mut();
        meta.managed_fields = None;
        meta.annotations = None;
    }
}

impl Watched for SlimPod {
    fn touched(old: Option<&Self>, new: Option<&Self>) -> Touched {
        let matters = |o: &Self| (o.node().map(str::to_owned), o.ready());
        if old.map(matters) == new.map(matters) { Touched::Nothing } else { Touched::All }
    }

    fn trim(&mut self) {
        let meta = self.meta_mut();
        meta.managed_fields = None;
        meta.annotations = None;
    }
}

impl Watched for ConfigMapMeta {
    fn touched(old: Option<&Self>, new: Option<&Self>) -> Touched {
        new.or(old).and_then(|o| o.metadata.name.clone()).map_or(Touched::Nothing, Touched::Bytecode)
    }

    fn trim(&mut self) {
        self.metadata.managed_fields = None;
        self.metadata.annotations = None;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read<K: serde::de::DeserializeOwned>(value: Value) -> K {
        serde_json::from_value(value).unwrap()
    }

    fn node(ready: &str, label: &str) -> SlimNode {
        let conditions = json!([{"type": "Ready", "status": ready, "lastHeartbeatTime": null}]);
        read(
            json!({"metadata": {"name": "a", "uid": "1", "labels": {"disk": label}}, "status": {"conditions": conditions}}),
        )
    }

    #[test]
    fn a_heartbeat_touches_nothing_and_a_label_everything() {
        let (ready, relabelled, gone) = (node("True", "ssd"), node("True", "hdd"), node("Unknown", "ssd"));
        assert_eq!(Watched::touched(Some(&ready), Some(&ready.clone())), Touched::Nothing);
        for (old, new) in
            [(Some(&ready), Some(&relabelled)), (Some(&ready), Some(&gone)), (Some(&ready), None), (None, Some(&ready))]
        {
            assert_eq!(Watched::touched(old, new), Touched::All);
        }
    }

    fn report(programs: &[(&str, i64)]) -> DeserializeGuard<BpfNode> {
        let held =
            |(name, id): &(&str, i64)| json!({"name": name, "uid": "u", "state": "Attached", "programIDs": [id]});
        let programs: Vec<Value> = programs.iter().map(held).collect();
        read(
            json!({"apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfNode", "spec": {}, "metadata": {"name": "a"}, "status": {"programs": programs}}),
        )
    }

    #[test]
    fn a_report_touches_the_programs_it_says_something_new_of() {
        let (old, new) = (report(&[("a", 1), ("b", 2), ("c", 3)]), report(&[("a", 1), ("b", 9), ("d", 4)]));
        let names = ["b", "c", "d"].map(str::to_owned).into();
        assert_eq!(Watched::touched(Some(&old), Some(&new)), Touched::Programs(names, Pace::Paced));
        assert_eq!(Watched::touched(Some(&old), Some(&old.clone())), Touched::Nothing);
    }

    #[test]
    fn a_deletion_always_touches() {
        let names = ["a"].map(str::to_owned).into();
        assert_eq!(Watched::touched(Some(&report(&[("a", 1)])), None), Touched::Programs(names, Pace::Paced));
    }

    #[test]
    fn a_revision_touches_those_whose_maps_it_uses() {
        let revision: DeserializeGuard<BpfRevision> = read(json!({
            "apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfRevision",
            "metadata": {"name": "b-1", "labels": {names::LABEL_PROGRAM: "b", names::LABEL_LIVE: "false"}},
            "spec": {"program": {"name": "b", "uid": "b"}, "generation": 1, "sequence": 1, "digest": "", "programs": [],
                "object": {"programs": [], "maps": [], "license": "GPL", "btf": true},
                "maps": [{"name": "m", "from": {"program": "a", "map": "m"}}]},
        }));
        let names = ["a", "b"].map(str::to_owned).into();
        assert_eq!(Watched::touched(Some(&revision), Some(&revision.clone())), Touched::Programs(names, Pace::Now));
    }

    #[test]
    fn an_object_that_cannot_be_read_is_still_an_object() {
        let bad: DeserializeGuard<BpfProgram> = read(json!({"metadata": {"name": "bad"}, "spec": {"programs": 7}}));
        assert!(bad.0.is_err());
        assert_eq!(Watched::touched(None, Some(&bad)), Touched::program("bad".into(), Pace::Now));
    }
}
