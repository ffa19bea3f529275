//! Two BpfPrograms that want the same sockets, or the same map, of which the kernel gives each to one: both say so.

use serde_json::{Value, json};
use sockeye_ebpf::programs::fixtures;

use super::{connection::Connection, started};
use crate::{map_attachment::FIONREAD, node::Node};

const JOIN: &str = "join";

/// Applies a BpfProgram whose sockets join its own map, under a program that looks at what they send.
fn apply(node: &Node, name: &str, targets: &[Value]) {
    let pass = json!({"name": "pass", "attach": [{"type": "Map", "map": {"name": "joined"}}]});
    let programs = json!([{"name": JOIN, "attach": targets}, pass]);
    node.apply_spec(name, fixtures::JOINED, json!({"programs": programs, "acceptedRegressions": [FIONREAD]}));
    node.ready(name);
}

fn sockets(node: &Node, name: &str) -> usize {
    let shown = node.bpftool(&["map", "dump", "pinned", &format!("{}/maps/joined", node.home(name))]);
    shown.as_array().map_or(0, Vec::len)
}

/// Returns whether a BpfProgram has a warning that names another one. A test's node has one on its cgroup root, too.
fn is_warned(node: &Node, name: &str) -> bool {
    node.entry(name)["warnings"].to_string().contains("BpfProgram")
}

fn until_warned(node: &Node, name: &str, words: &[&str]) {
    let warned = |node: &Node| {
        let warnings = node.entry(name)["warnings"].to_string();
        words.iter().all(|word| warnings.contains(word))
    };
    node.until(&format!("a warning on {name}"), warned);
}

/// The kernel says EBUSY to the second program that adds a socket, which nobody but that program hears.
#[test]
fn programs_that_put_the_same_sockets_into_two_maps_both_say_so() {
    let node = started("rivals");
    apply(&node, "a", &[json!({"type": "Node"})]);
    assert!(!is_warned(&node, "a"));
    node.make_cgroup("below");
    apply(&node, "b", &[json!({"type": "CgroupPath", "cgroupPath": "/below"})]);
    let same_kind = "another map whose programs are of the same kind";
    until_warned(&node, "a", &["BpfProgram b puts sockets of cgroup /below", same_kind]);
    until_warned(&node, "b", &["BpfProgram a puts sockets of cgroup /below", same_kind]);
    for name in ["a", "b"] {
        let ready = node.condition_is(name, "Ready", "True");
        assert!(ready["message"].as_str().unwrap().contains(same_kind), "told where people look: {ready}");
    }
    let mut connection = Connection::within(&node, "below", 0);
    let (a, b) = (sockets(&node, "a"), sockets(&node, "b"));
    assert!(a + b == 2 && a * b == 0, "each of the two sockets is in one of the maps: {a} and {b}");
    connection.assert_passes();
    connection.close();
    node.remove("b");
    node.until("no warning", |node| !is_warned(node, "a"));
    node.remove("a");
    node.nothing_left();
}

/// The second one is refused, by the name of the first.
#[test]
fn programs_that_want_the_same_map_both_say_so() {
    let node = started("map-rivals");
    let accepted = json!([FIONREAD]);
    let programs = json!([
        {"name": JOIN, "attach": [{"type": "Node"}]},
        {"name": "pass", "attach": [{"type": "Map", "map": {"name": "joined"}}]},
    ]);
    let maps = json!([{"name": "joined", "sharing": "Shared"}]);
    let lender = json!({"programs": programs, "maps": maps, "acceptedRegressions": accepted});
    node.apply_spec("lender", fixtures::JOINED, lender);
    node.ready("lender");
    let target = json!([{"type": "Map", "map": {"name": "joined", "program": "lender"}}]);
    let borrower = json!({"programs": [{"name": "pass", "attach": target}], "acceptedRegressions": accepted});
    node.apply_spec("borrower", fixtures::JOINED, borrower);
    let refused = node.condition_is("borrower", "Ready", "False");
    let message = refused["message"].as_str().unwrap();
    assert!(refused["reason"] == "AttachFailed" && message.contains("BpfProgram lender has a program"), "{refused}");
    until_warned(&node, "lender", &["BpfProgram borrower is to attach a program of the same kind"]);
    until_warned(&node, "borrower", &["BpfProgram lender is to attach a program of the same kind"]);
    let mut connection = Connection::new(&node, 0);
    assert_eq!(sockets(&node, "lender"), 2, "the first one runs on");
    connection.assert_passes();
    connection.close();
    node.remove("borrower");
    node.until("no warning", |node| !is_warned(node, "lender"));
    node.remove("lender");
    node.nothing_left();
}

/// A map that drains counts in what the maps of the node may hold.
#[test]
fn a_draining_map_counts_in_the_nodes_bound() {
    let mut node = started("draining-bytes");
    super::apply_redirecting(&node, &json!({}));
    node.ready("p");
    let connection = Connection::new(&node, 0);
    node.remove("p");
    super::until_draining(&node, 1);
    node.stop("KILL");
    // The example's sockhash alone has room for 65,535 sockets.
    node.start_with(&["--map-bytes-per-node", "64Ki"]);
    crate::seed(&node, "counter", sockeye_ebpf::programs::TCP_EVENTS_BTF);
    let refused = node.condition_is("counter", "Ready", "False");
    assert_eq!(refused["reason"], "MapBytesExceeded", "{refused}");
    connection.close();
    super::until_draining(&node, 0);
    crate::seed(&node, "counter", sockeye_ebpf::programs::TCP_EVENTS_BTF);
    node.ready("counter");
    node.remove("counter");
    node.nothing_left();
}
