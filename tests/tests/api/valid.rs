//! Objects that are accepted, and what a new one looks like.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sockeye_tests::{chart::kubectl, repo, run};

use crate::{apply_crds, dry_run, program, with};

/// A digest as `sha256sum` prints it, with its prefix.
const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn list() -> Value {
    json!({"name": "list", "key": "allow4.list", "digest": DIGEST})
}

#[test]
fn valid_objects_are_accepted() -> Result<()> {
    apply_crds()?;
    let attach = |attach: Value| with("/spec/programs", json!([{"name": "my_prog", "attach": [attach]}]));
    let pods = |pods: Value| attach(json!({"type": "Pods", "pods": pods}));
    let map = |map: Value| with("/spec/maps", json!([map]));
    let mut default = with("/spec/programs", json!([{"name": "one"}, {"name": "two", "attach": [{"type": "Node"}]}]));
    default["spec"]["attach"] = json!([{"type": "AllPods"}]);
    for (what, object) in [
        ("the least", program()),
        (
            "a ConfigMap",
            with("/spec/bytecode", json!({"configMapRef": {"name": "objects", "key": "tcp.o", "digest": DIGEST}})),
        ),
        ("a builtin", with("/spec/bytecode", json!({"builtin": "tcp-events"}))),
        ("an image", with("/spec/bytecode", json!({"image": {"reference": "registry.example/team/guard"}}))),
        (
            "an image with everything",
            with(
                "/spec/bytecode",
                json!({
                    "image": {"reference": format!("[2001:db8::1]:5000/a/b_c-d.e:v1@{DIGEST}"), "pullPolicy": "Always",
                        "pullSecretRef": {"name": "team-registry"}},
                    "signatures": [
                        {"type": "Bundle", "bundle": "{}"},
                        {"type": "Detached", "detached": {"signature": "MEUCIQ==", "keyHint": "release"}},
                    ],
                }),
            ),
        ),
        (
            "a type",
            with("/spec/programs", json!([{"name": "my_prog", "type": "SockOps", "attach": [{"type": "Node"}]}])),
        ),
        ("targets for all programs", default),
        ("all pods", attach(json!({"type": "AllPods"}))),
        ("every pod by itself", pods(json!({"podSelector": {}}))),
        (
            "selected containers",
            pods(json!({
                "podSelector": {"matchLabels": {"app": "web"}},
                "namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "In", "values": ["shop"]}]},
                "containers": ["app", "side-car"], "startPolicy": "WaitForAttachment",
                "whenUnselected": "KeepUntilPodEnds",
            })),
        ),
        (
            "the other policies",
            pods(json!({"podSelector": {}, "startPolicy": "Immediate", "whenUnselected": "Detach"})),
        ),
        ("a path", attach(json!({"type": "CgroupPath", "cgroupPath": "/system.slice/a.service"}))),
        ("a path with dots in a name", attach(json!({"type": "CgroupPath", "cgroupPath": "/..a/b..c/...d"}))),
        ("a map to attach to", attach(json!({"type": "Map", "map": {"name": "sock_hash"}}))),
        (
            "map settings",
            map(json!({
                "name": "my_map", "pinning": "None", "maxEntries": 4294967295u32, "reclaimPolicy": "Retain",
                "onIncompatible": "Recreate", "sharing": "Shared",
            })),
        ),
        (
            "the other map settings",
            map(json!({
                "name": "my_map", "pinning": "ByName", "reclaimPolicy": "Delete", "onIncompatible": "Fail",
                "sharing": "Private",
            })),
        ),
        ("another's map", map(json!({"name": "m", "maxEntries": 9, "mapRef": {"program": "other", "name": "my_map"}}))),
        (
            "globals",
            with(
                "/spec/globals",
                json!({
                    "rate": 1, "least": i64::MIN, "most": i64::MAX, "wide": "18446744073709551615", "on": "true",
                    "text": "", "longest": "a".repeat(16384), "list": "[1, \"2\"]", "deep": "{\"a\": {\"b\": [1]}}",
                }),
            ),
        ),
        (
            "entries",
            map(json!({"name": "m", "entries": [
                {"key": 1, "value": "{\"a\": [1]}"}, {"key": "10.0.0.0/8", "value": 1}, {"value": "true"},
            ]})),
        ),
        ("an empty list in step", map(json!({"name": "m", "entriesPolicy": "Sync"}))),
        (
            "a long list",
            map(json!({"name": "m", "entriesPolicy": "OnCreate", "entriesFrom": {"configMapRef": list()}})),
        ),
        ("a priority", with("/spec/priority", json!(0))),
        ("a suspension", with("/spec/suspend", json!(true))),
        ("a selector", with("/spec/nodeSelector", json!({"matchExpressions": [{"key": "a", "operator": "Exists"}]}))),
        ("the longest name", with("/metadata/name", json!("n".repeat(63)))),
        ("the largest inline", with("/spec/bytecode/inline", json!("A".repeat(174_763) + "="))),
    ] {
        dry_run(&object).with_context(|| what.to_owned())?;
    }
    // The examples, with the folders below.
    let examples = repo().join("deploy/examples").display().to_string();
    kubectl(&["create", "--dry-run=server", "--validate=strict", "--recursive", "-f", &examples], "")?;
    Ok(())
}

