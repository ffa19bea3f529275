//! External changes: the agent detects them within seconds, repairs its own objects, and leaves foreign ones alone.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sockeye_ebpf::programs::TCP_EVENTS_BTF;

use crate::node::{Node, timeout};

/// Returns the time within which a change must be detected. The sweep of each five minutes is too late.
fn detected_within() -> Duration {
    timeout() / 2
}

fn counter(node: &Node) -> Value {
    node.apply("counter", TCP_EVENTS_BTF, json!([{"name": "my_prog", "attach": [{"type": "Node"}]}]), json!([]));
    node.ready("counter");
    node.details("counter")
}

/// Waits until a drift of a kind is reported whose message contains a word, and then until the BpfProgram is in effect
/// again. Returns the time until the report.
fn wait_for_drift(node: &Node, kind: &str, word: &str) -> Duration {
    let start = Instant::now();
    node.until(&format!("{kind} with {word:?}"), |node| {
        let drift = node.entry("counter")["drift"].as_array().cloned().unwrap_or_default();
        drift.iter().any(|d| d["kind"] == kind && d["message"].as_str().is_some_and(|m| m.contains(word)))
    });
    let took = start.elapsed();
    assert!(took < detected_within(), "{kind} was detected after {took:?}");
    node.until("in effect again", |node| {
        node.condition("counter", "Ready")["status"] == "True"
            && node.details("counter")["links"][0]["inEffect"] == true
    });
    took
}

fn ids(details: &Value) -> [Value; 3] {
    ["programs", "maps", "links"].map(|kind| details[kind][0]["id"].clone())
}

#[test]
fn a_removed_pin_is_restored_and_no_connection_is_missed() {
    let mut node = Node::new("unpinning");
    node.start();
    let before = counter(&node);
    node.connect(3);
    for (kind, word) in [("maps", "map my_map"), ("programs", "program my_prog"), ("links", "link of program my_prog")]
    {
        let pin = node.pin(&before[kind][0]);
        node.run("rm", &[&pin]);
        node.connect(1);
        let took = wait_for_drift(&node, "PinRemoved", word);
        println!("{kind}: detected after {took:?}");
        assert!(node.exists(&pin), "{pin} is there again");
        assert_eq!(ids(&node.details("counter")), ids(&before), "{kind}: nothing was loaded or attached again");
    }
    node.run("rm", &["-r", &node.home("counter")]);
    node.connect(1);
    node.until("the whole home again", |node| node.pins("counter").len() == 3);
    node.until("in effect again", |node| node.condition("counter", "Ready")["status"] == "True");
    assert_eq!(ids(&node.details("counter")), ids(&before));
    assert_eq!(node.events("counter")[4], 7, "every connection was counted, also while pins were away");

    // Another agent finds everything unchanged.
    node.stop("KILL");
    node.start();
    node.ready("counter");
    assert_eq!(ids(&node.details("counter")), ids(&before));
    node.remove("counter");
    node.nothing_left();
}

#[test]
fn a_link_whose_pin_is_removed_while_no_agent_runs_is_replaced() {
    let mut node = Node::new("absent");
    node.start();
    let before = counter(&node);
    node.stop("KILL");
    node.run("rm", &[&node.pin(&before["links"][0])]);
    node.start();
    node.until("another link", |node| {
        let links = &node.details("counter")["links"];
        links[0]["id"] != before["links"][0]["id"] && links[0]["inEffect"] == true
    });
    let after = node.details("counter");
    assert_eq!(after["maps"][0]["id"], before["maps"][0]["id"]);
    node.remove("counter");
    node.nothing_left();
}

#[test]
fn a_detached_link_is_attached_again() {
    let mut node = Node::new("detached");
    node.start();
    let before = counter(&node);
    node.run("bpftool", &["link", "detach", "pinned", &node.pin(&before["links"][0])]);
    let took = wait_for_drift(&node, "LinkDetached", "cgroup /");
    println!("detected after {took:?}");
    node.until("another link", |node| {
        let link = node.details("counter")["links"][0]["id"].clone();
        !link.is_null() && link != before["links"][0]["id"]
    });
    let after = node.details("counter");
    assert_eq!((&after["programs"], &after["maps"][0]["id"]), (&before["programs"], &before["maps"][0]["id"]));
    node.remove("counter");
    node.nothing_left();
}

