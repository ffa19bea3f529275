//! Faults and repairs, on the local cluster: suspension of everything, programs that cut a node off, drift, and nodes,
//! agents and objects that go and come back.
//!
//! The tests share the cluster and run one after the other (`--test-threads=1`).
#![allow(missing_docs)]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sockeye_ebpf::programs::{TCP_EVENTS_BTF, fixtures};
use sockeye_tests::{
    NODES, TIMEOUT, bpftool, cluster, condition, helper, json, kubectl,
    load::Pod,
    once_of_two_within,
    process::{Usage, agents},
    program::{TestProgram, report, updated},
    release::{NAMESPACE, pods},
    repo, wait_until,
};

/// Returns a spec that selects one node.
fn on(node: &str) -> Value {
    json!({"nodeSelector": {"matchLabels": {"kubernetes.io/hostname": node}}})
}

fn pinned(program: &TestProgram, node: &str) -> bool {
    helper("exec", &[node, "test", "-e", &program.home()]).is_ok()
}

fn reason(program: &TestProgram, type_: &str) -> Result<String> {
    let found = program.get()?;
    Ok(condition(&found, type_).and_then(|c| c["reason"].as_str()).unwrap_or_default().to_owned())
}

/// Returns the number of links in effect that a BpfNode reports of a BpfProgram.
fn links_of(node: &str, program: &str) -> Result<u64> {
    Ok(report(node, program)?["links"].as_u64().unwrap_or_default())
}

/// Runs a function when the test ends, even if it fails.
struct Finally<F: FnMut() -> Result<()>>(F);

impl<F: FnMut() -> Result<()>> Drop for Finally<F> {
    fn drop(&mut self) {
        if let Err(error) = (self.0)() {
            eprintln!("{error:#}");
        }
    }
}

#[test]
fn the_suspend_config_map_detaches_everything_within_three_seconds() -> Result<()> {
    let program = TestProgram::apply("stopped", TCP_EVENTS_BTF, json!({}))?;
    let before = program.ready_on("2/2")?;
    once_of_two_within(Duration::from_secs(3), |_| suspended(&program, &before))
}

/// Suspends everything for a while, and returns how long it took until nothing was attached.
fn suspended(program: &TestProgram, before: &Value) -> Result<Duration> {
    let back = || kubectl(&["delete", "configmap", "-n", NAMESPACE, "sockeye-suspend", "--ignore-not-found"]).map(drop);
    let suspension = Finally(back);
    kubectl(&["create", "configmap", "-n", NAMESPACE, "sockeye-suspend", "--from-literal=reason=incident 42"])?;
    let start = Instant::now();
    let links = |node: &str| -> Result<usize> {
        let home = format!("{}/links/my_prog", program.home());
        Ok(helper("exec", &[node, "sh", "-c", &format!("ls {home} 2>/dev/null | wc -l")])?.trim().parse()?)
    };
    for node in NODES {
        wait_until(TIMEOUT, "no link", || Ok(links(node)? == 0))?;
    }
    let took = start.elapsed();
    println!("detached everywhere {took:?} after the write");
    let suspended = program.condition_is("Ready", "False")?;
    let ready = condition(&suspended, "Ready").context("no Ready")?;
    ensure!(ready["reason"] == "Suspended" || reason(program, "Ready")? == "Progressing", "{ready}");
    wait_until(TIMEOUT, "Suspended", || Ok(reason(program, "Ready")? == "Suspended"))?;
    let said = program.get()?;
    let message = condition(&said, "Ready").map(|c| c["message"].to_string()).unwrap_or_default();
    ensure!(message.contains("incident 42"), "{message}");
    ensure!(said["status"]["nodes"]["suspended"] == 2 && links_of("node-1", "stopped")? == 0, "{:#}", said["status"]);
    let node = json(&["get", "bpfnode", "node-1"])?;
    ensure!(condition(&node, "Ready").is_some_and(|ready| ready["reason"] == "Suspended"), "{:#}", node["status"]);
    drop(suspension);
    let after = program.ready_on("2/2")?;
    ensure!(after["status"]["summary"] == before["status"]["summary"], "something was loaded anew: {after:#}");
    Ok(took)
}

