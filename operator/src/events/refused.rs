//! Events on pods whose connections a guard refused. IO: none.
//!
//! - A node's first report since the operator started is news only if the last refusal is recent: the operator may have
//!   been away when it happened.
//! - A pod that the node reported before with the same count is no news.
//! - A pod has an Event in ten minutes, a node ten at once and one more a minute, and the cluster twenty at once and
//!   one more in three seconds. What is suppressed is no news later: the next Event has the whole count.

use std::{collections::BTreeMap, mem};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use sockeye_crds::{names, node::RefusedConnections, revision::ProgramRef, summary::NodeView};

use crate::events::{ProgramEvent, budget::EventBudget};

/// An operator that is rescheduled, upgraded, or without an API server is usually back sooner.
const RECENT: SignedDuration = SignedDuration::from_mins(5);
/// The time after which a pod may have another Event.
const POD_INTERVAL: SignedDuration = SignedDuration::from_mins(10);
/// The Events of the whole cluster at once, and the time after which there may be one more.
const CLUSTER_BURST: u32 = 20;
const CLUSTER_INTERVAL: SignedDuration = SignedDuration::from_secs(3);

/// A pod whose connections were refused, in a node's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedPod {
    /// The node that reports it.
    pub node: String,
    /// The pod.
    pub pod: RefusedConnections,
}

impl RefusedPod {
    /// Returns the Event.
    pub fn event(&self, program: &ProgramRef) -> ProgramEvent {
        let Self { node, pod } = self;
        let since = names::line(&pod.since_time, 40);
        let note = format!(
            "BpfProgram {} refused {} connections of this pod on node {node} since {since}; its map sockeye_refusals \
             there has the destinations",
            program.name, pod.count
        );
        ProgramEvent {
            is_warning: true,
            reason: "ConnectionsRefused".to_owned(),
            action: "Refuse",
            note,
            quoted: vec![],
        }
    }
}

/// The pods that one BpfProgram was reported to have refused something.
#[derive(Clone, Debug, Default)]
pub struct RefusedTracker {
    /// The BpfProgram's UID: another BpfProgram of the same name starts over.
    uid: String,
    /// Each node's count for each pod, by the pod's UID.
    counts: BTreeMap<String, BTreeMap<String, i64>>,
}

