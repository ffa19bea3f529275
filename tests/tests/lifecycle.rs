//! The life of the release, by real Helm on the local cluster: programs, pins and CRDs across installation, upgrade,
//! rollback, uninstallation, removal by force, and installation again.
//!
//! The tests share the cluster and run one after the other (`--test-threads=1`). Each begins with an installation,
//! which repairs what the test before it left.
#![allow(missing_docs)]

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sockeye_ebpf::programs::TCP_EVENTS_BTF;
use sockeye_tests::{
    NODES, TIMEOUT, bpftool, helper, json, kubectl,
    load::{Pod, Server},
    program::{TestProgram, node_status},
    release::{HELM, Helm, NAMESPACE, image_bytes, pods, wait_until_gone},
    wait_until,
};

/// Returns what each node's kernel has loaded; IDs and load times in it change with every load.
fn loaded(program: &TestProgram) -> Result<Vec<Value>> {
    program.ready_on("2/2")?;
    let of = |node: &&str| {
        let said = program.detail(node)?;
        Ok(json!([program.pin(node, "prog", "programs/my_prog")?, said["maps"], said["links"]]))
    };
    NODES.iter().map(of).collect()
}

fn pinned(program: &TestProgram) -> [bool; 2] {
    NODES.map(|node| helper("exec", &[node, "test", "-e", &program.home()]).is_ok())
}

fn rolled(component: &str, before: &[String]) -> Result<bool> {
    let after = pods(component)?;
    Ok(after.len() == before.len() && after.iter().all(|uid| !before.contains(uid)))
}

#[test]
fn upgrade_and_rollback_lose_no_connection() -> Result<()> {
    counts_through(&HELM)
}

#[test]
fn helm_3_upgrades_rolls_back_and_uninstalls() -> Result<()> {
    // Helm 3 does not continue a release of Helm 4.
    HELM.install(&[])?;
    HELM.uninstall(&[])?;
    let helm = Helm("helm3");
    ensure!(helper("helm3", &["version", "--short"])?.starts_with("v3."));
    counts_through(&helm)?;
    helm.uninstall(&[])?;
    wait_until_gone()
}

/// The nodes of the cluster have no zone, as many clusters' have none: the loss of one must not take both operators.
#[test]
fn the_replicas_of_the_operator_run_on_different_nodes() -> Result<()> {
    HELM.install(&[])?;
    let operators = ["-n", NAMESPACE, "deployment/sockeye-operator"];
    let selector = "app.kubernetes.io/name=sockeye,app.kubernetes.io/component=operator";
    // By chance they would be, once in two times.
    for time in 1..=5 {
        kubectl(&[&["rollout", "restart"][..], &operators].concat())?;
        kubectl(&[&["rollout", "status", "--timeout=60s"][..], &operators].concat())?;
        let all = json(&["get", "pods", "-n", NAMESPACE, "-l", selector])?;
        let running = all["items"].as_array().into_iter().flatten();
        let running = running.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        let mut on: Vec<&str> = running.filter_map(|pod| pod["spec"]["nodeName"].as_str()).collect();
        on.sort_unstable();
        ensure!(on == NODES, "after restart {time} they run on {on:?}");
    }
    Ok(())
}