/// With a program that lets nothing connect, the agent cannot hear of its deletion.
#[test]
fn a_program_that_cuts_its_node_off_is_reverted() -> Result<()> {
    let other = TestProgram::apply("bystander", TCP_EVENTS_BTF, json!({}))?;
    let before = other.ready_on("2/2")?;
    let start = Instant::now();
    let shut = TestProgram::apply("shut", fixtures::SHUT, on("node-1"))?;
    wait_until(Duration::from_secs(60), "ConnectivityLost", || Ok(reason(&shut, "Attached")? == "ConnectivityLost"))?;
    println!("reverted and reported after {:?}", start.elapsed());
    let said = shut.get()?;
    let message = condition(&said, "Stalled").context("not Stalled")?["message"].to_string();
    ensure!(message.contains("node-1") && message.contains("lost the API server"), "{message}");
    ensure!(links_of("node-1", "shut")? == 0, "it is still attached");
    std::thread::sleep(Duration::from_secs(5));
    ensure!(links_of("node-1", "shut")? == 0, "it was attached again");
    ensure!(other.get()?["status"]["summary"] == before["status"]["summary"], "another program was touched");
    // A corrected spec is tried anew.
    shut.edit(TCP_EVENTS_BTF, on("node-1"))?;
    shut.ready_on("1/1")?;
    Ok(())
}

