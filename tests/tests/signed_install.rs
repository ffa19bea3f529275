//! sockeye itself, installed as a release is: by Helm from a registry, by the chart's digest, which fixes the images'.
//! What ships with it runs because it is signed, under a policy that allows nothing else. The nodes verify that too.
//!
//! The images are those of the local cluster, published as a release is (tests/cluster/publish.sh). The test shares the
//! cluster and runs alone (`--test-threads=1`).
#![allow(missing_docs)]

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sockeye_tests::{
    TIMEOUT, condition, json, kubectl,
    program::TestProgram,
    registry::{REGISTRY, Registry},
    release::{HELM, NAMESPACE, RestoredChart, wait_until_gone},
    repo, wait_until,
};

/// Only what the release's key signed may run.
fn signed_only(key: &str) -> Value {
    let require = json!({"type": "Signature", "signature": {"keys": ["release"]}});
    json!({"policy": {
        "signatures": {"mode": "Enforce", "keys": {"release": key},
            "rules": [{"name": "builtins", "match": {"sources": ["Builtin"]}, "require": require}]},
        "nodes": {"verify": true},
    }})
}

/// Returns the fields of a spec for a program that ships with sockeye, with the signature of one.
fn builtin(signature: Option<&str>) -> Value {
    let mut bytecode = json!({"builtin": "tcp-rtt"});
    if let Some(bundle) = signature {
        bytecode["signatures"] = json!([{"type": "Bundle", "bundle": bundle}]);
    }
    json!({"bytecode": bytecode, "programs": [{"name": "measure"}, {"name": "remember"}]})
}

fn refused_by_policy(program: &TestProgram) -> Result<()> {
    let found = program.condition_is("Accepted", "False")?;
    let accepted = condition(&found, "Accepted").context("no Accepted")?;
    ensure!(accepted["reason"] == "SignatureRequired", "{accepted}");
    ensure!(accepted["message"].to_string().contains("builtins"), "{accepted}");
    Ok(())
}

/// Fails unless every container of the release runs an image of the registry, by its digest.
fn images_are_by_digest() -> Result<()> {
    let pods = json(&["get", "pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/name=sockeye"])?;
    let running = pods["items"].as_array().context("no pods")?.iter();
    let running = running.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    let containers = running.flat_map(|pod| pod["spec"]["containers"].as_array().into_iter().flatten());
    let images: Vec<&str> = containers.filter_map(|container| container["image"].as_str()).collect();
    ensure!(images.len() == 4, "two operators and two agents, not {images:?}");
    let prefix = format!("{REGISTRY}/sockeye-");
    ensure!(images.iter().all(|image| image.starts_with(&prefix) && image.contains("@sha256:")), "{images:?}");
    Ok(())
}

#[test]
fn a_release_is_installed_by_its_digest_and_runs_only_what_it_signed() -> Result<()> {
    let registry = Registry::on_cluster()?;
    let key = registry.key()?;
    let release = registry.publish_sockeye()?;
    let values = repo().join("target/cluster/signed-values.json");
    fs::write(&values, signed_only(&key).to_string())?;
    let values = values.display().to_string();
    let _restored = RestoredChart;
    HELM.uninstall(&["--ignore-not-found"])?;
    wait_until_gone()?;

    let chart = |digest: &str| format!("oci://{REGISTRY}/charts/sockeye@{digest}");
    let other = format!("sha256:{}", "0".repeat(64));
    let refused = HELM.install_chart(&chart(&other), &["--plain-http", "--values", &values]);
    ensure!(refused.is_err(), "it installed a chart of another digest");
    HELM.install_chart(&chart(&release.chart_digest), &["--plain-http", "--values", &values])?;
    images_are_by_digest()?;

    let program = TestProgram::apply("shipped", b"", builtin(None))?;
    refused_by_policy(&program)?;
    // The signature of another program is none of this one.
    program.edit(b"", builtin(Some(&release.signature("connect-audit")?)))?;
    refused_by_policy(&program)?;
    program.edit(b"", builtin(Some(&release.signature("tcp-rtt")?)))?;
    let found = program.ready_on("2/2")?;
    let by = &found["status"]["bytecode"]["signedBy"];
    ensure!(*by == json!([{"type": "Key", "key": {"hint": "release"}}]), "{by}");

    // No rule is about other bytes, so nothing else runs.
    let unsigned = TestProgram::apply("unsigned", sockeye_ebpf::programs::TCP_EVENTS_BTF, json!({}))?;
    unsigned.condition_is("Accepted", "False")?;
    // With the registry away, what is installed and stored runs on.
    drop(registry);
    kubectl(&["delete", "pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=agent", "--wait=true"])?;
    wait_until(TIMEOUT, "the agents", || Ok(images_are_by_digest().is_ok()))?;
    program.ready_on("2/2")?;
    Ok(())
}
