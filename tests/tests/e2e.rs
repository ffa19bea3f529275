//! The main job, end to end, on a real Kubernetes of two nodes that share a kernel.
//!
//! The tests share the cluster and run one after the other (`--test-threads=1`). Each has its own BpfPrograms, and
//! deletes them even if it fails.
#![allow(missing_docs)]

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sockeye_ebpf::programs::{TCP_EVENTS_BTF, fixtures};
use sockeye_tests::{
    NODES, TIMEOUT, bpftool, cluster, condition, helper, json, kubectl,
    load::{Pod, Server},
    once_of_two_within,
    program::{TestProgram, detail, node_status, report, updated},
    release::Helm,
    wait_until,
};

#[test]
fn the_status_equals_what_bpftool_prints() -> Result<()> {
    let example = TestProgram::example()?;
    let program = example.ready_on("2/2")?;
    let mut printed = (Vec::new(), Vec::new());
    for node in NODES {
        let prog = example.pin(node, "prog", "programs/my_prog")?;
        let map = example.pin(node, "map", "maps/my_map")?;
        let said = example.detail(node)?;
        let link_pin = said["links"][0]["pinPath"].as_str().context("no link")?.to_owned();
        let link = bpftool(node, &["link", "show", "pinned", &link_pin])?;

        let (status, reported) = (node_status(&program, node)?, report(node, "tcp-events")?);
        for short in [status, &reported] {
            ensure!(short["programIDs"] == json!([prog["id"]]) && short["mapIDs"] == json!([map["id"]]), "{short}");
            ensure!(short["links"] == 1, "{short}");
        }
        ensure!(said["programs"][0]["name"] == "my_prog" && said["programs"][0]["links"] == 1, "{said}");
        ensure!(said["maps"][0]["name"] == "my_map", "{said}");
        for (ours, theirs) in [
            ("id", "id"),
            ("kernelName", "name"),
            ("tag", "tag"),
            ("mapIDs", "map_ids"),
            ("userID", "uid"),
            ("xlatedBytes", "bytes_xlated"),
            ("jitedBytes", "bytes_jited"),
            ("memlockBytes", "bytes_memlock"),
        ] {
            ensure!(said["programs"][0][ours] == prog[theirs], "{node} {ours}: {said} {prog}");
        }
        for (ours, theirs) in [
            ("id", "id"),
            ("kernelName", "name"),
            ("keySizeBytes", "bytes_key"),
            ("valueSizeBytes", "bytes_value"),
            ("maxEntries", "max_entries"),
            ("flags", "flags"),
            ("memlockBytes", "bytes_memlock"),
        ] {
            ensure!(said["maps"][0][ours] == map[theirs], "{node} {ours}: {said} {map}");
        }
        for (ours, theirs) in
            [("id", "id"), ("programID", "prog_id"), ("cgroupID", "cgroup_id"), ("attachType", "attach_type")]
        {
            ensure!(said["links"][0][ours] == link[theirs], "{node} {ours}: {said} {link}");
        }
        ensure!(prog["map_ids"] == json!([map["id"]]) && link["prog_id"] == prog["id"], "{prog} {link}");
        printed.0.push(prog["id"].to_string());
        printed.1.push(map["id"].to_string());
    }
    // The row that `kubectl get` prints: PODS is empty, since no target selects pods.
    let table = kubectl(&["get", "bpfprograms.sockeye.dev", "tcp-events", "--no-headers"])?;
    let row: Vec<&str> = table.split_whitespace().collect();
    ensure!(row[..7] == ["tcp-events", "2", "2", "0", "True", &printed.0.join(","), &printed.1.join(",")], "{table}");
    Ok(())
}

#[test]
fn bpfnodes_have_a_condition_that_one_can_wait_for() -> Result<()> {
    let broken = TestProgram::apply("broken", fixtures::REFUSED, json!({}))?;
    let wait = |state: &str| {
        kubectl(&[
            "wait",
            "--timeout=30s",
            &format!("--for=condition=Ready={state}"),
            "bpfnode/node-1",
            "bpfnode/node-2",
        ])
    };
    wait("False")?;
    let node = json(&["get", "bpfnode", "node-1"])?;
    let ready = condition(&node, "Ready").context("no Ready")?;
    ensure!(ready["reason"] == "VerifierRejected", "{ready}");
    wait_until(TIMEOUT, "the verifier's log", || Ok(detail("node-1", "broken")?["verifierLog"].is_string()))?;
    broken.edit(TCP_EVENTS_BTF, json!({}))?;
    wait("True").map(drop)
}

