//! Rights to the ConfigMaps of the release namespace that mean something to sockeye: the bytes that agents load, and
//! the kill switch.

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use sockeye_crds::names::{LABEL_OBJECT, SUSPENSION};
use sockeye_tests::{
    chart::kubectl,
    identity::{RELEASE, admin, get_or_create},
};

use crate::{
    bpfnodes::owner,
    chart::install,
    clients::{
        CONTROLLER_MANAGER, GARBAGE_COLLECTOR, NAMESPACE_CONTROLLER, as_master, as_person, bind, grant,
        grant_in_release, in_effect, refused, speaking_for,
    },
};

const NOT_STORED: &str = "bytes that agents load: only the operator creates, changes and deletes it";
const NOT_SUSPENDED: &str = "you need the verb \"suspend\" on bpfprograms.sockeye.dev";
const NOT_UNINSTALLED: &str = "deletes the bytes that agents load, and no other ConfigMap";
const NOT_MARKED: &str = "the label sockeye.dev/object marks bytes that the operator stores and deletes";

const NOT_CHOSEN: &str = "the operator must not choose the policy for signatures";
const NOT_INSTALLED: &str = "you need the right to change ValidatingAdmissionPolicy sockeye-configmaps";

const OPERATOR: &str = "system:serviceaccount:sockeye-system:sockeye-operator";

/// The policy by which nodes verify.
const POLICY: &str = "sockeye-signature-policy";
/// A ConfigMap that would hold bytes, and one that anybody may have.
const STORED: &str = "sockeye-object-rights";
const OTHER: &str = "rights-other";

/// An identity's way to the ConfigMaps of a namespace.
struct ConfigMaps(Api<ConfigMap>);

impl ConfigMaps {
    fn of(client: Client) -> Self {
        Self(Api::namespaced(client, RELEASE))
    }

    async fn of_master(user: &str) -> Result<Self> {
        Ok(Self::of(as_master(user, [].into()).await?))
    }

    async fn create(&self, metadata: Value) -> kube::Result<()> {
        let object = json!({"metadata": metadata, "data": {"reason": "rights"}});
        let object = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
        self.0.create(&PostParams::default(), &object).await.map(drop)
    }

    async fn patch(&self, name: &str, patch: Value) -> kube::Result<()> {
        self.0.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    }

    /// Takes over all fields by server-side apply.
    async fn apply(&self, name: &str) -> kube::Result<()> {
        let data = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}});
        self.0.patch(name, &PatchParams::apply("rights").force(), &Patch::Apply(data)).await.map(drop)
    }

    async fn delete(&self, name: &str) -> kube::Result<()> {
        self.0.delete(name, &DeleteParams::default()).await.map(drop)
    }

    /// Deletes those of a collection, by a request that names none.
    async fn delete_all(&self, labels: &str) -> kube::Result<()> {
        self.0.delete_collection(&DeleteParams::default(), &ListParams::default().labels(labels)).await.map(drop)
    }

    /// Creates one as the operator does, with a label by which it can be deleted among others.
    async fn store(&self) -> kube::Result<()> {
        self.create(json!({"name": STORED, "labels": {LABEL_OBJECT: "true", "rights": ""}})).await
    }

    /// Fails unless every write of this ConfigMap is refused with these words, and it stays as it is.
    async fn can_not_write(&self, name: &str, words: &str) -> Result<()> {
        let before = self.0.get(name).await?;
        refused(self.patch(name, json!({"data": {"reason": "another"}})).await, words).context("data")?;
        for metadata in [
            json!({"labels": {"a": "b"}}),
            json!({"annotations": {"a": "b"}}),
            json!({"finalizers": ["example.com/held"]}),
            // The garbage collector would delete it.
            json!({"ownerReferences": [owner("Node", "rights-gone")]}),
        ] {
            let patch = json!({"metadata": metadata});
            refused(self.patch(name, patch.clone()).await, words).with_context(|| patch.to_string())?;
        }
        refused(self.patch(name, json!({"immutable": true})).await, words).context("immutable")?;
        refused(self.apply(name).await, words).context("apply")?;
        refused(self.0.replace(name, &PostParams::default(), &before).await.map(drop), words).context("replace")?;
        for parameters in [DeleteParams::default(), DeleteParams::foreground(), DeleteParams::orphan()] {
            refused(self.0.delete(name, &parameters).await.map(drop), words).context("delete")?;
        }
        refused(self.delete_all("rights").await, words).context("a collection")?;
        refused(self.delete_all("").await, words).context("everything")?;
        ensure!(self.0.get(name).await? == before);
        Ok(())
    }
}

