//! Rights to Secrets: none.

use anyhow::Result;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, api::ListParams};
use serde_json::json;
use sockeye_tests::identity::{RELEASE, admin, get_or_create};

use crate::{
    bpfnodes::OURS,
    chart::install,
    clients::{agent_on, refused, speaking_for},
};

#[tokio::test]
async fn neither_agents_nor_operator_may_read_secrets() -> Result<()> {
    install()?;
    let secrets = Api::<Secret>::namespaced(admin().await?, RELEASE);
    get_or_create(&secrets, json!({"metadata": {"name": "regcred"}, "stringData": {"a": "b"}})).await?;
    for client in [agent_on(OURS).await?, speaking_for("sockeye-operator").await?] {
        let secrets = Api::<Secret>::namespaced(client.clone(), RELEASE);
        refused(secrets.get("regcred").await.map(drop), "cannot get resource \"secrets\"")?;
        refused(secrets.list(&ListParams::default()).await.map(drop), "cannot list resource \"secrets\"")?;
        let everywhere = Api::<Secret>::all(client);
        refused(everywhere.list(&ListParams::default()).await.map(drop), "cannot list resource \"secrets\"")?;
    }
    Ok(())
}
