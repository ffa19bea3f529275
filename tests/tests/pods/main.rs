//! Pod targets, on a real Kubernetes of two nodes: selection, how soon links follow, and that no connection is missed.
#![allow(missing_docs)]

mod links;
mod objects;
mod strict;

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use links::{at, counted, detail_names, linked, links_are, links_soon_follow};
use objects::{Objects, Static, completed, connecting, container, pod, running};
use serde_json::json;
use sockeye_ebpf::programs::TCP_EVENTS_BTF;
use sockeye_tests::{
    NODES, TIMEOUT, helper, is_long, kubectl,
    load::Server,
    process::{Usage, agents},
    program::{TestProgram, node_status},
    release::{NAMESPACE, pods},
    wait_until,
};

#[test]
fn links_follow_labels_namespaces_and_containers() -> Result<()> {
    const TEST: &str = "picked";
    let web = TestProgram::apply("web", TCP_EVENTS_BTF, at(json!({"podSelector": {"matchLabels": {"app": "web"}}})))?;
    let team = TestProgram::apply(
        "team",
        TCP_EVENTS_BTF,
        at(json!({
            "podSelector": {}, "namespaceSelector": {"matchLabels": {"team": "shop"}}, "containers": ["main", "first"],
        })),
    )?;
    web.ready_on("2/2")?;
    team.ready_on("2/2")?;
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "shop", "labels": {"test": TEST, "team": "shop"}},
    });
    let init = json!({"initContainers": [container("first", &["/bin/sleep", "3"])]});
    let host = json!({"hostNetwork": true});
    let objects = Objects::apply(
        TEST,
        vec![
            namespace,
            pod(TEST, "shop/one", "node-1", "web", init),
            pod(TEST, "shop/two", "node-1", "db", json!({})),
            pod(TEST, "default/three", "node-2", "web", host),
        ],
    )?;
    links_are("node-1", &web, TIMEOUT, &["shop/one"])?;
    wait_until(TIMEOUT, "the init container's link", || {
        Ok(linked("node-1", &team)?.contains(&"shop/one first".to_owned()))
    })?;
    for (namespace, name) in [("shop", "one"), ("shop", "two"), ("default", "three")] {
        running(namespace, name)?;
    }
    links_are("node-1", &team, TIMEOUT, &["shop/one main", "shop/two main"])?;
    links_are("node-2", &web, TIMEOUT, &["default/three"])?;
    detail_names("node-1", &web, &["shop/one"])?;
    detail_names("node-1", &team, &["shop/one main", "shop/two main"])?;
    for (program, [on_first, on_second]) in [(&web, [1, 1]), (&team, [2, 0])] {
        wait_until(TIMEOUT, "the counts of pods", || {
            let found = program.get()?;
            let pods = |node: &str| Ok::<_, anyhow::Error>(node_status(&found, node)?["pods"].as_i64().unwrap_or(0));
            let summed = found["status"]["summary"]["pods"] == on_first + on_second;
            Ok(summed && [pods("node-1")?, pods("node-2")?] == [on_first, on_second])
        })
        .with_context(|| format!("{:#}", program.get().unwrap_or_default()["status"]))?;
    }

    let (one, both): (&[_], &[_]) = (&["shop/one"], &["shop/one", "shop/two"]);
    let labels = [("app=web", both), ("app=db", one), ("app=web", both)];
    links_soon_follow(("node-1", &web), &["-n", "shop", "pod/two"], &labels)?;
    let (none, both): (&[_], &[_]) = (&[], &["shop/one main", "shop/two main"]);
    let labels = [("team=bank", none), ("team=shop", both), ("team=bank", none), ("team=shop", both)];
    links_soon_follow(("node-1", &team), &["namespace/shop"], &labels)?;
    kubectl(&["delete", "-n", "shop", "pod/one", "--wait", "--grace-period=0", "--force"])?;
    links_are("node-1", &web, TIMEOUT, &["shop/two"])?;
    links_are("node-1", &team, TIMEOUT, &["shop/two main"])?;
    web.ready_on("2/2")?;
    drop(objects);
    for (node, program) in [("node-1", &web), ("node-2", &web), ("node-1", &team)] {
        links_are(node, program, TIMEOUT, &[])?;
    }
    Ok(())
}

