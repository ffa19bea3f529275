//! sockeye's directory on bpffs: an agent uses it only if nobody else may write there and its pins have the agent's own
//! layout.

use std::{fs, os::unix::fs::PermissionsExt as _};

use serde_json::Value;
use sockeye_agent::node::layout::VERSION;
use sockeye_crds_testing::provoked;
use sockeye_ebpf::programs::{TCP_EVENTS, TCP_EVENTS_BTF};

use crate::{node::Node, seed};

fn directory(node: &Node) -> String {
    format!("{}/sockeye", node.bpffs())
}

/// Returns a condition of the node.
fn node_condition(node: &Node, type_: &str) -> Value {
    let all = node.node_status()["conditions"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|condition| condition["type"] == type_).unwrap_or_default()
}

fn layout_note(node: &Node) -> Option<String> {
    let note = fs::read_link(node.outer_path(&format!("{}/_layout", directory(node))));
    note.ok().map(|note| note.display().to_string())
}

/// A directory that another user made, or that everybody may write, before the agent starts or while it runs.
#[test]
fn a_directory_that_others_may_write_is_refused_until_it_is_the_agents_own() {
    for (what, spoil, mend, words) in [
        ("others", ["chown", "1000"], ["chown", "0"], ["user 1000", "mode 0755"]),
        ("writable", ["chmod", "0777"], ["chmod", "0755"], ["user 0", "mode 0777"]),
    ] {
        let mut node = Node::new(&format!("untrusted-{what}"));
        let directory = directory(&node);
        let change = |node: &Node, [command, to]: [&str; 2]| node.run(command, &[to, &directory]);
        let assert_refused = |node: &Node| {
            let refused = node.condition_is("counter", "Attached", "False");
            assert_eq!(refused["reason"], "BpffsUnusable", "{refused}");
            let message = refused["message"].as_str().unwrap();
            for word in [&words[..], &[&directory, "chown, chmod"]].concat() {
                assert!(message.contains(word), "nothing of {word:?} in: {message}");
            }
            provoked(&refused["reason"], message);
            let ready = node_condition(node, "Ready");
            assert_eq!((&ready["status"], &ready["reason"]), (&"False".into(), &"BpffsUnusable".into()), "{ready}");
        };
        node.run("mkdir", &["-m", "0755", &directory]);
        change(&node, spoil);
        seed(&node, "counter", TCP_EVENTS_BTF);
        node.start();
        assert_refused(&node);
        assert_eq!((node.attached(), node.exists(&node.home("counter"))), (vec![], false), "nothing is pinned there");
        change(&node, mend);
        node.ready("counter");

        // What runs already runs on, and is not touched.
        let before = node.verified_details("counter");
        change(&node, spoil);
        seed(&node, "counter", TCP_EVENTS);
        assert_refused(&node);
        node.connect(1);
        assert_eq!(node.events("counter")[4], 1);
        assert_eq!(node.attached(), [before["programs"][0]["id"].clone()]);
        change(&node, mend);
        node.ready("counter");
        assert_ne!(node.verified_details("counter")["programs"], before["programs"], "the edit is in effect");
        node.remove("counter");
        node.nothing_left();
    }
}

/// The directories that agents make are their own.
#[test]
fn an_agent_with_an_open_umask_makes_directories_that_nobody_else_may_write() {
    let mut node = Node::new("umask");
    node.start_as(&["--no-new-privs", "sh", "-c", "umask 0; exec \"$0\" \"$@\""], &[]);
    seed(&node, "counter", TCP_EVENTS_BTF);
    node.ready("counter");
    for path in [directory(&node), node.home("counter")] {
        let mode = fs::metadata(node.outer_path(&path)).unwrap().permissions().mode();
        assert_eq!(mode & 0o022, 0, "{path} has mode {mode:o}");
    }
    node.remove("counter");
    node.nothing_left();
}

/// An agent leaves them alone, and runs again once they are removed.
#[test]
fn pins_of_another_layout_are_left_alone_until_a_command_removes_them() {
    for other_version in [None, Some("0")] {
        let mut node = Node::new(if other_version.is_some() { "version" } else { "older" });
        node.start();
        for name in ["counter", "older"] {
            seed(&node, name, TCP_EVENTS_BTF);
            node.ready(name);
        }
        node.stop("KILL");
        // As another version may have it: the note says so, or there is none, and links are at other places.
        let note = format!("{}/_layout", directory(&node));
        node.run("rm", &[&note]);
        if let Some(version) = other_version {
            node.run("ln", &["-s", version, &note]);
        }
        let home = node.home("older");
        node.run("mv", &[&format!("{home}/links"), &format!("{home}/attachments")]);
        let pins = ["counter", "older"].map(|name| node.pins(name));
        let attached = node.attached();
        assert_eq!(attached.len(), 2);

        seed(&node, "new", TCP_EVENTS);
        node.start();
        for name in ["new", "counter"] {
            let refused = node.condition_is(name, "Attached", "False");
            assert_eq!(refused["reason"], "OlderLayout", "{refused}");
        }
        node.until("the node's condition", |node| !node_condition(node, "PinsCurrent").is_null());
        let current = node_condition(&node, "PinsCurrent");
        assert_eq!((&current["status"], &current["reason"]), (&"False".into(), &"OlderLayout".into()), "{current}");
        let message = current["message"].as_str().unwrap();
        for words in ["counter, older", "/sys/fs/bpf/sockeye", "sockeye-agent remove-older-pins --bpffs=/sys/fs/bpf."] {
            assert!(message.contains(words), "{message}");
        }
        assert_eq!(["counter", "older"].map(|name| node.pins(name)), pins, "they are left alone");
        assert_eq!((node.attached(), layout_note(&node).as_deref()), (attached, other_version));

        let printed = node.agent_command("remove-older-pins", &["--bpffs=/sys/fs/bpf"]);
        for words in [
            "counter: removed 3 pins",
            "older: removed 3 pins",
            "/sockeye/older/attachments/my_prog/",
            "removed 2 BpfPrograms",
        ] {
            assert!(printed.contains(words), "{printed}");
        }
        for name in ["new", "counter", "older"] {
            node.ready(name);
        }
        assert_eq!((node.attached().len(), layout_note(&node).as_deref()), (3, Some(VERSION)), "detached, and anew");
        node.until("no such condition", |node| node_condition(node, "PinsCurrent").is_null());
        assert_eq!(node_condition(&node, "Ready")["status"], "True");

        // It removes no pins of the agent's own layout.
        let before = ["new", "counter", "older"].map(|name| node.verified_details(name));
        let printed = node.agent_command("remove-older-pins", &[]);
        assert!(printed.contains("there are no pins of another layout"), "{printed}");
        assert_eq!(["new", "counter", "older"].map(|name| node.verified_details(name)), before);
        for name in ["new", "counter", "older"] {
            node.remove(name);
        }
        node.nothing_left();
    }
}

/// The command runs while no agent does: what it removes is detached when it returns.
#[test]
fn pins_of_another_layout_are_detached_without_an_agent() {
    let mut node = Node::new("older-alone");
    node.start();
    seed(&node, "counter", TCP_EVENTS_BTF);
    node.ready("counter");
    node.stop("KILL");
    node.run("rm", &[&format!("{}/_layout", directory(&node))]);
    node.agent_command("remove-older-pins", &[]);
    assert_eq!((node.attached(), node.pins("counter")), (vec![], vec![]));
    node.nothing_left();
}
