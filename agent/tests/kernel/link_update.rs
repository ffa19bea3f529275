//! Replaced with no gap: while connections come without a pause, another object takes the old one's place in its links again
//! and again. Each connection is counted once, by the one or the other.

use std::{collections::BTreeSet, os::fd::AsFd as _};

use serde_json::{Value, json};
use sockeye_agent::kernel::bpf;
use sockeye_ebpf::programs::{TCP_EVENTS, TCP_EVENTS_BTF};

use crate::node::{Node, long, text};

/// `BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB` and `BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB`: once each for a connection, at its ends.
const ENDS: [usize; 2] = [4, 5];

#[test]
fn every_connection_is_counted_once_during_replacements() {
    let mut node = Node::new("replaced");
    node.make_cgroup("a");
    node.make_cgroup("b");
    node.start();
    // One at the node's own cgroup, which sees all; another at two cgroups below, which follow one another.
    let programs = |paths: &[&str]| -> Value {
        let attach: Vec<Value> = paths.iter().map(|p| json!({"cgroup": {"scope": "Path", "path": p}})).collect();
        json!([{"name": "my_prog", "attach": attach}])
    };
    let apply = |node: &Node, object: &[u8]| {
        let root = json!([{"name": "my_prog", "attach": [{"cgroup": {"scope": "Node"}}]}]);
        node.apply("counter", object, root, json!([]));
        node.ready("counter");
        node.apply("both", object, programs(&["/a", "/b"]), json!([]));
        node.ready("both");
    };
    apply(&node, TCP_EVENTS_BTF);
    let (replacements, least) = if long() { (1000, 40_000) } else { (100, 4_000) };
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

/// Between the agent's look at a link and its update somebody else has the link run another program: that one is not replaced
/// unseen, but told of. The next pass sees it, and takes the link back.
#[test]
fn a_link_updated_by_others_during_a_pass_is_reported() {
    let mut node = Node::new("moved");
    let at_root = || json!([{"name": "my_prog", "attach": [{"cgroup": {"scope": "Node"}}]}]);
    node.apply("counter", TCP_EVENTS, at_root(), json!([]));
    assert!(node.once(None).status.success());
    let before = node.details("counter");
    let (foreign_pin, link_pin) = ("/sys/fs/bpf/foreign", node.pin(&before["links"][0]));
    node.foreign_program(TCP_EVENTS_BTF, foreign_pin);
    let foreign = node.bpftool(&["prog", "show", "pinned", foreign_pin])["id"].clone();
    let open = |pin: &str| bpf::obj_get(None, &node.seen(pin)).unwrap();
    let (link, theirs) = (open(&link_pin), open(foreign_pin));

    node.apply("counter", TCP_EVENTS_BTF, at_root(), json!([]));
    // The first one asks the kernel whether it has such a call.
    node.start_faulty("stop@BPF_LINK_UPDATE#2");
    node.until("the agent halts before the update", Node::is_stopped);
    bpf::link_update(link.as_fd(), theirs.as_fd(), None).unwrap();
    node.signal("CONT");
    let word = "something else has updated the link meanwhile";
    let told =
        |node: &Node| node.condition("counter", "Ready")["message"].as_str().is_some_and(|said| said.contains(word));
    node.until("the refusal is told", told);

    node.ready("counter");
    let now = node.agrees("counter");
    assert_eq!(now["links"][0]["id"], before["links"][0]["id"], "it is the same link");
    assert_eq!(node.attached(), [now["programs"][0]["id"].clone()]);
    assert!(now["programs"][0]["id"] != before["programs"][0]["id"], "{now}");
    assert_eq!(node.bpftool(&["prog", "show", "pinned", foreign_pin])["id"], foreign, "theirs is left alone");
    node.remove("counter");
    node.nothing_left();
}

/// The kernel says ENOLINK of a link whose cgroup has died since it was looked at: it is unpinned, and a link made where there is
/// a cgroup.
#[test]
fn a_link_that_died_during_a_pass_is_replaced() {
    const ENOLINK: u32 = 67;
    let node = Node::new("enolink");
    let apply = |object: &[u8]| {
        node.apply(
            "counter",
            object,
            json!([{"name": "my_prog", "attach": [{"cgroup": {"scope": "Node"}}]}]),
            json!([]),
        )
    };
    apply(TCP_EVENTS);
    assert!(node.once(None).status.success());
    let (link, map) =
        (node.details("counter")["links"][0]["id"].clone(), node.details("counter")["maps"][0]["id"].clone());
    apply(TCP_EVENTS_BTF);
    let done = node.once(Some(&format!("{ENOLINK}@BPF_LINK_UPDATE")));
    assert!(done.status.success(), "{}", text(&done));
    let now = node.agrees("counter");
    assert_eq!(now["links"].as_array().map(Vec::len), Some(1));
    assert_eq!(node.attached().len(), 1, "the old one is not left attached");
    assert!(now["links"][0]["id"] != link && now["maps"][0]["id"] == map, "{now}");
    node.withdraw("counter");
    assert!(node.once(None).status.success());
    node.nothing_left();
}
