//! Shared by the tests against a cluster: commands of its tools, and waiting.

pub mod chart;
pub mod identity;
pub mod load;
pub mod nodes;
pub mod operator;
pub mod process;
pub mod program;
pub mod proxy;
pub mod registry;
pub mod release;
pub mod traffic;

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// The time within which anything on the local cluster has to happen.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// The local cluster's nodes.
pub const NODES: [&str; 2] = ["node-1", "node-2"];

/// Returns whether tests run in their long form (`make chaos`).
pub fn is_long() -> bool {
    std::env::var_os("SOCKEYE_CHAOS").is_some()
}

/// The checkout.
pub fn repo() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Runs a command to its end. Returns its output, or its output as the error if it fails.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    output_of(command, output)
}

/// Does the same with input.
pub fn run_with_input(command: &mut Command, input: &str) -> Result<String> {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().with_context(|| format!("{piped:?}"))?;
    child.stdin.take().context("no input")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    output_of(command, output)
}

fn output_of(command: &Command, output: Output) -> Result<String> {
    let Output { status, stdout, stderr } = output;
    if !status.success() {
        bail!("{command:?}: {status}: {}{}", String::from_utf8_lossy(&stderr), String::from_utf8_lossy(&stdout));
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// Runs one of the helpers that the local cluster puts into target/cluster.
pub fn helper(name: &str, args: &[&str]) -> Result<String> {
    run(Command::new(repo().join("target/cluster").join(name)).args(args))
}

/// Runs `kubectl` on the local cluster.
pub fn kubectl(args: &[&str]) -> Result<String> {
    helper("kubectl", args)
}

/// Parses what `kubectl` prints as JSON.
pub fn json(args: &[&str]) -> Result<Value> {
    Ok(serde_json::from_str(&kubectl(&[args, &["-o", "json"]].concat())?)?)
}

/// Parses what bpftool prints as JSON in a node's mount namespace.
pub fn bpftool(node: &str, args: &[&str]) -> Result<Value> {
    Ok(serde_json::from_str(&helper("bpftool", &[&[node, "--json"], args].concat())?)?)
}

/// Runs a verb of tests/cluster/cluster.sh.
pub fn cluster(args: &[&str]) -> Result<String> {
    run(Command::new(repo().join("tests/cluster/cluster.sh")).args(args))
}

/// Waits until a condition holds, and returns how long it took.
pub fn wait_until(timeout: Duration, what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<Duration> {
    let start = Instant::now();
    let mut last = None;
    while start.elapsed() < timeout {
        match holds() {
            Ok(true) => return Ok(start.elapsed()),
            Ok(false) => {}
            Err(error) => last = Some(error),
        }
        sleep(Duration::from_millis(100));
    }
    match last {
        Some(error) => Err(error.context(format!("{what}: not within {timeout:?}"))),
        None => bail!("{what}: not within {timeout:?}"),
    }
}

/// Runs a round, which returns how long something took, and once more if that was longer than a limit: a machine may be
/// busy once. Fails if it was longer both times. The round is told its number.
pub fn once_of_two_within(limit: Duration, mut round: impl FnMut(u32) -> Result<Duration>) -> Result<()> {
    let first = round(1)?;
    if first < limit {
        return Ok(());
    }
    let second = round(2)?;
    ensure!(second < limit, "it took {first:?}, then {second:?}");
    Ok(())
}

/// Returns the condition of that type.
pub fn condition<'a>(object: &'a Value, type_: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == type_)
}