#[test]
fn repairs_back_off_if_a_link_is_detached_again_and_again() {
    let mut node = Node::new("flapping");
    node.start();
    counter(&node);
    let (mut repaired, mut was_reported) = (0, false);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(if was_reported { 12 } else { 30 }) {
        let attached = node.condition("counter", "Attached");
        was_reported |= attached["status"] == "False" && attached["reason"] == "NotInEffect";
        let link = node.details("counter")["links"][0].clone();
        if link["inEffect"] == true {
            repaired += 1;
            node.run("bpftool", &["link", "detach", "pinned", &node.pin(&link)]);
            node.until("that the detachment is reported", |node| {
                node.details("counter")["links"][0]["id"] != link["id"]
                    || node.details("counter")["links"][0]["inEffect"] == false
            });
        }
    }
    assert!((3..=6).contains(&repaired), "repaired {repaired} times in 12 s");
    assert!(was_reported, "Attached was never False, while the kernel did not list the program");
    let ready = node.condition("counter", "Ready");
    assert!(ready["status"] == "True" || ready["reason"] == "NotInEffect", "{ready}");
    assert_eq!(
        node.entry("counter")["drift"].as_array().map(Vec::len),
        Some(1),
        "repeated changes are counted, not listed"
    );
    node.remove("counter");
    node.nothing_left();
}

#[test]
fn a_foreign_program_attached_beside_is_reported_and_left_alone() {
    let mut node = Node::new("beside");
    node.start();
    let ours = counter(&node);
    let cgroup = node.cgroup().display().to_string();
    let theirs = "/sys/fs/bpf/theirs";
    node.foreign_program(TCP_EVENTS_BTF, theirs);
    node.run("bpftool", &["cgroup", "attach", &cgroup, "sock_ops", "pinned", theirs, "multi"]);
    let id = node.bpftool(&["prog", "show", "pinned", theirs])["id"].clone();
    let took = wait_for_drift(&node, "AttachedBeside", &format!("program {id} "));
    println!("detected after {took:?}");
    assert_eq!(ids(&node.details("counter")), ids(&ours));
    // A second attachment of our own program is reported as well.
    let pin = node.pin(&ours["programs"][0]);
    node.run("bpftool", &["cgroup", "attach", &cgroup, "sock_ops", "pinned", &pin, "multi"]);
    wait_for_drift(&node, "AttachedBeside", &format!("program {} ", ours["programs"][0]["id"]));
    node.run("bpftool", &["cgroup", "detach", &cgroup, "sock_ops", "pinned", &pin]);
    node.remove("counter");
    assert_eq!(node.attached(), [id], "theirs is left alone");
    node.run("bpftool", &["cgroup", "detach", &cgroup, "sock_ops", "pinned", theirs]);
    node.nothing_left();
}

#[test]
fn a_removed_cgroup_loses_its_link_and_a_new_one_gets_a_new_link() {
    let mut node = Node::new("dying");
    node.make_cgroup("inner");
    node.start();
    let attach = json!([{"name": "my_prog", "attach": [{"type": "CgroupPath", "cgroupPath": "/inner"}]}]);
    node.apply("inner", TCP_EVENTS_BTF, attach, json!([]));
    node.ready("inner");
    let before = node.details("inner");
    fs::remove_dir(node.cgroup().join("inner")).unwrap();
    let start = Instant::now();
    let gone = node.condition_is("inner", "Ready", "False");
    assert!(start.elapsed() < detected_within(), "{:?}", start.elapsed());
    assert_eq!(gone["reason"], "CgroupNotFound");
    assert_eq!(node.program("inner")["status"]["nodes"]["updated"], 0);

    node.make_cgroup("inner");
    node.ready("inner");
    let after = node.details("inner");
    assert_ne!(after["links"][0]["cgroupID"], before["links"][0]["cgroupID"]);
    assert_eq!(after["links"].as_array().unwrap().len(), 1, "the dead cgroup's link is gone");
    assert_eq!(after["maps"][0]["id"], before["maps"][0]["id"]);
    assert_eq!(after["drift"], Value::Null, "the end of a cgroup is no external change");
    node.remove("inner");
    node.nothing_left();
}

/// A cgroup below the hierarchy's root may be taken for the node's, as in a container; then it may be removed.
#[test]
fn a_root_below_the_hierarchys_is_reported_and_its_removal_is_nobodys_detachment() {
    let mut node = Node::new("lower-root");
    node.start();
    counter(&node);
    let ready = node.condition("counter", "Ready");
    assert!(ready["message"].as_str().unwrap().contains("is not the root of the hierarchy"), "{ready}");
    fs::remove_dir(node.cgroup()).unwrap();
    let gone = node.condition_is("counter", "Ready", "False");
    let message = gone["message"].as_str().unwrap();
    assert!(gone["reason"] == "CgroupNotFound" && message.contains("restart the agent"), "{gone}");
    let drift = node.entry("counter")["drift"].clone();
    assert!(!drift.to_string().contains("LinkDetached"), "{drift}");
}
