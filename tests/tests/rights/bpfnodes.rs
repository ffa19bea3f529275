//! Rights to BpfNodes and BpfNodeDetails: by the chart's admission policy, an agent writes those of its own node only,
//! and nobody else writes any.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{core::v1::ServiceAccount, rbac::v1::ClusterRoleBinding};
use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use sockeye_tests::identity::{RELEASE, admin, get_or_create, token, with_token};

use crate::{
    chart::install,
    clients::{CONTROLLER_MANAGER, GARBAGE_COLLECTOR, agent_on, as_master, in_effect, refused, speaking_for},
};

pub fn owner(kind: &str, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": kind, "name": name, "uid": "00000000-0000-0000-0000-000000000000"})
}

/// The kinds that agents write.
const KINDS: [&str; 2] = ["BpfNode", "BpfNodeDetail"];

pub const OURS: &str = "rights-a";
const THEIRS: &str = "rights-b";

fn not_ours(kind: &str) -> String {
    format!("the agent on node rights-a may write no {kind} but its own")
}

fn not_owned(kind: &str) -> String {
    format!("a {kind} is owned by the Node of its name, without blockOwnerDeletion, and by nothing else")
}

fn not_an_agent(kind: &str) -> String {
    format!("only the agent of a node writes its {kind}")
}

/// Returns a status of a kind.
fn status(kind: &str) -> Value {
    match kind {
        "BpfNode" => json!({"node": {"bootID": "1", "kernelRelease": "6.1.0"}}),
        _ => json!({"programs": [{"name": "rights"}]}),
    }
}

/// The writes that an agent makes of one BpfNode or BpfNodeDetail.
struct Writes {
    api: Api<DynamicObject>,
    kind: &'static str,
    name: &'static str,
}