impl RefusedTracker {
    /// Returns the pods that are news in the nodes' reports.
    pub fn observe(&mut self, program: &ProgramRef, nodes: &[NodeView<'_>], now: Timestamp) -> Vec<RefusedPod> {
        let Self { uid, counts } = mem::take(self);
        let mut before = if uid == program.uid { counts } else { BTreeMap::new() };
        self.uid = program.uid.clone();
        let mut news = Vec::new();
        for node in nodes {
            let known = before.remove(node.name);
            let Some(held) = node.program(program) else {
                self.counts.extend(known.map(|known| (node.name.to_owned(), known)));
                continue;
            };
            let is_new = |pod: &&RefusedConnections| match known.as_ref().and_then(|known| known.get(&pod.uid)) {
                // A restarted agent may count less, so a lower count is new too.
                Some(count) => *count != pod.count,
                None => known.is_some() || is_recent(pod, now),
            };
            let refused = held.refused_connections.iter();
            let of_node = |pod: &RefusedConnections| RefusedPod { node: node.name.to_owned(), pod: pod.clone() };
            news.extend(refused.clone().filter(is_new).map(of_node));
            if known.is_some() || !held.refused_connections.is_empty() {
                let listed = refused.map(|pod| (pod.uid.clone(), pod.count)).collect();
                self.counts.insert(node.name.to_owned(), listed);
            }
        }
        news
    }
}

/// Returns whether the last refusal is recent. It is if the node's clock is ahead.
fn is_recent(pod: &RefusedConnections, now: Timestamp) -> bool {
    pod.last_time.parse::<Timestamp>().is_ok_and(|last| now.duration_since(last) <= RECENT)
}

/// Bounds the Events on pods: of each pod, of each node that reports them, and in all.
#[derive(Clone, Debug)]
pub struct PodEventBudget {
    pods: EventBudget,
    nodes: EventBudget,
    cluster: EventBudget,
}

impl Default for PodEventBudget {
    fn default() -> Self {
        Self {
            pods: EventBudget::within(1, POD_INTERVAL),
            nodes: EventBudget::default(),
            cluster: EventBudget::within(CLUSTER_BURST, CLUSTER_INTERVAL),
        }
    }
}

impl PodEventBudget {
    /// Takes a token of the pod, the node and the cluster, if all have one. A pod that the node made up is remembered
    /// only within the node's budget.
    pub fn allow(&mut self, RefusedPod { node, pod }: &RefusedPod, now: Timestamp) -> bool {
        self.pods.has_token(&pod.uid, now)
            && self.nodes.take(node, now).is_some()
            && self.cluster.take("", now).is_some()
            && self.pods.take(&pod.uid, now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use sockeye_crds::{BpfNodeStatus, node::NodeProgram, summary::Liveness};

    use super::*;

    const NOW: &str = "2026-01-01T12:00:00Z";
    const OLD: &str = "2026-01-01T11:54:59Z";

    fn pod(uid: &str, count: i64, last_time: &str) -> RefusedConnections {
        RefusedConnections {
            namespace: "shop".into(),
            name: format!("pod-{uid}"),
            uid: uid.into(),
            count,
            since_time: OLD.into(),
            last_time: last_time.into(),
        }
    }

    fn now() -> Timestamp {
        NOW.parse().unwrap()
    }

    /// Observes the report of one node, or that it has none; returns the pods' UIDs and counts.
    fn observe(tracker: &mut RefusedTracker, uid: &str, pods: Option<&[RefusedConnections]>) -> Vec<(String, i64)> {
        let program = ProgramRef { name: "p".into(), uid: uid.into() };
        let labels = BTreeMap::new();
        let held = pods.map(|pods| NodeProgram {
            name: "p".into(),
            uid: uid.into(),
            refused_connections: pods.to_vec(),
            ..NodeProgram::default()
        });
        let report = BpfNodeStatus { programs: held.into_iter().collect(), ..BpfNodeStatus::default() };
        let view = NodeView { name: "n", labels: &labels, liveness: Liveness::Live, report: Some(&report) };
        let news = tracker.observe(&program, &[view], now());
        news.into_iter().map(|RefusedPod { pod, .. }| (pod.uid, pod.count)).collect()
    }

    #[test]
    fn a_pod_is_news_once_for_each_count() {
        let mut tracker = RefusedTracker::default();
        let mut news = |pods: &[RefusedConnections]| observe(&mut tracker, "u", Some(pods));
        assert!(news(&[]).is_empty());
        assert_eq!(news(&[pod("a", 1, NOW)]), [("a".to_owned(), 1)]);
        assert!(news(&[pod("a", 1, NOW)]).is_empty());
        assert_eq!(news(&[pod("a", 3, NOW), pod("b", 1, NOW)]), [("a".to_owned(), 3), ("b".to_owned(), 1)]);
        assert_eq!(news(&[pod("a", 2, NOW)]), [("a".to_owned(), 2)], "the agent was restarted");
    }

    #[test]
    fn what_an_operator_finds_at_its_start_is_news_if_it_is_recent() {
        let first = |last: &str| observe(&mut RefusedTracker::default(), "u", Some(&[pod("a", 1, last)])).len();
        assert_eq!((first(NOW), first(OLD), first("")), (1, 0, 0));
    }

    #[test]
    fn a_report_that_is_missing_for_a_while_does_not_start_over_and_another_bpfprogram_does() {
        let mut tracker = RefusedTracker::default();
        let pods = [pod("a", 1, NOW)];
        assert_eq!(observe(&mut tracker, "u", Some(&pods)).len(), 1);
        assert!(observe(&mut tracker, "u", None).is_empty());
        assert!(observe(&mut tracker, "u", Some(&pods)).is_empty());
        assert_eq!(observe(&mut tracker, "another", Some(&pods)).len(), 1);
    }

    #[test]
    fn the_events_of_a_pod_of_a_node_and_of_all_are_bounded() {
        let mut budget = PodEventBudget::default();
        let at = |second: i64| now().checked_add(SignedDuration::from_secs(second)).unwrap();
        let mut allow = |node: usize, uid: &str, second: i64| {
            budget.allow(&RefusedPod { node: format!("n{node}"), pod: pod(uid, 1, NOW) }, at(second))
        };
        assert!(allow(0, "a", 0) && !allow(0, "a", 1) && !allow(0, "a", 599) && allow(0, "a", 600));
        let of_node = (0..100).filter(|n| allow(1, &format!("made-up-{n}"), 600)).count();
        assert_eq!(of_node, 10);
        let of_all = (0..100).filter(|n| allow(2 + n, &format!("b{n}"), 600)).count();
        assert_eq!(of_all, 20 - 11);
        assert!(allow(200, "c", 603) && !allow(201, "d", 603));
    }
}
