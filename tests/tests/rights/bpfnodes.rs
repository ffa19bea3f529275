//! Rights to BpfNodes: by the chart's admission policy, an agent writes the BpfNode of its own node only.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{core::v1::ServiceAccount, rbac::v1::ClusterRoleBinding};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use sockeye_crds::BpfNode;
use sockeye_tests::identity::{RELEASE, admin, get_or_create, token, with_token};

use crate::{
    chart::install,
    clients::{agent_on, as_master, in_effect, refused, speaking_for},
};

pub fn owner(kind: &str, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": kind, "name": name, "uid": "00000000-0000-0000-0000-000000000000"})
}

fn bpf_node(name: &str, owners: &Value) -> Result<BpfNode> {
    let object = json!({
        "apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfNode",
        "metadata": {"name": name, "ownerReferences": owners}, "spec": {},
    });
    Ok(serde_json::from_value(object)?)
}

pub const OURS: &str = "rights-a";
const THEIRS: &str = "rights-b";
const NOT_OURS: &str = "the agent on node rights-a may write no BpfNode but its own";
const NOT_OWNED: &str = "a BpfNode is owned by the Node of its name, without blockOwnerDeletion, and by nothing else";

/// The writes that an agent makes of one BpfNode.
struct Writes {
    api: Api<BpfNode>,
    name: &'static str,
}

impl Writes {
    fn of(client: &Client, name: &'static str) -> Self {
        Self { api: Api::all(client.clone()), name }
    }

    async fn create(&self) -> kube::Result<()> {
        self.create_owned(json!([owner("Node", self.name)])).await
    }

    async fn create_owned(&self, owners: Value) -> kube::Result<()> {
        let object = bpf_node(self.name, &owners).map_err(|error| kube::Error::Service(error.into()))?;
        self.api.create(&PostParams::default(), &object).await.map(drop)
    }

    async fn write_status(&self) -> kube::Result<()> {
        let status = json!({
            "apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfNode", "metadata": {"name": self.name},
            "status": {"node": {"bootID": "1", "kernelRelease": "6.1.0"}},
        });
        let params = PatchParams::apply("sockeye-agent").force();
        self.api.patch_status(self.name, &params, &Patch::Apply(&status)).await.map(drop)
    }

    async fn patch(&self, metadata: Value) -> kube::Result<()> {
        let patch = Patch::Merge(json!({"metadata": metadata}));
        self.api.patch(self.name, &PatchParams::default(), &patch).await.map(drop)
    }

    async fn delete(&self) -> kube::Result<()> {
        self.api.delete(self.name, &DeleteParams::default()).await.map(drop)
    }
}

/// Installs the chart, waits until its policy is in effect, and deletes the BpfNodes that earlier tests left.
async fn policy() -> Result<()> {
    install()?;
    let all = Api::<BpfNode>::all(admin().await?);
    for name in [OURS, THEIRS] {
        match all.delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            gone => drop(gone?),
        }
    }
    let agent = agent_on(OURS).await?;
    let asks = PostParams { dry_run: true, ..PostParams::default() };
    let object = bpf_node(THEIRS, &json!([owner("Node", THEIRS)]))?;
    let nodes = Api::<BpfNode>::all(agent);
    in_effect(NOT_OURS, || async { nodes.create(&asks, &object).await.map(drop) }).await
}

#[tokio::test]
async fn an_agent_may_write_its_own_bpfnode() -> Result<()> {
    policy().await?;
    for node in [OURS, THEIRS] {
        let own = Writes::of(&agent_on(node).await?, node);
        own.create().await.context("create")?;
        own.write_status().await.context("status")?;
        ensure!(own.api.get(node).await?.status.is_some_and(|status| status.node.kernel_release == "6.1.0"));
        own.delete().await.context("delete")?;
    }
    Ok(())
}

