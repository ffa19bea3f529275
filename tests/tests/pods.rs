//! Pod targets, on a real Kubernetes of two nodes: selection, how soon links follow, and that no connection is missed.
#![allow(missing_docs)]

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sockeye_ebpf::programs::{TCP_EVENTS_BTF, fixtures};
use sockeye_tests::{
    NODES, TIMEOUT, condition, helper, is_long, json, kubectl,
    load::Server,
    process::{Usage, agents},
    program::{TestProgram, details},
    release::Helm,
    repo, wait_until,
};

/// Connects to the tests' server once.
const CONNECT: [&str; 5] = ["/bin/nc", "-w", "5", "198.18.0.1", "8099"];
/// The time within which links follow, that of the API server and of the test's own requests included.
const SOON: Duration = Duration::from_secs(3);

/// Objects that are deleted when the test ends.
struct Objects(&'static str);

impl Objects {
    /// Applies objects. Those with the label `test: <name>` are deleted when the test ends.
    fn apply(name: &'static str, items: Vec<Value>) -> Result<Self> {
        let file = repo().join(format!("target/cluster/{name}.json"));
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        std::fs::write(&file, list.to_string())?;
        let objects = Self(name);
        kubectl(&["apply", "-f", &file.display().to_string()])?;
        Ok(objects)
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        let selector = format!("test={}", self.0);
        let _ = kubectl(&[
            "delete",
            "jobs,pods",
            "-A",
            "-l",
            &selector,
            "--wait",
            "--grace-period=0",
            "--force",
            "--timeout=60s",
        ]);
        let _ = kubectl(&["delete", "namespaces", "-l", &selector, "--wait", "--timeout=60s"]);
    }
}

fn container(name: &str, command: &[&str]) -> Value {
    json!({"name": name, "image": "localhost/sockeye-toolbox:dev", "imagePullPolicy": "Never", "command": command})
}

/// Returns a pod that sleeps.
fn pod(test: &str, namespace: &str, name: &str, node: &str, app: &str, more: Value) -> Value {
    let mut spec = json!({
        "nodeName": node, "restartPolicy": "Never", "automountServiceAccountToken": false, "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 0,
        "containers": [container("main", &["/bin/sleep", "1000"]), container("proxy", &["/bin/sleep", "1000"])],
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    let meta = json!({"name": name, "namespace": namespace, "labels": {"test": test, "app": app}});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
}

/// Returns a Job of so many pods that connect at once: no shell runs before.
fn connecting(test: &str, app: &str, pods: usize) -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": format!("{test}-{app}"), "namespace": "default", "labels": {"test": test}},
        "spec": {
            "completions": pods, "parallelism": 15, "backoffLimit": 0,
            "template": {
                "metadata": {"labels": {"test": test, "app": app}},
                "spec": {
                    "restartPolicy": "Never", "automountServiceAccountToken": false, "enableServiceLinks": false,
                    "terminationGracePeriodSeconds": 0,
                    "containers": [container("main", &CONNECT)],
                },
            },
        },
    })
}

fn completed(name: &str, pods: usize) -> Result<()> {
    wait_until(TIMEOUT * 6 * (1 + pods as u32 / 100), "the job's end", || {
        let job = json(&["get", "job", name])?;
        let failed = job["status"]["failed"].as_i64().unwrap_or_default();
        ensure!(failed == 0, "{failed} pods failed: {:#}", job["status"]);
        Ok(job["status"]["succeeded"].as_u64() == Some(pods as u64))
    })
    .map(drop)
}

/// Returns the connections that both nodes counted.
fn counted(program: &TestProgram) -> Result<u64> {
    NODES.iter().map(|node| Ok(program.counts(node)?[TestProgram::ACTIVE])).sum()
}

fn at(target: Value) -> Value {
    json!({"programs": [{"name": "my_prog", "attach": [{"cgroup": target}]}]})
}

/// Returns the pods and containers that have a link on a node.
fn linked(node: &str, program: &str) -> Result<Vec<String>> {
    let links = details(node, program)?["links"].as_array().cloned().unwrap_or_default();
    let name = |link: &Value| {
        let (pod, container) =
            (link["pod"].as_str().unwrap_or_default(), link["container"].as_str().unwrap_or_default());
        format!("{pod} {container}").trim().to_owned()
    };
    let mut names: Vec<String> = links.iter().filter(|link| link["inEffect"] == true).map(name).collect();
    names.sort();
    Ok(names)
}

fn links_are(node: &str, program: &str, within: Duration, names: &[&str]) -> Result<()> {
    let mut found = Vec::new();
    let took = wait_until(within, &format!("links of {program} on {node} at {names:?}"), || {
        found = linked(node, program)?;
        Ok(found == names)
    })
    .with_context(|| format!("{found:?}"))?;
    println!("links of {program} on {node} followed within {took:?}");
    Ok(())
}

