//! Rights to the Lease that says which operator leads.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use sockeye_tests::identity::{RELEASE, admin, get_or_create};

use crate::{
    chart::install,
    clients::{
        CONTROLLER_MANAGER, GARBAGE_COLLECTOR, NAMESPACE_CONTROLLER, as_master, as_person, grant_in_release, in_effect,
        refused, speaking_for,
    },
};

const NOT_AN_OPERATOR: &str = "says which operator leads: only operators create and change it";
const OPERATORS: &str = "sockeye-operator";

fn leases(client: Client) -> Api<Lease> {
    Api::namespaced(client, RELEASE)
}

async fn patch(leases: &Api<Lease>, name: &str, patch: Value) -> kube::Result<()> {
    leases.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}

async fn delete(leases: &Api<Lease>, name: &str) -> kube::Result<()> {
    leases.delete(name, &DeleteParams::default()).await.map(drop)
}

/// Deletes those of a collection, by a request that names none.
async fn delete_all(leases: &Api<Lease>) -> kube::Result<()> {
    let rights = ListParams::default().labels("rights");
    leases.delete_collection(&DeleteParams::default(), &rights).await.map(drop)
}

/// Returns a Lease with a label by which it can be deleted among others.
fn lease(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"rights": ""}}, "spec": {"holderIdentity": "a"}})
}

/// Creates the operators' Lease, as an operator.
async fn create() -> Result<()> {
    get_or_create(&leases(speaking_for("sockeye-operator").await?), lease(OPERATORS)).await.map(drop)
}

/// Installs the chart, creates the Lease, and waits until the policy is in effect. Returns the way of somebody whom
/// RBAC lets do everything with Leases there.
async fn policy() -> Result<Api<Lease>> {
    install()?;
    let any_lease = json!([{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["*"]}]);
    grant_in_release(&admin().await?, "rights-leases", any_lease).await?;
    let root = leases(admin().await?);
    if root.get_opt(OPERATORS).await?.is_some() {
        delete(&root, OPERATORS).await?;
    }
    create().await?;
    let local = leases(as_person("rights-leases").await?);
    in_effect(NOT_AN_OPERATOR, || patch(&local, OPERATORS, json!({"metadata": {"labels": {"a": "b"}}}))).await?;
    Ok(local)
}

/// Whoever could change it, again and again, would keep every operator from leading.
#[tokio::test]
async fn only_operators_change_their_lease() -> Result<()> {
    let local = policy().await?;
    let root = leases(admin().await?);
    let before = root.get(OPERATORS).await?;
    let takes = json!({"spec": {"holderIdentity": "another"}});
    for other in [&local, &root] {
        refused(patch(other, OPERATORS, takes.clone()).await, NOT_AN_OPERATOR).context("spec")?;
        refused(patch(other, OPERATORS, json!({"metadata": {"finalizers": ["a/b"]}})).await, NOT_AN_OPERATOR)?;
        let replaced = other.replace(OPERATORS, &PostParams::default(), &before).await;
        refused(replaced.map(drop), NOT_AN_OPERATOR).context("replace")?;
    }
    refused(delete(&local, OPERATORS).await, NOT_AN_OPERATOR)?;
    refused(delete_all(&local).await, NOT_AN_OPERATOR)?;
    ensure!(root.get(OPERATORS).await? == before);
    let operator = leases(speaking_for("sockeye-operator").await?);
    let mut renewed = operator.get(OPERATORS).await?;
    renewed.spec.get_or_insert_default().holder_identity = Some("b".to_owned());
    operator.replace(OPERATORS, &PostParams::default(), &renewed).await?;
    // Others are anybody's.
    get_or_create(&local, lease("rights-other")).await?;
    patch(&local, "rights-other", takes).await?;
    delete(&local, "rights-other").await?;
    Ok(())
}

/// Operators keep the metadata of the Lease that they find. One that is as large as the API server takes could not be
/// renewed: an operator's write of it would be too large.
#[tokio::test]
async fn only_operators_create_their_lease() -> Result<()> {
    let local = policy().await?;
    let root = leases(admin().await?);
    delete(&root, OPERATORS).await?;
    let object = serde_json::from_value(lease(OPERATORS))?;
    let mut applied = lease(OPERATORS);
    applied["apiVersion"] = json!("coordination.k8s.io/v1");
    applied["kind"] = json!("Lease");
    for other in [&local, &root, &leases(as_master(GARBAGE_COLLECTOR, [].into()).await?)] {
        refused(other.create(&PostParams::default(), &object).await.map(drop), NOT_AN_OPERATOR)?;
        let by_apply = other.patch(OPERATORS, &PatchParams::apply("rights").force(), &Patch::Apply(&applied)).await;
        refused(by_apply.map(drop), NOT_AN_OPERATOR).context("apply")?;
        refused(other.replace(OPERATORS, &PostParams::default(), &object).await.map(drop), NOT_AN_OPERATOR)
            .context("replace creates it, too")?;
    }
    create().await
}

#[tokio::test]
async fn a_cluster_admin_and_kubernetes_controllers_may_delete_the_lease() -> Result<()> {
    policy().await?;
    let root = leases(admin().await?);
    delete(&root, OPERATORS).await?;
    for user in [NAMESPACE_CONTROLLER, GARBAGE_COLLECTOR, CONTROLLER_MANAGER] {
        create().await?;
        delete_all(&leases(as_master(user, [].into()).await?)).await.context(user)?;
        ensure!(root.get_opt(OPERATORS).await?.is_none(), "{user} deleted nothing");
    }
    Ok(())
}
