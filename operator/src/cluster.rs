//! `Cluster`: the nodes and what their agents say, as one BpfProgram's status is folded from. The shapes in which Nodes
//! and Pods are watched are here too: of either, only the few fields that liveness depends on. No IO.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::{
    api::core::v1::{Node, Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Resource, ResourceExt as _, core::DeserializeGuard};
use serde::Deserialize;
use sockeye_crds::{
    BpfNode, BpfNodeStatus,
    summary::{Liveness, NodeView},
};

/// A Node, without its images, addresses and capacities.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = "Node")]
pub struct SlimNode {
    metadata: ObjectMeta,
    #[serde(default)]
    status: Conditions,
}

/// A Pod, without its containers.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = "Pod")]
pub struct SlimPod {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Placed,
    #[serde(default)]
    status: Conditions,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Conditions {
    #[serde(default)]
    conditions: Vec<SlimCondition>,
}

#[derive(Clone, Debug, Deserialize)]
struct SlimCondition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Placed {
    node_name: Option<String>,
}

impl Conditions {
    fn ready(&self) -> bool {
        self.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
    }
}

impl SlimNode {
    /// Whether the Node is Ready.
    pub fn ready(&self) -> bool {
        self.status.ready()
    }
}

impl SlimPod {
    /// The node it runs on.
    pub fn node(&self) -> Option<&str> {
        self.spec.node_name.as_deref()
    }

    /// Whether it is Ready and is to stay.
    pub fn ready(&self) -> bool {
        self.metadata.deletion_timestamp.is_none() && self.status.ready()
    }
}

/// What an agent said last. One that cannot be read counts as none: the agent's own work does not depend on it.
pub type Report = Arc<DeserializeGuard<BpfNode>>;

/// Every node, with what its agent said last.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    members: Vec<Member>,
    /// Reports without a node; what they hold may come back.
    strays: Vec<Report>,
}

#[derive(Clone, Debug)]
struct Member {
    node: Arc<SlimNode>,
    liveness: Liveness,
    report: Option<Report>,
}

impl Cluster {
    /// Joins nodes, agents' pods and reports by the node's name.
    pub fn new(
        nodes: impl IntoIterator<Item = Arc<SlimNode>>,
        pods: impl IntoIterator<Item = Arc<SlimPod>>,
        reports: impl IntoIterator<Item = Report>,
    ) -> Self {
        let mut agents: BTreeMap<String, bool> = BTreeMap::new();
        for pod in pods {
            if let Some(node) = pod.node() {
                *agents.entry(node.to_owned()).or_default() |= pod.ready();
            }
        }
        let mut reports: BTreeMap<String, Report> = reports.into_iter().map(|r| (r.name_any(), r)).collect();
        let member = |node: Arc<SlimNode>| {
            let name = node.name_any();
            let liveness = liveness(node.ready(), agents.get(&name).copied());
            let report = reports.remove(&name).filter(|report| speaks_of(report, &node));
            Member { node, liveness, report }
        };
        let members = nodes.into_iter().map(member).collect();
        Self { members, strays: reports.into_values().collect() }
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is no node at all.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The revisions of one BpfProgram that any node reports, live or not.
    pub fn running(&self, uid: &str) -> BTreeSet<String> {
        let members = self.members.iter().filter_map(|member| member.report.as_ref());
        let statuses = members.chain(&self.strays).filter_map(|report| status(report));
        let held = statuses.flat_map(|status| &status.programs).filter(|held| held.uid == uid);
        held.filter_map(|held| held.revision.clone()).collect()
    }

    /// The nodes as the fold sees them.
    pub fn views(&self) -> Vec<NodeView<'_>> {
        self.members.iter().map(Member::view).collect()
    }
}

impl Member {
    fn view(&self) -> NodeView<'_> {
        let Self { node, liveness, report } = self;
        NodeView {
            name: node.metadata.name.as_deref().unwrap_or_default(),
            labels: node.labels(),
            liveness: *liveness,
            report: report.as_ref().and_then(|report| status(report)),
        }
    }
}

fn status(report: &DeserializeGuard<BpfNode>) -> Option<&BpfNodeStatus> {
    report.0.as_ref().ok().and_then(|report| report.status.as_ref())
}

/// What a Node and its agent's pod make of the node's word; `agent` is whether one of its pods is Ready, if it has any.
fn liveness(node_ready: bool, agent: Option<bool>) -> Liveness {
    match (node_ready, agent) {
        (true, Some(true)) => Liveness::Live,
        (true, None) => Liveness::WithoutAgent,
        (false, _) | (true, Some(false)) => Liveness::Unknown,
    }
}

/// A report owned by an earlier Node of the same name says nothing of this one.
fn speaks_of(report: &DeserializeGuard<BpfNode>, node: &SlimNode) -> bool {
    let mut owners = report.owner_references().iter().filter(|owner| owner.kind == "Node");
    owners.all(|owner| Some(&owner.uid) == node.metadata.uid.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(ready: &str) -> Arc<SlimNode> {
        let conditions = json!([{"type": "Ready", "status": ready}]);
        let node = json!({"metadata": {"name": "a", "uid": "1"}, "status": {"conditions": conditions, "images": []}});
        Arc::new(serde_json::from_value(node).unwrap())
    }

    fn pod(ready: &str) -> Arc<SlimPod> {
        let conditions = json!([{"type": "Ready", "status": ready}]);
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "a", "containers": []}, "status": {"conditions": conditions}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn report(owner: &str) -> Report {
        let owners = json!([{"apiVersion": "v1", "kind": "Node", "name": "a", "uid": owner}]);
        let report = json!({"apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfNode", "spec": {},
            "metadata": {"name": "a", "ownerReferences": owners}, "status": {}});
        Arc::new(serde_json::from_value(report).unwrap())
    }

    #[test]
    fn live_means_node_ready_and_agent_ready() {
        let liveness = |node: &str, pods: &[&str]| {
            let cluster = Cluster::new([self::node(node)], pods.iter().map(|ready| pod(ready)), []);
            cluster.views()[0].liveness
        };
        assert_eq!(liveness("True", &["True"]), Liveness::Live);
        assert_eq!(liveness("True", &["False", "True"]), Liveness::Live, "the old pod may still be going");
        assert_eq!(liveness("True", &["False"]), Liveness::Unknown);
        assert_eq!(liveness("Unknown", &["True"]), Liveness::Unknown);
        assert_eq!(liveness("False", &[]), Liveness::Unknown);
        assert_eq!(liveness("True", &[]), Liveness::WithoutAgent);
    }

    #[test]
    fn a_report_of_an_earlier_node_of_that_name_is_ignored() {
        let reported = |owner| Cluster::new([node("True")], [], [report(owner)]).views()[0].report.is_some();
        assert!(reported("1"));
        assert!(!reported("0"));
    }
}
