//! Link updates: while clients connect without a pause, a new program replaces the old one in its links again and
//! again. One of the two counts each connection, once.

use std::{collections::BTreeSet, os::fd::AsFd as _};

use serde_json::{Value, json};
use sockeye_agent::kernel::bpf;
use sockeye_ebpf::programs::{TCP_EVENTS, TCP_EVENTS_BTF};

use crate::node::{Node, is_long_run, text};

/// `BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB` and `BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB`: one each for the two ends of a
/// connection.
const ENDS: [usize; 2] = [4, 5];

#[test]
fn every_connection_is_counted_once_during_replacements() {
    let mut node = Node::new("replaced");
    node.make_cgroup("a");
    node.make_cgroup("b");
    node.start();
    // One BpfProgram at the node's own cgroup counts all connections; another is at two cgroups below.
    let programs = |paths: &[&str]| -> Value {
        let attach: Vec<Value> = paths.iter().map(|p| json!({"type": "CgroupPath", "cgroupPath": p})).collect();
        json!([{"name": "my_prog", "attach": attach}])
    };
    let apply = |node: &Node, object: &[u8]| {
        let root = json!([{"name": "my_prog", "attach": [{"type": "Node"}]}]);
        node.apply("counter", object, root, json!([]));
        node.ready("counter");
        node.apply("both", object, programs(&["/a", "/b"]), json!([]));
        node.ready("both");
    };
    apply(&node, TCP_EVENTS_BTF);
    let (replacements, least) = if is_long_run() { (1000, 40_000) } else { (100, 4_000) };
    let before = ["counter", "both"].map(|name| node.events(name));
    let link = node.details("counter")["links"][0]["id"].clone();
    let mut ids = BTreeSet::new();
    let made = node.connect_during([".", "a", "b"], least, || {
        for i in 0..replacements {
            apply(&node, [TCP_EVENTS, TCP_EVENTS_BTF][i % 2]);
            ids.insert(node.details("counter")["programs"][0]["id"].as_u64().unwrap());
        }
    });
    let after = ["counter", "both"].map(|name| node.events(name));
    let counted = [0, 1].map(|of| ENDS.map(|end| after[of][end] - before[of][end]));
    println!("{made:?} connections over {} programs each, counted {counted:?}", ids.len());
    assert_eq!(counted, [[made.iter().sum::<u64>(); 2], [made[1] + made[2]; 2]]);
    assert_eq!(ids.len(), replacements, "each replacement is another program");
    assert_eq!(node.details("counter")["links"][0]["id"], link, "the link is the one that was there all the time");
    for name in ["counter", "both"] {
        node.remove(name);
    }
    node.nothing_left();
}

/// Somebody else updates a link between the agent's observation and its update. The agent reports that instead of
/// replacing the other program; the next pass restores the link.
#[test]
fn a_link_updated_by_others_during_a_pass_is_reported() {
    let mut node = Node::new("moved");
    let at_root = || json!([{"name": "my_prog", "attach": [{"type": "Node"}]}]);
    node.apply("counter", TCP_EVENTS, at_root(), json!([]));
    assert!(node.once(None).status.success());
    let before = node.details("counter");
    let (foreign_pin, link_pin) = ("/sys/fs/bpf/foreign", node.pin(&before["links"][0]));
    node.foreign_program(TCP_EVENTS_BTF, foreign_pin);
    let foreign = node.bpftool(&["prog", "show", "pinned", foreign_pin])["id"].clone();
    let open = |pin: &str| bpf::obj_get(None, &node.outer_path(pin)).unwrap();
    let (link, theirs) = (open(&link_pin), open(foreign_pin));

    node.apply("counter", TCP_EVENTS_BTF, at_root(), json!([]));
    // The first call probes whether the kernel has link updates.
    node.start_faulty("stop@BPF_LINK_UPDATE#2");
    node.until("that the agent stops before the update", Node::is_stopped);
    bpf::link_update(link.as_fd(), theirs.as_fd(), None).unwrap();
    node.signal("CONT");
    let words = "something else has updated the link meanwhile";
    // The next attempt may soon replace it in the condition. The log keeps it.
    node.until("the refusal is reported", |node| node.log().contains(words));

    node.ready("counter");
    let now = node.verified_details("counter");
    assert_eq!(now["links"][0]["id"], before["links"][0]["id"], "it is the same link");
    assert_eq!(node.attached(), [now["programs"][0]["id"].clone()]);
    assert!(now["programs"][0]["id"] != before["programs"][0]["id"], "{now}");
    assert_eq!(node.bpftool(&["prog", "show", "pinned", foreign_pin])["id"], foreign, "theirs is left alone");
    node.remove("counter");
    node.nothing_left();
}

/// The kernel answers ENOLINK for a link whose cgroup was removed after the observation. The link is unpinned, and a
/// new one is attached if a cgroup exists.
#[test]
fn a_link_that_died_during_a_pass_is_replaced() {
    const ENOLINK: u32 = 67;
    let node = Node::new("enolink");
    let apply = |object: &[u8]| {
        node.apply("counter", object, json!([{"name": "my_prog", "attach": [{"type": "Node"}]}]), json!([]))
    };
    apply(TCP_EVENTS);
    assert!(node.once(None).status.success());
    let (link, map) =
        (node.details("counter")["links"][0]["id"].clone(), node.details("counter")["maps"][0]["id"].clone());
    apply(TCP_EVENTS_BTF);
    let done = node.once(Some(&format!("{ENOLINK}@BPF_LINK_UPDATE")));
    assert!(done.status.success(), "{}", text(&done));
    let now = node.verified_details("counter");
    assert_eq!(now["links"].as_array().map(Vec::len), Some(1));
    assert_eq!(node.attached().len(), 1, "the old one is not left attached");
    assert!(now["links"][0]["id"] != link && now["maps"][0]["id"] == map, "{now}");
    node.withdraw("counter");
    assert!(node.once(None).status.success());
    node.nothing_left();
}
