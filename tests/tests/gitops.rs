//! How GitOps tools read a BpfProgram's status as the operator writes it: by the health check for Argo CD in
//! docs/gitops.md, run by Lua, and by kstatus.
#![allow(missing_docs)]

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sockeye_crds::definitions::definitions;
use sockeye_tests::{condition, repo, run_with_input};

/// Reads the check from the page, without its indentation in the ConfigMap.
fn check() -> Result<String> {
    let page = std::fs::read_to_string(repo().join("docs/gitops.md"))?;
    let (_, rest) = page.split_once("health.sockeye.dev_BpfProgram: |\n").context("no check on the page")?;
    let (check, _) = rest.split_once("```").context("no end of the check")?;
    Ok(check.lines().map(|line| line.strip_prefix("    ").unwrap_or(line)).collect::<Vec<_>>().join("\n"))
}

/// Prints a value in Lua's syntax. Null is absent, as in Argo CD.
fn lua(value: &Value) -> String {
    match value {
        Value::Null => "nil".to_owned(),
        Value::Array(items) => format!("{{{}}}", items.iter().map(lua).collect::<Vec<_>>().join(",")),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| format!("[{}]={}", json!(key), lua(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
        plain => plain.to_string(),
    }
}

/// Runs the check on a BpfProgram: status and message.
fn health(object: &Value) -> Result<(String, String)> {
    let script = format!(
        "local function check(obj)\n{}\nend\nlocal hs = check({})\nprint(hs.status)\nprint(hs.message)\n",
        check()?,
        lua(object)
    );
    let said =
        run_with_input(Command::new("lua5.4").arg("-"), &script).context("lua5.4 (tests/run.sh unit installs it)")?;
    let (status, message) = said.trim_end().split_once('\n').context("no message")?;
    Ok((status.to_owned(), message.to_owned()))
}

/// Returns an object's status by the rules of kstatus for a kind that it does not know: `Compute` in
/// sigs.k8s.io/cli-utils/pkg/kstatus/status.
fn kstatus(object: &Value) -> &'static str {
    let is = |type_: &str, status: &str| condition(object, type_).is_some_and(|found| found["status"] == status);
    let observed = &object["status"]["observedGeneration"];
    if object["metadata"]["deletionTimestamp"].is_string() {
        "Terminating"
    } else if !observed.is_null() && *observed != object["metadata"]["generation"] || is("Reconciling", "True") {
        "InProgress"
    } else if is("Stalled", "True") {
        "Failed"
    } else if is("Ready", "False") || is("Ready", "Unknown") {
        "InProgress"
    } else {
        "Current"
    }
}

/// Returns a BpfProgram as the API server stores it before the operator has looked at it.
fn new() -> Result<Value> {
    let definition = serde_json::to_value(definitions().into_iter().next().context("no definition")?)?;
    let properties = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    let status = properties["status"]["default"].clone();
    ensure!(status.is_object(), "the definition has no default status");
    Ok(json!({"metadata": {"generation": 1}, "status": status}))
}

/// Returns a BpfProgram of generation 3 with these conditions of that generation: type, status and reason.
fn program(conditions: &[(&str, &str, &str)]) -> Value {
    let conditions: Vec<Value> = conditions
        .iter()
        .map(|(type_, status, reason)| {
            json!({"type": type_, "status": status, "reason": reason, "message": "in words", "observedGeneration": 3})
        })
        .collect();
    json!({"metadata": {"generation": 3}, "status": {"observedGeneration": 3, "conditions": conditions}})
}

#[test]
fn the_argo_cd_health_check_agrees_with_kstatus() -> Result<()> {
    let in_effect =
        [("Accepted", "True", "Dispatched"), ("Attached", "True", "InEffect"), ("Ready", "True", "InEffect")];
    let with = |more: (&'static str, &'static str, &'static str)| program(&[&in_effect[..], &[more]].concat());
    let not_ready =
        |reason, why| program(&[("Attached", "False", reason), ("Ready", "False", reason), (why, "True", reason)]);
    let mut edited = program(&in_effect);
    edited["metadata"]["generation"] = json!(4);
    let mut half_written = edited.clone();
    half_written["status"]["observedGeneration"] = json!(4);
    let mut deleted = not_ready("Deleting", "Reconciling");
    deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let mut hopeless_and_deleted = not_ready("VerifierRejected", "Stalled");
    hopeless_and_deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");

    let suspended = program(&[("Attached", "False", "Suspended"), ("Ready", "False", "Suspended")]);
    let waiting = "Waiting for the operator";
    for (what, object, status, message, kstatus_says) in [
        ("new", new()?, "Progressing", waiting, "InProgress"),
        ("in effect", program(&in_effect), "Healthy", "InEffect: in words", "Current"),
        (
            "no node selected",
            program(&[("Ready", "True", "NoNodeSelected")]),
            "Healthy",
            "NoNodeSelected: in words",
            "Current",
        ),
        ("edited", edited, "Progressing", waiting, "InProgress"),
        // kstatus does not read the generations of conditions.
        ("conditions of old", half_written, "Progressing", waiting, "Current"),
        ("on its way", not_ready("Progressing", "Reconciling"), "Progressing", "Progressing: in words", "InProgress"),
        (
            "leaving a node",
            with(("Reconciling", "True", "Progressing")),
            "Progressing",
            "Progressing: in words",
            "InProgress",
        ),
        ("refused", not_ready("ProgramNotFound", "Stalled"), "Degraded", "ProgramNotFound: in words", "Failed"),
        ("suspended", suspended, "Progressing", waiting, "InProgress"),
        ("being deleted", deleted, "Progressing", "Deleting: in words", "Terminating"),
        ("refused and being deleted", hopeless_and_deleted, "Progressing", waiting, "Terminating"),
    ] {
        let (found, words) = health(&object).context(what)?;
        ensure!((found.as_str(), words.as_str()) == (status, message), "{what}: {found}: {words}");
        ensure!(kstatus(&object) == kstatus_says, "{what}: {}", kstatus(&object));
    }
    Ok(())
}

/// Without the default status, a tool that waits would go on as soon as the object is stored.
#[test]
fn a_new_bpfprogram_is_complete_to_kstatus_only_without_its_default_status() -> Result<()> {
    let mut new = new()?;
    ensure!(kstatus(&new) == "InProgress");
    new["status"] = Value::Null;
    ensure!(kstatus(&new) == "Current");
    Ok(())
}
