//! The release's life, by real Helm on the local cluster: what becomes of programs, pins and definitions when sockeye is
//! installed, upgraded, rolled back, uninstalled, torn away and installed again.
//!
//! The tests share the cluster and run one after the other (`--test-threads=1`); each begins by installing, which heals
//! whatever the one before it left.
#![allow(missing_docs)]

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sockeye_ebpf::programs::TCP_EVENTS_BTF;
use sockeye_tests::{
    NODES, PATIENCE, bpftool, helper, json, kubectl,
    load::{Pod, Server},
    program::{Applied, details, placement},
    release::{Helm, NAMESPACE, gone, image_bytes, pods},
    until,
};

const HELM: Helm = Helm("helm");

/// What the kernel of each node loaded, and when: it changes with every load.
fn loaded(program: &Applied, name: &str) -> Result<Vec<Value>> {
    program.ready_on("2/2")?;
    let of = |node: &&str| {
        let said = details(node, name)?;
        Ok(json!([program.pin(node, "prog", "programs/my_prog")?, said["maps"], said["links"]]))
    };
    NODES.iter().map(of).collect()
}

fn pinned(program: &Applied) -> [bool; 2] {
    NODES.map(|node| helper("exec", &[node, "test", "-e", &program.home()]).is_ok())
}

fn rolled(component: &str, before: &[String]) -> Result<bool> {
    let after = pods(component)?;
    Ok(after.len() == before.len() && after.iter().all(|uid| !before.contains(uid)))
}

#[test]
fn upgrade_and_rollback_lose_no_connection() -> Result<()> {
    counted_through(&HELM)
}

#[test]
fn helm_3_upgrades_rolls_back_and_uninstalls() -> Result<()> {
    // It does not continue what Helm 4 began.
    HELM.install(&[])?;
    HELM.uninstall(&[])?;
    let helm = Helm("helm3");
    ensure!(helper("helm3", &["version", "--short"])?.starts_with("v3."));
    counted_through(&helm)?;
    helm.uninstall(&[])?;
    gone()
}

/// A pod connects in a loop while the release is upgraded with other values and rolled back; every connection is counted.
fn counted_through(helm: &Helm) -> Result<()> {
    helm.install(&[])?;
    let everywhere = Applied::apply("everywhere", TCP_EVENTS_BTF, json!({}))?;
    let before = loaded(&everywhere, "everywhere")?;

    let _server = Server::start()?;
    let script = "while [ ! -e /go ]; do sleep 0.1; done; n=0; while [ ! -e /stop ]; do \
                  nc 198.18.0.1 8099 </dev/null || exit 1; n=$((n+1)); sleep 0.01; done; echo $n";
    let pod = Pod::run("load", "node-1", script)?;
    // The pod's own cgroup, since agents that start again connect too.
    let path = format!("/kubepods/besteffort/pod{}", pod.uid()?);
    let counted = Applied::apply(
        "counted",
        TCP_EVENTS_BTF,
        json!({"programs": [{"name": "my_prog", "attach": [{"cgroup": {"scope": "Path", "path": path}}]}],
            "nodeSelector": {"matchLabels": {"kubernetes.io/hostname": "node-1"}}}),
    )?;
    counted.ready_on("1/1")?;
    let count = || Ok::<_, anyhow::Error>(counted.counts("node-1")?[Applied::ACTIVE]);
    let started_at = count()?;
    pod.exec(&["touch", "/go"])?;

    let (agents, operators) = (pods("agent")?, pods("operator")?);
    helm.install(&["--set", "logLevel=debug,agent.maxUnavailable=1"])?;
    ensure!(rolled("agent", &agents)? && rolled("operator", &operators)?, "the upgrade replaced no pods");
    ensure!(loaded(&everywhere, "everywhere")? == before, "the upgrade loaded something anew");
    let while_upgraded = count()?;

    let agents = pods("agent")?;
    helm.rollback()?;
    ensure!(rolled("agent", &agents)?, "the roll-back replaced no pods");
    ensure!(loaded(&everywhere, "everywhere")? == before, "the roll-back loaded something anew");
    let daemonset = json(&["get", "daemonset", "-n", NAMESPACE, "sockeye-agent"])?;
    let env = &daemonset["spec"]["template"]["spec"]["containers"][0]["env"];
    ensure!(env.as_array().is_some_and(|env| env.contains(&json!({"name": "RUST_LOG", "value": "info"}))), "{env}");

    pod.exec(&["touch", "/stop"])?;
    pod.succeeded()?;
    let made: u64 = pod.log()?.trim().parse().context("the number of connections")?;
    let counted = count()? - started_at;
    println!("{made} connections made, {counted} counted");
    ensure!(made == counted, "{made} connections made, {counted} counted");
    ensure!(while_upgraded > started_at && made > while_upgraded - started_at, "there was no load all the way");
    Ok(())
}