/// A good revision, then one that the verifier refuses, then other agents; then a pod comes.
#[test]
fn a_guard_is_attached_to_new_pods_after_its_agent_restarted_with_a_revision_that_fails() -> Result<()> {
    let selector = json!({"matchLabels": {"app": "guarded"}});
    let attach = json!({"attach": [{"type": "Pods", "pods": {"podSelector": selector}}]});
    let guard = TestProgram::apply("guard", TCP_EVENTS_BTF, attach.clone())?;
    guard.ready_on("2/2")?;
    let good = guard.get()?["status"]["currentRevision"]["name"].clone();
    ensure!(reason(&guard, "Ready")? == "NoPodSelected", "{:#}", guard.get()?["status"]);
    guard.edit(fixtures::REFUSED, attach.clone())?;
    wait_until(TIMEOUT, "VerifierRejected", || Ok(reason(&guard, "Attached")? == "VerifierRejected"))?;
    let agents = pods("agent")?;
    kubectl(&["delete", "pod", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=agent", "--wait"])?;
    kubectl(&["rollout", "status", "-n", NAMESPACE, "daemonset", "--timeout=60s"])?;
    ensure!(pods("agent")?.iter().all(|uid| !agents.contains(uid)));
    let pod = Pod::run("guarded", "node-1", "sleep 1000")?;
    kubectl(&["label", "pod/guarded", "app=guarded"])?;
    pod.uid()?;
    wait_until(TIMEOUT, "a guard on the new pod", || Ok(links_of("node-1", "guard")? == 1))?;
    let said = guard.get()?;
    let running = &said["status"]["summary"]["runningRevisions"];
    ensure!(*running == good && report("node-1", "guard")?["revision"] == good, "{:#}", said["status"]);
    let message = condition(&said, "Attached").map(|c| c["message"].to_string()).unwrap_or_default();
    ensure!(message.contains(&format!("{} keeps running there", good.as_str().unwrap_or_default())), "{message}");
    // A spec that is refused changes nothing, and its condition names what runs.
    guard.edit(TCP_EVENTS_BTF, json!({"programs": [{"name": "no_such"}], "attach": attach["attach"]}))?;
    wait_until(TIMEOUT, "ProgramNotFound", || Ok(reason(&guard, "Accepted")? == "ProgramNotFound"))?;
    let said = guard.get()?;
    let message = condition(&said, "Ready").map(|c| c["message"].to_string()).unwrap_or_default();
    ensure!(message.contains(&format!("{} keeps running", good.as_str().unwrap_or_default())), "{message}");
    ensure!(said["status"]["summary"]["runningRevisions"] == good, "{:#}", said["status"]);
    Ok(())
}

#[test]
fn a_detached_link_is_repaired_and_reported_by_an_event() -> Result<()> {
    once_of_two_within(Duration::from_secs(5), |round| detached(&format!("undone-{round}")))
}

/// Detaches a link of a BpfProgram of that name, and returns how long it took until an Event said so.
fn detached(name: &str) -> Result<Duration> {
    let program = TestProgram::apply(name, TCP_EVENTS_BTF, json!({}))?;
    let before = program.ready_on("2/2")?;
    let link = program.detail("node-1")?["links"][0].clone();
    let pin = link["pinPath"].as_str().context("no pin")?;
    let start = Instant::now();
    helper("bpftool", &["node-1", "link", "detach", "pinned", pin])?;
    let events = || -> Result<Vec<Value>> {
        let uid = before["metadata"]["uid"].as_str().unwrap_or_default();
        let all = json(&["get", "events.events.k8s.io", "-n", "default"])?;
        let all = all["items"].as_array().cloned().unwrap_or_default();
        Ok(all.into_iter().filter(|e| e["regarding"]["uid"] == uid && e["reason"] == "LinkDetached").collect())
    };
    wait_until(TIMEOUT, "an Event", || Ok(!events()?.is_empty()))?;
    let took = start.elapsed();
    println!("reported by an Event after {took:?}");
    let note = events()?[0]["note"].to_string();
    ensure!(note.contains("on node-1: ") && note.contains("my_prog"), "{note}");
    let after = program.ready_on("2/2")?;
    ensure!(after["status"]["summary"] == before["status"]["summary"]);
    let drift = report("node-1", name)?["drift"].clone();
    ensure!(drift[0]["kind"] == "LinkDetached", "{drift}");
    // The detail follows within ten seconds.
    let mut again = Value::Null;
    wait_until(TIMEOUT, "another link in the detail", || {
        again = program.detail("node-1")?["links"][0].clone();
        Ok(again["id"] != link["id"] && again["inEffect"] == true)
    })
    .with_context(|| format!("{again}"))?;
    Ok(took)
}

/// Once the agent is back, it removes the pins of the deleted BpfProgram.
#[test]
fn deletion_does_not_wait_for_an_agent_that_is_away() -> Result<()> {
    let program = TestProgram::apply("away", TCP_EVENTS_BTF, json!({}))?;
    program.ready_on("2/2")?;
    let back = || {
        let all = json!({"spec": {"template": {"spec": {"nodeSelector": {"sockeye.dev/e2e-agent": null}}}}});
        kubectl(&["patch", "daemonset", "-n", NAMESPACE, "sockeye-agent", "--type=merge", "-p", &all.to_string()])?;
        kubectl(&["rollout", "status", "-n", NAMESPACE, "daemonset/sockeye-agent", "--timeout=60s"])?;
        kubectl(&["label", "node", "node-2", "sockeye.dev/e2e-agent-"]).map(drop)
    };
    let agents = Finally(back);
    kubectl(&["label", "node", "node-2", "sockeye.dev/e2e-agent=yes"])?;
    let one = json!({"spec": {"template": {"spec": {"nodeSelector": {"sockeye.dev/e2e-agent": "yes"}}}}});
    kubectl(&["patch", "daemonset", "-n", NAMESPACE, "sockeye-agent", "--type=merge", "-p", &one.to_string()])?;
    wait_until(TIMEOUT, "node-2's agent alone", || Ok(program.get()?["status"]["nodes"]["withoutAgent"] == 1))?;
    program.ready_on("1/2")?;

    kubectl(&["delete", "bpfprograms.sockeye.dev", "away", "--timeout=20s"])?;
    ensure!(pinned(&program, "node-1"), "there was no agent to remove it");
    wait_until(TIMEOUT, "nothing on node-2", || Ok(!pinned(&program, "node-2")))?;
    drop(agents);
    wait_until(TIMEOUT, "nothing on node-1", || Ok(!pinned(&program, "node-1")))?;
    Ok(())
}

#[test]
fn a_program_can_be_recreated_at_once_after_deletion_during_an_operator_restart() -> Result<()> {
    let program = TestProgram::apply("again", TCP_EVENTS_BTF, json!({}))?;
    let first = program.ready_on("2/2")?;
    let operator = pods("operator")?;
    kubectl(&["delete", "bpfprograms.sockeye.dev", "again", "--wait=false"])?;
    kubectl(&["delete", "pod", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=operator", "--wait=false"])?;
    wait_until(Duration::from_secs(60), "its end", || {
        let left = kubectl(&["get", "bpfprograms.sockeye.dev", "again", "--ignore-not-found", "-o", "name"])?;
        Ok(left.is_empty() && pods("operator")? != operator)
    })?;
    // Agents may still be removing the old one.
    program.edit(TCP_EVENTS_BTF, json!({}))?;
    let second = program.ready_on("2/2")?;
    ensure!(second["metadata"]["uid"] != first["metadata"]["uid"]);
    kubectl(&["delete", "bpfprograms.sockeye.dev", "again", "--timeout=20s"])?;
    program.edit(TCP_EVENTS_BTF, json!({}))?;
    program.ready_on("2/2")?;
    Ok(())
}

/// The Node is deleted and registers again: another UID, and the same kernel.
#[test]
fn a_node_that_returns_under_its_name_loads_nothing() -> Result<()> {
    let stays = TestProgram::apply("stays", TCP_EVENTS_BTF, json!({}))?;
    let goes = TestProgram::apply("goes", TCP_EVENTS_BTF, json!({}))?;
    let before = stays.ready_on("2/2")?;
    goes.ready_on("2/2")?;
    let uid = || Ok::<_, anyhow::Error>(json(&["get", "node", "node-2"])?["metadata"]["uid"].clone());
    let (node, id) = (uid()?, stays.pin("node-2", "prog", "programs/my_prog")?["id"].clone());
    cluster(&["node-stop", "node-2"])?;
    let back = Finally(|| cluster(&["node-start", "node-2"]).map(drop));
    kubectl(&["delete", "node", "node-2", "--wait"])?;
    wait_until(TIMEOUT, "one node", || Ok(updated(&stays.get()?) == "1/1"))?;
    // A deleted Node delays no deletion.
    kubectl(&["delete", "bpfprograms.sockeye.dev", "goes", "--timeout=20s"])?;
    drop(back);
    wait_until(Duration::from_secs(60), "another Node", || Ok(uid()? != node))?;
    kubectl(&["wait", "--for=condition=Ready", "node/node-2", "--timeout=60s"])?;
    wait_until(Duration::from_secs(60), "both nodes", || Ok(updated(&stays.get()?) == "2/2"))?;
    let after = stays.ready_on("2/2")?;
    ensure!(stays.pin("node-2", "prog", "programs/my_prog")?["id"] == id, "it was loaded anew");
    ensure!(before["status"]["summary"] == after["status"]["summary"]);
    wait_until(TIMEOUT, "no pins of the BpfProgram that was deleted meanwhile", || Ok(!pinned(&goes, "node-2")))?;
    for kind in ["bpfnode", "bpfnodedetail"] {
        wait_until(TIMEOUT, &format!("a {kind} of the Node"), || {
            Ok(json(&["get", kind, "node-2"])?["metadata"]["ownerReferences"][0]["uid"] == uid()?)
        })?;
    }
    Ok(())
}

/// The kubelet is stopped: its node is not live, and its pods run on.
#[test]
fn a_node_that_is_not_ready_delays_neither_status_nor_deletion() -> Result<()> {
    let program = TestProgram::apply("silent", TCP_EVENTS_BTF, json!({}))?;
    program.ready_on("2/2")?;
    cluster(&["node-stop", "node-2"])?;
    let back = Finally(|| {
        cluster(&["node-start", "node-2"])?;
        kubectl(&["wait", "--for=condition=Ready", "node/node-2", "--timeout=60s"]).map(drop)
    });
    wait_until(Duration::from_secs(90), "an unknown node", || Ok(program.get()?["status"]["nodes"]["unknown"] == 1))?;
    let said = program.get()?;
    ensure!(condition(&said, "Attached").is_some_and(|c| c["status"] == "True"), "{:#}", said["status"]);
    ensure!(bpftool("node-2", &["prog", "show", "pinned", &format!("{}/programs/my_prog", program.home())]).is_ok());
    kubectl(&["delete", "bpfprograms.sockeye.dev", "silent", "--timeout=20s"])?;
    // The agent on that node runs on.
    wait_until(TIMEOUT, "nothing on node-2", || Ok(!pinned(&program, "node-2")))?;
    drop(back);
    Ok(())
}

/// With a hundred BpfPrograms and no changes, nothing is written but the operator's Lease, the agents use less than
/// 0.1 % of a core, and do not grow.
#[test]
fn an_idle_cluster_writes_nothing() -> Result<()> {
    let names: Vec<String> = (0..100).map(|n| format!("idle-{n}")).collect();
    let rest = Duration::from_secs(if sockeye_tests::is_long() { 300 } else { 60 });
    let many = Many::apply(&names, TCP_EVENTS_BTF)?;
    let args: Vec<&str> = ["wait", "--for=condition=Ready", "--timeout=60s"].into_iter().chain(many.refs()).collect();
    kubectl(&args)?;
    // The last status writes come within a moment, and those of BpfNodeDetails within ten seconds.
    std::thread::sleep(Duration::from_secs(15));
    let (written, agents) = (versions()?, agents()?);
    // Requests to write count too, even if they would change nothing.
    let asked = writes()?;
    ensure!(!asked.is_empty(), "100 BpfPrograms were applied, and nobody has written anything");
    // What else runs on the machine can cost an agent once.
    let is_little = little_is_used(&agents, rest).or_else(|error| {
        println!("once more: {error:#}");
        little_is_used(&agents, rest)
    });
    ensure!(versions()? == written, "written while idle");
    ensure!(writes()? == asked, "a write was asked for while idle: {asked:?}, then {:?}", writes()?);
    is_little
}

/// Returns the versions of sockeye's resources, and of the Events about BpfPrograms.
fn versions() -> Result<Vec<String>> {
    let of = |about: &str| {
        let item = "{.kind}/{.metadata.name} {.metadata.resourceVersion}{\"\\n\"}";
        format!("jsonpath={{range .items[{about}]}}{item}{{end}}")
    };
    let ours = "bpfprograms.sockeye.dev,bpfrevisions,bpfnodes,bpfnodedetails";
    let resources = kubectl(&["get", ours, "-o", &of("*")])?;
    let about = of("?(@.regarding.kind==\"BpfProgram\")");
    let events = kubectl(&["get", "events.events.k8s.io", "-n", "default", "-o", &about])?;
    Ok(resources.lines().chain(events.lines()).map(str::to_owned).collect())
}

/// Fails unless the agents, which have nothing to do, use little for so long.
fn little_is_used(agents: &[String], rest: Duration) -> Result<()> {
    let before = agents.iter().map(|pid| Usage::of(pid)).collect::<Result<Vec<_>>>()?;
    std::thread::sleep(rest);
    for (pid, before) in agents.iter().zip(before) {
        let after = Usage::of(pid)?;
        let cpu = (after.cpu - before.cpu).as_secs_f64() / rest.as_secs_f64() * 100.0;
        println!(
            "agent {pid}: {cpu:.3} % of a core, {} to {} descriptors, {} to {} kB resident",
            before.descriptors, after.descriptors, before.resident_kb, after.resident_kb
        );
        ensure!(cpu < 0.1, "agent {pid} took {cpu:.3} % of a core");
        ensure!(after.descriptors <= before.descriptors, "{before:?} {after:?}");
        ensure!(after.resident_kb <= before.resident_kb + 512, "{before:?} {after:?}");
    }
    Ok(())
}

/// Counts the requests so far to write sockeye's resources or Events, as the API server's metrics do.
fn writes() -> Result<BTreeMap<String, f64>> {
    let metrics = kubectl(&["get", "--raw", "/metrics"])?;
    let requests = metrics.lines().filter_map(|line| line.strip_prefix("apiserver_request_total")?.rsplit_once(' '));
    let ours = |labels: &str| labels.contains("group=\"sockeye.dev\"") || labels.contains("group=\"events.k8s.io\"");
    let read = |labels: &str| ["GET", "LIST", "WATCH"].iter().any(|verb| labels.contains(&format!("verb=\"{verb}\"")));
    let writes = requests.filter(|(labels, _)| ours(labels) && !read(labels));
    writes.map(|(labels, count)| Ok((labels.to_owned(), count.parse()?))).collect()
}

/// Many BpfPrograms with the same object, applied in one request, and deleted when the test ends.
struct Many<'a>(&'a [String]);

impl<'a> Many<'a> {
    fn apply(names: &'a [String], object: &[u8]) -> Result<Self> {
        let manifest = |name: &String| {
            json!({"apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfProgram", "metadata": {"name": name}, "spec": {
                "bytecode": {"inline": STANDARD.encode(object)}, "nodeSelector": on("node-1")["nodeSelector"],
                "attach": [{"type": "CgroupPath", "cgroupPath": path(name)}], "programs": [{"name": "my_prog"}]}})
        };
        let list = json!({"apiVersion": "v1", "kind": "List", "items": names.iter().map(manifest).collect::<Vec<_>>()});
        let file = repo().join("target/cluster/many.json");
        std::fs::write(&file, list.to_string())?;
        let many = Self(names);
        kubectl(&["apply", "--server-side", "-f", &file.display().to_string()])?;
        Ok(many)
    }

    fn refs(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        ["bpfprograms.sockeye.dev"].into_iter().chain(self.0.iter().map(String::as_str))
    }
}

impl Drop for Many<'_> {
    fn drop(&mut self) {
        let args: Vec<&str> =
            ["delete", "--ignore-not-found", "--timeout=60s"].into_iter().chain(self.refs()).collect();
        if let Err(error) = kubectl(&args) {
            eprintln!("{error:#}");
        }
    }
}

/// Returns the cgroup of a BpfProgram. A cgroup holds at most 64 programs: half go to the node's, half to the pods'.
fn path(name: &str) -> &'static str {
    let number: u32 = name.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or_default();
    if number.is_multiple_of(2) { "/" } else { "/kubepods" }
}
