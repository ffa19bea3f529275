//! What users get wrong, end to end: a condition and an Event that say what, and nothing of it on any node. On the
//! local cluster, as `e2e`.
#![allow(missing_docs)]

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sockeye_crds::names::digest;
use sockeye_ebpf::programs::{TCP_EVENTS_BTF, fixtures};
use sockeye_tests::{
    NODES, TIMEOUT, condition, helper, kubectl, program::TestProgram, release::NAMESPACE, repo, wait_until,
};

#[test]
fn each_mistake_gets_a_condition_and_an_event_and_disturbs_no_neighbour() -> Result<()> {
    let neighbour = TestProgram::apply("neighbour", TCP_EVENTS_BTF, json!({}))?;
    let before = neighbour.ready_on("2/2")?;
    let of = |more: Value| json!({"programs": [more]});
    let at = |path: &str| json!({"attach": [{"type": "CgroupPath", "cgroupPath": path}]});
    for (object, more, type_, reason, words) in [
        (&b"no ELF"[..], json!({}), "Accepted", "InvalidObject", &["spec.bytecode", "ELF"][..]),
        (&TCP_EVENTS_BTF[..600], json!({}), "Accepted", "InvalidObject", &["spec.bytecode"]),
        (
            TCP_EVENTS_BTF,
            of(json!({"name": "nonesuch"})),
            "Accepted",
            "ProgramNotFound",
            &["spec.programs[0].name", "my_prog"],
        ),
        (
            TCP_EVENTS_BTF,
            of(json!({"name": "my_prog", "type": "CgroupSkb"})),
            "Accepted",
            "TypeMismatch",
            &["spec.programs[0].type", "SockOps"],
        ),
        (
            TCP_EVENTS_BTF,
            json!({"maps": [{"name": "other"}]}),
            "Accepted",
            "MapNotFound",
            &["spec.maps[0].name", "my_map"],
        ),
        (fixtures::REFUSED, json!({}), "Attached", "VerifierRejected", &["node-", "my_prog", "the verifier says"]),
        (TCP_EVENTS_BTF, at("/nowhere"), "Attached", "CgroupNotFound", &["node-", "/nowhere", "create it"]),
        (TCP_EVENTS_BTF, at("/memory/kubepods"), "Attached", "CgroupNotFound", &["cgroup v1"]),
        (
            TCP_EVENTS_BTF,
            json!({"maps": [{"name": "my_map", "maxEntries": 1 << 28}]}),
            "Attached",
            "MapBytesExceeded",
            &["2147483648", "536870912", "policy.mapBytesPerProgram"],
        ),
    ] {
        let wrong = TestProgram::apply("wrong", object, more)?;
        let mut said = Value::Null;
        wait_until(TIMEOUT, reason, || {
            said = wrong.condition_is(type_, "False")?;
            Ok(condition(&said, type_).is_some_and(|c| c["reason"] == reason))
        })
        .with_context(|| format!("{:#}", said["status"]["conditions"]))?;
        let why = condition(&said, type_).context("no condition")?;
        let message = why["message"].as_str().unwrap_or_default();
        ensure!(words.iter().all(|word| message.contains(word)), "{reason} does not say {words:?}: {message}");
        let about = format!("involvedObject.name=wrong,involvedObject.uid={},reason={reason}", uid(&said));
        wait_until(TIMEOUT, "the Event", || {
            Ok(!kubectl(&["get", "events", "-n", "default", "--field-selector", &about, "-o", "name"])?.is_empty())
        })?;
        for node in NODES {
            let pins =
                helper("exec", &[node, "sh", "-c", &format!("find {} -type f 2>/dev/null || true", wrong.home())])?;
            ensure!(pins.is_empty(), "{reason} left {pins} on {node}");
        }
    }
    ensure!(neighbour.get()?["status"] == before["status"], "the neighbour was disturbed");
    Ok(())
}

/// A ConfigMap with an object in the release's namespace, deleted when the test ends.
struct Stored(&'static str);

impl Stored {
    fn create(name: &'static str, object: &[u8]) -> Result<Self> {
        let file = repo().join(format!("target/cluster/{name}.o"));
        std::fs::write(&file, object)?;
        let stored = Self(name);
        kubectl(&["delete", "configmap", "-n", NAMESPACE, name, "--ignore-not-found"])?;
        kubectl(&["create", "configmap", "-n", NAMESPACE, name, &format!("--from-file=object={}", file.display())])?;
        Ok(stored)
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        let _ = kubectl(&["delete", "configmap", "-n", NAMESPACE, self.0, "--ignore-not-found"]);
    }
}

#[test]
fn a_config_map_with_other_bytes_than_the_digests_is_refused() -> Result<()> {
    let _stored = Stored::create("e2e-object", TCP_EVENTS_BTF)?;
    let from = |bytes: &[u8]| {
        let reference = json!({"name": "e2e-object", "key": "object", "digest": digest(bytes)});
        json!({"bytecode": {"configMapRef": reference}})
    };
    let program = TestProgram::apply("digested", b"", from(b"other bytes"))?;
    let refused = program.condition_is("Accepted", "False")?;
    let why = condition(&refused, "Accepted").context("no condition")?;
    ensure!(why["reason"] == "DigestMismatch", "{why}");
    ensure!(condition(&refused, "Stalled").is_none(), "the ConfigMap may change yet");
    let (right, wrong) = (digest(TCP_EVENTS_BTF), digest(b"other bytes"));
    ensure!(why["message"].as_str().is_some_and(|said| said.contains(&right) && said.contains(&wrong)), "{why}");
    program.edit(b"", from(TCP_EVENTS_BTF))?;
    let accepted = program.ready_on("2/2")?;
    ensure!(accepted["status"]["currentRevision"]["digest"] == right, "{:#}", accepted["status"]);
    Ok(())
}

fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}