impl Writes {
    fn of(client: &Client, kind: &'static str, name: &'static str) -> Self {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("sockeye.dev", "v1alpha1", kind));
        Self { api: Api::all_with(client.clone(), &resource), kind, name }
    }

    /// Returns those of the agent of that node, by a real token.
    async fn of_agent_on(kind: &'static str, node: &'static str) -> Result<Self> {
        Ok(Self::of(&agent_on(node).await?, kind, node))
    }

    fn object(&self, owners: &Value) -> kube::Result<DynamicObject> {
        let object = json!({
            "apiVersion": "sockeye.dev/v1alpha1", "kind": self.kind,
            "metadata": {"name": self.name, "ownerReferences": owners}, "spec": {},
        });
        serde_json::from_value(object).map_err(kube::Error::SerdeError)
    }

    async fn create(&self) -> kube::Result<()> {
        self.create_owned(json!([owner("Node", self.name)])).await
    }

    async fn create_owned(&self, owners: Value) -> kube::Result<()> {
        self.api.create(&PostParams::default(), &self.object(&owners)?).await.map(drop)
    }

    async fn write_status(&self) -> kube::Result<()> {
        let status = json!({
            "apiVersion": "sockeye.dev/v1alpha1", "kind": self.kind, "metadata": {"name": self.name},
            "status": status(self.kind),
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

    async fn delete_all(&self) -> kube::Result<()> {
        self.api.delete_collection(&DeleteParams::default(), &ListParams::default()).await.map(drop)
    }
}

/// Installs the chart, waits until its policy is in effect, and deletes the objects that earlier tests left.
async fn policy() -> Result<()> {
    install()?;
    for kind in KINDS {
        for name in [OURS, THEIRS] {
            match Writes::of(&admin().await?, kind, name).delete().await {
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                gone => gone?,
            }
        }
        let theirs = Writes::of(&agent_on(OURS).await?, kind, THEIRS);
        let asks = PostParams { dry_run: true, ..PostParams::default() };
        let object = theirs.object(&json!([owner("Node", THEIRS)]))?;
        in_effect(&not_ours(kind), || async { theirs.api.create(&asks, &object).await.map(drop) }).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_agent_may_write_its_own_bpfnode() -> Result<()> {
    policy().await?;
    for kind in KINDS {
        for node in [OURS, THEIRS] {
            let own = Writes::of_agent_on(kind, node).await?;
            own.create().await.context("create")?;
            own.write_status().await.context("status")?;
            ensure!(own.api.get(node).await?.data["status"] == status(kind));
            own.delete().await.context("delete")?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_agent_may_not_write_another_nodes_bpfnode() -> Result<()> {
    policy().await?;
    let agent = agent_on(OURS).await?;
    for kind in KINDS {
        let (theirs, words) = (Writes::of(&agent, kind, THEIRS), &not_ours(kind));
        refused(theirs.create().await, words)?;
        // Nor one that its own Node owns.
        refused(theirs.create_owned(json!([owner("Node", OURS)])).await, words)?;

        let own = Writes::of_agent_on(kind, THEIRS).await?;
        own.create().await?;
        refused(theirs.write_status().await, words)?;
        refused(theirs.delete().await, words)?;
        refused(theirs.patch(json!({"labels": {"a": "b"}})).await, "cannot patch resource")?;
        refused(theirs.delete_all().await, "cannot deletecollection resource")?;
        own.delete().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_bpfnode_must_be_owned_by_its_node_alone() -> Result<()> {
    policy().await?;
    for kind in KINDS {
        let own = Writes::of_agent_on(kind, OURS).await?;
        let mut another_group = owner("Node", OURS);
        another_group["apiVersion"] = json!("example.com/v1");
        for owners in [
            json!([]),
            json!([owner("Node", THEIRS)]),
            json!([owner("Namespace", OURS)]),
            json!([owner("Node", OURS), owner("Node", THEIRS)]),
            json!([another_group]),
        ] {
            refused(own.create_owned(owners.clone()).await, &not_owned(kind)).with_context(|| owners.to_string())?;
        }
    }
    Ok(())
}

/// With a finalizer, a BpfNode would outlive its Node, and keep its definition from being deleted.
#[tokio::test]
async fn an_agent_puts_no_finalizer_on_its_bpfnode() -> Result<()> {
    policy().await?;
    let held = json!({"finalizers": ["example.com/held"]});
    let node = ("authentication.kubernetes.io/node-name".to_owned(), vec![OURS.to_owned()]);
    let master = as_master(&format!("system:serviceaccount:{RELEASE}:sockeye-agent"), [node].into()).await?;
    for kind in KINDS {
        let words = format!("a {kind} goes with its Node, so its agent puts no finalizer on it");
        let own = Writes::of_agent_on(kind, OURS).await?;
        let mut object = own.object(&json!([owner("Node", OURS)]))?;
        object.metadata.finalizers = Some(vec!["example.com/held".to_owned()]);
        refused(own.api.create(&PostParams::default(), &object).await.map(drop), &words)?;
        own.create().await?;
        let by_rbac = Writes::of(&master, kind, OURS);
        refused(by_rbac.patch(held.clone()).await, &words)?;
        // One of somebody else's hinders no report.
        let root = Writes::of(&admin().await?, kind, OURS);
        root.patch(held.clone()).await?;
        own.write_status().await?;
        by_rbac.patch(json!({"labels": {"a": "b"}})).await?;
        root.patch(json!({"finalizers": null})).await?;
        own.delete().await?;
    }
    Ok(())
}

/// The right to write a status is none to write anything else, and a name that the API server makes is no node's.
#[tokio::test]
async fn a_report_changes_nothing_but_the_status() -> Result<()> {
    policy().await?;
    for kind in KINDS {
        let own = Writes::of_agent_on(kind, OURS).await?;
        let mut object = own.object(&json!([owner("Node", OURS)]))?;
        object.metadata.name = None;
        object.metadata.generate_name = Some(format!("{OURS}-"));
        refused(own.api.create(&PostParams::default(), &object).await.map(drop), &not_ours(kind))?;
        own.create().await?;
        let before = own.api.get(OURS).await?.metadata;
        let with_metadata = json!({
            "metadata": {"labels": {"a": "b"}, "annotations": {"a": "b"}, "finalizers": ["example.com/held"],
                "ownerReferences": []},
            "status": status(kind),
        });
        own.api.patch_status(OURS, &PatchParams::default(), &Patch::Merge(with_metadata)).await?;
        let after = own.api.get(OURS).await?;
        ensure!(after.data["status"] == status(kind), "{after:?}");
        let after = after.metadata;
        ensure!(
            (&after.labels, &after.annotations, &after.finalizers, &after.owner_references)
                == (&before.labels, &before.annotations, &before.finalizers, &before.owner_references),
            "{after:?}"
        );
        own.delete().await?;
    }
    Ok(())
}

/// The agent here is one that RBAC lets do everything.
#[tokio::test]
async fn the_policy_denies_what_rbac_would_allow() -> Result<()> {
    policy().await?;
    let node = ("authentication.kubernetes.io/node-name".to_owned(), vec![OURS.to_owned()]);
    let agent = as_master(&format!("system:serviceaccount:{RELEASE}:sockeye-agent"), [node].into()).await?;
    for kind in KINDS {
        let (own, theirs) = (Writes::of(&agent, kind, OURS), Writes::of(&agent, kind, THEIRS));
        let its_agent = Writes::of_agent_on(kind, THEIRS).await?;
        own.create().await?;
        its_agent.create().await?;
        own.patch(json!({"labels": {"a": "b"}})).await?;
        let mut blocking = owner("Node", OURS);
        blocking["blockOwnerDeletion"] = json!(true);
        for owners in [json!([owner("Node", THEIRS)]), json!([blocking]), json!([])] {
            refused(own.patch(json!({"ownerReferences": owners})).await, &not_owned(kind))?;
        }
        refused(theirs.patch(json!({"labels": {"a": "b"}})).await, &not_ours(kind))?;
        refused(theirs.write_status().await, &not_ours(kind))?;
        refused(theirs.delete_all().await, &not_ours(kind))?;
        its_agent.api.get(THEIRS).await.context("it was deleted")?;
        its_agent.delete().await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_agent_token_without_a_pod_may_write_nothing() -> Result<()> {
    policy().await?;
    let agent = speaking_for("sockeye-agent").await?;
    let words = "the token of an agent must be bound to its pod";
    for kind in KINDS {
        let own = Writes::of(&agent, kind, OURS);
        refused(own.create().await, words)?;
        Writes::of_agent_on(kind, OURS).await?.create().await?;
        refused(own.write_status().await, words)?;
        refused(own.delete().await, words)?;
    }
    Ok(())
}

/// The status of a BpfNode counts as what the kernel said. Whoever may edit it could make a BpfProgram seem attached.
#[tokio::test]
async fn nobody_but_agents_writes_a_bpfnode() -> Result<()> {
    policy().await?;
    // A cluster admin, and a service account of the agent's name and rights in another namespace.
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
    for kind in KINDS {
        let its_agent = Writes::of_agent_on(kind, THEIRS).await?;
        for other in [&client, &namesake] {
            let any = Writes::of(other, kind, THEIRS);
            refused(any.create().await, &not_an_agent(kind))?;
            its_agent.create().await?;
            refused(any.write_status().await, &not_an_agent(kind))?;
            // The agent creates it anew, right.
            any.delete().await?;
        }
    }
    Ok(())
}

/// A PATCH of the object itself changes no status.
#[tokio::test]
async fn the_metadata_of_a_bpfnode_is_anybodys() -> Result<()> {
    policy().await?;
    for kind in KINDS {
        for user in ["rights-root", GARBAGE_COLLECTOR, CONTROLLER_MANAGER] {
            let its_agent = Writes::of_agent_on(kind, OURS).await?;
            its_agent.create().await?;
            its_agent.write_status().await?;
            let other = Writes::of(&as_master(user, [].into()).await?, kind, OURS);
            other.patch(json!({"annotations": {"example.com/a": "b"}, "ownerReferences": null})).await?;
            let false_status = Patch::Merge(json!({"status": null}));
            let kept = other.api.patch(OURS, &PatchParams::default(), &false_status).await?;
            ensure!(kept.data["status"] == status(kind) && kept.metadata.annotations.is_some(), "{kept:?}");
            // The Node is gone.
            other.delete().await?;
        }
    }
    Ok(())
}
