//! [`Trigger`]: the BpfPrograms that a change of a watched object concerns, and their [`Pace`]. IO: none.
//!
//! It follows from the object before and after the change. So a heartbeat and the operator's own write trigger nothing,
//! and a deletion always triggers.

use std::collections::{BTreeMap, BTreeSet};

use kube::{Resource as _, ResourceExt as _, core::DeserializeGuard};
use sockeye_crds::{BpfNode, BpfProgram, BpfRevision, names, node::NodeProgram};

use crate::watch::{
    nodes::{PartialNode, PartialPod},
    sharing::{lenders, lenders_of_revision, shared_maps},
    stores::ConfigMapMeta,
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
    /// Those of these names, and those that borrow maps of the `lender`: it has another revision.
    Shared {
        /// The names.
        names: BTreeSet<String>,
        /// The BpfProgram whose revision came, went, or shares other maps.
        lender: String,
    },
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
        Trigger::Programs(with_lenders(name, [old, new], |program| lenders(&program.spec).collect()), Pace::Immediate)
    }
}

impl Watched for DeserializeGuard<BpfRevision> {
    fn trigger(old: Option<&Self>, new: Option<&Self>) -> Trigger {
        let program = |object: &Self| object.labels().get(names::LABEL_PROGRAM).cloned();
        let Some(name) = new.or(old).and_then(program) else { return Trigger::Nothing };
        let names = with_lenders(name.clone(), [old, new], |revision| lenders_of_revision(revision).collect());
        if shared_by(old) == shared_by(new) {
            Trigger::Programs(names, Pace::Immediate)
        } else {
            Trigger::Shared { names, lender: name }
        }
    }
}

/// Lists the maps that a revision shares; none if agents may not run it.
fn shared_by(revision: Option<&DeserializeGuard<BpfRevision>>) -> Option<BTreeSet<&str>> {
    let live = revision.and_then(|revision| revision.0.as_ref().ok()).filter(|revision| revision.is_live());
    live.map(|revision| shared_maps(revision).collect())
}

/// Lists a BpfProgram, and those whose maps it borrows or borrowed: their deletion may wait for it.
fn with_lenders<K>(
    name: String,
    states: [Option<&DeserializeGuard<K>>; 2],
    lenders: impl Fn(&K) -> Vec<&str>,
) -> BTreeSet<String> {
    let readable = states.into_iter().flatten().filter_map(|state| state.0.as_ref().ok());
    let lenders = readable.flat_map(lenders).map(str::to_owned);
    lenders.chain([name]).collect()
}

impl Watched for DeserializeGuard<BpfNode> {
    fn trigger(old: Option<&Self>, new: Option<&Self>) -> Trigger {
        // A deletion waits for nodes that have not reported. The first report need not name what is being deleted.
        if !has_reported(old) && has_reported(new) {
            return Trigger::All;
        }
        let (before, after) = (entries(old), entries(new));
        // Another Node owns the report now, so all of it is about another node.
        let is_other_node = old.map(Self::owner_references) != new.map(Self::owner_references);
        let programs = before.keys().chain(after.keys()).copied();
        let changed = programs.filter(|name| is_other_node || before.get(name) != after.get(name));
        let names: BTreeSet<String> = changed.map(str::to_owned).collect();
        if names.is_empty() { Trigger::Nothing } else { Trigger::Programs(names, Pace::Paced) }
    }
}

/// Returns whether an agent has written a status.
fn has_reported(report: Option<&DeserializeGuard<BpfNode>>) -> bool {
    report.and_then(|report| report.0.as_ref().ok()).is_some_and(|node| node.status.is_some())
}

