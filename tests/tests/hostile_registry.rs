//! Registries that do harm, asked by the operator of the local cluster: each attack ends as a condition, within a time
//! and within the operator's memory, and holds up no other BpfProgram.
#![allow(missing_docs)]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use sockeye_ebpf::programs::TCP_EVENTS_BTF;
use sockeye_tests::{
    condition, kubectl,
    program::TestProgram,
    registry::{REGISTRY, Registry},
    release::{NAMESPACE, RestoredChart},
    repo, run, wait_until,
};

/// The registries' ports: six, so that attacks that take their time do not wait for each other. The last one collects
/// credentials.
const PORTS: [&str; 6] = ["5901", "5902", "5903", "5904", "5905", "5906"];
const ADDRESS: &str = "198.18.0.1";
/// Pulling ends after 120 s, whatever the registry does.
const ENDED: Duration = Duration::from_secs(150);

/// The attacks: the repository that does each, the reason, and a part of the message.
const ATTACKS: [(&str, &str, &str); 16] = [
    ("moved-tag", "InvalidImage", "should have the digest"),
    ("wrong-digest", "InvalidImage", "should have the digest"),
    ("wrong-layer", "InvalidImage", "should have the digest"),
    ("huge-layer", "InvalidImage", "too large"),
    ("lying-layer", "InvalidImage", "should have"),
    ("outside", "InvalidImage", "layer"),
    ("bomb", "InvalidImage", "unpacks to more than"),
    ("endless-manifest", "InvalidImage", "too large"),
    ("endless-token", "InvalidImage", "too large"),
    ("endless-error", "ImagePullFailed", "HTTP 500"),
    ("foreign-realm", "ImagePullFailed", "has its tokens issued by"),
    ("redirects", "ImagePullFailed", "redirects"),
    ("stalls", "ImagePullFailed", "longer than"),
    ("resets", "ImagePullFailed", "can't be reached"),
    ("busy", "ImagePullFailed", "asked too often"),
    ("broken", "ImagePullFailed", "HTTP 500"),
];

/// The hostile registries, which end with the test.
struct Hostile(Child);

impl Hostile {
    fn start(log: &str) -> Result<Self> {
        let mut command = Command::new(repo().join("target/cluster/run"));
        let script = repo().join("tests/registry/hostile.py");
        command
            .args(["setpriv", "--pdeathsig", "KILL", "/usr/bin/python3"])
            .arg(script)
            .args([log, ADDRESS])
            .args(PORTS);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let out = child.stdout.take().context("no output")?;
        let started = Self(child);
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        ensure!(line == "ready\n", "{line:?}");
        Ok(started)
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Installs the chart with all registries, and a Secret with credentials for each but the one that collects them.
fn install() -> Result<RestoredChart> {
    let secure = PORTS[..5].iter().map(|port| {
        let auth = json!({"username": "team", "password": "secret"});
        (format!("{ADDRESS}:{port}"), auth)
    });
    let auths = json!({"auths": secure.collect::<serde_json::Map<_, _>>()}).to_string();
    let _ = kubectl(&["delete", "secret", "-n", NAMESPACE, "hostile", "--ignore-not-found"]);
    let literal = format!("--from-literal=.dockerconfigjson={auths}");
    let kind = "--type=kubernetes.io/dockerconfigjson";
    kubectl(&["create", "secret", "generic", "hostile", "-n", NAMESPACE, kind, &literal])?;
    let mut insecure: Vec<String> = PORTS.iter().map(|port| format!("{ADDRESS}:{port}")).collect();
    insecure.push(REGISTRY.to_owned());
    let values = json!({"images": {"insecureRegistries": insecure, "pullSecrets": ["hostile"]}});
    RestoredChart::install_with(&values)
}

/// Returns the largest memory that any operator of the cluster has had, in bytes, by the kernel's count.
fn operators_peak() -> Result<u64> {
    let mut peak = 0;
    for process in fs::read_dir("/proc")? {
        let folder = process?.path();
        let read = |name| fs::read_to_string(folder.join(name)).unwrap_or_default();
        if read("cmdline").contains("--image-resolve-interval") {
            let status = read("status");
            let kib = status
                .lines()
                .find_map(|line| line.strip_prefix("VmHWM:"))
                .and_then(|line| line.split_whitespace().next());
            peak = peak.max(kib.map_or(Ok(0), str::parse::<u64>)? << 10);
        }
    }
    ensure!(peak > 0, "no operator runs");
    Ok(peak)
}

#[test]
fn hostile_registries_are_bounded_reported_and_hold_up_nobody() -> Result<()> {
    let log = repo().join("target/cluster/hostile.log").display().to_string();
    let _ = fs::remove_file(&log);
    let (registry, _hostile) = (Registry::on_cluster()?, Hostile::start(&log)?);
    let _installed = install()?;
    registry.push("team/guard", "v1", TCP_EVENTS_BTF)?;
    let begin = Instant::now();
    let attack = |(at, (name, ..)): (usize, &(&str, &str, &str))| {
        let reference = format!("{ADDRESS}:{}/{name}/guard:v1", PORTS[at % 5]);
        let image = json!({"reference": reference, "pullSecretRef": {"name": "hostile"}});
        TestProgram::apply(name, b"", json!({"bytecode": {"image": image}}))
    };
    let attacks: Vec<TestProgram> = ATTACKS.iter().enumerate().map(attack).collect::<Result<_>>()?;
    let image = json!({"reference": format!("{REGISTRY}/team/guard:v1")});
    let good = TestProgram::apply("beside", b"", json!({"bytecode": {"image": image}}))?;
    good.ready_on("2/2").context("a good image beside hostile ones")?;

    for (program, (name, reason, words)) in attacks.iter().zip(ATTACKS) {
        let left = ENDED.saturating_sub(begin.elapsed());
        let mut said = String::new();
        let waited = wait_until(left, name, || {
            let accepted = condition(&program.get()?, "Accepted").cloned().unwrap_or_default();
            said = format!("{}: {}", accepted["reason"], accepted["message"]);
            Ok(accepted["status"] == "False" && accepted["reason"] == reason)
        });
        waited.with_context(|| format!("{name}: {said}"))?;
        ensure!(said.contains(words), "{name}: {said}");
        ensure!(!said.contains('\u{1b}') && said.len() < 2500, "{name}: {said}");
    }
    println!("all attacks had ended after {:?}", begin.elapsed());
    let peak = operators_peak()?;
    println!("the operator's memory was at most {} MiB", peak >> 20);
    ensure!(peak < 200 << 20, "{peak} bytes");
    let restarts = run(Command::new(repo().join("target/cluster/kubectl")).args([
        "get",
        "pods",
        "-n",
        NAMESPACE,
        "-l",
        "app.kubernetes.io/component=operator",
        "-o",
        "jsonpath={.items[*].status.containerStatuses[*].restartCount}",
    ]))?;
    ensure!(restarts.split_whitespace().all(|count| count == "0"), "the operator was started again: {restarts}");
    let told = fs::read_to_string(&log).unwrap_or_default();
    ensure!(told.lines().all(|line| !line.starts_with(PORTS[5])), "credentials went to another realm: {told}");
    Ok(())
}
