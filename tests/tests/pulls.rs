//! The operator's binary on a real API server, with a real registry on loopback: tags that move, a registry that is
//! away or hangs, and a policy for signatures that changes.
//!
//! Nothing else runs: there are no nodes. KUBECONFIG names the API server; helm and kubectl are on PATH (tests/run.sh
//! api). Each test has a registry and an operator of its own, and they run one after the other (`--test-threads=1`).
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "pulls/proxied.rs"]
mod proxied;

use std::{
    fs,
    net::TcpListener,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use kube::Client;
use serde_json::{Value, json};
use sockeye_crds::names;
use sockeye_ebpf::programs::{TCP_EVENTS, TCP_EVENTS_BTF};
use sockeye_tests::{
    chart::{self, kubectl},
    condition,
    identity::{RELEASE, admin},
    operator::Operator,
    registry::Registry,
    wait_until,
};
use tempfile::TempDir;

const TIMEOUT: Duration = Duration::from_secs(60);
const REPOSITORY: &str = "team/guard";

/// A registry, and what an operator needs to start.
struct World {
    registry: Registry,
    client: Client,
    work: TempDir,
    operator: Option<Operator>,
}

impl World {
    async fn new() -> Result<Self> {
        chart::install()?;
        kubectl(&["delete", "bpfprograms.sockeye.dev", "--all", "--wait=false"], "")?;
        let work = TempDir::new()?;
        let registry = Registry::on_loopback(work.path())?;
        let mut world = Self { registry, client: admin().await?, work, operator: None };
        // It removes what an earlier test left.
        world.start(&[]).await?;
        wait_until(TIMEOUT, "the end of what was there before", || {
            Ok(kubectl(&["get", "bpfprograms.sockeye.dev", "-o", "name"], "")?.is_empty())
        })?;
        Ok(world)
    }

    /// Starts the operator, again if it runs.
    async fn start(&mut self, more: &[&str]) -> Result<()> {
        if let Some(operator) = self.operator.take() {
            operator.stop()?;
        }
        let binary = std::env::current_exe()?.ancestors().nth(2).context("no directory")?.join("sockeye-operator");
        let insecure = format!("--image-insecure-registry={}", self.registry.host);
        let args = [&[insecure.as_str(), "--image-resolve-interval=2s"], more].concat();
        let operator = Operator::start_with(&self.client, &binary, self.work.path(), &args).await?;
        self.operator = Some(operator);
        Ok(())
    }

    fn image(&self, tag: &str) -> Value {
        json!({"image": {"reference": format!("{}/{REPOSITORY}:{tag}", self.registry.host)}})
    }

    fn policy(&self, policy: &Value) -> Result<String> {
        let path = self.work.path().join("policy.json");
        fs::write(&path, policy.to_string())?;
        Ok(format!("--signature-policy={}", path.display()))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.work.path().join("operator.log")).unwrap_or_default()
    }

    /// Waits until the condition Accepted has a reason, and returns the BpfProgram.
    fn accepted(&self, name: &str, reason: &str) -> Result<Value> {
        let mut found = Value::Null;
        let waited = wait_until(TIMEOUT, &format!("{name}: {reason}"), || {
            found = get("bpfprograms.sockeye.dev", name)?;
            let generation = &found["metadata"]["generation"];
            let accepted = condition(&found, "Accepted");
            Ok(accepted.is_some_and(|is| is["reason"] == reason && is["observedGeneration"] == *generation))
        });
        waited.with_context(|| format!("{:#}\n{}", found["status"], self.log()))?;
        Ok(found)
    }
}

impl Drop for World {
    /// Deletes all BpfPrograms, which the operator still helps with: other tests use this API server.
    fn drop(&mut self) {
        let deleted = kubectl(&["delete", "bpfprograms.sockeye.dev", "--all", "--timeout=30s"], "");
        if let Err(error) = deleted {
            eprintln!("BpfPrograms are left: {error:#}");
        }
    }
}

fn apply(name: &str, bytecode: &Value, more: &Value) -> Result<()> {
    let mut spec = json!({"bytecode": bytecode, "attach": [{"type": "Node"}], "programs": [{"name": "my_prog"}]});
    spec.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    let object = json!({"apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfProgram", "metadata": {"name": name},
        "spec": spec});
    kubectl(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &object.to_string()).map(drop)
}

