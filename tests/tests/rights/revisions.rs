//! Rights to BpfRevisions: the operator alone writes what agents run, and nobody else may delete an active one.

use anyhow::{Context as _, Result, bail, ensure};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use sockeye_crds::{BpfRevision, revision::RevisionState};
use sockeye_tests::identity::{RELEASE, admin};

use crate::{
    bpfnodes::owner,
    chart::install,
    clients::{CONTROLLER_MANAGER, GARBAGE_COLLECTOR, as_master, in_effect, refused, speaking_for},
};

const NOT_CREATED: &str = "only the operator creates one";
const NOT_CHANGED: &str = "only the operator changes what a BpfRevision says";
const NOT_DELETED: &str =
    "without it the maps of BpfProgram rights would be lost. Set spec.suspend of that BpfProgram, or delete it";
const NOT_DISOWNED: &str = "a BpfRevision belongs to its BpfProgram, and would be deleted with another owner";

const NAME: &str = "rights-1";

/// An identity's way to BpfRevisions.
struct Revisions(Api<BpfRevision>);

impl Revisions {
    fn of(client: Client) -> Self {
        Self(Api::all(client))
    }

    /// Returns the operator's, by a real token.
    async fn operators() -> Result<Self> {
        Ok(Self::of(speaking_for("sockeye-operator").await?))
    }

    async fn create(&self, revision: Value) -> kube::Result<()> {
        let revision = serde_json::from_value(revision).map_err(kube::Error::SerdeError)?;
        self.0.create(&PostParams::default(), &revision).await.map(drop)
    }