#[test]
fn a_relabelled_pod_keeps_the_program_if_the_spec_says_so() -> Result<()> {
    const TEST: &str = "relabelled";
    let guard = |when: &str| at(json!({"podSelector": {"matchLabels": {"app": "guarded"}}, "whenUnselected": when}));
    let keeps = TestProgram::apply("keeps", TCP_EVENTS_BTF, guard("KeepUntilPodEnds"))?;
    let detaches = TestProgram::apply("detaches", TCP_EVENTS_BTF, guard("Detach"))?;
    keeps.ready_on("2/2")?;
    detaches.ready_on("2/2")?;
    let _objects = Objects::apply(TEST, vec![pod(TEST, "default/guarded", "node-1", "guarded", json!({}))])?;
    for program in [&keeps, &detaches] {
        links_are("node-1", program, TIMEOUT, &["default/guarded"])?;
    }
    let (none, guarded): (&[_], &[_]) = (&[], &["default/guarded"]);
    let labels = [("app-", none), ("app=guarded", guarded), ("app-", none)];
    links_soon_follow(("node-1", &detaches), &["pod/guarded"], &labels)?;
    // The next agent keeps it too.
    let agents = pods("agent")?;
    kubectl(&["delete", "pod", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=agent", "--wait"])?;
    kubectl(&["rollout", "status", "-n", NAMESPACE, "daemonset", "--timeout=60s"])?;
    ensure!(pods("agent")?.iter().all(|uid| !agents.contains(uid)));
    keeps.ready_on("2/2")?;
    links_are("node-1", &keeps, TIMEOUT, &["default/guarded"])?;
    kubectl(&["delete", "pod/guarded", "--wait", "--grace-period=0", "--force"])?;
    links_are("node-1", &keeps, TIMEOUT, &[])
}

#[test]
fn sidecars_and_ephemeral_containers_are_selected_by_name() -> Result<()> {
    const TEST: &str = "beside";
    let beside = TestProgram::apply(
        "beside",
        TCP_EVENTS_BTF,
        at(json!({"podSelector": {}, "containers": ["side", "debugger"]})),
    )?;
    beside.ready_on("2/2")?;
    let mut side = container("side", &["/bin/sleep", "1000"]);
    side["restartPolicy"] = json!("Always");
    let _objects =
        Objects::apply(TEST, vec![pod(TEST, "default/four", "node-1", "any", json!({"initContainers": [side]}))])?;
    running("default", "four")?;
    links_are("node-1", &beside, TIMEOUT, &["default/four side"])?;
    let debug = ["debug", "pod/four", "--container=debugger", "--image=localhost/sockeye-toolbox:dev"];
    kubectl(&[&debug[..], &["--image-pull-policy=Never", "--profile=general", "--", "/bin/sleep", "1000"]].concat())?;
    links_are("node-1", &beside, TIMEOUT, &["default/four debugger", "default/four side"])
}

#[test]
fn a_static_pod_is_selected_by_the_labels_of_its_mirror_pod() -> Result<()> {
    let fixed =
        TestProgram::apply("fixed", TCP_EVENTS_BTF, at(json!({"podSelector": {"matchLabels": {"app": "fixed"}}})))?;
    fixed.ready_on("2/2")?;
    let manifest = Static(PathBuf::from("/run/sockeye-cluster/nodes/node-1/static/fixed.json"));
    std::fs::write(
        &manifest.0,
        pod("static", "default/fixed", "node-1", "fixed", json!({"restartPolicy": "Always"})).to_string(),
    )?;
    links_are("node-1", &fixed, TIMEOUT * 2, &["default/fixed-node-1"])?;
    drop(manifest);
    links_are("node-1", &fixed, TIMEOUT * 2, &[])
}

#[test]
fn the_first_connection_of_each_pod_is_counted() -> Result<()> {
    const TEST: &str = "first";
    let _server = Server::start()?;
    let pods = if is_long() { 1000 } else { 30 };
    let first =
        TestProgram::apply("first", TCP_EVENTS_BTF, at(json!({"podSelector": {"matchLabels": {"app": "first"}}})))?;
    first.ready_on("2/2")?;
    let descriptors = || agents()?.iter().map(|pid| Ok(Usage::of(pid)?.descriptors)).collect::<Result<Vec<_>>>();
    let before = descriptors()?;
    let objects = Objects::apply(TEST, vec![connecting(TEST, "first", pods)])?;
    completed("first-first", pods)?;
    let seen = counted(&first)?;
    println!("{seen} of {pods} first connections were seen");
    ensure!(seen == pods as u64, "{seen} of {pods} first connections were seen");
    drop(objects);
    for node in NODES {
        links_are(node, &first, TIMEOUT, &[])?;
        let left = helper("exec", &[node, "find", &format!("{}/links", first.home()), "-mindepth", "2"])?;
        ensure!(left.is_empty(), "{left:?}");
    }
    // A connection to the API server that is used no more is closed after a minute and a half.
    let mut after = Vec::new();
    wait_until(TIMEOUT * 4, "as few descriptors as before", || {
        after = descriptors()?;
        Ok(before.iter().zip(&after).all(|(before, after)| after <= before))
    })
    .with_context(|| format!("{before:?} {after:?}"))?;
    println!("descriptors of the agents: {before:?}, and {after:?} after {pods} pods");
    Ok(())
}