#[test]
fn all_pods_are_attached_to_once_at_kubepods() -> Result<()> {
    let program = TestProgram::apply("all-pods", TCP_EVENTS_BTF, all_pods())?;
    program.ready_on("2/2")?;
    for node in NODES {
        let links = program.detail(node)?["links"].clone();
        ensure!(links.as_array().map(Vec::len) == Some(1) && links[0]["cgroupPath"] == "/kubepods", "{links}");
    }
    Ok(())
}

/// Returns a spec that attaches to the cgroup of all pods.
fn all_pods() -> Value {
    json!({"attach": [{"type": "AllPods"}]})
}

/// Replaces the agents' image until the test ends.
struct OtherAgents;

impl OtherAgents {
    fn roll_out(repository: &str) -> Result<()> {
        Helm("helm").install(&["--set", &format!("agent.image.repository={repository}")]).map(drop)
    }
}

impl Drop for OtherAgents {
    fn drop(&mut self) {
        if let Err(error) = Self::roll_out("sockeye-agent") {
            eprintln!("the agents could not be rolled back: {error:#}");
        }
    }
}

#[test]
fn an_older_agent_keeps_the_last_good_revision_and_names_what_it_lacks() -> Result<()> {
    let program = TestProgram::apply("skewed", TCP_EVENTS_BTF, json!({}))?;
    let current = program.ready_on("2/2")?;
    let older = OtherAgents;
    OtherAgents::roll_out("sockeye-agent-older")?;
    // A spec that requires nothing new means the same to both.
    let kept = program.ready_on("2/2")?;
    ensure!(kept["status"]["nodeStatuses"] == current["status"]["nodeStatuses"], "{:#}", kept["status"]);

    program.edit(TCP_EVENTS_BTF, all_pods())?;
    let refused = program.condition_is("Attached", "False")?;
    let why = condition(&refused, "Attached").context("no condition")?;
    ensure!(why["reason"] == "AgentTooOld", "{why}");
    let message = why["message"].as_str().unwrap_or_default();
    ensure!(message.contains("AllPods") && message.contains("upgrade the agent"), "{message}");
    for node in NODES {
        let before = node_status(&current, node)?;
        ensure!(program.pin(node, "prog", "programs/my_prog")?["id"] == before["programIDs"][0], "{node}");
        ensure!(node_status(&refused, node)?["revision"] == current["status"]["currentRevision"]["name"]);
        let (said, dispatched) = (report(node, "skewed")?, &refused["status"]["currentRevision"]["name"]);
        ensure!(said["desiredRevision"] == *dispatched && said["state"] == "Failed", "{said}");
    }
    drop(older);
    let healed = program.ready_on("2/2")?;
    ensure!(healed["status"]["summary"]["programIDs"] == current["status"]["summary"]["programIDs"], "reloaded");
    Ok(())
}

#[test]
fn each_connection_of_a_pod_is_counted_on_its_node() -> Result<()> {
    const CONNECTIONS: u64 = 100;
    let example = TestProgram::apply("pod-connections", TCP_EVENTS_BTF, json!({}))?;
    example.ready_on("2/2")?;
    let _server = Server::start()?;
    // The nodes' own components keep their connections open: wait for a second without a new one.
    let counts = || {
        Ok::<_, anyhow::Error>([
            example.counts("node-1")?[TestProgram::ACTIVE],
            example.counts("node-2")?[TestProgram::ACTIVE],
        ])
    };
    wait_until(TIMEOUT, "quiet nodes", || {
        let before = counts()?;
        std::thread::sleep(Duration::from_secs(1));
        Ok(counts()? == before)
    })?;
    let before = counts()?;
    let command =
        format!("i=0; while [ $i -lt {CONNECTIONS} ]; do nc 198.18.0.1 8099 </dev/null || exit 1; i=$((i+1)); done");
    let pod = Pod::run("connections", "node-1", &command)?;
    pod.succeeded()?;
    let after = counts()?;
    ensure!(after[0] - before[0] == CONNECTIONS, "node-1: {before:?} {after:?}");
    ensure!(after[1] == before[1], "node-2 made no connection: {before:?} {after:?}");
    Ok(())
}

#[test]
fn deletion_removes_everything_within_five_seconds() -> Result<()> {
    once_of_two_within(Duration::from_secs(5), |round| deleted(&format!("deleted-{round}")))
}

