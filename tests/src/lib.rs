//! What tests against a cluster share: its tools as commands, and waiting.

pub mod chart;
pub mod identity;
pub mod load;
pub mod nodes;
pub mod operator;
pub mod process;
pub mod program;
pub mod proxy;
pub mod release;
pub mod traffic;

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// How long anything on the local cluster may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The local cluster's nodes.
pub const NODES: [&str; 2] = ["node-1", "node-2"];

/// Whether tests are to take their long form (`make chaos`).
pub fn long() -> bool {
    std::env::var_os("SOCKEYE_CHAOS").is_some()
}

/// The checkout.
pub fn repo() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Runs a command to its end; its output where it succeeds, its words where it does not.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    said(command, output)
}

/// The same, with input.
pub fn feed(command: &mut Command, input: &str) -> Result<String> {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().with_context(|| format!("{piped:?}"))?;
    child.stdin.take().context("no input")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    said(command, output)
}

fn said(command: &Command, output: Output) -> Result<String> {
    let Output { status, stdout, stderr } = output;
    if !status.success() {
        bail!("{command:?}: {status}: {}{}", String::from_utf8_lossy(&stderr), String::from_utf8_lossy(&stdout));
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// One of the helpers that the local cluster puts into target/cluster.
pub fn helper(name: &str, args: &[&str]) -> Result<String> {
    run(Command::new(repo().join("target/cluster").join(name)).args(args))
}

/// `kubectl` on the local cluster.
pub fn kubectl(args: &[&str]) -> Result<String> {
    helper("kubectl", args)
}

/// What `kubectl` prints as JSON.
pub fn json(args: &[&str]) -> Result<Value> {
    Ok(serde_json::from_str(&kubectl(&[args, &["-o", "json"]].concat())?)?)
}

/// What bpftool, run in a node's mount namespace, prints as JSON.
pub fn bpftool(node: &str, args: &[&str]) -> Result<Value> {
    Ok(serde_json::from_str(&helper("bpftool", &[&[node, "--json"], args].concat())?)?)
}

/// A verb of tests/cluster/cluster.sh.
pub fn cluster(args: &[&str]) -> Result<String> {
    run(Command::new(repo().join("tests/cluster/cluster.sh")).args(args))
}

/// Waits until something holds, and says how long it took.
pub fn until(patience: Duration, what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<Duration> {
    let start = Instant::now();
    let mut last = None;
    while start.elapsed() < patience {
        match holds() {
            Ok(true) => return Ok(start.elapsed()),
            Ok(false) => {}
            Err(error) => last = Some(error),
        }
        sleep(Duration::from_millis(100));
    }
    match last {
        Some(error) => Err(error.context(format!("{what} did not come about in {patience:?}"))),
        None => bail!("{what} did not come about in {patience:?}"),
    }
}

/// A condition of an object, by its type.
pub fn condition<'a>(object: &'a Value, type_: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == type_)
}