fn get(kind: &str, name: &str) -> Result<Value> {
    Ok(serde_json::from_str(&kubectl(&["get", kind, name, "-o", "json"], "")?)?)
}

fn revision(name: &str) -> Result<Value> {
    get("bpfrevisions.sockeye.dev", name)
}

fn is_stored(object: &[u8]) -> Result<bool> {
    let name = names::object_config_map(&names::digest(object));
    Ok(!kubectl(&["get", "configmap", "-n", RELEASE, &name, "--ignore-not-found", "-o", "name"], "")?.is_empty())
}

fn has_event(program: &str, reason: &str) -> Result<bool> {
    let selector = format!("involvedObject.name={program},reason={reason}");
    Ok(!kubectl(&["get", "events", "-n", "default", "--field-selector", &selector, "-o", "name"], "")?.is_empty())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_dispatched_follows_its_tag_and_outlives_its_registry() -> Result<()> {
    let mut world = World::new().await?;
    let first = world.registry.push(REPOSITORY, "v1", TCP_EVENTS_BTF)?;
    let mut following = world.image("v1");
    following["image"]["pullPolicy"] = json!("Always");
    apply("follows", &following, &json!({}))?;
    apply("once", &world.image("v1"), &json!({}))?;
    for name in ["follows", "once"] {
        let found = world.accepted(name, "Dispatched")?;
        ensure!(found["status"]["bytecode"]["imageDigest"] == first, "{:#}", found["status"]);
        let template = revision(&format!("{name}-1"))?["spec"]["template"].clone();
        ensure!(template["image"]["digest"] == first && template["digest"] == names::digest(TCP_EVENTS_BTF));
    }
    ensure!(is_stored(TCP_EVENTS_BTF)?);

    let second = world.registry.push(REPOSITORY, "v1", TCP_EVENTS)?;
    wait_until(TIMEOUT, "the moved tag", || Ok(revision("follows-2").is_ok()))?;
    let template = revision("follows-2")?["spec"]["template"].clone();
    ensure!(template["image"]["digest"] == second && template["digest"] == names::digest(TCP_EVENTS), "{template:#}");
    wait_until(TIMEOUT, "its Event", || has_event("follows", "ImageChanged"))?;

    world.registry.go_away();
    wait_until(TIMEOUT, "the failure to resolve the tag", || {
        let found = world.accepted("follows", "Dispatched")?;
        Ok(condition(&found, "Accepted").is_some_and(|is| is["message"].to_string().contains("stays dispatched")))
    })?;
    world.start(&[]).await?;
    for (name, bytecode, next) in [("follows", &following, "follows-3"), ("once", &world.image("v1"), "once-2")] {
        apply(name, bytecode, &json!({"priority": 7}))?;
        wait_until(TIMEOUT, "a revision without the registry", || Ok(revision(next).is_ok()))
            .with_context(|| world.log())?;
    }
    ensure!(revision("once-2")?["spec"]["template"]["image"]["digest"] == first, "a tag is resolved once");

    // What is lost is pulled by its digest, and not by the tag.
    world.registry.come_back()?;
    let name = names::object_config_map(&names::digest(TCP_EVENTS_BTF));
    let operator = format!("system:serviceaccount:{RELEASE}:sockeye-operator");
    let delete = ["delete", "configmap", "-n", RELEASE, &name, "--as", &operator, "--as-group=system:masters"];
    kubectl(&delete, "")?;
    wait_until(TIMEOUT, "the bytes of the digest", || is_stored(TCP_EVENTS_BTF)).with_context(|| world.log())?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_hangs_or_has_no_image_delays_no_other_bpfprogram() -> Result<()> {
    let world = World::new().await?;
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let hangs = silent.local_addr()?.to_string();
    for n in 0..8 {
        apply(&format!("hangs-{n}"), &json!({"image": {"reference": format!("{hangs}/a:{n}")}}), &json!({}))?;
    }
    world.accepted("hangs-0", "ImagePulling")?;
    let start = Instant::now();
    world.registry.push(REPOSITORY, "v1", TCP_EVENTS_BTF)?;
    apply("good", &world.image("v1"), &json!({}))?;
    world.accepted("good", "Dispatched")?;
    ensure!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    let found = world.accepted("hangs-0", "ImagePullFailed")?;
    let message = condition(&found, "Accepted").map(|is| is["message"].to_string()).unwrap_or_default();
    ensure!(message.contains(&hangs), "{message}");
    wait_until(TIMEOUT, "its Event", || has_event("hangs-0", "ImagePullFailed"))?;

    apply("absent", &world.image("nonesuch"), &json!({}))?;
    let found = world.accepted("absent", "ImagePullFailed")?;
    let message = condition(&found, "Accepted").map(|is| is["message"].to_string()).unwrap_or_default();
    ensure!(message.contains("nonesuch") && message.contains("is not there"), "{message}");
    // An edit has it tried at once.
    world.registry.push(REPOSITORY, "nonesuch", TCP_EVENTS_BTF)?;
    apply("absent", &world.image("nonesuch"), &json!({"priority": 1}))?;
    world.accepted("absent", "Dispatched").map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_signed_is_dispatched_and_a_stricter_policy_detaches_nothing() -> Result<()> {
    let mut world = World::new().await?;
    let rules = |require: Value| {
        json!([{"name": "team", "match": {"repositories": [format!("{}/team/*", world.registry.host)]},
            "require": require}])
    };
    let require = json!({"type": "Signature", "signature": {"keys": ["release"]}});
    let keys = json!({"release": world.registry.key()?});
    let enforced = json!({"mode": "Enforce", "keys": keys, "rules": rules(require.clone())});
    let warned = json!({"mode": "Warn", "keys": keys, "rules": rules(require)});
    let denied = json!({"mode": "Enforce", "rules": rules(json!({"type": "Deny"}))});
    let policy = world.policy(&enforced)?;
    world.start(&[&policy, "--nodes-verify"]).await?;

    // Bytes that no other test stores.
    let unsigned = [TCP_EVENTS, b"unsigned"].concat();
    world.registry.push(REPOSITORY, "unsigned", &unsigned)?;
    let digest = world.registry.push(REPOSITORY, "signed", TCP_EVENTS_BTF)?;
    world.registry.sign(REPOSITORY, &digest)?;
    apply("unsigned", &world.image("unsigned"), &json!({}))?;
    let found = world.accepted("unsigned", "SignatureRequired")?;
    let message = condition(&found, "Accepted").map(|is| is["message"].to_string()).unwrap_or_default();
    ensure!(message.contains("team") && message.contains("release"), "{message}");
    wait_until(TIMEOUT, "its Event", || has_event("unsigned", "SignatureRequired"))?;
    ensure!(revision("unsigned-1").is_err() && !is_stored(&unsigned)?, "no node may see the bytes");
    apply("denied", &json!({"builtin": "tcp-events"}), &json!({}))?;
    world.accepted("denied", "SourceDenied")?;

    apply("signed", &world.image("signed"), &json!({}))?;
    let found = world.accepted("signed", "Dispatched")?;
    let by = &found["status"]["bytecode"]["signedBy"];
    ensure!(*by == json!([{"type": "Key", "key": {"hint": "release"}}]), "{by}");
    let proof = revision("signed-1")?["spec"]["template"]["proof"].clone();
    for digest in proof["digests"].as_array().context("no proof")? {
        let name = names::object_config_map(digest.as_str().context("no digest")?);
        kubectl(&["get", "configmap", "-n", RELEASE, &name, "-o", "name"], "").context("a part of the proof")?;
    }

    // The registry is away: what is stored is judged anew.
    world.registry.go_away();
    let policy = world.policy(&denied)?;
    world.start(&[&policy]).await?;
    world.accepted("signed", "SourceDenied")?;
    ensure!(revision("signed-1")?["spec"]["state"] == "Active", "what runs is not detached");
    let policy = world.policy(&warned)?;
    world.start(&[&policy]).await?;
    world.accepted("signed", "Dispatched")?;
    world.registry.come_back()?;
    apply("unsigned", &world.image("unsigned"), &json!({"priority": 1}))?;
    let found = world.accepted("unsigned", "Dispatched")?;
    let message = condition(&found, "Accepted").map(|is| is["message"].to_string()).unwrap_or_default();
    ensure!(message.contains("only warns"), "{message}");
    ensure!(is_stored(&unsigned)?);
    Ok(())
}