/// Deletes a BpfProgram of that name, and returns how long it took until all of it was gone.
fn deleted(name: &str) -> Result<Duration> {
    let program = TestProgram::apply(name, TCP_EVENTS_BTF, json!({}))?;
    program.ready_on("2/2")?;
    let ids: Vec<String> = NODES
        .iter()
        .map(|n| Ok(program.pin(n, "prog", "programs/my_prog")?["id"].to_string()))
        .collect::<Result<_>>()?;
    kubectl(&["delete", "bpfprograms.sockeye.dev", name, "--wait=false"])?;
    let took = wait_until(TIMEOUT, "complete deletion", || {
        let object = kubectl(&["get", "bpfprograms.sockeye.dev", name, "--ignore-not-found"])?.is_empty();
        let homes = NODES.iter().all(|node| helper("exec", &[node, "test", "-e", &program.home()]).is_err());
        let programs = ids.iter().all(|id| bpftool("node-1", &["prog", "show", "id", id]).is_err());
        Ok(object && homes && programs)
    })?;
    println!("gone after {took:?}");
    for id in &ids {
        ensure!(bpftool("node-1", &["prog", "show", "id", id]).is_err(), "program {id} is still loaded");
    }
    let of_it = format!("sockeye.dev/program={name}");
    let revisions = kubectl(&["get", "bpfrevisions", "-l", &of_it, "--no-headers", "--ignore-not-found"])?;
    ensure!(revisions.is_empty(), "{revisions}");
    // The name can be used again at once.
    let again = TestProgram::apply(name, TCP_EVENTS_BTF, json!({}))?;
    again.ready_on("2/2")?;
    Ok(took)
}

#[test]
fn a_refused_edit_leaves_the_accepted_revision_running() -> Result<()> {
    let program = TestProgram::apply("refused", TCP_EVENTS_BTF, json!({}))?;
    let accepted = program.ready_on("2/2")?;
    program.edit(TCP_EVENTS_BTF, json!({"programs": [{"name": "nonesuch"}]}))?;
    let refused = program.condition_is("Accepted", "False")?;
    let why = condition(&refused, "Accepted").context("no condition")?;
    ensure!(why["reason"] == "ProgramNotFound", "{why}");
    let words = why["message"].as_str().unwrap_or_default();
    ensure!(words.contains("spec.programs[0].name") && words.contains("my_prog"), "{words}");
    ensure!(refused["status"]["currentRevision"] == accepted["status"]["currentRevision"]);
    ensure!(refused["status"]["nodeStatuses"] == accepted["status"]["nodeStatuses"], "{:#}", refused["status"]);
    wait_until(TIMEOUT, "the Event", || {
        let events = kubectl(&["get", "events", "-n", "default", "--field-selector", "involvedObject.name=refused"])?;
        Ok(events.contains("ProgramNotFound") || events.contains("nonesuch"))
    })?;

    // A spec that the verifier refuses is dispatched, and every node keeps the last good revision.
    program.edit(fixtures::REFUSED, json!({}))?;
    let mut why = Value::Null;
    wait_until(TIMEOUT, "that both nodes refuse it", || {
        why = condition(&program.get()?, "Attached").cloned().unwrap_or_default();
        Ok(why["reason"] == "VerifierRejected" && why["message"].as_str().is_some_and(|m| m.contains("2 of 2")))
    })?;
    ensure!(why["message"].as_str().is_some_and(|m| m.contains("node-1, node-2: ")), "{why}");
    for node in NODES {
        let id = &node_status(&accepted, node)?["programIDs"][0];
        ensure!(program.pin(node, "prog", "programs/my_prog")?["id"] == *id, "{node} lost its last good program");
    }
    program.edit(TCP_EVENTS_BTF, json!({}))?;
    let healed = program.ready_on("2/2")?;
    ensure!(healed["status"]["summary"]["programIDs"] == accepted["status"]["summary"]["programIDs"]);
    Ok(())
}

