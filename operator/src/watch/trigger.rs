//! [`Trigger`]: the BpfPrograms that a change of a watched object concerns, and their [`Pace`]. IO: none.
//!
//! It follows from the object before and after the change. So a heartbeat and the operator's own write trigger nothing,
//! and a deletion always triggers.

use std::collections::{BTreeMap, BTreeSet};

use kube::{Resource as _, ResourceExt as _, core::DeserializeGuard};
use sockeye_crds::{
    BpfNode, BpfNodeStatus, BpfProgram, BpfRevision, names,
    node::{Details, HeldProgram},
    program::MapSpec,
};

use crate::watch::{
    nodes::{PartialNode, PartialPod},
    stores::{ConfigMapMeta, lenders},
};

/// The urgency of a reconciliation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pace {
    /// Now: a spec changed.
    Immediate,
    /// Now, or an interval after the last time: an observation changed.
    Paced,
}

/// The BpfPrograms to reconcile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// None of them.
    Nothing,
    /// All of them.
    All,
    /// Those of these names.
    Programs(BTreeSet<String>, Pace),
    /// Those whose bytes the ConfigMap of this name holds, as a user or the operator created it.
    ConfigMap(String),
}

impl Trigger {
    fn program(name: String, pace: Pace) -> Self {
        Self::Programs(BTreeSet::from([name]), pace)
    }
}

/// A watched kind.
pub trait Watched: Sized {
    /// Returns the BpfPrograms that a change concerns. A creation has no `old` object, a deletion no `new` one.
    fn trigger(old: Option<&Self>, new: Option<&Self>) -> Trigger;
}

impl Watched for DeserializeGuard<BpfProgram> {
    fn trigger(old: Option<&Self>, new: Option<&Self>) -> Trigger {
        let Some(name) = new.or(old).and_then(|object| object.meta().name.clone()) else { return Trigger::Nothing };
        let intent = |object: &Self| {
            let meta = object.meta();
            (meta.uid.clone(), meta.generation, meta.finalizers.clone(), meta.deletion_timestamp.is_some())
        };
        // The operator changed the status, or somebody else did and the operator corrects it. Neither is urgent.
        if old.map(intent) == new.map(intent) {
            return Trigger::program(name, Pace::Paced);
        }
        with_lenders(name, [old, new], |program| &program.spec.maps)
    }
}

impl Watched for DeserializeGuard<BpfRevision> {
    fn trigger(old: Option<&Self>, new: Option<&Self>) -> Trigger {
        let program = |object: &Self| object.labels().get(names::LABEL_PROGRAM).cloned();
        let Some(name) = new.or(old).and_then(program) else { return Trigger::Nothing };
        with_lenders(name, [old, new], |revision| &revision.spec.maps)
    }
}

/// Triggers a BpfProgram, and those whose maps it borrows or borrowed: their deletion may wait for it.
fn with_lenders<K>(
    name: String,
    states: [Option<&DeserializeGuard<K>>; 2],
    maps: impl Fn(&K) -> &[MapSpec],
) -> Trigger {
    let readable = states.into_iter().flatten().filter_map(|state| state.0.as_ref().ok());
    let lenders = readable.flat_map(|state| lenders(maps(state))).map(str::to_owned);
    Trigger::Programs(lenders.chain([name]).collect(), Pace::Immediate)
}

impl Watched for DeserializeGuard<BpfNode> {
    fn trigger(old: Option<&Self>, new: Option<&Self>) -> Trigger {
        let (before, after) = (entries(old), entries(new));
        // Another Node owns the report now, so all of it is about another node.
        let is_other_node = old.map(Self::owner_references) != new.map(Self::owner_references);
        let programs = before.keys().chain(after.keys()).copied();
        let changed = programs.filter(|name| is_other_node || before.get(name) != after.get(name));
        let names: BTreeSet<String> = changed.map(str::to_owned).collect();
        if names.is_empty() { Trigger::Nothing } else { Trigger::Programs(names, Pace::Paced) }
    }
}

/// A report's entries about one BpfProgram.
#[derive(Default, PartialEq)]
struct Entry<'a> {
    held: Vec<&'a HeldProgram>,
    details: Vec<&'a Details>,
}

/// Groups a report by BpfProgram. Details of a BpfProgram that the node does not hold are about none.
fn entries(report: Option<&DeserializeGuard<BpfNode>>) -> BTreeMap<&str, Entry<'_>> {
    let mut entries: BTreeMap<&str, Entry<'_>> = BTreeMap::new();
    let status = report.and_then(|report| report.0.as_ref().ok()).and_then(|node| node.status.as_ref());
    let Some(BpfNodeStatus { programs, details, .. }) = status else { return entries };
    for held in programs {
        entries.entry(&held.name).or_default().held.push(held);
    }
    for details in details {
        if let Some(entry) = entries.get_mut(&*details.name) {
            entry.details.push(details);
        }
    }
    entries
}

impl Watched for PartialNode {
    fn trigger(old: Option<&Self>, new: Option<&Self>) -> Trigger {
        let relevant = |node: &Self| (node.meta().uid.clone(), node.is_ready(), node.labels().clone());
        if old.map(relevant) == new.map(relevant) { Trigger::Nothing } else { Trigger::All }
    }
}

impl Watched for PartialPod {
    fn trigger(old: Option<&Self>, new: Option<&Self>) -> Trigger {
        let relevant = |pod: &Self| (pod.node_name().map(str::to_owned), pod.is_ready());
        if old.map(relevant) == new.map(relevant) { Trigger::Nothing } else { Trigger::All }
    }
}

