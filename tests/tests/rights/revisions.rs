//! Rights to BpfRevisions: the operator creates them, and nobody else may delete a live one.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::json;
use sockeye_crds::{BpfRevision, names::LABEL_LIVE};
use sockeye_tests::identity::admin;

use crate::{
    bpfnodes::owner,
    chart::install,
    clients::{as_master, in_effect, refused, speaking_for},
};

/// The API server here has OwnerReferencesPermissionEnforcement: who sets blockOwnerDeletion needs the right to update
/// the owner's finalizers, which the operator lacks. Its revisions do not block the deletion of their BpfProgram.
#[tokio::test]
async fn the_operator_may_create_revisions_owned_by_a_bpfprogram() -> Result<()> {
    install()?;
    let revisions = Api::<BpfRevision>::all(speaking_for("sockeye-operator").await?);
    dispatch(&revisions, "rights-1").await?;
    revisions.delete("rights-1", &DeleteParams::default()).await?;
    Ok(())
}

/// An admin who deletes a revision by mistake would lose its maps.
#[tokio::test]
async fn a_cluster_admin_may_not_delete_a_live_revision() -> Result<()> {
    install()?;
    let by_hand = Api::<BpfRevision>::all(admin().await?);
    let operator = Api::<BpfRevision>::all(speaking_for("sockeye-operator").await?);
    let collector = as_master("system:serviceaccount:kube-system:generic-garbage-collector", HashMap::new()).await?;
    let collector = Api::<BpfRevision>::all(collector);
    let words =
        "without it the maps of BpfProgram rights would be lost. Set spec.suspend of that BpfProgram, or delete it";
    let (one, all) = (DeleteParams::default(), ListParams::default().labels("sockeye.dev/live=true"));
    for gone_by in [&operator, &collector] {
        dispatch(&operator, "rights-2").await?;
        in_effect(words, || async { by_hand.delete("rights-2", &DeleteParams::default().dry_run()).await.map(drop) })
            .await?;
        refused(by_hand.delete("rights-2", &one).await.map(drop), words)?;
        refused(by_hand.delete_collection(&one, &all).await.map(drop), words)?;
        by_hand.get("rights-2").await.context("it was deleted")?;
        gone_by.delete("rights-2", &one).await?;
    }
    // Agents do not run one that is not live.
    dispatch(&operator, "rights-2").await?;
    let withdrawn = json!({"metadata": {"labels": {LABEL_LIVE: null}}});
    operator.patch("rights-2", &PatchParams::default(), &Patch::Merge(withdrawn)).await?;
    by_hand.delete("rights-2", &one).await?;
    Ok(())
}

/// Writes a live revision as the operator does.
async fn dispatch(revisions: &Api<BpfRevision>, name: &str) -> kube::Result<BpfRevision> {
    let mut controller = owner("BpfProgram", "rights");
    controller["apiVersion"] = json!("sockeye.dev/v1alpha1");
    controller["controller"] = json!(true);
    let revision = json!({
        "apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfRevision",
        "metadata": {"name": name, "labels": {LABEL_LIVE: "true"}, "ownerReferences": [controller]},
        "spec": {
            "program": {"name": "rights", "uid": "1"}, "generation": 1, "sequence": 1,
            "digest": format!("sha256:{}", "0".repeat(64)),
            "object": {"programs": [], "maps": [], "license": "GPL", "btf": true},
            "programs": [{"name": "my_prog", "attach": [{"cgroup": {"scope": "Node"}}]}],
        },
    });
    revisions.patch(name, &PatchParams::apply("sockeye-operator").force(), &Patch::Apply(&revision)).await
}
