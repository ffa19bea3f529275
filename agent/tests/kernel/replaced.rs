//! Replaced with no gap: while connections come without a pause, another object takes the old one's place in its links again
//! and again. Each connection is counted once, by the one or the other.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sockeye_ebpf::programs::{TCP_EVENTS, TCP_EVENTS_BTF};

use crate::node::{Node, long, text};

/// `BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB` and `BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB`: once each for a connection, at its ends.
const ENDS: [usize; 2] = [4, 5];

#[test]
fn every_connection_is_counted_once() {
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

/// The kernel says ENOLINK of a link whose cgroup has died since it was looked at: it is unpinned, and a link made where there is
/// a cgroup.
#[test]
fn a_link_that_died_meanwhile_is_made_anew() {
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