impl Watched for ConfigMapMeta {
    fn trigger(old: Option<&Self>, new: Option<&Self>) -> Trigger {
        let name = new.or(old).and_then(|config_map| config_map.metadata.name.clone());
        name.map_or(Trigger::Nothing, Trigger::ConfigMap)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use serde_json::{Value, json};

    use super::*;

    fn read<K: serde::de::DeserializeOwned>(value: Value) -> K {
        serde_json::from_value(value).unwrap()
    }

    fn node(ready: &str, label: &str) -> PartialNode {
        let conditions = json!([{"type": "Ready", "status": ready, "lastHeartbeatTime": null}]);
        let meta = json!({"name": "a", "uid": "1", "labels": {"disk": label}});
        read(json!({"metadata": meta, "status": {"conditions": conditions}}))
    }

    #[test]
    fn a_nodes_heartbeat_triggers_nothing_and_its_label_triggers_all() {
        let (ready, relabelled, unknown) = (node("True", "ssd"), node("True", "hdd"), node("Unknown", "ssd"));
        assert_eq!(Watched::trigger(Some(&ready), Some(&ready.clone())), Trigger::Nothing);
        for (old, new) in [
            (Some(&ready), Some(&relabelled)),
            (Some(&ready), Some(&unknown)),
            (Some(&ready), None),
            (None, Some(&ready)),
        ] {
            assert_eq!(Watched::trigger(old, new), Trigger::All);
        }
    }

    fn report(programs: &[(&str, i64)]) -> DeserializeGuard<BpfNode> {
        let held =
            |(name, id): &(&str, i64)| json!({"name": name, "uid": "u", "state": "Attached", "programIDs": [id]});
        let programs: Vec<Value> = programs.iter().map(held).collect();
        read(json!({"apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfNode", "spec": {}, "metadata": {"name": "a"},
            "status": {"programs": programs}}))
    }

    fn paced<const N: usize>(names: [&str; N]) -> Trigger {
        Trigger::Programs(names.map(str::to_owned).into(), Pace::Paced)
    }

    #[test]
    fn a_report_triggers_the_programs_that_it_changes() {
        let (old, new) = (report(&[("a", 1), ("b", 2), ("c", 3)]), report(&[("a", 1), ("b", 9), ("d", 4)]));
        assert_eq!(Watched::trigger(Some(&old), Some(&new)), paced(["b", "c", "d"]));
        assert_eq!(Watched::trigger(Some(&old), Some(&old.clone())), Trigger::Nothing);
    }

    #[test]
    fn a_report_triggers_the_program_whose_details_it_changes() {
        let with_message = |message: &str| {
            let mut report = report(&[("a", 1), ("b", 2)]);
            let details = Details { name: "b".into(), message: Some(message.into()), ..Details::default() };
            report.0.as_mut().unwrap().status.as_mut().unwrap().details = vec![details];
            report
        };
        assert_eq!(Watched::trigger(Some(&with_message("x")), Some(&with_message("y"))), paced(["b"]));
        assert_eq!(Watched::trigger(Some(&report(&[("a", 1), ("b", 2)])), Some(&with_message("x"))), paced(["b"]));
    }

    #[test]
    fn a_report_about_another_node_triggers_all_its_programs() {
        let old = report(&[("a", 1), ("b", 2)]);
        let mut new = old.clone();
        new.meta_mut().owner_references =
            Some(vec![read(json!({"apiVersion": "v1", "kind": "Node", "name": "a", "uid": "2"}))]);
        assert_eq!(Watched::trigger(Some(&old), Some(&new)), paced(["a", "b"]));
    }

    #[test]
    fn a_large_report_is_compared_in_linear_time() {
        let mut old = report(&[("p", 1)]);
        let programs = &mut old.0.as_mut().unwrap().status.as_mut().unwrap().programs;
        *programs = (0..20_000).map(|n| HeldProgram { name: format!("p{n}"), ..programs[0].clone() }).collect();
        let mut new = old.clone();
        new.0.as_mut().unwrap().status.as_mut().unwrap().programs[7].program_ids = vec![2];
        let start = Instant::now();
        assert_eq!(Watched::trigger(Some(&old), Some(&new)), paced(["p7"]));
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }

    #[test]
    fn a_deletion_triggers() {
        assert_eq!(Watched::trigger(Some(&report(&[("a", 1)])), None), paced(["a"]));
    }

    #[test]
    fn a_revision_triggers_the_programs_whose_maps_it_borrows() {
        let revision: DeserializeGuard<BpfRevision> = read(json!({
            "apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfRevision",
            "metadata": {"name": "b-1", "labels": {names::LABEL_PROGRAM: "b", names::LABEL_LIVE: "false"}},
            "spec": {"program": {"name": "b", "uid": "b"}, "generation": 1, "sequence": 1, "digest": "", "programs": [],
                "object": {"programs": [], "maps": [], "license": "GPL", "btf": true},
                "maps": [{"name": "m", "from": {"program": "a", "map": "m"}}]},
        }));
        let names = ["a", "b"].map(str::to_owned).into();
        assert_eq!(
            Watched::trigger(Some(&revision), Some(&revision.clone())),
            Trigger::Programs(names, Pace::Immediate)
        );
    }

    #[test]
    fn an_unreadable_program_triggers_itself() {
        let bad: DeserializeGuard<BpfProgram> = read(json!({"metadata": {"name": "bad"}, "spec": {"programs": 7}}));
        assert!(bad.0.is_err());
        assert_eq!(Watched::trigger(None, Some(&bad)), Trigger::program("bad".into(), Pace::Immediate));
    }
}
