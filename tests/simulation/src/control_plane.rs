//! The control plane beside the API server: kubelets and the controllers of nodes and pods, as far as it matters here.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    agent,
    api::{NAMESPACE, Shared, kind::Kind},
};

/// A Node is Ready for this long after it was heard of last.
const NODE_GRACE: Duration = Duration::from_secs(8);

/// Does what kubelets and the controllers of nodes and pods do, once a second.
pub async fn tend(shared: Shared) {
    loop {
        sleep(Duration::from_secs(1)).await;
        let mut api = shared.lock();
        let nodes: Vec<String> = api.list(Kind::Node).map(|(name, _)| name.clone()).collect();
        for node in nodes {
            let link = api.links.get(&agent::process(&node)).cloned().unwrap_or_default();
            let silent = link.cut_since.map_or(Duration::ZERO, |since| Instant::now().duration_since(since));
            let is_agent_ready = api.ready_agents.contains(&node);
            let pod = pod_name(&node);
            if api.get(Kind::Pod, &pod).is_none() {
                drop(api.create(Kind::Pod, pod_object(&node)));
            }
            if silent > NODE_GRACE {
                drop(api.update(Kind::Node, &node, set_ready("Unknown")));
                drop(api.update(Kind::Pod, &pod, set_ready("False")));
            } else if silent.is_zero() {
                drop(api.update(Kind::Node, &node, set_ready("True")));
                drop(api.update(Kind::Pod, &pod, set_ready(if is_agent_ready { "True" } else { "False" })));
            }
        }
    }
}

fn set_ready(status: &'static str) -> impl FnOnce(&mut Value) {
    move |object: &mut Value| {
        object["status"] = json!({"conditions": [{"type": "Ready", "status": status}]});
    }
}

/// Returns the name of a node.
pub fn node_name(node: usize) -> String {
    format!("node-{node}")
}

/// Returns the name of the pod of a node's agent.
pub fn pod_name(node: &str) -> String {
    format!("agent-of-{node}")
}

/// Returns a Node. Every other one has the label that specs select.
pub fn node_object(name: &str) -> Value {
    let labels = if name.ends_with(['0', '2', '4']) { json!({"disk": "ssd"}) } else { json!({}) };
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}})
}

fn pod_object(node: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "spec": {"nodeName": node},
        "metadata": {"name": pod_name(node), "namespace": NAMESPACE}})
}
