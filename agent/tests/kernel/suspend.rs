//! Suspension, by the spec, for the node, or for the cluster: everything is detached and stays loaded.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sockeye_crds::names::SUSPENSION;
use sockeye_ebpf::programs::{TCP_EVENTS_BTF, fixtures};

use crate::{
    api_server::{Server, free_address, kubeconfig},
    node::{Node, timeout},
};

fn apply(node: &Node, name: &str, object: &[u8], suspend: bool) {
    let programs = json!([{"name": "my_prog", "attach": [{"type": "Node"}]}]);
    node.apply_spec(name, object, json!({"programs": programs, "suspend": suspend}));
}

fn links(node: &Node, name: &str) -> usize {
    node.details(name)["links"].as_array().map_or(0, Vec::len)
}

fn ids(node: &Node, name: &str) -> [Value; 2] {
    let details = node.details(name);
    ["programs", "maps"].map(|kind| details[kind][0]["id"].clone())
}

#[test]
fn a_suspended_program_is_loaded_and_attached_nowhere() {
    let mut node = Node::new("suspend");
    node.start();
    apply(&node, "counter", TCP_EVENTS_BTF, false);
    node.ready("counter");
    let before = ids(&node, "counter");
    node.connect(4);

    apply(&node, "counter", TCP_EVENTS_BTF, true);
    let ready = node.condition_is("counter", "Ready", "False");
    assert_eq!(ready["reason"], "Suspended", "{ready}");
    assert!(ready["message"].as_str().unwrap().contains("spec.suspend"), "{ready}");
    assert_eq!(node.condition("counter", "Reconciling"), Value::Null, "nothing is in progress");
    let status = &node.program("counter")["status"];
    assert_eq!((&status["nodes"]["updated"], &status["nodes"]["suspended"]), (&json!(0), &json!(1)));
    assert_eq!((links(&node, "counter"), ids(&node, "counter")), (0, before.clone()));
    node.connect(2);
    assert_eq!(node.events("counter")[4], 4);

    // It stays suspended across a restart, and if a new object does not load.
    node.stop("KILL");
    node.start();
    node.condition_is("counter", "Ready", "False");
    assert_eq!(links(&node, "counter"), 0);
    apply(&node, "counter", fixtures::RESHAPED, true);
    assert_eq!(node.condition_is("counter", "Ready", "False")["reason"], "MapIncompatible");
    assert_eq!(links(&node, "counter"), 0);

    apply(&node, "counter", TCP_EVENTS_BTF, false);
    node.ready("counter");
    assert_eq!(ids(&node, "counter"), before, "nothing was loaded again, and the map is the same");
    node.connect(1);
    assert_eq!(node.events("counter")[4], 5);
    node.remove("counter");
    node.nothing_left();
}

/// One edit suspends the program and fails to load.
#[test]
fn a_suspended_program_is_detached_even_if_its_new_object_fails() {
    let mut node = Node::new("suspend-bad");
    node.start();
    apply(&node, "counter", TCP_EVENTS_BTF, false);
    node.ready("counter");
    apply(&node, "counter", fixtures::RESHAPED, true);
    node.condition_is("counter", "Ready", "False");
    node.until("no link", |node| links(node, "counter") == 0);
    node.remove("counter");
    node.nothing_left();
}

#[test]
fn detach_all_holds_until_attach_all() {
    let mut node = Node::new("detach-all");
    node.start();
    for name in ["one", "two"] {
        apply(&node, name, TCP_EVENTS_BTF, false);
        node.ready(name);
    }
    let before = ids(&node, "one");
    node.agent_command("detach", &["--all", "--reason", "incident 42"]);
    assert_eq!(node.attached().len(), 0, "detached when the command returns");
    for name in ["one", "two"] {
        let ready = node.condition_is(name, "Ready", "False");
        assert_eq!(ready["reason"], "Suspended", "{ready}");
        assert!(ready["message"].as_str().unwrap().contains("incident 42"), "{ready}");
    }
    assert!(node.node_status()["suspended"].as_str().unwrap().contains("incident 42"));
    // BpfPrograms applied meanwhile wait; deleted ones are removed.
    apply(&node, "three", TCP_EVENTS_BTF, false);
    assert_eq!(node.condition_is("three", "Ready", "False")["reason"], "Suspended");
    node.remove("two");
    node.stop("KILL");
    node.start();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(node.attached().len(), 0, "another agent obeys it");

    let start = Instant::now();
    node.agent_command("attach", &["--all"]);
    for name in ["one", "three"] {
        node.ready(name);
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(ids(&node, "one"), before);
    for name in ["one", "three"] {
        node.remove(name);
    }
    node.nothing_left();
}

#[test]
fn detach_all_needs_no_agent() {
    let mut node = Node::new("detach-alone");
    node.start();
    apply(&node, "counter", TCP_EVENTS_BTF, false);
    node.ready("counter");
    node.stop("KILL");
    node.agent_command("detach", &["--all"]);
    assert_eq!(node.attached().len(), 0);
    node.agent_command("attach", &["--all"]);
    node.start();
    for name in ["a-first", "counter"] {
        apply(&node, name, TCP_EVENTS_BTF, false);
        node.ready(name);
    }
    node.stop("KILL");
    // An unreadable home does not keep the next one attached.
    let stranger = format!("{}/links/my_prog/1", node.home("a-first"));
    let map = format!("{}/maps/my_map", node.home("a-first"));
    node.run("bpftool", &["map", "pin", "pinned", &map, &stranger]);
    let output = node.failing_agent_command("detach", &["--all"]);
    assert!(output.contains("not detached: a-first"), "{output}");
    assert_eq!(node.attached().len(), 1);
    node.run("rm", &[&stranger]);
    node.agent_command("detach", &["--all"]);
    assert_eq!(node.attached().len(), 0);
    node.agent_command("attach", &["--all"]);
    node.start();
    for name in ["a-first", "counter"] {
        node.ready(name);
        node.remove(name);
    }
    node.nothing_left();
}

/// It works for an agent that does not know the desired state yet, and for one whose Node does not exist.
#[test]
fn the_cluster_wide_suspension_needs_no_other_object() {
    let mut node = Node::new("suspension");
    let suspension = || {
        let metadata = json!({"name": SUSPENSION, "uid": "s", "resourceVersion": "1"});
        vec![json!({"metadata": metadata, "data": {"reason": "incident 42"}})]
    };
    let none = Vec::new;
    let all = [("bpfrevisions", none()), ("nodes", none()), ("bpfnodes", none()), ("configmaps", suspension())];
    node.start();
    apply(&node, "counter", TCP_EVENTS_BTF, false);
    for objects in [vec![("configmaps", suspension())], all.to_vec()] {
        node.ready("counter");
        let before = ids(&node, "counter");
        node.stop("KILL");
        let at = free_address();
        let server = Server::with(at, objects.into_iter().collect(), &[]);
        let start = Instant::now();
        node.start_in_cluster(&kubeconfig(&node, at), "node");
        node.until("that nothing is attached", |node| node.attached().is_empty());
        assert!(start.elapsed() < timeout() / 2, "{:?}", start.elapsed());
        node.until("only pins of the map and the program", |node| {
            node.pins("counter") == ["maps/my_map", "programs/my_prog"]
        });
        node.stop("KILL");
        server.set_reachable(false);
        node.start();
        node.ready("counter");
        assert_eq!(ids(&node, "counter"), before);
    }
    node.remove("counter");
    node.nothing_left();
}