/// Installs the chart, waits until its policy is in effect, and deletes the ConfigMaps that earlier tests left. Returns
/// the operator's way, by a real token, and that of somebody whom RBAC lets do everything with ConfigMaps there.
async fn policy() -> Result<(ConfigMaps, ConfigMaps)> {
    install()?;
    let all = ConfigMaps::of_master(GARBAGE_COLLECTOR).await?;
    for name in [STORED, SUSPENSION, OTHER, POLICY] {
        for gone in [all.patch(name, json!({"metadata": {"finalizers": null}})).await, all.delete(name).await] {
            match gone {
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                gone => gone?,
            }
        }
    }
    grant_in_release(&admin().await?, "rights-local", any_configmap()).await?;
    let local = ConfigMaps::of(as_person("rights-local").await?);
    let stored = serde_json::from_value(json!({"metadata": {"name": STORED}}))?;
    let asks = PostParams { dry_run: true, ..PostParams::default() };
    in_effect(NOT_STORED, || async { local.0.create(&asks, &stored).await.map(drop) }).await?;
    Ok((ConfigMaps::of(speaking_for("sockeye-operator").await?), local))
}

/// Nodes verify by it what the operator dispatches.
#[tokio::test]
async fn the_operator_must_not_choose_the_policy_for_signatures() -> Result<()> {
    let (operator, _) = policy().await?;
    refused(operator.create(json!({"name": POLICY})).await, NOT_CHOSEN)?;
    let root = ConfigMaps::of(admin().await?);
    root.create(json!({"name": POLICY})).await.context("whoever installs the chart creates it")?;
    refused(operator.delete(POLICY).await, NOT_CHOSEN)?;
    // RBAC does not let it change one, and the policy would not either.
    let unlimited = ConfigMaps::of_master(OPERATOR).await?;
    refused(unlimited.patch(POLICY, json!({"data": {"policy.json": "{}"}})).await, NOT_CHOSEN)?;
    Ok(root.delete(POLICY).await?)
}

/// Operators and agents would read what they wrote at their next start, and ask for no signature any more.
#[tokio::test]
async fn the_policy_for_signatures_takes_the_right_to_change_what_guards_it() -> Result<()> {
    let (_, local) = policy().await?;
    let client = admin().await?;
    bind(&client, "rights-root", "cluster-admin").await?;
    let rules = |name: &str| {
        json!([{"apiGroups": ["admissionregistration.k8s.io"], "resources": ["validatingadmissionpolicies"],
            "resourceNames": [name], "verbs": ["patch"]}])
    };
    for (user, guard) in [("rights-installer", "sockeye-configmaps"), ("rights-other-installer", "sockeye-lease")] {
        grant(&client, user, rules(guard)).await?;
        grant_in_release(&client, user, any_configmap()).await?;
    }
    let other = ConfigMaps::of(as_person("rights-other-installer").await?);
    for user in ["rights-root", "rights-installer"] {
        let installer = ConfigMaps::of(as_person(user).await?);
        for refused_one in [&local, &other] {
            refused(refused_one.create(json!({"name": POLICY})).await, NOT_INSTALLED)?;
            refused(refused_one.apply(POLICY).await, NOT_INSTALLED)?;
        }
        installer.create(json!({"name": POLICY, "labels": {"rights": ""}})).await?;
        for refused_one in [&local, &other] {
            refused_one.can_not_write(POLICY, NOT_INSTALLED).await?;
        }
        installer.apply(POLICY).await?;
        installer.delete(POLICY).await?;
    }
    // It goes with its namespace.
    for user in [NAMESPACE_CONTROLLER, GARBAGE_COLLECTOR, CONTROLLER_MANAGER] {
        ConfigMaps::of(client.clone()).create(json!({"name": POLICY})).await?;
        ConfigMaps::of_master(user).await?.delete(POLICY).await.context(user)?;
    }
    Ok(())
}

/// Whoever could write them would have agents fail to load an object, or, as the operator trusts what it stored, keep
/// everybody from running a builtin.
#[tokio::test]
async fn only_the_operator_writes_the_bytes_that_agents_load() -> Result<()> {
    let (operator, local) = policy().await?;
    // A cluster admin by RBAC, and one whom no authorizer limits.
    bind(&admin().await?, "rights-root", "cluster-admin").await?;
    let root = ConfigMaps::of(as_person("rights-root").await?);
    let agent = ConfigMaps::of(speaking_for("sockeye-agent").await?);
    for other in [&local, &root, &ConfigMaps::of(admin().await?)] {
        refused(other.create(json!({"name": STORED})).await, NOT_STORED)?;
        refused(other.create(json!({"generateName": "sockeye-object-"})).await, NOT_STORED)?;
        refused(other.apply(STORED).await, NOT_STORED)?;
        operator.store().await?;
        other.can_not_write(STORED, NOT_STORED).await?;
        let unmarked = json!({"metadata": {"labels": {LABEL_OBJECT: null}}});
        refused(other.patch(STORED, unmarked).await, NOT_STORED)?;
        operator.delete(STORED).await?;
    }
    refused(agent.create(json!({"name": STORED})).await, "cannot create resource")?;
    // The same name means nothing in another namespace.
    let elsewhere = Api::<ConfigMap>::namespaced(admin().await?, "default");
    get_or_create(&elsewhere, json!({"metadata": {"name": STORED, "labels": {LABEL_OBJECT: "true"}}})).await?;
    elsewhere.delete(STORED, &DeleteParams::default()).await?;
    Ok(())
}

