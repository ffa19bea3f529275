//! The order in which BpfPrograms run at one cgroup, by the kernel's query.

use std::{
    fs::File,
    os::fd::{AsFd as _, OwnedFd},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use serde_json::{Value, json};
use sockeye_agent::kernel::bpf::{self, Position};
use sockeye_ebpf::programs::TCP_EVENTS_BTF;

use crate::node::Node;

const FEATURE: &str = "CgroupLinkOrder";

fn apply(node: &Node, name: &str, priority: Option<i64>) {
    let attach = json!([{"name": "my_prog", "attach": [{"type": "Node"}]}]);
    node.apply_spec(name, TCP_EVENTS_BTF, json!({"programs": attach, "priority": priority}));
    node.ready(name);
}

/// Returns the programs attached to the node's cgroup, in order: the names of their BpfPrograms, or the IDs of foreign
/// ones.
fn runs(node: &Node, names: &[&str]) -> Vec<String> {
    let named = |id: &Value| {
        let own = names.iter().find(|name| node.details(name)["programs"][0]["id"] == *id);
        own.map_or_else(|| id.to_string(), |name| (*name).to_owned())
    };
    node.attached().iter().map(named).collect()
}

/// Returns the same as the agent reports it.
fn reported(node: &Node) -> Vec<String> {
    let order = node.node_detail()["attachOrder"][0].clone();
    assert_eq!((order["cgroupPath"].as_str(), order["attachType"].as_str()), (Some("/"), Some("cgroup_sock_ops")));
    let name = |runs: &Value| {
        runs["name"].as_str().map_or_else(|| runs["id"].to_string(), |name| name.replace("/my_prog", ""))
    };
    order["programs"].as_array().unwrap().iter().map(name).collect()
}

fn link(node: &Node, name: &str) -> Value {
    node.details(name)["links"][0]["id"].clone()
}

fn notes(node: &Node, name: &str) -> String {
    node.details(name)["notes"].to_string()
}

#[test]
fn lower_priorities_run_first_in_any_order_of_arrival() {
    let mut node = Node::new("order");
    node.start();
    let names = ["last", "first", "middle", "second"];
    for (name, priority) in names.into_iter().zip([Some(900), Some(100), None, Some(200)]) {
        apply(&node, name, priority);
    }
    if !node.has_feature(FEATURE) {
        assert_eq!(runs(&node, &names), names, "this kernel keeps the order of attachment");
        node.until("a note on that", |node| notes(node, "first").contains("order in which they were attached"));
        assert!(!notes(&node, "middle").contains("order"), "it has no priority of its own");
        for name in names {
            node.remove(name);
        }
        return node.nothing_left();
    }
    let expected = ["first", "second", "middle", "last"];
    assert_eq!(runs(&node, &names), expected);
    node.until("the order in its BpfNodeDetail", |node| reported(node) == expected);

    // A foreign program keeps its position.
    let pin = format!("{}/stranger", node.bpffs());
    node.foreign_program(TCP_EVENTS_BTF, &pin);
    let stranger = node.bpftool(&["prog", "show", "pinned", &pin])["id"].to_string();
    let cgroup = node.cgroup().display().to_string();
    node.run("bpftool", &["cgroup", "attach", &cgroup, "sock_ops", "pinned", &pin, "multi"]);
    apply(&node, "very-last", Some(1000));
    let all = ["last", "first", "middle", "second", "very-last"];
    let expected = ["first", "second", "middle", "last", &stranger, "very-last"];
    assert_eq!(runs(&node, &all), expected);
    node.until("the order in its BpfNodeDetail", |node| reported(node) == expected);

    // A move attaches as few links anew as possible, and is reported.
    let before = all.map(|name| link(&node, name));
    apply(&node, "first", Some(950));
    assert_eq!(runs(&node, &all), ["second", "middle", "last", &stranger, "first", "very-last"]);
    let after = all.map(|name| link(&node, name));
    let moved: Vec<&str> = (0..all.len()).filter(|&i| before[i] != after[i]).map(|i| all[i]).collect();
    assert_eq!(moved, ["first"]);
    assert!(notes(&node, "first").contains("1 of its links attached anew"), "{}", notes(&node, "first"));
    node.connect(3);
    assert_eq!(node.events("first")[4], 3, "it counts where it is now");

    // A new program in the same link keeps its position, and another agent keeps all positions.
    let twice = sockeye_ebpf::programs::fixtures::TWICE;
    let attach = json!([{"name": "my_prog", "attach": [{"type": "Node"}]}]);
    node.apply_spec("middle", twice, json!({"programs": attach}));
    node.ready("middle");
    node.stop("KILL");
    node.start();
    for name in all {
        node.ready(name);
    }
    assert_eq!(runs(&node, &all), ["second", "middle", "last", &stranger, "first", "very-last"]);
    assert_eq!(all.map(|name| link(&node, name)), after);

    // A removed program is no longer reported.
    node.remove("middle");
    let expected = ["second", "last", &stranger, "first", "very-last"];
    node.until("the order without it", |node| reported(node) == expected);

    node.run("bpftool", &["cgroup", "detach", &cgroup, "sock_ops", "pinned", &pin]);
    node.run("rm", &[&pin]);
    for name in all.into_iter().filter(|name| *name != "middle") {
        node.remove(name);
    }
    node.nothing_left();
}

/// Priorities changed while no agent ran.
#[test]
fn one_pass_corrects_a_wrong_order() {
    let mut node = Node::new("reorder");
    node.start();
    if !node.has_feature(FEATURE) {
        return;
    }
    let names = ["a", "b", "c", "d", "e"];
    for name in names {
        apply(&node, name, None);
    }
    assert_eq!(runs(&node, &names), names);
    node.stop("KILL");
    let attach = json!([{"name": "my_prog", "attach": [{"type": "Node"}]}]);
    for (name, priority) in names.into_iter().zip([500, 100, 400, 300, 0]) {
        node.apply_spec(name, TCP_EVENTS_BTF, json!({"programs": attach, "priority": priority}));
    }
    let done = node.once(None);
    assert!(done.status.success(), "one pass is enough: {}", crate::node::text(&done));
    assert_eq!(runs(&node, &names), ["e", "b", "d", "c", "a"]);
    node.start();
    for name in names {
        node.remove(name);
    }
    node.nothing_left();
}

/// Equal priorities: the order is that in which the BpfPrograms came to the node.
#[test]
fn equal_priorities_come_back_in_the_order_of_before() {
    let mut node = Node::new("comes-back");
    node.start();
    let names = ["m", "z", "a", "k"];
    for name in names {
        apply(&node, name, None);
    }
    let in_order = |what: &str| {
        names.iter().for_each(|name| drop(node.ready(name)));
        node.until(what, |node| runs(node, &names) == names);
    };
    in_order("the order of before");
    node.agent_command("detach", &["--all", "--reason", "a test"]);
    node.until("that nothing is attached", |node| node.attached().is_empty());
    node.agent_command("attach", &["--all"]);
    in_order("the same order after all were detached");
    if !node.has_feature(FEATURE) {
        return;
    }
    let suspend = |is_suspended: bool| {
        let attach = json!([{"name": "my_prog", "attach": [{"type": "Node"}]}]);
        node.apply_spec("z", TCP_EVENTS_BTF, json!({"programs": attach, "suspend": is_suspended}));
    };
    suspend(true);
    node.until("that one is detached", |node| node.attached().len() == 3);
    suspend(false);
    in_order("the same order after one was suspended");
    for name in names {
        node.remove(name);
    }
    node.nothing_left();
}

/// `BPF_CGROUP_SOCK_OPS`
const SOCK_OPS: u32 = 3;

/// Another writer of the node's cgroup, who uses links as the agent does.
struct Writer {
    program: OwnedFd,
    cgroup: File,
}

impl Writer {
    fn new(node: &Node) -> Self {
        let pin = format!("{}/stranger", node.bpffs());
        node.foreign_program(TCP_EVENTS_BTF, &pin);
        let program = bpf::obj_get(None, &node.outer_path(&pin)).unwrap();
        Self { program, cgroup: File::open(node.cgroup()).unwrap() }
    }

    fn attach(&self) -> OwnedFd {
        bpf::link_create(self.program.as_fd(), self.cgroup.as_fd(), SOCK_OPS, Position::default()).unwrap()
    }
}

/// The agent is stopped between its look at the cgroup and the call that names a position there.
#[test]
fn a_position_is_looked_for_again_if_another_writer_comes_in_between() {
    let mut node = Node::new("order-race");
    node.start();
    for (name, priority) in [("first", 100), ("third", 300), ("fourth", 400)] {
        apply(&node, name, Some(priority));
    }
    if !node.has_feature(FEATURE) {
        return;
    }
    node.stop("KILL");
    let attach = json!([{"name": "my_prog", "attach": [{"type": "Node"}]}]);
    node.apply_spec("second", TCP_EVENTS_BTF, json!({"programs": attach, "priority": 200}));
    node.start_faulty("stop@ordered link#1");
    node.until("the stop", Node::is_stopped);
    // The one before which the new one was to run, and something new.
    let third = format!("{}/links/my_prog", node.home("third"));
    let pin = node.pins("third").into_iter().find(|pin| pin.starts_with("links/")).unwrap();
    node.run("bpftool", &["link", "detach", "pinned", &format!("{}/{pin}", node.home("third"))]);
    assert!(node.exists(&third));
    let stranger = Writer::new(&node).attach();
    node.signal("CONT");
    let names = ["first", "second", "third", "fourth"];
    names.iter().for_each(|name| drop(node.ready(name)));
    node.until("the order of priorities", |node| runs(node, &names).len() == 5);
    let order = runs(&node, &names);
    assert_eq!(order[..4], names, "{order:?}");
    assert_eq!(node.log().matches("looking again").count(), 1, "{}", node.log());
    assert!(!notes(&node, "second").contains("attached anew"), "it came to its place at once");
    drop(stranger);

    // One that others always overtake is attached all the same.
    node.remove("second");
    node.stop("KILL");
    let always = (1..=8).map(|nth| format!("116@ordered link#{nth}")).collect::<Vec<_>>();
    node.start_faulty(&always.join(","));
    node.apply_spec("second", TCP_EVENTS_BTF, json!({"programs": attach, "priority": 200}));
    node.ready("second");
    node.until("the order", |node| runs(node, &names) == names);
    for name in names {
        node.remove(name);
    }
    node.nothing_left();
}

/// Everything is suspended and comes back while another writer attaches and detaches without a pause.
#[test]
fn the_order_survives_suspensions_beside_a_writer_without_pause() {
    let mut node = Node::new("order-storm");
    node.start();
    let names = ["m", "z", "a", "k"];
    for name in names {
        apply(&node, name, None);
    }
    if !node.has_feature(FEATURE) {
        return;
    }
    let (writer, ends, attached) = (Writer::new(&node), AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ends.load(Ordering::Relaxed) {
                bpf::link_detach(writer.attach().as_fd()).unwrap();
                attached.fetch_add(1, Ordering::Relaxed);
            }
        });
        for round in 0..5 {
            node.agent_command("detach", &["--all", "--reason", "a test"]);
            node.until("that nothing of ours is attached", |node| {
                names.iter().all(|name| node.details(name)["links"].as_array().is_none_or(Vec::is_empty))
            });
            node.agent_command("attach", &["--all"]);
            names.iter().for_each(|name| drop(node.ready(name)));
            node.until(&format!("the order in round {round}"), |node| {
                let mut order = runs(node, &names);
                order.retain(|name| names.contains(&name.as_str()));
                order == names
            });
        }
        ends.store(true, Ordering::Relaxed);
    });
    let (attached, raced) = (attached.into_inner(), node.log().matches("looking again").count());
    println!("{attached} attachments by the other writer, {raced} positions looked for again");
    assert!(attached > 100);
    drop(writer);
    for name in names {
        node.remove(name);
    }
    node.nothing_left();
}
