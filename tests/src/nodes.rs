//! Fake nodes: each has a Ready Node, a Ready pod for its agent, and the token that the pod would have.

use anyhow::Result;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::identity::{RELEASE, agent_pod, get_or_create, token};

/// A node's name, and its agent's token.
pub type Token = (String, String);

/// The number of nodes that are created at the same time.
const AT_ONCE: usize = 16;

/// Creates so many nodes.
pub async fn create(client: &Client, count: usize) -> Result<Vec<Token>> {
    stream::iter(0..count).map(|i| create_one(client, format!("fake-{i:05}"))).buffered(AT_ONCE).try_collect().await
}

/// Creates one node, or gets the one that an earlier run created.
pub async fn create_one(client: &Client, name: String) -> Result<Token> {
    let nodes = Api::<Node>::all(client.clone());
    get_or_create(&nodes, json!({"metadata": {"name": name, "labels": {"kubernetes.io/os": "linux"}}})).await?;
    nodes.patch_status(&name, &PatchParams::default(), &ready()).await?;
    let pods = Api::<Pod>::namespaced(client.clone(), RELEASE);
    let pod = get_or_create(&pods, agent_pod(&name)).await?;
    pods.patch_status(pod.metadata.name.as_deref().unwrap_or_default(), &PatchParams::default(), &ready()).await?;
    let token = token(client, RELEASE, "sockeye-agent", Some(&pod)).await?;
    Ok((name, token))
}

/// Deletes all Nodes, the agents' pods, and all BpfNodes and BpfNodeDetails: the API server has no others.
pub async fn delete_all(client: &Client) -> Result<()> {
    let (at_once, all) = (DeleteParams::default().grace_period(0), ListParams::default());
    Api::<Pod>::namespaced(client.clone(), RELEASE).delete_collection(&at_once, &all).await?;
    Api::<Node>::all(client.clone()).delete_collection(&at_once, &all).await?;
    for kind in ["BpfNode", "BpfNodeDetail"] {
        let reports = ApiResource::from_gvk(&GroupVersionKind::gvk("sockeye.dev", "v1alpha1", kind));
        Api::<DynamicObject>::all_with(client.clone(), &reports).delete_collection(&at_once, &all).await?;
    }
    Ok(())
}

fn ready() -> Patch<Value> {
    let time = "2026-01-01T00:00:00Z";
    let condition = json!({"type": "Ready", "status": "True", "lastHeartbeatTime": time, "lastTransitionTime": time});
    Patch::Strategic(json!({"status": {"conditions": [condition]}}))
}
