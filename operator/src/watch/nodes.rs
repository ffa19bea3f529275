//! [`Nodes`]: every node with its agent's report, from which a BpfProgram's status is folded. IO: none.
//!
//! [`PartialNode`] and [`PartialPod`] are the few fields of Nodes and Pods that liveness depends on.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
};

use k8s_openapi::{
    api::core::v1::{Node, Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Resource, ResourceExt as _, core::DeserializeGuard};
use serde::Deserialize;
use sockeye_client::{Decode, decode::deserialize_metadata};
use sockeye_crds::{
    BpfNode, BpfNodeStatus,
    revision::ProgramRef,
    summary::{Liveness, NodeView},
};

/// A Node, without its images, addresses and capacities.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = "Node")]
pub struct PartialNode {
    #[serde(deserialize_with = "deserialize_metadata")]
    metadata: ObjectMeta,
    #[serde(default)]
    status: PartialStatus,
}

/// A Pod, without its containers.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = "Pod")]
pub struct PartialPod {
    #[serde(deserialize_with = "deserialize_metadata")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: PartialPodSpec,
    #[serde(default)]
    status: PartialStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct PartialStatus {
    #[serde(default)]
    conditions: Vec<PartialCondition>,
}

#[derive(Clone, Debug, Deserialize)]
struct PartialCondition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PartialPodSpec {
    node_name: Option<String>,
}

impl PartialStatus {
    fn is_ready(&self) -> bool {
        self.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    }
}

impl PartialNode {
    /// Returns whether the Node is Ready.
    pub fn is_ready(&self) -> bool {
        self.status.is_ready()
    }
}

impl PartialPod {
    /// Returns the name of the pod's node.
    pub fn node_name(&self) -> Option<&str> {
        self.spec.node_name.as_deref()
    }

    /// Returns whether the pod is Ready and is not being deleted.
    pub fn is_ready(&self) -> bool {
        self.metadata.deletion_timestamp.is_none() && self.status.is_ready()
    }
}

impl Decode for PartialNode {
    fn decode(json: &str) -> serde_json::Result<Self> {
        serde_json::from_str(json)
    }

    /// Returns a Node that is not Ready.
    fn unreadable(metadata: ObjectMeta, _: String) -> Self {
        Self { metadata, status: PartialStatus::default() }
    }
}

impl Decode for PartialPod {
    fn decode(json: &str) -> serde_json::Result<Self> {
        serde_json::from_str(json)
    }

    /// Returns a Pod that is on no Node.
    fn unreadable(metadata: ObjectMeta, _: String) -> Self {
        Self { metadata, spec: PartialPodSpec::default(), status: PartialStatus::default() }
    }
}

/// An agent's report. One that cannot be read counts as none: the agent's own work does not depend on it.
pub type Report = Arc<DeserializeGuard<BpfNode>>;

/// Every node, with its agent's latest report.
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    nodes: Vec<ReportingNode>,
    /// Reports without a Node. The Node may come back, and what runs there with it.
    orphaned_reports: Vec<Report>,
}

#[derive(Clone, Debug)]
struct ReportingNode {
    node: Arc<PartialNode>,
    liveness: Liveness,
    report: Option<Report>,
}

impl Nodes {
    /// Joins Nodes, agents' Pods and reports by the Node's name.
    pub fn new(
        nodes: impl IntoIterator<Item = Arc<PartialNode>>,
        pods: impl IntoIterator<Item = Arc<PartialPod>>,
        reports: impl IntoIterator<Item = Report>,
    ) -> Self {
        let mut has_ready_agent: BTreeMap<String, bool> = BTreeMap::new();
        for pod in pods {
            if let Some(node) = pod.node_name() {
                *has_ready_agent.entry(node.to_owned()).or_default() |= pod.is_ready();
            }
        }
        let mut reports: BTreeMap<String, Report> =
            reports.into_iter().map(|report| (report.name_any(), report)).collect();
        let join = |node: Arc<PartialNode>| {
            let name = node.name_any();
            let liveness = liveness(node.is_ready(), has_ready_agent.get(&name).copied());
            let report = reports.remove(&name).filter(|report| is_owned_by(report, &node));
            ReportingNode { node, liveness, report }
        };
        let nodes = nodes.into_iter().map(join).collect();
        Self { nodes, orphaned_reports: reports.into_values().collect() }
    }

    /// Returns the number of Nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Returns whether there is no Node.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Returns the revisions of a BpfProgram that any node, live or not, reports as running, or as the one that it goes
    /// back to while a newer one fails.
    pub fn running_revisions(&self, program: &ProgramRef) -> BTreeSet<String> {
        let reports = self.nodes.iter().filter_map(|node| node.report.as_ref()).chain(&self.orphaned_reports);
        let entries = reports.filter_map(|report| status(report)?.program(program));
        entries.flat_map(|held| held.revision.iter().chain(&held.known_good_revision).cloned()).collect()
    }

    /// Returns the nodes as `sockeye_crds::summary` needs them.
    pub fn views(&self) -> Vec<NodeView<'_>> {
        self.nodes.iter().map(ReportingNode::view).collect()
    }
}