/// Fails unless every connection of a pod is counted while the release is upgraded with other values and rolled back.
fn counts_through(helm: &Helm) -> Result<()> {
    helm.install(&[])?;
    let everywhere = TestProgram::apply("everywhere", TCP_EVENTS_BTF, json!({}))?;
    let before = loaded(&everywhere)?;

    let _server = Server::start()?;
    let script = "while [ ! -e /go ]; do sleep 0.1; done; n=0; while [ ! -e /stop ]; do \
                  nc 198.18.0.1 8099 </dev/null || exit 1; n=$((n+1)); sleep 0.01; done; echo $n";
    let pod = Pod::run("load", "node-1", script)?;
    // Only the pod's own cgroup: agents that restart connect too.
    let path = format!("/kubepods/besteffort/pod{}", pod.uid()?);
    let counted = TestProgram::apply(
        "counted",
        TCP_EVENTS_BTF,
        json!({"attach": [{"type": "CgroupPath", "cgroupPath": path}],
            "nodeSelector": {"matchLabels": {"kubernetes.io/hostname": "node-1"}}}),
    )?;
    counted.ready_on("1/1")?;
    let count = || Ok::<_, anyhow::Error>(counted.counts("node-1")?[TestProgram::ACTIVE]);
    let started_at = count()?;
    pod.exec(&["touch", "/go"])?;

    let (agents, operators) = (pods("agent")?, pods("operator")?);
    helm.install(&["--set", "logLevel=debug,agent.maxUnavailable=1"])?;
    ensure!(rolled("agent", &agents)? && rolled("operator", &operators)?, "the upgrade replaced no pods");
    ensure!(loaded(&everywhere)? == before, "the upgrade loaded something anew");
    let while_upgraded = count()?;

    let agents = pods("agent")?;
    helm.rollback()?;
    ensure!(rolled("agent", &agents)?, "the roll-back replaced no pods");
    ensure!(loaded(&everywhere)? == before, "the roll-back loaded something anew");
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
    let program = TestProgram::apply("uninstalled", TCP_EVENTS_BTF, json!({}))?;
    let ready = program.ready_on("2/2")?;
    let ids: Vec<String> =
        NODES.iter().map(|n| Ok(node_status(&ready, n)?["programIDs"][0].to_string())).collect::<Result<_>>()?;
    HELM.uninstall(&[])?;
    let left = kubectl(&["get", "bpfprograms.sockeye.dev,bpfrevisions", "-o", "name"])?;
    ensure!(left.is_empty(), "{left}");
    ensure!(pinned(&program) == [false; 2]);
    for id in &ids {
        ensure!(bpftool("node-1", &["prog", "show", "id", id]).is_err(), "program {id} is still loaded");
    }
    wait_until_gone()?;

    // The CRDs were kept. A release installed over them works, and deletes them if its values say so.
    let names = ["bpfprograms", "bpfrevisions", "bpfnodes", "bpfnodedetails"].map(|name| format!("{name}.sockeye.dev"));
    kubectl(&[&["get", "crd"], &names.each_ref().map(String::as_str)[..]].concat())?;
    HELM.install(&["--set", "crds.keep=false"])?;
    TestProgram::apply("uninstalled", TCP_EVENTS_BTF, json!({}))?.ready_on("2/2")?;
    HELM.uninstall(&[])?;
    let crds = kubectl(&["get", "crd", "-o", "name"])?;
    ensure!(!crds.contains("sockeye.dev"), "{crds}");
    ensure!(pinned(&program) == [false; 2]);
    wait_until_gone()
}