#[test]
fn uninstall_removes_the_programs_and_leaves_nothing() -> Result<()> {
    HELM.install(&[])?;
    let program = Applied::apply("uninstalled", TCP_EVENTS_BTF, json!({}))?;
    let ready = program.ready_on("2/2")?;
    let ids: Vec<String> =
        NODES.iter().map(|n| Ok(placement(&ready, n)?["programs"][0]["id"].to_string())).collect::<Result<_>>()?;
    HELM.uninstall(&[])?;
    let left = kubectl(&["get", "bpfprograms.sockeye.dev,bpfrevisions", "-o", "name"])?;
    ensure!(left.is_empty(), "{left}");
    ensure!(pinned(&program) == [false; 2]);
    for id in &ids {
        ensure!(bpftool("node-1", &["prog", "show", "id", id]).is_err(), "program {id} is still loaded");
    }
    gone()?;

    // The definitions were kept; what is installed over them works, and removes them when it is told to.
    kubectl(&["get", "crd", "bpfprograms.sockeye.dev", "bpfrevisions.sockeye.dev", "bpfnodes.sockeye.dev"])?;
    HELM.install(&["--set", "crds.keep=false"])?;
    Applied::apply("uninstalled", TCP_EVENTS_BTF, json!({}))?.ready_on("2/2")?;
    HELM.uninstall(&[])?;
    let crds = kubectl(&["get", "crd", "-o", "name"])?;
    ensure!(!crds.contains("sockeye.dev"), "{crds}");
    ensure!(pinned(&program) == [false; 2]);
    gone()
}