/// The API server drops nulls before it validates, wherever a field or an entry is optional.
#[test]
fn a_null_is_as_good_as_absent() -> Result<()> {
    apply_crds()?;
    let mut object = program();
    object["spec"]["globals"] = json!({"a": 1});
    object["spec"]["maps"] = json!([{"name": "m"}]);
    let plain = object["spec"].clone();
    for key in ["nodeSelector", "attach", "priority", "suspend"] {
        object["spec"][key] = json!(null);
    }
    object["spec"]["globals"]["b"] = json!(null);
    let settings = ["pinning", "maxEntries", "reclaimPolicy", "onIncompatible", "entries", "sharing", "mapRef"];
    for key in settings.into_iter().chain(["entriesPolicy", "entriesFrom"]) {
        object["spec"]["maps"][0][key] = json!(null);
    }
    object["spec"]["programs"][0]["type"] = json!(null);
    for key in ["pods", "cgroupPath", "map"] {
        object["spec"]["programs"][0]["attach"][0][key] = json!(null);
    }
    let command = ["create", "--dry-run=server", "--validate=strict", "-o", "json", "-f", "-"];
    let created: Value = serde_json::from_str(&kubectl(&command, &object.to_string())?)?;
    ensure!(created["spec"] == plain, "{:#}", created["spec"]);
    Ok(())
}

/// Before the operator has looked at it, a BpfProgram says that it waits. For kstatus an object without any status is
/// complete.
#[test]
fn a_new_bpfprogram_says_that_it_waits_for_the_operator() -> Result<()> {
    apply_crds()?;
    let mut object = program();
    object["metadata"]["name"] = json!("unseen");
    let delete = ["delete", "bpfprograms.sockeye.dev", "unseen", "--ignore-not-found"];
    kubectl(&delete, "")?;
    let created = kubectl(&["create", "-o", "json", "-f", "-"], &object.to_string())?;
    let read = kubectl(&["get", "bpfprograms.sockeye.dev", "unseen", "-o", "json"], "")?;
    kubectl(&delete, "")?;
    for text in [created, read] {
        let object: Value = serde_json::from_str(&text)?;
        let conditions = object["status"]["conditions"].as_array().context("no conditions")?;
        let said: Vec<[&str; 3]> = conditions
            .iter()
            .map(|condition| ["type", "status", "reason"].map(|key| condition[key].as_str().unwrap_or_default()))
            .collect();
        ensure!(said == [["Accepted", "Unknown", "Pending"], ["Ready", "Unknown", "Pending"]], "{conditions:?}");
        ensure!(object["status"]["observedGeneration"].is_null(), "{object:#}");
    }
    Ok(())
}

#[test]
fn kubectl_explain_describes_the_fields() -> Result<()> {
    apply_crds()?;
    let words = kubectl(&["explain", "bpfprograms.spec.programs.attach.type"], "")?;
    for word in ["kind of target", "Node", "AllPods", "Pods", "CgroupPath", "Map"] {
        ensure!(words.contains(word), "{word}: {words}");
    }
    let names = run(Command::new("kubectl").args(["api-resources", "--categories=sockeye", "-o", "name"]))?;
    for name in ["bpfprograms", "bpfrevisions", "bpfnodes", "bpfnodedetails"] {
        ensure!(names.contains(&format!("{name}.sockeye.dev")), "{names}");
    }
    Ok(())
}