#[tokio::test]
async fn other_configmaps_of_the_release_namespace_are_anybodys() -> Result<()> {
    let (_, local) = policy().await?;
    local.create(json!({"name": OTHER, "labels": {"rights": ""}})).await?;
    local.patch(OTHER, json!({"data": {"reason": "another"}, "metadata": {"labels": {"a": "b"}}})).await?;
    local.delete_all("rights").await?;
    ensure!(local.0.get_opt(OTHER).await?.is_none(), "it was not deleted");
    Ok(())
}

/// The policies find the release namespace by the label that has its name.
#[tokio::test]
async fn the_namespace_keeps_the_label_by_which_it_is_guarded() -> Result<()> {
    const NAME: &str = "kubernetes.io/metadata.name";
    let (_, local) = policy().await?;
    let namespaces = Api::<Namespace>::all(admin().await?);
    for value in [json!(null), json!("another"), json!("")] {
        let patch = Patch::Merge(json!({"metadata": {"labels": {NAME: value}}}));
        // The API server refuses it, or sets the label again.
        let _ = namespaces.patch(RELEASE, &PatchParams::default(), &patch).await;
        let labels = namespaces.get(RELEASE).await?.metadata.labels.unwrap_or_default();
        ensure!(labels.get(NAME).is_some_and(|name| name == RELEASE), "{labels:?}");
        refused(local.create(json!({"name": STORED})).await, NOT_STORED)?;
    }
    Ok(())
}

/// Kubernetes' controllers remove what goes with the namespace, and the Job before an uninstallation removes the bytes.
#[tokio::test]
async fn controllers_and_the_uninstall_job_may_delete_what_nobody_else_may() -> Result<()> {
    let (operator, _) = policy().await?;
    let root = ConfigMaps::of(admin().await?);
    for user in [NAMESPACE_CONTROLLER, GARBAGE_COLLECTOR, CONTROLLER_MANAGER] {
        operator.store().await?;
        root.create(json!({"name": SUSPENSION, "labels": {"rights": ""}})).await?;
        let controller = ConfigMaps::of_master(user).await?;
        controller.delete_all("rights").await.context(user)?;
        refused(controller.create(json!({"name": STORED})).await, NOT_STORED)?;
        ensure!(root.0.list(&ListParams::default().labels("rights")).await?.items.is_empty(), "{user} deleted nothing");
    }
    // As it asks, with its own rights.
    operator.store().await?;
    let job = ConfigMaps::of(speaking_for("sockeye-uninstall").await?);
    job.delete_all(&format!("{LABEL_OBJECT}=true")).await?;
    ensure!(root.0.get_opt(STORED).await?.is_none(), "it was not deleted");
    // Its right is to delete any collection.
    for other in [SUSPENSION, OTHER] {
        root.create(json!({"name": other, "labels": {"rights": ""}})).await?;
        refused(job.delete_all("rights").await, NOT_UNINSTALLED).context(other)?;
        root.delete(other).await?;
    }
    Ok(())
}

/// The garbage collector takes its finalizer off what is deleted in the foreground, which is an update.
#[tokio::test]
async fn the_garbage_collector_may_finalize_what_is_deleted_in_the_foreground() -> Result<()> {
    let (operator, _) = policy().await?;
    for user in [GARBAGE_COLLECTOR, CONTROLLER_MANAGER] {
        operator.store().await?;
        operator.0.delete(STORED, &DeleteParams::foreground()).await?;
        let collector = ConfigMaps::of_master(user).await?;
        collector.patch(STORED, json!({"metadata": {"finalizers": null}})).await?;
        ensure!(collector.0.get_opt(STORED).await?.is_none(), "it is still there");
    }
    Ok(())
}

