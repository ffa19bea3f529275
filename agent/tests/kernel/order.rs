//! The order in which BpfPrograms run at one cgroup, by the kernel's query.

use serde_json::{Value, json};
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