impl ReportingNode {
    fn view(&self) -> NodeView<'_> {
        let Self { node, liveness, report } = self;
        NodeView {
            name: node.metadata.name.as_deref().unwrap_or_default(),
            labels: node.labels(),
            liveness: *liveness,
            report: report.as_ref().and_then(|report| match &report.0 {
                Ok(_) => status(report),
                Err(_) => Some(&*UNREADABLE),
            }),
        }
    }
}

/// The status of a report that can't be read. It counts as one that names no BpfProgram: a deletion waits for a first
/// report, and must not wait until somebody mends this one.
static UNREADABLE: LazyLock<BpfNodeStatus> = LazyLock::new(BpfNodeStatus::default);

fn status(report: &DeserializeGuard<BpfNode>) -> Option<&BpfNodeStatus> {
    report.0.as_ref().ok().and_then(|report| report.status.as_ref())
}

/// Decides whether a node's report is current. `has_ready_agent` is absent where the node has no agent's pod.
fn liveness(is_node_ready: bool, has_ready_agent: Option<bool>) -> Liveness {
    match (is_node_ready, has_ready_agent) {
        (true, Some(true)) => Liveness::Live,
        (true, None) => Liveness::WithoutAgent,
        (false, _) | (true, Some(false)) => Liveness::Unknown,
    }
}