#[tokio::test]
async fn an_agent_may_not_write_another_nodes_bpfnode() -> Result<()> {
    policy().await?;
    let agent = agent_on(OURS).await?;
    let theirs = Writes::of(&agent, THEIRS);
    refused(theirs.create().await, NOT_OURS)?;
    // Nor one that its own Node owns.
    refused(theirs.create_owned(json!([owner("Node", OURS)])).await, NOT_OURS)?;

    Writes::of(&agent_on(THEIRS).await?, THEIRS).create().await?;
    refused(theirs.write_status().await, NOT_OURS)?;
    refused(theirs.delete().await, NOT_OURS)?;
    refused(theirs.patch(json!({"labels": {"a": "b"}})).await, "cannot patch resource")?;
    let all = theirs.api.delete_collection(&DeleteParams::default(), &ListParams::default()).await;
    refused(all.map(drop), "cannot deletecollection resource")?;
    Writes::of(&agent_on(THEIRS).await?, THEIRS).delete().await?;
    Ok(())
}

#[tokio::test]
async fn a_bpfnode_must_be_owned_by_its_node_alone() -> Result<()> {
    policy().await?;
    let own = Writes::of(&agent_on(OURS).await?, OURS);
    let mut another_group = owner("Node", OURS);
    another_group["apiVersion"] = json!("example.com/v1");
    for owners in [
        json!([]),
        json!([owner("Node", THEIRS)]),
        json!([owner("Namespace", OURS)]),
        json!([owner("Node", OURS), owner("Node", THEIRS)]),
        json!([another_group]),
    ] {
        refused(own.create_owned(owners.clone()).await, NOT_OWNED).with_context(|| owners.to_string())?;
    }
    Ok(())
}

/// The agent here is one that RBAC lets do everything.
#[tokio::test]
async fn the_policy_denies_what_rbac_would_allow() -> Result<()> {
    policy().await?;
    let node = ("authentication.kubernetes.io/node-name".to_owned(), vec![OURS.to_owned()]);
    let agent = as_master(&format!("system:serviceaccount:{RELEASE}:sockeye-agent"), [node].into()).await?;
    let (own, theirs) = (Writes::of(&agent, OURS), Writes::of(&agent, THEIRS));
    let outside = Writes::of(&admin().await?, THEIRS);
    own.create().await?;
    outside.create().await?;
    own.patch(json!({"labels": {"a": "b"}})).await?;
    let mut blocking = owner("Node", OURS);
    blocking["blockOwnerDeletion"] = json!(true);
    for owners in [json!([owner("Node", THEIRS)]), json!([blocking]), json!([])] {
        refused(own.patch(json!({"ownerReferences": owners})).await, NOT_OWNED)?;
    }
    refused(theirs.patch(json!({"labels": {"a": "b"}})).await, NOT_OURS)?;
    refused(theirs.write_status().await, NOT_OURS)?;
    let all = theirs.api.delete_collection(&DeleteParams::default(), &ListParams::default()).await;
    refused(all.map(drop), NOT_OURS)?;
    outside.api.get(THEIRS).await.context("it was deleted")?;
    outside.delete().await?;
    Ok(())
}

#[tokio::test]
async fn an_agent_token_without_a_pod_may_write_nothing() -> Result<()> {
    policy().await?;
    let agent = speaking_for("sockeye-agent").await?;
    let own = Writes::of(&agent, OURS);
    let words = "the token of an agent must be bound to its pod";
    refused(own.create().await, words)?;
    Writes::of(&admin().await?, OURS).create().await?;
    refused(own.write_status().await, words)?;
    refused(own.delete().await, words)?;
    Ok(())
}

#[tokio::test]
async fn the_policy_ignores_other_identities() -> Result<()> {
    policy().await?;
    // An admin, and a service account of the agent's name and rights in another namespace.
    let client = admin().await?;
    get_or_create(
        &Api::<ServiceAccount>::namespaced(client.clone(), "default"),
        json!({"metadata": {"name": "sockeye-agent"}}),
    )
    .await?;
    let binding = json!({
        "metadata": {"name": "rights-other"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "sockeye-agent"},
        "subjects": [{"kind": "ServiceAccount", "name": "sockeye-agent", "namespace": "default"}],
    });
    get_or_create(&Api::<ClusterRoleBinding>::all(client.clone()), binding).await?;
    let namesake = with_token(&token(&client, "default", "sockeye-agent", None).await?).await?;
    for other in [client, namesake] {
        let any = Writes::of(&other, THEIRS);
        any.create_owned(json!([])).await?;
        any.write_status().await?;
        any.delete().await?;
    }
    Ok(())
}
