//! The main job, end to end, on a real Kubernetes of two nodes that share a kernel.
//!
//! The tests share the cluster and run one after the other (`--test-threads=1`); each has its own BpfPrograms and takes
//! them away, whatever happens.
#![allow(missing_docs)]

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sockeye_ebpf::programs::{TCP_EVENTS_BTF, fixtures};
use sockeye_tests::{
    NODES, PATIENCE, bpftool, cluster, condition, helper, json, kubectl,
    load::{Pod, Server},
    program::{Applied, details, placement},
    release::Helm,
    until,
};

#[test]
fn what_the_status_says_is_what_bpftool_says() -> Result<()> {
    let example = Applied::example()?;
    let program = example.ready_on("2/2")?;
    let mut printed = (Vec::new(), Vec::new());
    for node in NODES {
        let prog = example.pin(node, "prog", "programs/my_prog")?;
        let map = example.pin(node, "map", "maps/my_map")?;
        let said = details(node, "tcp-events")?;
        let link_pin = said["links"][0]["pinPath"].as_str().context("no link")?.to_owned();
        let link = bpftool(node, &["link", "show", "pinned", &link_pin])?;

        let placed = placement(&program, node)?;
        ensure!(
            placed["programs"] == json!([{"name": "my_prog", "id": prog["id"], "tag": prog["tag"], "links": 1}]),
            "{placed}"
        );
        ensure!(placed["maps"] == json!([{"name": "my_map", "id": map["id"]}]), "{placed}");
        for (ours, theirs) in [
            ("id", "id"),
            ("kernelName", "name"),
            ("tag", "tag"),
            ("mapIds", "map_ids"),
            ("uid", "uid"),
            ("xlatedBytes", "bytes_xlated"),
            ("jitedBytes", "bytes_jited"),
            ("memlockBytes", "bytes_memlock"),
        ] {
            ensure!(said["programs"][0][ours] == prog[theirs], "{node} {ours}: {said} {prog}");
        }
        for (ours, theirs) in [
            ("id", "id"),
            ("kernelName", "name"),
            ("keySize", "bytes_key"),
            ("valueSize", "bytes_value"),
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
    // The row that a user sees.
    let table = kubectl(&["get", "bpfprograms.sockeye.dev", "tcp-events", "--no-headers"])?;
    let row: Vec<&str> = table.split_whitespace().collect();
    ensure!(
        row[..6] == ["tcp-events", "SockOps", "2/2", "True", &printed.0.join(","), &printed.1.join(",")],
        "{table}"
    );
    Ok(())
}

#[test]
fn what_is_wrong_is_said_by_condition_and_event_and_costs_nothing_else() -> Result<()> {
    let neighbour = Applied::apply("neighbour", TCP_EVENTS_BTF, json!({}))?;
    let before = neighbour.ready_on("2/2")?;
    let of = |more: Value| json!({"programs": [more]});
    let at = |cgroup: Value| of(json!({"name": "my_prog", "attach": [{"cgroup": cgroup}]}));
    let node = json!([{"cgroup": {"scope": "Node"}}]);
    for (object, more, type_, reason, words) in [
        (&b"no ELF"[..], json!({}), "Accepted", "InvalidObject", &["spec.bytecode", "ELF"][..]),
        (&TCP_EVENTS_BTF[..600], json!({}), "Accepted", "InvalidObject", &["spec.bytecode"]),
        (
            TCP_EVENTS_BTF,
            of(json!({"name": "nonesuch", "attach": node})),
            "Accepted",
            "NoSuchProgram",
            &["spec.programs[0].name", "my_prog"],
        ),
        (
            TCP_EVENTS_BTF,
            of(json!({"name": "my_prog", "type": "CgroupSkb", "attach": node})),
            "Accepted",
            "TypeMismatch",
            &["spec.programs[0].type", "SockOps"],
        ),
        (
            TCP_EVENTS_BTF,
            json!({"maps": [{"name": "other"}]}),
            "Accepted",
            "NoSuchMap",
            &["spec.maps[0].name", "my_map"],
        ),
        (fixtures::REFUSED, json!({}), "Attached", "VerifierRefused", &["node-", "my_prog", "the verifier says"]),
        (
            TCP_EVENTS_BTF,
            at(json!({"scope": "Path", "path": "/nowhere"})),
            "Attached",
            "CgroupNotFound",
            &["node-", "/nowhere", "create it"],
        ),
        (
            TCP_EVENTS_BTF,
            at(json!({"scope": "Path", "path": "/memory/kubepods"})),
            "Attached",
            "CgroupNotFound",
            &["cgroup v1"],
        ),
        (
            TCP_EVENTS_BTF,
            json!({"maps": [{"name": "my_map", "maxEntries": 1 << 28}]}),
            "Attached",
            "MapBytesExceeded",
            &["2147483648", "536870912", "policy.mapBytesPerProgram"],
        ),
    ] {
        let wrong = Applied::apply("wrong", object, more)?;
        let mut said = Value::Null;
        until(PATIENCE, reason, || {
            said = wrong.condition_is(type_, "False")?;
            Ok(condition(&said, type_).is_some_and(|c| c["reason"] == reason))
        })
        .with_context(|| format!("{:#}", said["status"]["conditions"]))?;
        let why = condition(&said, type_).context("no condition")?;
        let message = why["message"].as_str().unwrap_or_default();
        ensure!(words.iter().all(|word| message.contains(word)), "{reason} does not say {words:?}: {message}");
        let about = format!("involvedObject.name=wrong,involvedObject.uid={},reason={reason}", uid(&said));
        until(PATIENCE, "the Event", || {
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

fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

#[test]
fn all_pods_are_one_cgroup() -> Result<()> {
    let pods = json!([{"name": "my_prog", "attach": [{"cgroup": {"scope": "Pods"}}]}]);
    let program = Applied::apply("all-pods", TCP_EVENTS_BTF, json!({"programs": pods}))?;
    program.ready_on("2/2")?;
    for node in NODES {
        let links = details(node, "all-pods")?["links"].clone();
        ensure!(links.as_array().map(Vec::len) == Some(1) && links[0]["cgroupPath"] == "/kubepods", "{links}");
    }
    Ok(())
}

/// Agents of another image until the test ends.
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
fn an_older_agent_keeps_the_last_good_revision_and_says_what_it_lacks() -> Result<()> {
    let program = Applied::apply("skewed", TCP_EVENTS_BTF, json!({}))?;
    let current = program.ready_on("2/2")?;
    let older = OtherAgents;
    OtherAgents::roll_out("sockeye-agent-older")?;
    // What needs nothing new is the same to both.
    let kept = program.ready_on("2/2")?;
    ensure!(kept["status"]["placements"] == current["status"]["placements"], "{:#}", kept["status"]);

    program
        .edit(TCP_EVENTS_BTF, json!({"programs": [{"name": "my_prog", "attach": [{"cgroup": {"scope": "Pods"}}]}]}))?;
    let refused = program.condition_is("Attached", "False")?;
    let why = condition(&refused, "Attached").context("no condition")?;
    ensure!(why["reason"] == "AgentTooOld", "{why}");
    let message = why["message"].as_str().unwrap_or_default();
    ensure!(message.contains("ScopePods") && message.contains("upgrade the agent"), "{message}");
    for node in NODES {
        let before = placement(&current, node)?;
        ensure!(program.pin(node, "prog", "programs/my_prog")?["id"] == before["programs"][0]["id"], "{node}");
        ensure!(placement(&refused, node)?["revision"] == current["status"]["dispatch"]["revision"]);
    }
    drop(older);
    let healed = program.ready_on("2/2")?;
    ensure!(healed["status"]["summary"]["programIDs"] == current["status"]["summary"]["programIDs"], "reloaded");
    Ok(())
}

#[test]
fn a_pods_connections_raise_its_nodes_counters_by_their_number() -> Result<()> {
    const CONNECTIONS: u64 = 100;
    let example = Applied::apply("pod-connections", TCP_EVENTS_BTF, json!({}))?;
    example.ready_on("2/2")?;
    let _server = Server::start()?;
    // Components of ours that run on the nodes keep their connections open; wait until a second passes without a new one.
    let counts = || {
        Ok::<_, anyhow::Error>([example.counts("node-1")?[Applied::ACTIVE], example.counts("node-2")?[Applied::ACTIVE]])
    };
    until(PATIENCE, "quiet nodes", || {
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
    ensure!(after[1] == before[1], "node-2 made none: {before:?} {after:?}");
    Ok(())
}

#[test]
fn deletion_removes_everything_within_five_seconds() -> Result<()> {
    let program = Applied::apply("deleted", TCP_EVENTS_BTF, json!({}))?;
    program.ready_on("2/2")?;
    let ids: Vec<String> = NODES
        .iter()
        .map(|n| Ok(program.pin(n, "prog", "programs/my_prog")?["id"].to_string()))
        .collect::<Result<_>>()?;
    kubectl(&["delete", "bpfprograms.sockeye.dev", "deleted", "--wait=false"])?;
    let took = until(Duration::from_secs(5), "the end of it", || {
        let object = kubectl(&["get", "bpfprograms.sockeye.dev", "deleted", "--ignore-not-found"])?.is_empty();
        let homes = NODES.iter().all(|node| helper("exec", &[node, "test", "-e", &program.home()]).is_err());
        let programs = ids.iter().all(|id| bpftool("node-1", &["prog", "show", "id", id]).is_err());
        Ok(object && homes && programs)
    })?;
    println!("gone after {took:?}");
    for id in &ids {
        ensure!(bpftool("node-1", &["prog", "show", "id", id]).is_err(), "program {id} is still loaded");
    }
    let revisions =
        kubectl(&["get", "bpfrevisions", "-l", "sockeye.dev/program=deleted", "--no-headers", "--ignore-not-found"])?;
    ensure!(revisions.is_empty(), "{revisions}");
    // The same name at once.
    let again = Applied::apply("deleted", TCP_EVENTS_BTF, json!({}))?;
    again.ready_on("2/2")?;
    Ok(())
}

#[test]
fn a_refused_edit_leaves_the_accepted_revision_running() -> Result<()> {
    let program = Applied::apply("refused", TCP_EVENTS_BTF, json!({}))?;
    let accepted = program.ready_on("2/2")?;
    program
        .edit(TCP_EVENTS_BTF, json!({"programs": [{"name": "nonesuch", "attach": [{"cgroup": {"scope": "Node"}}]}]}))?;
    let refused = program.condition_is("Accepted", "False")?;
    let why = condition(&refused, "Accepted").context("no condition")?;
    ensure!(why["reason"] == "NoSuchProgram", "{why}");
    let words = why["message"].as_str().unwrap_or_default();
    ensure!(words.contains("spec.programs[0].name") && words.contains("my_prog"), "{words}");
    ensure!(refused["status"]["dispatch"] == accepted["status"]["dispatch"]);
    ensure!(refused["status"]["placements"] == accepted["status"]["placements"], "{:#}", refused["status"]);
    let events = kubectl(&["get", "events", "-n", "default", "--field-selector", "involvedObject.name=refused"])?;
    ensure!(events.contains("NoSuchProgram") || events.contains("nonesuch"), "{events}");

    // One that the verifier refuses is dispatched, and every node keeps the last good one.
    program.edit(fixtures::REFUSED, json!({}))?;
    let mut why = Value::Null;
    until(PATIENCE, "that both nodes refuse it", || {
        why = condition(&program.get()?, "Attached").cloned().unwrap_or_default();
        Ok(why["reason"] == "VerifierRefused" && why["message"].as_str().is_some_and(|m| m.contains("2 of 2")))
    })?;
    ensure!(why["message"].as_str().is_some_and(|m| m.contains("node-1, node-2: ")), "{why}");
    for node in NODES {
        let id = &placement(&accepted, node)?["programs"][0]["id"];
        ensure!(program.pin(node, "prog", "programs/my_prog")?["id"] == *id, "{node} lost its last good program");
    }
    program.edit(TCP_EVENTS_BTF, json!({}))?;
    let healed = program.ready_on("2/2")?;
    ensure!(healed["status"]["summary"]["programIDs"] == accepted["status"]["summary"]["programIDs"]);
    Ok(())
}

#[test]
fn labels_and_agents_come_and_go_and_the_picture_follows() -> Result<()> {
    let selector = json!({"nodeSelector": {"matchLabels": {"sockeye.dev/e2e": "yes"}}});
    for node in NODES {
        kubectl(&["label", "node", node, "sockeye.dev/e2e-"])?;
    }
    let program = Applied::apply("selected", TCP_EVENTS_BTF, selector)?;
    let none = program.condition_is("Ready", "True")?;
    ensure!(condition(&none, "Ready").is_some_and(|c| c["reason"] == "NoNodeSelected"), "{:#}", none["status"]);
    kubectl(&["label", "node", "node-1", "sockeye.dev/e2e=yes"])?;
    program.ready_on("1/1")?;
    kubectl(&["label", "node", "node-2", "sockeye.dev/e2e=yes"])?;
    let both = program.ready_on("2/2")?;

    // An agent's pod is deleted: the next one finds everything and loads nothing.
    kubectl(&["delete", "pod", "-n", "sockeye-system", "-l", "app.kubernetes.io/component=agent", "--wait"])?;
    kubectl(&["rollout", "status", "-n", "sockeye-system", "daemonset", "--timeout=60s"])?;
    let after = program.ready_on("2/2")?;
    ensure!(after["status"]["placements"] == both["status"]["placements"], "{:#}", after["status"]);

    kubectl(&["label", "node", "node-2", "sockeye.dev/e2e-"])?;
    program.ready_on("1/1")?;
    until(PATIENCE, "nothing on node-2", || Ok(helper("exec", &["node-2", "test", "-e", &program.home()]).is_err()))?;
    kubectl(&["label", "node", "node-1", "sockeye.dev/e2e-"])?;
    Ok(())
}

/// Takes the third node away, whatever happens.
struct ThirdNode;

impl Drop for ThirdNode {
    fn drop(&mut self) {
        if let Err(error) = cluster(&["node-remove", "node-3"]) {
            eprintln!("node-3 could not be removed: {error:#}");
        }
    }
}

#[test]
fn a_node_that_joins_runs_what_was_accepted_last() -> Result<()> {
    let program = Applied::apply("joined", TCP_EVENTS_BTF, json!({}))?;
    program.ready_on("2/2")?;
    program.edit(b"no ELF at all", json!({}))?;
    program.condition_is("Accepted", "False")?;
    cluster(&["node-add", "node-3", "3"])?;
    let third = ThirdNode;
    until(Duration::from_secs(60), "3/3", || Ok(program.get()?["status"]["summary"]["nodes"] == "3/3"))?;
    ensure!(program.pin("node-3", "prog", "programs/my_prog")?["name"] == "my_prog");
    drop(third);
    until(Duration::from_secs(60), "2/2", || Ok(program.get()?["status"]["summary"]["nodes"] == "2/2"))?;
    Ok(())
}

#[test]
fn a_bpfnode_that_is_deleted_is_made_again() -> Result<()> {
    let program = Applied::apply("observed", TCP_EVENTS_BTF, json!({}))?;
    let before = program.ready_on("2/2")?;
    let uid = |kind: &str| Ok::<_, anyhow::Error>(json(&["get", kind, "node-1"])?["metadata"]["uid"].clone());
    let old = uid("bpfnode")?;
    kubectl(&["delete", "bpfnode", "node-1", "--wait"])?;
    until(PATIENCE, "a new BpfNode", || Ok(uid("bpfnode")? != old && details("node-1", "observed").is_ok()))?;
    let owner = json(&["get", "bpfnode", "node-1"])?["metadata"]["ownerReferences"][0].clone();
    ensure!(owner["uid"] == uid("node")? && owner["kind"] == "Node" && owner["blockOwnerDeletion"] != true, "{owner}");
    let after = program.ready_on("2/2")?;
    ensure!(before["status"]["placements"] == after["status"]["placements"], "{:#}", after["status"]);
    Ok(())
}
