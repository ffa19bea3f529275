//! One example for each program type, from deploy/examples/types, unchanged. Acts in a pod's cgroup show its effect
//! before it is applied, while it is attached, and after it is removed.
//!
//! Each act runs in a network namespace of its own with nothing but loopback.

pub mod act;

use std::process::{Command, Stdio};

use sockeye_agent::kernel::kernel_features::KernelFeatures;
use sockeye_ebpf::programs::types;

use crate::node::{Node, text};

macro_rules! example {
    ($name:literal) => {
        ($name, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples/types/", $name, ".yaml")))
    };
}
pub(crate) use example;

/// An act, and its outcomes without and with the program.
type Act = (&'static str, &'static str, &'static str);

/// The pods' cgroup below the node's cgroup root.
pub const PODS: &str = "kubepods";

/// Asserts the outcome of each act without the example's program and with it, and returns the node with the program
/// attached.
fn attached_example((name, manifest): (&str, &str), acts: &[Act]) -> Node {
    let mut node = Node::new(name);
    node.make_cgroup(PODS);
    for (act, without, _) in acts {
        assert_eq!(outcome(&node, act), *without, "{act}, without {name}");
    }
    node.start();
    node.apply_example(name, manifest);
    node.ready(name);
    for (act, _, with) in acts {
        assert_eq!(outcome(&node, act), *with, "{act}, with {name}");
    }
    node
}

/// Returns whether the kernel lacks a feature. Asserts that the agent then refuses the example by the attach type's
/// name.
fn refuses((name, manifest): (&str, &str), feature: &str, attach_type: &str) -> bool {
    let mut node = Node::new(name);
    node.make_cgroup(PODS);
    node.start();
    node.until("what the kernel has", |node| node.node_status()["node"]["kernelRelease"].is_string());
    if node.has_feature(feature) {
        return false;
    }
    node.apply_example(name, manifest);
    let ready = node.condition_is(name, "Ready", "False");
    assert_eq!(ready["reason"], "KernelUnsupported", "{ready}");
    assert!(ready["message"].as_str().unwrap().contains(attach_type), "{ready}");
    true
}

/// Removes the program, and asserts that it has no effect any more and leaves nothing behind.
fn assert_removed(node: &Node, name: &str, acts: &[Act]) {
    node.remove(name);
    for (act, without, _) in acts {
        assert_eq!(outcome(node, act), *without, "{act}, once {name} is removed");
    }
    node.nothing_left();
}

/// Returns the compiled object of an example.
pub fn object(name: &str) -> &'static [u8] {
    types::ALL.iter().find(|(of, _)| *of == name).unwrap().1
}

/// Returns the outcome of an act in a pod's cgroup.
pub fn outcome(node: &Node, act: &str) -> String {
    let done = actor(node, act).output().unwrap();
    let output = text(&done);
    let outcome = output.lines().find_map(|line| line.strip_prefix("outcome "));
    outcome.unwrap_or_else(|| panic!("{act}: {output}")).to_owned()
}

/// Returns the command of a process that does an act.
pub fn actor(node: &Node, act: &str) -> Command {
    let procs = node.cgroup().join(PODS).join("cgroup.procs");
    let script = format!(
        "echo $$ >{} && ip link set lo up && exec \"$0\" --exact program_types::act::actor --nocapture",
        procs.display()
    );
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "unshare", "--net", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap());
    command.env("ACT", act).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// All types at once, as in the documentation's column of capabilities: without CAP_PERFMON and any other.
#[test]
fn every_type_is_attached_with_two_capabilities() {
    let mut node = Node::new("two-capabilities");
    node.make_cgroup(PODS);
    // The verifiers of older kernels, recognized by another feature that they lack, refuse some of these without
    // PERFMON.
    let two = if KernelFeatures::probe().has.contains("VerifierLogEnd") {
        "-all,+bpf,+net_admin"
    } else {
        "-all,+bpf,+net_admin,+perfmon"
    };
    node.start_as(&["--bounding-set", two], &[]);
    node.until("what the kernel has", |node| node.node_status()["node"]["kernelRelease"].is_string());
    let unix = example!("cgroup-sock-addr-unix");
    let all = [
        example!("cgroup-device"),
        example!("cgroup-skb"),
        example!("cgroup-sock"),
        example!("cgroup-sock-addr"),
        example!("cgroup-sockopt"),
        example!("cgroup-sysctl"),
        example!("sk-msg"),
    ];
    let stream = node.has_feature("SkSkbVerdict").then_some(example!("sk-skb"));
    let all: Vec<_> =
        all.into_iter().chain(stream).chain(node.has_feature("CgroupUnixConnect").then_some(unix)).collect();
    for (name, manifest) in &all {
        node.apply_example(name, manifest);
    }
    for (name, _) in &all {
        node.ready(name);
    }
    for (name, _) in &all {
        node.remove(name);
    }
    node.nothing_left();
}

#[test]
fn a_device_program_refuses_to_open_a_device() {
    let example = example!("cgroup-device");
    let acts = [("open /dev/full", "opened", "refused"), ("open /dev/zero", "opened", "opened")];
    let mut node = attached_example(example, &acts);
    let accepted = node.condition(example.0, "Accepted")["message"].as_str().unwrap().to_owned();
    assert!(accepted.contains("container runtimes"), "{accepted}");

    // A foreign program at a container's cgroup, as a runtime attaches one, is reported by the next agent that observes
    // everything.
    let (container, theirs) = (node.cgroup().join(PODS).join("container").display().to_string(), "/sys/fs/bpf/theirs");
    node.make_cgroup("kubepods/container");
    node.foreign_program(object(example.0), theirs);
    node.run("bpftool", &["cgroup", "attach", &container, "device", "pinned", theirs, "multi"]);
    node.stop("TERM");
    node.start();
    let id = node.bpftool(&["prog", "show", "pinned", theirs])["id"].clone();
    node.until("the note", |node| {
        node.details(example.0)["notes"].to_string().contains(&format!("program {id} at /kubepods/container"))
    });
    node.run("bpftool", &["cgroup", "detach", &container, "device", "pinned", theirs]);
    assert_removed(&node, example.0, &acts);
}

#[test]
fn a_sysctl_program_refuses_to_write_a_sysctl() {
    let example = example!("cgroup-sysctl");
    let acts = [
        ("write /proc/sys/kernel/panic", "written", "refused"),
        ("open /proc/sys/kernel/panic", "opened", "opened"),
        // As the container runtime does from inside a new pod's cgroup.
        ("write /proc/sys/net/ipv4/ip_unprivileged_port_start", "written", "written"),
    ];
    assert_removed(&attached_example(example, &acts), example.0, &acts);
}

#[test]
fn a_sockopt_program_changes_refuses_and_hides_options() {
    let example = example!("cgroup-sockopt");
    let acts = [
        ("ttl", "7", "64"),
        ("buffer 4194304", "taken", "refused"),
        ("buffer 65536", "taken", "taken"),
        ("tos", "16", "0"),
    ];
    assert_removed(&attached_example(example, &acts), example.0, &acts);
}

#[test]
fn a_sock_program_refuses_sockets_and_ports() {
    let example = example!("cgroup-sock");
    let acts = [
        ("raw", "created", "refused"),
        ("bind 127.0.0.1:4200", "bound", "refused"),
        ("bind [::1]:4200", "bound", "refused"),
        ("bind 127.0.0.1:4199", "bound", "bound"),
    ];
    let node = attached_example(example, &acts);
    let sockets = node.counts(&["pinned", &format!("{}/maps/sockets", node.home(example.0))]);
    assert!(sockets[0] >= 3 && sockets[1] >= 3, "created and released: {sockets:?}");
    assert_removed(&node, example.0, &acts);
}

#[test]
fn a_sock_addr_program_translates_addresses_both_ways() {
    let example = example!("cgroup-sock-addr");
    let acts = [
        ("connect 192.0.2.1:4210", "unreachable", "answered by 192.0.2.1:4210"),
        ("connect [2001:db8::1]:4210", "unreachable", "answered by [2001:db8::1]:4210"),
        ("connect 192.0.2.1:25", "unreachable", "refused"),
        ("connect [2001:db8::1]:25", "unreachable", "refused"),
        ("query 192.0.2.1:4211", "unreachable", "answered by 192.0.2.1:4211"),
        ("query [2001:db8::1]:4211", "unreachable", "answered by [2001:db8::1]:4211"),
        ("query 192.0.2.1:25", "unreachable", "refused"),
        ("listen 127.0.0.1:4201", "port 4201, 4202 is free", "port 4201, 4202 is taken"),
        ("listen [::1]:4201", "port 4201, 4202 is free", "port 4201, 4202 is taken"),
    ];
    assert_removed(&attached_example(example, &acts), example.0, &acts);
}

#[test]
fn a_skb_program_counts_and_drops_packets() {
    let example = example!("cgroup-skb");
    let acts = [("discard 127.0.0.1:9", "received", "silence"), ("discard 127.0.0.1:10", "received", "received")];
    let node = attached_example(example, &acts);
    let traffic = node.bpftool(&["map", "dump", "pinned", &format!("{}/maps/traffic", node.home(example.0))]);
    let packets = |way: usize| traffic[way]["formatted"]["value"]["packets"].as_u64().unwrap_or_default();
    assert_eq!([packets(0), packets(1)], [2, 2], "in and out: {traffic}");
    assert_removed(&node, example.0, &acts);
}

/// A kernel without this type is refused by its name, and nothing is loaded.
#[test]
fn a_sock_addr_program_refuses_unix_sockets_to_nobody() {
    let example = example!("cgroup-sock-addr-unix");
    let acts = [
        ("unix root", "connected, sent, named", "connected, sent, named"),
        ("unix nobody", "connected, sent, named", "refused, refused, named"),
    ];
    if refuses(example, "CgroupUnixConnect", "cgroup_unix_connect") {
        return;
    }
    let node = attached_example(example, &acts);
    let addresses = node.counts(&["pinned", &format!("{}/maps/told", node.home(example.0))]);
    assert!(addresses.iter().all(|count| *count >= 1), "{addresses:?}");
    assert_removed(&node, example.0, &acts);
}

#[test]
fn an_sk_msg_program_redirects_messages_past_tcp() {
    let example = example!("sk-msg");
    let acts = [("speak", "heard 10 of 10", "heard 10 of 10")];
    let node = attached_example(example, &acts);
    let redirected = node.counts(&["pinned", &format!("{}/maps/redirected", node.home(example.0))]);
    assert_eq!(redirected, [10], "each went past TCP");
    assert_removed(&node, example.0, &acts);
}

#[test]
fn an_sk_skb_program_parses_and_answers_streams() {
    let example = example!("sk-skb");
    let acts = [("messages", "3abc2!x5hello", "3abc5hello"), ("echo", "silence", "hello")];
    if refuses(example, "SkSkbVerdict", "sk_skb_verdict") {
        return;
    }
    let node = attached_example(example, &acts);
    let messages = node.counts(&["pinned", &format!("{}/maps/messages", node.home(example.0))]);
    assert_eq!(messages, [2, 1], "passed and dropped");
    assert_removed(&node, example.0, &acts);
}