    async fn patch(&self, patch: Value) -> kube::Result<()> {
        self.0.patch(NAME, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    }

    /// Fails unless the state can't be changed by a PUT, by server-side apply or by a subresource.
    async fn can_not_rewrite(&self) -> Result<()> {
        let mut retired = self.0.get(NAME).await?;
        retired.spec.state = RevisionState::Retired;
        let put = self.0.replace(NAME, &PostParams::default(), &retired).await;
        refused(put.map(drop), NOT_CHANGED).context("replace")?;
        let mut applied = revision(NAME, "rights");
        applied["spec"]["state"] = json!("Retired");
        let apply = self.0.patch(NAME, &PatchParams::apply("rights").force(), &Patch::Apply(applied)).await;
        refused(apply.map(drop), NOT_CHANGED).context("apply")?;
        let patch = Patch::Merge(json!({"spec": {"state": "Retired"}}));
        for subresource in ["status", "scale"] {
            match self.0.patch_subresource(subresource, NAME, &PatchParams::default(), &patch).await {
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                other => bail!("{subresource}: {other:?}"),
            }
        }
        Ok(())
    }

    async fn delete(&self) -> kube::Result<()> {
        self.0.delete(NAME, &DeleteParams::default()).await.map(drop)
    }

    async fn delete_active(&self) -> kube::Result<()> {
        let active = ListParams::default().fields("spec.state=Active");
        self.0.delete_collection(&DeleteParams::default(), &active).await.map(drop)
    }
}

/// Returns an active revision as the operator creates it.
fn revision(name: &str, program: &str) -> Value {
    let mut controller = owner("BpfProgram", "rights");
    controller["apiVersion"] = json!("sockeye.dev/v1alpha1");
    controller["controller"] = json!(true);
    json!({
        "apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfRevision",
        "metadata": {"name": name, "labels": {"sockeye.dev/program": "rights"}, "ownerReferences": [controller]},
        "spec": {
            "state": "Active", "programRef": {"name": program, "uid": "1"}, "programGeneration": 1, "sequence": 1,
            "template": {
                "digest": format!("sha256:{}", "0".repeat(64)),
                "object": {"programs": [], "maps": [], "license": "GPL", "btf": true},
                "programs": [{"name": "my_prog", "attach": [{"type": "Node"}]}],
            },
        },
    })
}

/// Installs the chart, waits until its policy is in effect, and deletes the revision that an earlier test left.
async fn policy() -> Result<Revisions> {
    install()?;
    let operator = Revisions::operators().await?;
    match operator.delete().await {
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        gone => gone?,
    }
    let admin = Api::<BpfRevision>::all(admin().await?);
    let asks = PostParams { dry_run: true, ..PostParams::default() };
    let object = serde_json::from_value(revision(NAME, "rights"))?;
    in_effect(NOT_CREATED, || async { admin.create(&asks, &object).await.map(drop) }).await?;
    Ok(operator)
}

/// Returns clients of the users by whom the garbage collector speaks.
async fn collectors() -> Result<[Revisions; 2]> {
    let as_user = async |user| Ok::<_, anyhow::Error>(Revisions::of(as_master(user, [].into()).await?));
    Ok([as_user(GARBAGE_COLLECTOR).await?, as_user(CONTROLLER_MANAGER).await?])
}

/// The API server here has OwnerReferencesPermissionEnforcement: who sets blockOwnerDeletion needs the right to update
/// the owner's finalizers, which the operator lacks. Its revisions do not block the deletion of their BpfProgram.
#[tokio::test]
async fn the_operator_may_create_revisions_owned_by_a_bpfprogram() -> Result<()> {
    let operator = policy().await?;
    operator.create(revision(NAME, "rights")).await?;
    operator.patch(json!({"spec": {"state": "Retired"}})).await?;
    operator.delete().await?;
    Ok(())
}

/// Agents run what a revision says, whoever wrote it. So a copied one with a higher sequence must not even be stored.
#[tokio::test]
async fn nobody_else_may_create_a_revision() -> Result<()> {
    policy().await?;
    let namesake = as_master("system:serviceaccount:default:sockeye-operator", [].into()).await?;
    for other in [Revisions::of(admin().await?), Revisions::of(namesake)] {
        refused(other.create(revision(NAME, "rights")).await, NOT_CREATED)?;
        let apply = Patch::Apply(revision(NAME, "rights"));
        let applied = other.0.patch(NAME, &PatchParams::apply("rights").force(), &apply).await;
        refused(applied.map(drop), NOT_CREATED)?;
        let mut named_by_server = revision(NAME, "rights");
        named_by_server["metadata"]["name"] = json!(null);
        named_by_server["metadata"]["generateName"] = json!("rights-");
        if other.create(named_by_server).await.is_ok() {
            bail!("the API server named one");
        }
    }
    let agent = Revisions::of(speaking_for("sockeye-agent").await?);
    refused(agent.create(revision(NAME, "rights")).await, "cannot create resource")
}

#[tokio::test]
async fn nobody_else_may_change_what_a_revision_says() -> Result<()> {
    let operator = policy().await?;
    operator.create(revision(NAME, "rights")).await?;
    let root = Revisions::of(admin().await?);
    for others in collectors().await?.into_iter().chain([root]) {
        for change in [
            json!({"spec": {"state": "Retired"}}),
            json!({"metadata": {"labels": {"sockeye.dev/program": "another"}}}),
            json!({"metadata": {"labels": {"sockeye.dev/program": null}}}),
            json!({"metadata": {"labels": {"sockeye.dev/another": ""}}}),
        ] {
            refused(others.patch(change.clone()).await, NOT_CHANGED).with_context(|| change.to_string())?;
        }
        others.can_not_rewrite().await?;
        others.patch(json!({"metadata": {"annotations": {"example.com/a": "b"}, "labels": {"a": "b"}}})).await?;
        others.patch(json!({"metadata": {"labels": {"a": null}}})).await?;
    }
    operator.delete().await?;
    Ok(())
}

/// An admin who deletes a revision by mistake would lose its maps.
#[tokio::test]
async fn a_cluster_admin_may_not_delete_an_active_revision() -> Result<()> {
    let operator = policy().await?;
    let by_hand = Revisions::of(admin().await?);
    let collectors = collectors().await?;
    for gone_by in [&operator].into_iter().chain(&collectors) {
        operator.create(revision(NAME, "rights")).await?;
        for parameters in [DeleteParams::default(), DeleteParams::foreground(), DeleteParams::orphan()] {
            refused(by_hand.0.delete(NAME, &parameters).await.map(drop), NOT_DELETED)?;
        }
        // The first that is refused may be another test's.
        refused(by_hand.delete_active().await, "would be lost. Set spec.suspend of that BpfProgram, or delete it")?;
        by_hand.0.get(NAME).await.context("it was deleted")?;
        gone_by.delete().await?;
    }
    // Agents do not run one that is retired.
    operator.create(revision(NAME, "rights")).await?;
    operator.patch(json!({"spec": {"state": "Retired"}})).await?;
    by_hand.delete().await?;
    Ok(())
}

/// The garbage collector would delete a revision whose owner does not exist.
#[tokio::test]
async fn only_the_garbage_collector_may_take_a_revision_from_its_bpfprogram() -> Result<()> {
    let operator = policy().await?;
    let by_hand = Revisions::of(admin().await?);
    for collector in collectors().await? {
        operator.create(revision(NAME, "rights")).await?;
        for owners in [json!(null), json!([owner("Node", OWNER_THAT_IS_GONE)])] {
            refused(by_hand.patch(json!({"metadata": {"ownerReferences": owners}})).await, NOT_DISOWNED)?;
        }
        // `kubectl delete --cascade=orphan` of the BpfProgram.
        collector.patch(json!({"metadata": {"ownerReferences": null}})).await?;
        ensure!(by_hand.0.get(NAME).await?.metadata.owner_references.is_none());
        operator.delete().await?;
    }
    Ok(())
}

const OWNER_THAT_IS_GONE: &str = "rights-gone";

/// So of two operators that take each other for gone, one fails. And no name leads out of a directory on bpffs.
#[tokio::test]
async fn a_revision_has_the_name_of_its_bpfprogram_and_sequence() -> Result<()> {
    policy().await?;
    // Nor the operator.
    let operator = as_master(&format!("system:serviceaccount:{RELEASE}:sockeye-operator"), [].into()).await?;
    for operator in [Revisions::of(operator), Revisions::operators().await?] {
        for (name, program, field) in [
            ("rights-2", "rights", "metadata.name must be"),
            ("rights", "rights", "metadata.name must be"),
            (NAME, "another", "metadata.name must be"),
            ("a.b-1", "a.b", "spec.programRef.name"),
            ("a-1", "../a", "spec.programRef.name"),
        ] {
            match operator.create(revision(name, program)).await {
                Err(kube::Error::Api(status)) if status.code == 422 && status.message.contains(field) => {}
                other => bail!("{name} of {program}: {other:?}"),
            }
        }
    }
    Ok(())
}