fn running(namespace: &str, name: &str) -> Result<()> {
    kubectl(&["wait", "-n", namespace, "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]).map(drop)
}

#[test]
fn links_follow_labels_namespaces_and_containers() -> Result<()> {
    const TEST: &str = "picked";
    let web = TestProgram::apply(
        "web",
        TCP_EVENTS_BTF,
        at(json!({"scope": "Pods", "podSelector": {"matchLabels": {"app": "web"}}})),
    )?;
    let team = TestProgram::apply(
        "team",
        TCP_EVENTS_BTF,
        at(json!({
            "scope": "Pods", "namespaceSelector": {"matchLabels": {"team": "shop"}}, "containers": ["main", "first"],
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
            pod(TEST, "shop", "one", "node-1", "web", init),
            pod(TEST, "shop", "two", "node-1", "db", json!({})),
            pod(TEST, "default", "three", "node-2", "web", host),
        ],
    )?;
    links_are("node-1", "web", TIMEOUT, &["shop/one"])?;
    wait_until(TIMEOUT, "the init container's link", || {
        Ok(linked("node-1", "team")?.contains(&"shop/one first".to_owned()))
    })?;
    for (namespace, name) in [("shop", "one"), ("shop", "two"), ("default", "three")] {
        running(namespace, name)?;
    }
    links_are("node-1", "team", TIMEOUT, &["shop/one main", "shop/two main"])?;
    links_are("node-2", "web", SOON, &["default/three"])?;
    let placed = web.get()?;
    ensure!(placed["status"]["placements"][0]["pods"] == json!(["shop/one"]), "{:#}", placed["status"]["placements"]);

    kubectl(&["label", "-n", "shop", "pod/two", "app=web", "--overwrite"])?;
    links_are("node-1", "web", SOON, &["shop/one", "shop/two"])?;
    kubectl(&["label", "namespace/shop", "team=bank", "--overwrite"])?;
    links_are("node-1", "team", SOON, &[])?;
    kubectl(&["label", "namespace/shop", "team=shop", "--overwrite"])?;
    links_are("node-1", "team", SOON, &["shop/one main", "shop/two main"])?;
    kubectl(&["delete", "-n", "shop", "pod/one", "--wait", "--grace-period=0", "--force"])?;
    links_are("node-1", "web", TIMEOUT, &["shop/two"])?;
    links_are("node-1", "team", SOON, &["shop/two main"])?;
    web.ready_on("2/2")?;
    drop(objects);
    for (node, program) in [("node-1", "web"), ("node-2", "web"), ("node-1", "team")] {
        links_are(node, program, TIMEOUT, &[])?;
    }
    Ok(())
}

#[test]
fn sidecars_and_ephemeral_containers_are_selected_by_name() -> Result<()> {
    const TEST: &str = "beside";
    let beside =
        TestProgram::apply("beside", TCP_EVENTS_BTF, at(json!({"scope": "Pods", "containers": ["side", "debugger"]})))?;
    beside.ready_on("2/2")?;
    let mut side = container("side", &["/bin/sleep", "1000"]);
    side["restartPolicy"] = json!("Always");
    let _objects =
        Objects::apply(TEST, vec![pod(TEST, "default", "four", "node-1", "any", json!({"initContainers": [side]}))])?;
    running("default", "four")?;
    links_are("node-1", "beside", TIMEOUT, &["default/four side"])?;
    let debug = ["debug", "pod/four", "--container=debugger", "--image=localhost/sockeye-toolbox:dev"];
    kubectl(&[&debug[..], &["--image-pull-policy=Never", "--profile=general", "--", "/bin/sleep", "1000"]].concat())?;
    links_are("node-1", "beside", TIMEOUT, &["default/four debugger", "default/four side"])
}

/// The manifest of a static pod on a node, removed when the test ends.
struct Static(PathBuf);

impl Drop for Static {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_static_pod_is_selected_by_the_labels_of_its_mirror_pod() -> Result<()> {
    let fixed = TestProgram::apply(
        "fixed",
        TCP_EVENTS_BTF,
        at(json!({"scope": "Pods", "podSelector": {"matchLabels": {"app": "fixed"}}})),
    )?;
    fixed.ready_on("2/2")?;
    let manifest = Static(PathBuf::from("/run/sockeye-cluster/nodes/node-1/static/fixed.json"));
    std::fs::write(
        &manifest.0,
        pod("static", "default", "fixed", "node-1", "fixed", json!({"restartPolicy": "Always"})).to_string(),
    )?;
    links_are("node-1", "fixed", TIMEOUT * 2, &["default/fixed-node-1"])?;
    drop(manifest);
    links_are("node-1", "fixed", TIMEOUT * 2, &[])
}

#[test]
fn the_first_connection_of_each_pod_is_counted() -> Result<()> {
    const TEST: &str = "first";
    let _server = Server::start()?;
    let pods = if is_long() { 1000 } else { 30 };
    let first = TestProgram::apply(
        "first",
        TCP_EVENTS_BTF,
        at(json!({"scope": "Pods", "podSelector": {"matchLabels": {"app": "first"}}})),
    )?;
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
        links_are(node, "first", TIMEOUT, &[])?;
        let left = helper("exec", &[node, "find", &format!("{}/links", first.home()), "-mindepth", "2"])?;
        ensure!(left.is_empty(), "{left:?}");
    }
    let after = descriptors()?;
    println!("descriptors of the agents: {before:?}, and {after:?} after {pods} pods");
    ensure!(before.iter().zip(&after).all(|(before, after)| after <= before), "{before:?} {after:?}");
    Ok(())
}

/// Enables the NRI hook until the test ends.
struct Hooked;

impl Hooked {
    fn install() -> Result<Self> {
        let hooked = Self;
        Helm("helm").install(&["--set", "agent.nri.enabled=true"])?;
        Ok(hooked)
    }
}

impl Drop for Hooked {
    fn drop(&mut self) {
        if let Err(error) = Helm("helm").install(&[]) {
            eprintln!("the hook could not be taken away: {error:#}");
        }
    }
}

/// Processes that use all processors until the test ends.
struct Busy(Vec<Child>);

impl Busy {
    fn start() -> Result<Self> {
        let burn = || {
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "sh", "-c", "while :; do :; done"]).stdout(Stdio::null());
            command.spawn()
        };
        Ok(Self((0..4).map(|_| burn()).collect::<std::io::Result<_>>()?))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn strict_containers_start_only_after_attachment() -> Result<()> {
    const TEST: &str = "strict";
    let _server = Server::start()?;
    let pods = if is_long() { 200 } else { 30 };
    let target = |app: &str| {
        json!({
            "scope": "Pods", "podSelector": {"matchLabels": {"app": app}}, "containers": ["main"], "strict": true,
        })
    };
    let strict = TestProgram::apply("strict", TCP_EVENTS_BTF, at(target("strict")))?;
    wait_until(TIMEOUT, "RuntimeNotHooked", || {
        let found = strict.get()?;
        Ok(condition(&found, "Ready").is_some_and(|ready| ready["reason"] == "RuntimeNotHooked"))
    })
    .with_context(|| format!("{:?}", strict.get()))?;

    let _hooked = Hooked::install()?;
    strict.ready_on("2/2")?;
    let objects = {
        let _busy = Busy::start()?;
        let objects = Objects::apply(TEST, vec![connecting(TEST, "strict", pods)])?;
        completed("strict-strict", pods)?;
        objects
    };
    let seen = counted(&strict)?;
    ensure!(seen == pods as u64, "{seen} of {pods} first connections were seen");

    // The first connection of a restarted container is counted too.
    let nc = json!({"restartPolicy": "Always", "containers": [container("main", &CONNECT)]});
    let again = Objects::apply("again", vec![pod("again", "default", "again", "node-2", "strict", nc)])?;
    let restarted = r#"--for=jsonpath={.status.containerStatuses[0].restartCount}=1"#;
    kubectl(&["wait", restarted, "pod/again", "--timeout=60s"])?;
    wait_until(TIMEOUT, "both its connections", || Ok(counted(&strict)? == pods as u64 + 2))
        .with_context(|| format!("{:?} seen", counted(&strict)))?;

    // A program that is known not to attach keeps its pods from starting, with an Event; other pods start.
    let whole = json!({"scope": "Pods", "podSelector": {"matchLabels": {"app": "whole"}}, "strict": true});
    let broken = TestProgram::apply("broken", fixtures::REFUSED, at(target("refused")))?;
    let broken_whole = TestProgram::apply("broken-whole", fixtures::REFUSED, at(whole.clone()))?;
    broken.condition_is("Attached", "False")?;
    broken_whole.condition_is("Attached", "False")?;
    let always = || json!({"restartPolicy": "Always"});
    let waits = Objects::apply(
        "waits",
        vec![
            pod("waits", "default", "refused", "node-1", "refused", always()),
            pod("waits", "default", "whole", "node-1", "whole", always()),
            pod("waits", "default", "other", "node-1", "other", json!({})),
        ],
    )?;
    running("default", "other")?;
    for (name, program) in [("refused", "BpfProgram broken:"), ("whole", "BpfProgram broken-whole:")] {
        let about = format!("involvedObject.kind=Pod,involvedObject.name={name},reason=FailedCreatePodSandBox");
        wait_until(TIMEOUT, &format!("the Event that says why {name} does not start"), || {
            let get = ["get", "events", "--field-selector", &about, "-o", "jsonpath={.items[*].message}"];
            Ok(kubectl(&get)?.contains(program))
        })?;
        let state = json(&["get", "pod", name])?["status"].clone();
        ensure!(state["phase"] == "Pending", "{state:#}");
    }
    broken.edit(TCP_EVENTS_BTF, at(target("refused")))?;
    broken_whole.edit(TCP_EVENTS_BTF, at(whole))?;
    for (program, pod) in [(&broken, "refused"), (&broken_whole, "whole")] {
        program.ready_on("2/2")?;
        kubectl(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=120s"])?;
    }
    drop((waits, again, objects));
    Ok(())
}
