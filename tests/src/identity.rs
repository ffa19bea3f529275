//! Clients that speak to an API server as one of the chart's identities, with a real token.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{Pod, ServiceAccount},
};
use kube::{
    Api, Client, Config, ResourceExt as _,
    api::PostParams,
    config::{AuthInfo, Kubeconfig},
};
use serde_json::{Value, json};

/// The namespace that the chart is installed in.
pub const RELEASE: &str = "sockeye-system";

/// Returns a client for the user that KUBECONFIG names.
pub async fn admin() -> Result<Client> {
    Ok(Client::try_from(Config::infer().await?)?)
}

/// Returns a client with a token; it takes only the server from KUBECONFIG.
pub async fn with_token(token: &str) -> Result<Client> {
    Ok(Client::try_from(config(token).await?)?)
}

/// Returns the configuration of a client with a token.
pub async fn config(token: &str) -> Result<Config> {
    let mut config = Config::infer().await?;
    config.auth_info = serde_json::from_value::<AuthInfo>(json!({"token": token}))?;
    Ok(config)
}

/// Requests a token of a service account for an hour, bound to a pod as the kubelet binds those that it mounts.
pub async fn token(client: &Client, namespace: &str, service_account: &str, pod: Option<&Pod>) -> Result<String> {
    let bound = pod.map(|pod| BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: pod.metadata.name.clone(),
        uid: pod.uid(),
    });
    let spec =
        TokenRequestSpec { bound_object_ref: bound, expiration_seconds: Some(3600), ..TokenRequestSpec::default() };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), namespace);
    let granted = accounts.create_token_request(service_account, &PostParams::default(), &request).await?;
    Ok(granted.status.context("no token")?.token)
}

/// Writes KUBECONFIG to a file for a process, with a token and, if named, another server.
pub fn kubeconfig(token: &str, server: Option<&str>, path: &Path) -> Result<PathBuf> {
    let mut config = Kubeconfig::read()?;
    for user in &mut config.auth_infos {
        user.auth_info = Some(serde_json::from_value(json!({"token": token}))?);
    }
    for cluster in config.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
        cluster.server = server.map(str::to_owned).or_else(|| cluster.server.take());
    }
    // JSON is YAML.
    std::fs::write(path, serde_json::to_vec(&config)?)?;
    Ok(path.to_owned())
}

/// Returns a pod to create as a node's agent; nothing runs there.
pub fn agent_pod(node: &str) -> Value {
    json!({
        "metadata": {
            "name": format!("agent-on-{node}"),
            "labels": {"app.kubernetes.io/name": "sockeye", "app.kubernetes.io/component": "agent"},
        },
        "spec": {
            "nodeName": node, "serviceAccountName": "sockeye-agent", "containers": [{"name": "agent", "image": "none"}],
        },
    })
}

/// Creates an object, or gets the one of that name that an earlier run created.
pub async fn get_or_create<K>(api: &Api<K>, object: Value) -> Result<K>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned + serde::Serialize,
{
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    match api.create(&PostParams::default(), &serde_json::from_value(object)?).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(api.get(&name).await?),
        created => Ok(created?),
    }
}