/// Returns whether a report is about this Node. An earlier Node of the same name may own it.
fn is_owned_by(report: &DeserializeGuard<BpfNode>, node: &PartialNode) -> bool {
    let mut owners = report.owner_references().iter().filter(|owner| owner.kind == "Node");
    owners.all(|owner| Some(&owner.uid) == node.metadata.uid.as_ref())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use serde_json::json;
    use sockeye_crds::node::NodeProgram;

    use super::*;

    fn node(ready: &str) -> Arc<PartialNode> {
        let conditions = json!([{"type": "Ready", "status": ready}]);
        let node = json!({"metadata": {"name": "a", "uid": "1"}, "status": {"conditions": conditions, "images": []}});
        Arc::new(serde_json::from_value(node).unwrap())
    }

    fn pod(ready: &str) -> Arc<PartialPod> {
        let conditions = json!([{"type": "Ready", "status": ready}]);
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "a", "containers": []},
            "status": {"conditions": conditions}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn report(owner: &str, programs: &[NodeProgram]) -> Report {
        let owners = json!([{"apiVersion": "v1", "kind": "Node", "name": "a", "uid": owner}]);
        let status = BpfNodeStatus { programs: programs.to_vec(), ..BpfNodeStatus::default() };
        let report = json!({"apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfNode", "spec": {},
            "metadata": {"name": "a", "ownerReferences": owners}, "status": status});
        Arc::new(serde_json::from_value(report).unwrap())
    }

    fn held(name: &str, uid: &str) -> NodeProgram {
        let revision = Some(format!("{name}-of-{uid}"));
        NodeProgram { name: name.to_owned(), uid: uid.to_owned(), revision, ..NodeProgram::default() }
    }

    #[test]
    fn a_node_is_live_if_it_and_its_agent_are_ready() {
        let liveness = |node: &str, pods: &[&str]| {
            let nodes = Nodes::new([self::node(node)], pods.iter().map(|ready| pod(ready)), []);
            nodes.views()[0].liveness
        };
        assert_eq!(liveness("True", &["True"]), Liveness::Live);
        assert_eq!(liveness("True", &["False", "True"]), Liveness::Live, "the old pod may still be terminating");
        assert_eq!(liveness("True", &["False"]), Liveness::Unknown);
        assert_eq!(liveness("Unknown", &["True"]), Liveness::Unknown);
        assert_eq!(liveness("False", &[]), Liveness::Unknown);
        assert_eq!(liveness("True", &[]), Liveness::WithoutAgent);
    }

    #[test]
    fn a_report_about_an_earlier_node_of_the_same_name_is_ignored() {
        let has_report = |owner| Nodes::new([node("True")], [], [report(owner, &[])]).views()[0].report.is_some();
        assert!(has_report("1"));
        assert!(!has_report("0"));
    }

    #[test]
    fn a_report_that_can_not_be_read_is_one_and_names_nothing() {
        let unreadable = json!({"apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfNode", "metadata": {"name": "a"},
            "spec": {}, "status": {"programs": 7}});
        let unreadable: Report = Arc::new(serde_json::from_value(unreadable).unwrap());
        assert!(unreadable.0.is_err());
        let nodes = Nodes::new([node("True")], [pod("True")], [unreadable]);
        assert!(nodes.views()[0].report.is_some_and(|report| report.programs.is_empty()));
    }

    #[test]
    fn running_revisions_are_those_of_one_uid_on_any_node() {
        let programs = [held("c", "1"), held("b", "new"), held("a", "1")];
        let running = |nodes: &Nodes, name: &str, uid: &str| {
            Vec::from_iter(nodes.running_revisions(&ProgramRef { name: name.into(), uid: uid.into() }))
        };
        for nodes in
            [Nodes::new([node("False")], [], [report("1", &programs)]), Nodes::new([], [], [report("1", &programs)])]
        {
            assert_eq!(running(&nodes, "b", "new"), ["b-of-new"]);
            assert!(running(&nodes, "b", "old").is_empty() && running(&nodes, "d", "1").is_empty());
        }
    }

    #[test]
    fn a_revision_that_a_node_goes_back_to_counts_as_running() {
        let back = NodeProgram {
            revision: None,
            known_good_revision: Some("p-1".into()),
            desired_revision: Some("p-2".into()),
            ..held("p", "1")
        };
        let nodes = Nodes::new([], [], [report("1", &[back])]);
        let running = nodes.running_revisions(&ProgramRef { name: "p".into(), uid: "1".into() });
        assert_eq!(Vec::from_iter(running), ["p-1"]);
    }

    #[test]
    fn the_search_for_running_revisions_does_not_read_every_entry() {
        const PROGRAMS: usize = 8_000;
        let names: Vec<String> = (0..PROGRAMS).map(|n| format!("p{n:05}")).collect();
        let mut report = DeserializeGuard::clone(&report("1", &[held("p", "1")]));
        let programs = &mut report.0.as_mut().unwrap().status.as_mut().unwrap().programs;
        *programs = names.iter().map(|name| NodeProgram { name: name.clone(), ..programs[0].clone() }).collect();
        let nodes = Nodes::new([node("True")], [], [Arc::new(report)]);
        let start = Instant::now();
        for name in names {
            assert_eq!(nodes.running_revisions(&ProgramRef { name, uid: "1".into() }).len(), 1);
        }
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
}
