//! Strict targets: containers that start only once everything is attached.

use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use sockeye_ebpf::programs::{TCP_EVENTS_BTF, fixtures};
use sockeye_tests::{
    TIMEOUT, condition, is_long, json, kubectl, load::Server, program::TestProgram, release::Helm, wait_until,
};

use crate::{
    links::{at, counted},
    objects::{CONNECT, Objects, completed, connecting, container, pod, running},
};

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
            "podSelector": {"matchLabels": {"app": app}}, "containers": ["main"], "startPolicy": "WaitForAttachment",
        })
    };
    let strict = TestProgram::apply("strict", TCP_EVENTS_BTF, at(target("strict")))?;
    wait_until(TIMEOUT, "NRINotConnected", || {
        let found = strict.get()?;
        Ok(condition(&found, "Ready").is_some_and(|ready| ready["reason"] == "NRINotConnected"))
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
    let again = Objects::apply("again", vec![pod("again", "default/again", "node-2", "strict", nc)])?;
    let restarted = r#"--for=jsonpath={.status.containerStatuses[0].restartCount}=1"#;
    kubectl(&["wait", restarted, "pod/again", "--timeout=60s"])?;
    wait_until(TIMEOUT, "both its connections", || Ok(counted(&strict)? == pods as u64 + 2))
        .with_context(|| format!("{:?} seen", counted(&strict)))?;

    // A program that is known not to attach keeps its pods from starting, with an Event; other pods start.
    let whole = json!({"podSelector": {"matchLabels": {"app": "whole"}}, "startPolicy": "WaitForAttachment"});
    let broken = TestProgram::apply("broken", fixtures::REFUSED, at(target("refused")))?;
    let broken_whole = TestProgram::apply("broken-whole", fixtures::REFUSED, at(whole.clone()))?;
    broken.condition_is("Attached", "False")?;
    broken_whole.condition_is("Attached", "False")?;
    let always = || json!({"restartPolicy": "Always"});
    let waits = Objects::apply(
        "waits",
        vec![
            pod("waits", "default/refused", "node-1", "refused", always()),
            pod("waits", "default/whole", "node-1", "whole", always()),
            pod("waits", "default/other", "node-1", "other", json!({})),
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