#[test]
fn node_labels_select_nodes_and_a_new_agent_loads_nothing() -> Result<()> {
    let selector = json!({"nodeSelector": {"matchLabels": {"sockeye.dev/e2e": "yes"}}});
    for node in NODES {
        kubectl(&["label", "node", node, "sockeye.dev/e2e-"])?;
    }
    let program = TestProgram::apply("selected", TCP_EVENTS_BTF, selector)?;
    let none = program.condition_is("Ready", "True")?;
    ensure!(condition(&none, "Ready").is_some_and(|c| c["reason"] == "NoNodeSelected"), "{:#}", none["status"]);
    kubectl(&["label", "node", "node-1", "sockeye.dev/e2e=yes"])?;
    program.ready_on("1/1")?;
    kubectl(&["label", "node", "node-2", "sockeye.dev/e2e=yes"])?;
    let both = program.ready_on("2/2")?;

    // The agents' pods are deleted: the next ones adopt everything and load nothing.
    kubectl(&["delete", "pod", "-n", "sockeye-system", "-l", "app.kubernetes.io/component=agent", "--wait"])?;
    kubectl(&["rollout", "status", "-n", "sockeye-system", "daemonset", "--timeout=60s"])?;
    let after = program.ready_on("2/2")?;
    ensure!(after["status"]["nodeStatuses"] == both["status"]["nodeStatuses"], "{:#}", after["status"]);

    kubectl(&["label", "node", "node-2", "sockeye.dev/e2e-"])?;
    program.ready_on("1/1")?;
    wait_until(TIMEOUT, "nothing on node-2", || {
        Ok(helper("exec", &["node-2", "test", "-e", &program.home()]).is_err())
    })?;
    kubectl(&["label", "node", "node-1", "sockeye.dev/e2e-"])?;
    Ok(())
}

/// Removes the third node when the test ends.
struct ThirdNode;

impl Drop for ThirdNode {
    fn drop(&mut self) {
        if let Err(error) = cluster(&["node-remove", "node-3"]) {
            eprintln!("node-3 could not be removed: {error:#}");
        }
    }
}

#[test]
fn a_node_that_joins_runs_the_last_accepted_revision() -> Result<()> {
    let program = TestProgram::apply("joined", TCP_EVENTS_BTF, json!({}))?;
    program.ready_on("2/2")?;
    program.edit(b"no ELF at all", json!({}))?;
    program.condition_is("Accepted", "False")?;
    cluster(&["node-add", "node-3", "3"])?;
    let third = ThirdNode;
    wait_until(Duration::from_secs(60), "3/3", || Ok(updated(&program.get()?) == "3/3"))?;
    ensure!(program.pin("node-3", "prog", "programs/my_prog")?["name"] == "my_prog");
    drop(third);
    wait_until(Duration::from_secs(60), "2/2", || Ok(updated(&program.get()?) == "2/2"))?;
    Ok(())
}

#[test]
fn a_deleted_bpfnode_is_recreated() -> Result<()> {
    let program = TestProgram::apply("observed", TCP_EVENTS_BTF, json!({}))?;
    let before = program.ready_on("2/2")?;
    recreated("bpfnode", || Ok(()))?;
    let after = program.ready_on("2/2")?;
    ensure!(before["status"]["nodeStatuses"] == after["status"]["nodeStatuses"], "{:#}", after["status"]);
    Ok(())
}

/// An agent does not watch its BpfNodeDetail, so it creates another one when it has something else to write.
#[test]
fn a_deleted_bpfnodedetail_is_recreated_with_the_next_change() -> Result<()> {
    let program = TestProgram::apply("detailed", TCP_EVENTS_BTF, json!({}))?;
    program.ready_on("2/2")?;
    program.detail("node-1")?;
    recreated("bpfnodedetail", || program.edit(TCP_EVENTS_BTF, json!({"suspend": true})))?;
    program.detail("node-1").map(drop)
}

/// Deletes node-1's object of a kind, makes a change, and waits until there is another one, which belongs to the Node.
fn recreated(kind: &str, change: impl FnOnce() -> Result<()>) -> Result<()> {
    let uid = |kind: &str| Ok::<_, anyhow::Error>(json(&["get", kind, "node-1"])?["metadata"]["uid"].clone());
    let old = uid(kind)?;
    kubectl(&["delete", kind, "node-1", "--wait"])?;
    change()?;
    wait_until(TIMEOUT, &format!("another {kind}"), || {
        Ok(uid(kind)? != old && !json(&["get", kind, "node-1"])?["status"]["programs"].is_null())
    })?;
    let owner = json(&["get", kind, "node-1"])?["metadata"]["ownerReferences"][0].clone();
    ensure!(owner["uid"] == uid("node")? && owner["kind"] == "Node" && owner["blockOwnerDeletion"] != true, "{owner}");
    Ok(())
}