/// Returns a report's entries by BpfProgram.
fn entries(report: Option<&DeserializeGuard<BpfNode>>) -> BTreeMap<&str, &NodeProgram> {
    let status = report.and_then(|report| report.0.as_ref().ok()).and_then(|node| node.status.as_ref());
    status.iter().flat_map(|status| &status.programs).map(|held| (held.name.as_str(), held)).collect()
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
    use sockeye_crds::BpfNodeStatus;

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
        let held = |&(name, id): &(&str, i64)| NodeProgram {
            name: name.to_owned(),
            uid: "u".to_owned(),
            program_ids: vec![id],
            ..NodeProgram::default()
        };
        let status = BpfNodeStatus { programs: programs.iter().map(held).collect(), ..BpfNodeStatus::default() };
        read(json!({"apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfNode", "spec": {}, "metadata": {"name": "a"},
            "status": status}))
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
    fn a_report_triggers_the_program_whose_drift_or_message_it_changes() {
        let with = |message: &str, drift: i64| {
            let mut report = report(&[("a", 1), ("b", 2)]);
            let entry = &mut report.0.as_mut().unwrap().status.as_mut().unwrap().programs[1];
            entry.message = Some(message.into());
            entry.drift = vec![read(json!({"seenTime": "", "kind": "PinRemoved", "message": "", "count": drift}))];
            report
        };
        assert_eq!(Watched::trigger(Some(&with("x", 1)), Some(&with("y", 1))), paced(["b"]));
        assert_eq!(Watched::trigger(Some(&with("x", 1)), Some(&with("x", 2))), paced(["b"]));
        assert_eq!(Watched::trigger(Some(&report(&[("a", 1), ("b", 2)])), Some(&with("x", 1))), paced(["b"]));
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
        *programs = (0..20_000).map(|n| NodeProgram { name: format!("p{n}"), ..programs[0].clone() }).collect();
        let mut new = old.clone();
        new.0.as_mut().unwrap().status.as_mut().unwrap().programs[7].program_ids = vec![2];
        let start = Instant::now();
        assert_eq!(Watched::trigger(Some(&old), Some(&new)), paced(["p7"]));
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }

    #[test]
    fn the_first_report_of_a_node_triggers_all_though_it_is_empty() {
        let empty = report(&[]);
        let mut unwritten = empty.clone();
        unwritten.0.as_mut().unwrap().status = None;
        assert_eq!(Watched::trigger(None, Some(&empty)), Trigger::All);
        assert_eq!(Watched::trigger(Some(&unwritten), Some(&empty)), Trigger::All);
        assert_eq!(Watched::trigger(None, Some(&unwritten)), Trigger::Nothing);
        assert_eq!(Watched::trigger(Some(&empty), Some(&empty.clone())), Trigger::Nothing);
    }

    #[test]
    fn a_deletion_triggers() {
        assert_eq!(Watched::trigger(Some(&report(&[("a", 1)])), None), paced(["a"]));
    }

    /// Builds a revision of `b` with a map that it borrows from `a`, and one that it shares or not.
    fn revision(state: &str, sharing: &str) -> DeserializeGuard<BpfRevision> {
        let maps = json!([{"name": "m", "mapRef": {"program": "a", "name": "m"}}, {"name": "n", "sharing": sharing}]);
        let object = json!({"programs": [], "maps": [], "license": "GPL", "btf": true});
        let template = json!({"digest": "", "programs": [], "object": object, "maps": maps});
        let spec = json!({"state": state, "programRef": {"name": "b", "uid": "b"}, "programGeneration": 1,
            "sequence": 1, "template": template});
        let revision: DeserializeGuard<BpfRevision> = read(json!({
            "apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfRevision", "spec": spec,
            "metadata": {"name": "b-1", "labels": {names::LABEL_PROGRAM: "b"}},
        }));
        assert!(revision.0.is_ok(), "{revision:?}");
        revision
    }

    #[test]
    fn a_revision_triggers_its_program_and_those_whose_maps_it_borrows() {
        let names = ["a", "b"].map(str::to_owned).into();
        let revision = revision("Active", "Private");
        assert_eq!(
            Watched::trigger(Some(&revision), Some(&revision.clone())),
            Trigger::Programs(names, Pace::Immediate)
        );
    }

    #[test]
    fn a_revision_that_comes_or_goes_triggers_those_that_borrow_its_programs_maps() {
        let (private, shared, retired) =
            (revision("Active", "Private"), revision("Active", "Shared"), revision("Retired", "Shared"));
        let of_borrowers = Trigger::Shared { names: ["a", "b"].map(str::to_owned).into(), lender: "b".into() };
        for (old, new) in
            [(None, Some(&shared)), (None, Some(&private)), (Some(&shared), Some(&retired)), (Some(&shared), None)]
        {
            assert_eq!(Watched::trigger(old, new), of_borrowers);
        }
        for (old, new) in [(Some(&shared), Some(&shared)), (None, Some(&retired)), (Some(&retired), None)] {
            assert!(matches!(Watched::trigger(old, new), Trigger::Programs(..)));
        }
    }

    #[test]
    fn an_unreadable_program_triggers_itself() {
        let bad: DeserializeGuard<BpfProgram> = read(json!({"metadata": {"name": "bad"}, "spec": {"programs": 7}}));
        assert!(bad.0.is_err());
        assert_eq!(Watched::trigger(None, Some(&bad)), Trigger::program("bad".into(), Pace::Immediate));
    }
}
