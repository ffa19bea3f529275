//! The service accounts' tokens that the chart mounts: how long who finds one can use it.

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    batch::v1::Job,
    core::v1::{Pod, PodSpec, ServiceAccount},
};
use kube::{Api, Client, api::PostParams};
use serde_json::Value;
use sockeye_tests::identity::{RELEASE, admin};

use crate::{chart::install, clients::agent_on};

const NODE: &str = "rights-tokens";

#[tokio::test]
async fn every_mounted_token_is_valid_for_an_hour() -> Result<()> {
    install()?;
    let client = admin().await?;
    let agent = Api::<DaemonSet>::namespaced(client.clone(), RELEASE).get("sockeye-agent").await?;
    let operator = Api::<Deployment>::namespaced(client.clone(), RELEASE).get("sockeye-operator").await?;
    let jobs = Api::<Job>::namespaced(client.clone(), RELEASE);
    let mut pods =
        vec![agent.spec.and_then(|spec| spec.template.spec), operator.spec.and_then(|spec| spec.template.spec)];
    for job in ["sockeye-crds", "sockeye-uninstall"] {
        pods.push(jobs.get(job).await?.spec.and_then(|spec| spec.template.spec));
    }
    for pod in pods {
        let pod = pod.context("no pod")?;
        let account = pod.service_account_name.clone().unwrap_or_default();
        ensure!(pod.automount_service_account_token == Some(false), "{account}: Kubernetes mounts a token, too");
        ensure!(asked_for(&pod) == [3600], "{account}: tokens of {:?} s", asked_for(&pod));
    }
    agent_on(NODE).await?;
    let valid = seconds_valid(&client, 3600).await?;
    ensure!(valid == 3600, "the token is valid for {valid} s");
    // Asked for the 3607 seconds that it mounts by itself, Kubernetes gives a token for a year.
    let valid = seconds_valid(&client, 3607).await?;
    ensure!(valid > 24 * 3600, "a token that Kubernetes mounts by itself is valid for {valid} s, too");
    Ok(())
}

/// Returns the seconds that the tokens mounted into a pod are asked for.
fn asked_for(pod: &PodSpec) -> Vec<i64> {
    let volumes = pod.volumes.iter().flatten().filter_map(|volume| volume.projected.as_ref());
    let sources = volumes.flat_map(|projected| projected.sources.iter().flatten());
    sources.filter_map(|source| source.service_account_token.as_ref()?.expiration_seconds).collect()
}

/// Returns the seconds that a token of an agent's pod is valid which was asked for so many.
async fn seconds_valid(client: &Client, seconds: i64) -> Result<i64> {
    let pod = Api::<Pod>::namespaced(client.clone(), RELEASE).get(&format!("agent-on-{NODE}")).await?;
    let bound = BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: pod.metadata.name,
        uid: pod.metadata.uid,
    };
    let spec =
        TokenRequestSpec { bound_object_ref: Some(bound), expiration_seconds: Some(seconds), ..Default::default() };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), RELEASE);
    let granted = accounts.create_token_request("sockeye-agent", &PostParams::default(), &request).await?;
    let token = granted.status.context("no token")?.token;
    let claims = token.split('.').nth(1).context("no JWT")?;
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?;
    let at = |claim: &str| claims[claim].as_i64().with_context(|| claim.to_owned());
    Ok(at("exp")? - at("iat")?)
}