#[test]
fn an_uninstall_that_times_out_names_the_bpfprogram_and_keeps_the_agents() -> Result<()> {
    HELM.install(&["--set", "uninstall.timeoutSeconds=3"])?;
    let program = TestProgram::apply("held", TCP_EVENTS_BTF, json!({}))?;
    program.ready_on("2/2")?;
    let hold = |finalizers: &str| {
        kubectl(&["patch", "bpfprograms.sockeye.dev", "held", "--type=json", "-p", finalizers]).map(|_| ())
    };
    hold(r#"[{"op": "add", "path": "/metadata/finalizers/-", "value": "example.com/hold"}]"#)?;
    let failed = HELM.uninstall(&[]).err().context("it did not fail")?.to_string();
    hold(r#"[{"op": "remove", "path": "/metadata/finalizers"}]"#)?;
    ensure!(failed.contains("1 BpfProgram: held ("), "{failed}");
    ensure!(pods("agent")?.len() == NODES.len() && pods("operator")?.len() == 2);
    HELM.uninstall(&[])?;
    wait_until_gone()
}

/// Removes sockeye in a way that leaves the programs, installs it again, and fails if a program was loaded anew.
fn adopts_after(name: &str, remove: impl FnOnce(&TestProgram) -> Result<()>) -> Result<()> {
    HELM.install(&[])?;
    let program = TestProgram::apply(name, TCP_EVENTS_BTF, json!({}))?;
    let before = loaded(&program)?;
    remove(&program)?;
    wait_until(TIMEOUT, "no agent", || Ok(pods("agent")?.is_empty()))?;
    ensure!(pinned(&program) == [true; 2]);
    HELM.install(&[])?;
    ensure!(loaded(&program)? == before, "{before:?}");
    Ok(())
}

#[test]
fn a_reinstall_adopts_programs_that_the_values_kept() -> Result<()> {
    adopts_after("kept", |_| {
        HELM.install(&["--set", "uninstall.removePrograms=false"])?;
        HELM.uninstall(&[])?;
        bytes_are_kept()
    })
}

/// Fails unless the bytes of kept programs are kept too.
fn bytes_are_kept() -> Result<()> {
    let bytes = kubectl(&["get", "configmaps", "-n", NAMESPACE, "-l", "sockeye.dev/object", "-o", "name"])?;
    ensure!(!bytes.is_empty(), "the bytes are gone");
    Ok(())
}

#[test]
fn a_reinstall_recovers_from_an_uninstall_without_hooks() -> Result<()> {
    HELM.install(&[])?;
    let orphan = TestProgram::apply("orphan", TCP_EVENTS_BTF, json!({}))?;
    orphan.ready_on("2/2")?;
    adopts_after("unhooked", |_| {
        HELM.uninstall(&["--no-hooks"])?;
        // A deletion meanwhile waits for the operator.
        kubectl(&["delete", "bpfprograms.sockeye.dev", "orphan", "--wait=false"])?;
        Ok(())
    })?;
    wait_until(TIMEOUT, "the end of the BpfProgram that was deleted meanwhile", || {
        Ok(orphan.get().is_err() && pinned(&orphan) == [false; 2])
    })?;
    Ok(())
}

#[test]
fn a_reinstall_recovers_from_a_deleted_namespace() -> Result<()> {
    adopts_after("unhoused", |_| {
        kubectl(&["delete", "namespace", NAMESPACE, "--wait", "--timeout=120s"])?;
        Ok(())
    })
}

#[test]
fn a_reinstall_removes_pins_after_finalizers_were_forced_off() -> Result<()> {
    HELM.install(&[])?;
    let program = TestProgram::apply("forced", TCP_EVENTS_BTF, json!({}))?;
    let ready = program.ready_on("2/2")?;
    let id = node_status(&ready, "node-2")?["programIDs"][0].to_string();
    HELM.uninstall(&["--no-hooks"])?;
    wait_until(TIMEOUT, "no agent", || Ok(pods("agent")?.is_empty()))?;
    let off = r#"{"metadata": {"finalizers": null}}"#;
    kubectl(&["patch", "bpfprograms.sockeye.dev", "forced", "--type=merge", "-p", off])?;
    kubectl(&["delete", "bpfprograms.sockeye.dev", "forced", "--timeout=30s"])?;
    wait_until(TIMEOUT, "no revision", || Ok(kubectl(&["get", "bpfrevisions", "-o", "name"])?.is_empty()))?;
    ensure!(pinned(&program) == [true; 2], "nobody was there to remove the pins");
    // As documented for a node to which sockeye is not to return.
    helper("exec", &["node-2", "rm", "-r", "/sys/fs/bpf/sockeye"])?;
    wait_until(TIMEOUT, "the end of the program", || Ok(bpftool("node-2", &["prog", "show", "id", &id]).is_err()))?;
    HELM.install(&[])?;
    wait_until(TIMEOUT, "no pins", || Ok(pinned(&program) == [false; 2]))?;
    Ok(())
}

#[test]
fn helm_upgrades_an_older_crd_and_keeps_a_newer_one() -> Result<()> {
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

    // A CRD of an older version is upgraded.
    patch(json!([version("0.0.1"), {"op": "remove", "path": format!("{SPEC}/nodeSelector")}]))?;
    ensure!(!has("nodeSelector")?);
    HELM.install(&["--set", "logLevel=debug"])?;
    ensure!(has("nodeSelector")?, "helm upgrade did not upgrade the definition");

    // A CRD of a newer version stays, and stored objects keep its fields, whether Helm rolls back or upgrades to this
    // older chart.
    let future = json!({"type": "string", "maxLength": 8, "description": "Of a later version."});
    patch(json!([version("99.0.0"), {"op": "add", "path": format!("{SPEC}/future"), "value": future}]))?;
    let program = TestProgram::apply("newer", TCP_EVENTS_BTF, json!({}))?;
    wait_until(TIMEOUT, "a field of the newer definition", || {
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
fn each_image_is_smaller_than_40_mb() -> Result<()> {
    for name in ["operator", "agent"] {
        let bytes = image_bytes(name)?;
        println!("{name}: {bytes} bytes");
        ensure!(bytes < 40_000_000, "{name}: {bytes} bytes");
    }
    Ok(())
}
