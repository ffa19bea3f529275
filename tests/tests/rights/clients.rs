//! Clients that speak as the chart's identities, and the refusals that they get.

use std::{collections::HashMap, time::Duration};

use anyhow::{Result, bail};
use k8s_openapi::api::{
    core::v1::{Node, Pod},
    rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use sockeye_tests::identity::{RELEASE, admin, agent_pod, get_or_create, token, with_token};

/// Users by which Kubernetes' own controllers speak; the last one for all of them, where they have no users of their
/// own.
pub const GARBAGE_COLLECTOR: &str = "system:serviceaccount:kube-system:generic-garbage-collector";
pub const NAMESPACE_CONTROLLER: &str = "system:serviceaccount:kube-system:namespace-controller";
pub const CONTROLLER_MANAGER: &str = "system:kube-controller-manager";

/// Returns a client with a token of a service account, bound to no pod.
pub async fn speaking_for(service_account: &str) -> Result<Client> {
    with_token(&token(&admin().await?, RELEASE, service_account, None).await?).await
}

/// Returns a client that impersonates a user whom RBAC lets do everything.
pub async fn as_master(user: &str, extra: HashMap<String, Vec<String>>) -> Result<Client> {
    let mut config = Config::infer().await?;
    config.auth_info.impersonate = Some(user.to_owned());
    config.auth_info.impersonate_groups = Some(vec!["system:masters".to_owned()]);
    config.auth_info.impersonate_user_extra = Some(extra);
    Ok(Client::try_from(config)?)
}

/// Returns a client that impersonates a person, who may do what RBAC says.
pub async fn as_person(user: &str) -> Result<Client> {
    let mut config = Config::infer().await?;
    config.auth_info.impersonate = Some(user.to_owned());
    Ok(Client::try_from(config)?)
}

/// Gives a person a ClusterRole in the whole cluster.
pub async fn bind(client: &Client, user: &str, role: &str) -> Result<()> {
    let bindings = Api::<ClusterRoleBinding>::all(client.clone());
    get_or_create(&bindings, binding(user, "ClusterRole", role)).await.map(drop)
}

/// Gives a person rights in the whole cluster, by a ClusterRole of the person's own.
pub async fn grant(client: &Client, user: &str, rules: Value) -> Result<()> {
    let role = json!({"metadata": {"name": user}, "rules": rules});
    get_or_create(&Api::<ClusterRole>::all(client.clone()), role).await?;
    bind(client, user, user).await
}

/// Gives a person rights in the release namespace, by a Role of the person's own.
pub async fn grant_in_release(client: &Client, user: &str, rules: Value) -> Result<()> {
    let role = json!({"metadata": {"name": user}, "rules": rules});
    get_or_create(&Api::<Role>::namespaced(client.clone(), RELEASE), role).await?;
    let bindings = Api::<RoleBinding>::namespaced(client.clone(), RELEASE);
    get_or_create(&bindings, binding(user, "Role", user)).await.map(drop)
}

fn binding(user: &str, kind: &str, role: &str) -> Value {
    let group = "rbac.authorization.k8s.io";
    json!({
        "metadata": {"name": format!("{user}-{role}")},
        "roleRef": {"apiGroup": group, "kind": kind, "name": role},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
    })
}

/// Returns a client with the token that the kubelet on a node would get for its agent's pod.
pub async fn agent_on(node: &str) -> Result<Client> {
    let client = admin().await?;
    get_or_create(&Api::<Node>::all(client.clone()), json!({"metadata": {"name": node}})).await?;
    let pod = get_or_create(&Api::<Pod>::namespaced(client.clone(), RELEASE), agent_pod(node)).await?;
    with_token(&token(&client, RELEASE, "sockeye-agent", Some(&pod)).await?).await
}

/// Fails unless an answer is 403 and says these words.
pub fn refused(answer: kube::Result<()>, words: &str) -> Result<()> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 403 && status.message.contains(words) => Ok(()),
        other => bail!("not refused with {words:?}: {other:?}"),
    }
}

/// Waits until a request is refused with these words. An admission policy takes effect a moment after it is stored.
pub async fn in_effect<F: Future<Output = kube::Result<()>>>(words: &str, tried: impl Fn() -> F) -> Result<()> {
    for _ in 0..100 {
        match tried().await {
            Err(kube::Error::Api(status)) if status.message.contains(words) => return Ok(()),
            Ok(()) => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(error) => return Err(error.into()),
        }
    }
    bail!("the policy never came into effect")
}
