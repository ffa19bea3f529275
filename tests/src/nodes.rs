//! Nodes that are not there: each with a Ready Node, a Ready pod for its agent, and the token that the pod would have.

use anyhow::Result;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::identity::{RELEASE, agent_pod, made, token};

/// A node's name, and its agent's token.
pub type Token = (String, String);

/// So many are made at the same time.
const AT_ONCE: usize = 16;

/// Makes so many.
pub async fn make(client: &Client, count: usize) -> Result<Vec<Token>> {
    stream::iter(0..count).map(|i| one(client, format!("fake-{i:05}"))).buffered(AT_ONCE).try_collect().await
}

/// One, or the one that an earlier run has made.
pub async fn one(client: &Client, name: String) -> Result<Token> {
    let nodes = Api::<Node>::all(client.clone());
    made(&nodes, json!({"metadata": {"name": name, "labels": {"kubernetes.io/os": "linux"}}})).await?;
    nodes.patch_status(&name, &PatchParams::default(), &ready()).await?;
    let pods = Api::<Pod>::namespaced(client.clone(), RELEASE);
    let pod = made(&pods, agent_pod(&name)).await?;
    pods.patch_status(pod.metadata.name.as_deref().unwrap_or_default(), &PatchParams::default(), &ready()).await?;
    let token = token(client, RELEASE, "sockeye-agent", Some(&pod)).await?;
    Ok((name, token))
}

/// Removes all of them, and what their agents said: from an API server that has nothing else.
pub async fn clear(client: &Client) -> Result<()> {
    let (at_once, all) = (DeleteParams::default().grace_period(0), ListParams::default());
    Api::<Pod>::namespaced(client.clone(), RELEASE).delete_collection(&at_once, &all).await?;
    Api::<Node>::all(client.clone()).delete_collection(&at_once, &all).await?;
    let reports = ApiResource::from_gvk(&GroupVersionKind::gvk("sockeye.dev", "v1alpha1", "BpfNode"));
    Api::<DynamicObject>::all_with(client.clone(), &reports).delete_collection(&at_once, &all).await?;
    Ok(())
}

fn ready() -> Patch<Value> {
    let time = "2026-01-01T00:00:00Z";
    let condition = json!({"type": "Ready", "status": "True", "lastHeartbeatTime": time, "lastTransitionTime": time});
    Patch::Strategic(json!({"status": {"conditions": [condition]}}))
}
