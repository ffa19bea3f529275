//! Roles for people: who gets them without a binding of their own.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::{Api, Client};
use sockeye_tests::identity::admin;

use crate::chart::install;

/// The label by which OpenShift's role for those who look after a cluster takes up a ClusterRole's rules.
const CLUSTER_READER: &str = "rbac.authorization.k8s.io/aggregate-to-cluster-reader";

/// Returns those of the roles for users that take up a ClusterRole's rules: Kubernetes' own by their selectors, and
/// OpenShift's by the label, since no other cluster has it.
async fn aggregated_by(client: &Client, role: &str) -> Result<Vec<&'static str>> {
    let roles = Api::<ClusterRole>::all(client.clone());
    let labels: BTreeMap<String, String> = roles.get(role).await?.metadata.labels.unwrap_or_default();
    let mut aggregating = Vec::new();
    for role in ["view", "edit", "admin"] {
        let rule = roles.get(role).await?.aggregation_rule.context("the role aggregates nothing")?;
        let selectors = rule.cluster_role_selectors.unwrap_or_default();
        let selects = selectors
            .into_iter()
            .filter_map(|selector| selector.match_labels)
            .any(|wanted| wanted.iter().all(|(key, value)| labels.get(key) == Some(value)));
        if selects {
            aggregating.push(role);
        }
    }
    aggregating.extend((labels.get(CLUSTER_READER).map(String::as_str) == Some("true")).then_some("cluster-reader"));
    Ok(aggregating)
}

/// Writing BpfPrograms is worth root on the nodes, and only cluster admins have that by themselves.
#[tokio::test]
async fn viewing_comes_with_kubernetes_roles_and_editing_does_not() -> Result<()> {
    install()?;
    let client = admin().await?;
    ensure!(aggregated_by(&client, "sockeye-viewer").await? == ["view", "edit", "admin", "cluster-reader"]);
    for role in ["sockeye-editor", "sockeye-operator", "sockeye-agent"] {
        let aggregating = aggregated_by(&client, role).await?;
        ensure!(aggregating.is_empty(), "{role} is part of {aggregating:?}");
    }
    Ok(())
}
