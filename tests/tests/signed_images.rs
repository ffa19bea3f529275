//! Bytecode in images, end to end on the local cluster of two nodes: a real registry, a tag that moves, a registry that
//! is away, signatures by cosign, and nodes that verify what the operator dispatches.
//!
//! The tests share the cluster and run one after the other (`--test-threads=1`).
#![allow(missing_docs)]

use std::{
    fs,
    process::{self, Command},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sockeye_crds::names;
use sockeye_ebpf::programs::{TCP_EVENTS, TCP_EVENTS_BTF};
use sockeye_tests::{
    NODES, TIMEOUT, condition, json, kubectl,
    program::{TestProgram, report},
    registry::{REGISTRY, Registry},
    release::{NAMESPACE, RestoredChart},
    repo, run, wait_until,
};

const REPOSITORY: &str = "team/guard";

/// Installs the chart so that it talks to the registry, with more values.
fn install(more: &Value) -> Result<RestoredChart> {
    let mut values = json!({"images": {"insecureRegistries": [REGISTRY], "resolveInterval": "3s"}});
    values.as_object_mut().context("no object")?.extend(more.as_object().cloned().unwrap_or_default());
    RestoredChart::install_with(&values)
}

fn image(more: Value) -> Value {
    let mut image = json!({"reference": format!("{REGISTRY}/{REPOSITORY}:v1")});
    image.as_object_mut().into_iter().for_each(|image| image.extend(more.as_object().cloned().unwrap_or_default()));
    json!({"bytecode": {"image": image}})
}

fn has_event(program: &str, reason: &str) -> Result<bool> {
    let selector = format!("involvedObject.name={program},reason={reason}");
    Ok(!kubectl(&["get", "events", "-n", "default", "--field-selector", &selector, "-o", "name"])?.is_empty())
}

fn accepted(program: &TestProgram) -> Result<Value> {
    condition(&program.get()?, "Accepted").cloned().context("no Accepted")
}

/// Returns whether bytes are stored.
fn is_stored(object: &[u8]) -> Result<bool> {
    let name = names::object_config_map(&names::digest(object));
    Ok(!kubectl(&["get", "configmap", "-n", NAMESPACE, &name, "--ignore-not-found", "-o", "name"])?.is_empty())
}

#[test]
fn an_image_runs_follows_its_tag_and_outlives_its_registry() -> Result<()> {
    let mut registry = Registry::on_cluster()?;
    let _installed = install(&json!({}))?;
    let first = registry.push(REPOSITORY, "v1", TCP_EVENTS_BTF)?;
    let program = TestProgram::apply("from-image", b"", image(json!({"pullPolicy": "Always"})))?;
    let found = program.ready_on("2/2")?;
    let bytecode = &found["status"]["bytecode"];
    ensure!(bytecode["imageDigest"] == first, "{bytecode}");
    ensure!(bytecode["imageReference"] == format!("{REGISTRY}/{REPOSITORY}:v1"), "{bytecode}");
    ensure!(found["status"]["currentRevision"]["digest"] == names::digest(TCP_EVENTS_BTF), "{found:#}");

    let second = registry.push(REPOSITORY, "v1", TCP_EVENTS)?;
    wait_until(TIMEOUT, "the moved tag", || {
        let status = program.get()?["status"].clone();
        Ok(status["bytecode"]["imageDigest"] == second && status["currentRevision"]["name"] == "from-image-2")
    })?;
    program.ready_on("2/2")?;
    wait_until(TIMEOUT, "its Event", || has_event("from-image", "ImageChanged"))?;

    registry.go_away();
    wait_until(TIMEOUT, "the failure to resolve the tag", || {
        let accepted = accepted(&program)?;
        Ok(accepted["status"] == "True" && accepted["message"].to_string().contains("stays dispatched"))
    })?;
    kubectl(&["delete", "pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/name=sockeye", "--wait=true"])?;
    program.edit(b"", json!({"priority": 7, "bytecode": image(json!({"pullPolicy": "Always"}))["bytecode"]}))?;
    let found = program.ready_on("2/2")?;
    ensure!(found["status"]["currentRevision"]["name"] == "from-image-3", "{:#}", found["status"]);
    ensure!(found["status"]["bytecode"]["imageDigest"] == second, "{:#}", found["status"]);

    let absent = TestProgram::apply("from-nowhere", b"", image(json!({"reference": "198.18.0.1:9/a/b:v1"})))?;
    let found = absent.condition_is("Accepted", "False")?;
    wait_until(TIMEOUT, "the failed pull", || Ok(accepted_reason(&absent)? == "ImagePullFailed"))
        .with_context(|| format!("{:#}", found["status"]))?;
    wait_until(TIMEOUT, "its Event", || has_event("from-nowhere", "ImagePullFailed"))?;
    registry.come_back()?;
    wait_until(TIMEOUT, "the tag, resolved again", || {
        Ok(!accepted(&program)?["message"].to_string().contains("stays dispatched"))
    })?;
    Ok(())
}

fn accepted_reason(program: &TestProgram) -> Result<Value> {
    Ok(accepted(program)?["reason"].clone())
}

#[test]
fn only_what_is_signed_runs_and_nodes_verify_the_operator() -> Result<()> {
    let registry = Registry::on_cluster()?;
    let require = json!({"type": "Signature", "signature": {"keys": ["release"]}});
    let signatures = json!({
        "mode": "Enforce", "keys": {"release": registry.key()?},
        "rules": [{"name": "team", "match": {"repositories": [format!("{REGISTRY}/team/*")]}, "require": require}],
    });
    let _installed = install(&json!({"policy": {"signatures": signatures, "nodes": {"verify": true}}}))?;
    // Bytes that no other test stores, and no earlier run.
    let (signed, unsigned) = (TCP_EVENTS_BTF, &[TCP_EVENTS, &process::id().to_ne_bytes()].concat());
    registry.push(REPOSITORY, "v1", unsigned)?;
    let program = TestProgram::apply("signed", b"", image(json!({})))?;
    wait_until(TIMEOUT, "the refusal", || Ok(accepted_reason(&program)? == "SignatureRequired"))?;
    let message = accepted(&program)?["message"].to_string();
    ensure!(message.contains("team") && message.contains("release"), "{message}");
    wait_until(TIMEOUT, "its Event", || has_event("signed", "SignatureRequired"))?;
    ensure!(!is_stored(unsigned)?, "no node may see the bytes");

    let digest = registry.push(REPOSITORY, "v2", signed)?;
    registry.sign(REPOSITORY, &digest)?;
    let of_v2 = image(json!({"reference": format!("{REGISTRY}/{REPOSITORY}:v2")}));
    program.edit(b"", of_v2)?;
    let found = program.ready_on("2/2")?;
    let by = &found["status"]["bytecode"]["signedBy"];
    ensure!(*by == json!([{"type": "Key", "key": {"hint": "release"}}]), "{by}");

    // An operator in the wrong hands has the right to do this.
    let revision = json(&["get", "bpfrevisions.sockeye.dev", "signed-1"])?;
    // The real one would remove it.
    let _stopped = StoppedOperator::new()?;
    dispatch(&revision, unsigned)?;
    for node in NODES {
        wait_until(TIMEOUT, "the node's refusal", || {
            let said = report(node, "signed")?;
            Ok(said["reason"] == "VerificationFailed" && said["revision"] == "signed-1")
        })
        .with_context(|| format!("{node}: {:#}", report(node, "signed").unwrap_or_default()))?;
    }
    Ok(())
}

/// The operator is stopped until this is dropped.
struct StoppedOperator;

impl StoppedOperator {
    fn new() -> Result<Self> {
        let stopped = Self;
        scale(0)?;
        wait_until(TIMEOUT, "the end of the operator", || {
            let selector = "app.kubernetes.io/name=sockeye,app.kubernetes.io/component=operator";
            Ok(kubectl(&["get", "pods", "-n", NAMESPACE, "-l", selector, "-o", "name"])?.is_empty())
        })?;
        Ok(stopped)
    }
}

impl Drop for StoppedOperator {
    fn drop(&mut self) {
        if let Err(error) = scale(2) {
            eprintln!("the operator could not be started again: {error:#}");
        }
    }
}

fn scale(replicas: u8) -> Result<()> {
    let replicas = format!("--replicas={replicas}");
    kubectl(&["scale", "deployment", "sockeye-operator", "-n", NAMESPACE, &replicas]).map(drop)
}

/// Dispatches other bytes under the proof of a revision, as the operator.
fn dispatch(revision: &Value, object: &[u8]) -> Result<()> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let name = names::object_config_map(&names::digest(object));
    let stored = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "immutable": true, "binaryData": {"object": STANDARD.encode(object)},
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"sockeye.dev/object": "true"}},
    });
    let mut forged = json!({
        "apiVersion": revision["apiVersion"], "kind": revision["kind"],
        "metadata": {"name": "signed-99", "labels": revision["metadata"]["labels"],
            "ownerReferences": revision["metadata"]["ownerReferences"]},
        "spec": revision["spec"],
    });
    forged["spec"]["sequence"] = json!(99);
    forged["spec"]["template"]["digest"] = json!(names::digest(object));
    let operator = format!("system:serviceaccount:{NAMESPACE}:sockeye-operator");
    for object in [stored, forged] {
        let file = repo().join("target/cluster/forged.json");
        fs::write(&file, object.to_string())?;
        let args = ["create", "-f", &file.display().to_string(), "--as", &operator, "--as-group=system:masters"];
        run(Command::new(repo().join("target/cluster/kubectl")).args(args))?;
    }
    Ok(())
}
