//! The Event on a pod whose connections a guard refused.

use anyhow::{Result, ensure};
use serde_json::json;
use sockeye_tests::{TIMEOUT, json, kubectl, program::TestProgram, wait_until};

use crate::{
    links::{at, links_are},
    objects::{CONNECT, Objects, pod, running},
};

#[test]
fn a_pod_whose_connections_are_refused_gets_an_event() -> Result<()> {
    const TEST: &str = "refused";
    let mut spec = at(json!({"podSelector": {"matchLabels": {"app": "refused"}}}));
    spec["bytecode"] = json!({"builtin": "egress-guard"});
    spec["programs"] = json!([{"name": "connect4"}]);
    let guard = TestProgram::apply("refuses", &[], spec)?;
    guard.ready_on("2/2")?;
    let _objects = Objects::apply(
        TEST,
        vec![
            pod(TEST, "default/refused", "node-1", "refused", json!({})),
            pod(TEST, "default/spared", "node-1", "spared", json!({})),
        ],
    )?;
    for name in ["refused", "spared"] {
        running("default", name)?;
    }
    links_are("node-1", &guard, TIMEOUT, &["default/refused"])?;
    let connect = |name: &str| kubectl(&[&["exec", name, "-c", "main", "--"], &CONNECT[..]].concat());
    ensure!(connect("refused").is_err(), "it was not refused");
    drop(connect("spared"));

    let events = |name: &str| json(&["get", "events", "--field-selector", &about(name)]);
    let mut found = json!([]);
    wait_until(TIMEOUT * 3, "the Event", || {
        found = events("refused")?["items"].clone();
        Ok(found[0].is_object())
    })?;
    let refused = json(&["get", "pod", "refused"])?;
    let note = found[0]["message"].as_str().unwrap_or_default();
    ensure!(found[0]["involvedObject"]["uid"] == refused["metadata"]["uid"], "{found:#}");
    ensure!(note.contains("BpfProgram refuses refused 1 connections of this pod on node node-1"), "{note}");
    ensure!(events("spared")?["items"] == json!([]));
    Ok(())
}

/// Returns the selector of the Events on a pod.
fn about(name: &str) -> String {
    format!("reason=ConnectionsRefused,involvedObject.kind=Pod,involvedObject.name={name}")
}