#[test]
fn an_uninstall_that_hangs_says_what_hangs_and_keeps_the_agents() -> Result<()> {
    HELM.install(&["--set", "uninstall.timeoutSeconds=3"])?;
    let program = Applied::apply("held", TCP_EVENTS_BTF, json!({}))?;
    program.ready_on("2/2")?;
    let hold = |finalizers: &str| {
        kubectl(&["patch", "bpfprograms.sockeye.dev", "held", "--type=json", "-p", finalizers]).map(|_| ())
    };
    hold(r#"[{"op": "add", "path": "/metadata/finalizers/-", "value": "example.com/hold"}]"#)?;
    let failed = HELM.uninstall(&[]).err().context("it did not fail")?.to_string();
    hold(r#"[{"op": "remove", "path": "/metadata/finalizers"}]"#)?;
    ensure!(failed.contains("1 BpfProgram: held ("), "{failed}");
    ensure!(pods("agent")?.len() == NODES.len() && pods("operator")?.len() == 1);
    HELM.uninstall(&[])?;
    gone()
}

/// Takes sockeye away in some way that leaves the programs, and installs it again: nothing was loaded anew.
fn found_again_after(name: &str, take_away: impl FnOnce(&Applied) -> Result<()>) -> Result<()> {
    HELM.install(&[])?;
    let program = Applied::apply(name, TCP_EVENTS_BTF, json!({}))?;
    let before = loaded(&program, name)?;
    take_away(&program)?;
    until(PATIENCE, "no agent", || Ok(pods("agent")?.is_empty()))?;
    ensure!(pinned(&program) == [true; 2]);
    HELM.install(&[])?;
    ensure!(loaded(&program, name)? == before, "{before:?}");
    Ok(())
}

#[test]
fn programs_that_the_values_keep_are_found_again() -> Result<()> {
    found_again_after("kept", |_| {
        HELM.install(&["--set", "uninstall.removePrograms=false"])?;
        HELM.uninstall(&[])?;
        gone_but_bytes()
    })
}

/// Where programs stay, their bytes stay too.
fn gone_but_bytes() -> Result<()> {
    let bytes = kubectl(&["get", "configmaps", "-n", NAMESPACE, "-l", "sockeye.dev/object", "-o", "name"])?;
    ensure!(!bytes.is_empty(), "the bytes are gone");
    Ok(())
}

#[test]
fn uninstalled_without_hooks_a_reinstall_heals() -> Result<()> {
    HELM.install(&[])?;
    let orphan = Applied::apply("orphan", TCP_EVENTS_BTF, json!({}))?;
    orphan.ready_on("2/2")?;
    found_again_after("unhooked", |_| {
        HELM.uninstall(&["--no-hooks"])?;
        // What is deleted meanwhile waits for the operator.
        kubectl(&["delete", "bpfprograms.sockeye.dev", "orphan", "--wait=false"])?;
        Ok(())
    })?;
    until(PATIENCE, "the end of what was deleted meanwhile", || {
        Ok(orphan.get().is_err() && pinned(&orphan) == [false; 2])
    })?;
    Ok(())
}

#[test]
fn when_the_namespace_was_deleted_a_reinstall_heals() -> Result<()> {
    found_again_after("unhoused", |_| {
        kubectl(&["delete", "namespace", NAMESPACE, "--wait", "--timeout=120s"])?;
        Ok(())
    })
}

#[test]
fn when_finalizers_were_forced_off_a_reinstall_removes_what_is_left() -> Result<()> {
    HELM.install(&[])?;
    let program = Applied::apply("forced", TCP_EVENTS_BTF, json!({}))?;
    let ready = program.ready_on("2/2")?;
    let id = placement(&ready, "node-2")?["programs"][0]["id"].to_string();
    HELM.uninstall(&["--no-hooks"])?;
    until(PATIENCE, "no agent", || Ok(pods("agent")?.is_empty()))?;
    let off = r#"{"metadata": {"finalizers": null}}"#;
    kubectl(&["patch", "bpfprograms.sockeye.dev", "forced", "--type=merge", "-p", off])?;
    kubectl(&["delete", "bpfprograms.sockeye.dev", "forced", "--timeout=30s"])?;
    until(PATIENCE, "no revision", || Ok(kubectl(&["get", "bpfrevisions", "-o", "name"])?.is_empty()))?;
    ensure!(pinned(&program) == [true; 2], "nobody was there to remove the pins");
    // What is documented for a node where sockeye is not to come back.
    helper("exec", &["node-2", "rm", "-r", "/sys/fs/bpf/sockeye"])?;
    until(PATIENCE, "the end of the program", || Ok(bpftool("node-2", &["prog", "show", "id", &id]).is_err()))?;
    HELM.install(&[])?;
    until(PATIENCE, "no pins", || Ok(pinned(&program) == [false; 2]))?;
    Ok(())
}

#[test]
fn an_older_definition_is_upgraded_and_a_newer_one_stays() -> Result<()> {
    const CRD: &str = "bpfprograms.sockeye.dev";
    const SPEC: &str = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    let patch = |patch: Value| kubectl(&["patch", "crd", CRD, "--type=json", "-p", &patch.to_string()]).map(|_| ());
    let version =
        |of: &str| json!({"op": "add", "path": "/metadata/annotations/sockeye.dev~1crd-version", "value": of});
    let has = |field: &str| -> Result<bool> {
        let crd = json(&["get", "crd", CRD])?;
        let pointer = format!("{SPEC}/{field}");
        Ok(crd.pointer(&pointer).is_some())
    };
    HELM.install(&[])?;

    // As an older version left it: upgraded.
    patch(json!([version("0.0.1"), {"op": "remove", "path": format!("{SPEC}/nodeSelector")}]))?;
    ensure!(!has("nodeSelector")?);
    HELM.install(&["--set", "logLevel=debug"])?;
    ensure!(has("nodeSelector")?, "helm upgrade did not upgrade the definition");

    // As a newer version left it: it stays, and what is stored keeps its field, whether Helm rolls back or upgrades to
    // this older chart.
    let future = json!({"type": "string", "maxLength": 8, "description": "Of a later version."});
    patch(json!([version("99.0.0"), {"op": "add", "path": format!("{SPEC}/future"), "value": future}]))?;
    let program = Applied::apply("newer", TCP_EVENTS_BTF, json!({}))?;
    until(PATIENCE, "a field of the newer definition", || {
        kubectl(&["patch", CRD, "newer", "--type=merge", "-p", r#"{"spec": {"future": "here"}}"#])?;
        Ok(program.get()?["spec"]["future"] == "here")
    })?;
    HELM.rollback()?;
    let rolled_back = has("future")?;
    HELM.install(&[])?;
    let upgraded = has("future")?;
    let kept = program.get()?["spec"]["future"] == "here";
    patch(json!([version("0.0.1"), {"op": "remove", "path": format!("{SPEC}/future")}]))?;
    HELM.install(&[])?;
    ensure!(rolled_back, "helm rollback brought the older definition back");
    ensure!(upgraded, "an older chart replaced the newer definition");
    ensure!(kept, "the field was dropped");
    Ok(())
}

#[test]
fn images_have_less_than_40_mb() -> Result<()> {
    for name in ["operator", "agent"] {
        let bytes = image_bytes(name)?;
        println!("{name}: {bytes} bytes");
        ensure!(bytes < 40_000_000, "{name}: {bytes} bytes");
    }
    Ok(())
}