/// A plain `kubectl` works it, for whoever has the verb: a cluster admin by `*`.
#[tokio::test]
async fn the_kill_switch_needs_the_verb_suspend() -> Result<()> {
    let (operator, local) = policy().await?;
    let client = admin().await?;
    bind(&client, "rights-root", "cluster-admin").await?;
    let on_call = on_call(&client).await?;
    // Who may write BpfPrograms, and any ConfigMap here, has no right to it.
    bind(&client, "rights-editor", "sockeye-editor").await?;
    // A verb that is given in a namespace, or for one BpfProgram, is none in the whole cluster.
    let rules = json!([
        any_configmap()[0],
        {"apiGroups": ["sockeye.dev"], "resources": ["bpfprograms"], "verbs": ["suspend"]},
    ]);
    grant_in_release(&client, "rights-editor", rules).await?;
    let of_one = json!([{"apiGroups": ["sockeye.dev"], "resources": ["bpfprograms"], "resourceNames": ["one"],
        "verbs": ["suspend"]}]);
    grant(&client, "rights-editor-of-one", of_one).await?;
    bind(&client, "rights-editor", "rights-editor-of-one").await?;
    let editor = ConfigMaps::of(as_person("rights-editor").await?);
    for user in ["rights-root", on_call] {
        let by = |args: &[&str]| kubectl(&[&["-n", RELEASE, "--as", user], args].concat(), "");
        for other in [&editor, &local, &operator] {
            refused(other.create(json!({"name": SUSPENSION})).await, NOT_SUSPENDED)?;
        }
        refused(local.apply(SUSPENSION).await, NOT_SUSPENDED)?;
        by(&["create", "configmap", SUSPENSION, "--from-literal=reason=incident 42"])?;
        by(&["label", "configmap", SUSPENSION, "rights="])?;
        for other in [&editor, &local] {
            other.can_not_write(SUSPENSION, NOT_SUSPENDED).await?;
        }
        refused(operator.delete(SUSPENSION).await, NOT_SUSPENDED)?;
        by(&["delete", "configmap", SUSPENSION])?;
    }
    Ok(())
}

/// Returns a user who may work the kill switch and nothing else, as docs/security.md shows.
async fn on_call(client: &Client) -> Result<&'static str> {
    const USER: &str = "rights-on-call";
    let suspends = json!([{"apiGroups": ["sockeye.dev"], "resources": ["bpfprograms"], "verbs": ["suspend"]}]);
    grant(client, USER, suspends).await?;
    let its_configmap = json!([
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]},
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [SUSPENSION],
            "verbs": ["get", "patch", "delete"]},
    ]);
    grant_in_release(client, USER, its_configmap).await?;
    Ok(USER)
}

/// Returns the rules of a role that may do everything with ConfigMaps, as admins and editors of the namespace may.
fn any_configmap() -> Value {
    json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["*"]}])
}

/// The operator deletes what has the label and is not needed. On the kill switch it would end the suspension.
#[tokio::test]
async fn only_the_operator_marks_what_it_deletes() -> Result<()> {
    let (_, local) = policy().await?;
    let root = ConfigMaps::of(admin().await?);
    let marked = json!({"metadata": {"labels": {LABEL_OBJECT: ""}}});
    root.create(json!({"name": SUSPENSION})).await?;
    refused(root.patch(SUSPENSION, marked.clone()).await, NOT_MARKED)?;
    root.delete(SUSPENSION).await?;
    refused(root.create(json!({"name": SUSPENSION, "labels": {LABEL_OBJECT: "true"}})).await, NOT_MARKED)?;
    for other in [&local, &root] {
        refused(other.create(json!({"name": OTHER, "labels": {LABEL_OBJECT: "true"}})).await, NOT_MARKED)?;
        other.create(json!({"name": OTHER})).await?;
        refused(other.patch(OTHER, marked.clone()).await, NOT_MARKED)?;
        let apply = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": OTHER,
            "labels": {LABEL_OBJECT: "true"}}});
        let applied = other.0.patch(OTHER, &PatchParams::apply("rights").force(), &Patch::Apply(apply)).await;
        refused(applied.map(drop), NOT_MARKED)?;
        other.delete(OTHER).await?;
    }
    // One that was marked before the policy was there may be edited and deleted, and its label can go.
    let operator = ConfigMaps::of_master(&format!("system:serviceaccount:{RELEASE}:sockeye-operator")).await?;
    for last in [json!({"metadata": {"labels": {LABEL_OBJECT: null}}}), json!({"data": {"reason": "another"}})] {
        operator.create(json!({"name": OTHER, "labels": {LABEL_OBJECT: "true"}})).await?;
        local.patch(OTHER, json!({"data": {"reason": "changed"}})).await?;
        if local.patch(OTHER, json!({"metadata": {"labels": {LABEL_OBJECT: "false"}}})).await.is_ok() {
            bail!("the label was changed");
        }
        local.patch(OTHER, last).await?;
        local.delete(OTHER).await?;
    }
    Ok(())
}
