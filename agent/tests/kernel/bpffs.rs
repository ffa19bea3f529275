//! A bpffs that is unmounted under a running agent, or is read-only: the agent reports it, waits, and recovers by
//! itself.

use std::time::Instant;

use k8s_openapi::jiff::Timestamp;
use sockeye_ebpf::programs::{TCP_EVENTS, TCP_EVENTS_BTF, fixtures};

use crate::{
    node::{Node, timeout},
    seed,
};

#[test]
fn a_new_bpffs_under_a_running_agent_is_filled_again() {
    let mut node = Node::new("anew");
    node.start();
    for (name, object) in [("legacy", TCP_EVENTS), ("btf", TCP_EVENTS_BTF)] {
        seed(&node, name, object);
        node.ready(name);
    }
    node.connect(5);
    let before = ["legacy", "btf"].map(|name| node.verified_details(name));
    // Another mount keeps the old bpffs, so that the kernel sends no event.
    node.run("mount", &["--bind", "/sys/fs/bpf", "/mnt"]);
    node.run("umount", &["/sys/fs/bpf"]);
    node.run("mount", &["-t", "bpf", "bpf", "/sys/fs/bpf"]);
    let start = Instant::now();
    node.connect(1);
    for name in ["legacy", "btf"] {
        node.until("its pins", |node| node.pins(name).len() == 3);
    }
    assert!(start.elapsed() < timeout() / 2, "a poll detects it: {:?}", start.elapsed());
    for (name, before) in ["legacy", "btf"].into_iter().zip(before) {
        node.ready(name);
        let now = node.verified_details(name);
        for kind in ["programs", "maps", "links"] {
            assert_eq!(now[kind][0]["id"], before[kind][0]["id"], "the agent kept a descriptor");
        }
        assert_eq!(node.events(name)[4], 6, "no connection was missed");
    }
    // Changes on the new bpffs are detected. It is watched before what was found is reported.
    node.until("the report", |node| node.entry("btf")["drift"].is_array());
    let map = format!("{}/maps/my_map", node.home("btf"));
    let start = Instant::now();
    node.run("rm", &[&map]);
    node.until("the map's pin", |node| node.exists(&map));
    assert!(start.elapsed() < timeout() / 2, "it is watched: {:?}", start.elapsed());
    node.run("umount", &["/mnt"]);
    for name in ["legacy", "btf"] {
        node.remove(name);
    }
    node.nothing_left();
}

#[test]
fn a_read_only_bpffs_is_reported_and_waited_for() {
    let mut node = Node::new("read-only");
    node.start();
    for name in ["changed", "removed"] {
        seed(&node, name, TCP_EVENTS_BTF);
        node.ready(name);
    }
    let before = ["changed", "removed"].map(|name| node.verified_details(name));
    node.run("mount", &["-o", "remount,ro", "/sys/fs/bpf"]);
    seed(&node, "new", TCP_EVENTS);
    seed(&node, "changed", fixtures::TWICE);
    node.withdraw("removed");
    for name in ["new", "changed"] {
        let attached = node.condition_is(name, "Attached", "False");
        assert_eq!(attached["reason"], "BpffsUnusable", "{attached}");
        assert!(attached["message"].as_str().unwrap().contains("mount -o remount,rw /sys/fs/bpf"), "{attached}");
    }
    node.until("that it can't be removed", |node| {
        let removed = node.entry("removed");
        removed["state"] == "Removing" && removed["reason"] == "BpffsUnusable"
    });

    // Both stay attached: the one whose new program can't be pinned, and the one that can't be removed.
    node.connect(2);
    for before in &before {
        assert_eq!(node.counts(&["id", &before["maps"][0]["id"].to_string()])[4], 2, "{before}");
    }
    for kind in ["programs", "maps", "links"] {
        assert_eq!(node.details("changed")[kind], before[0][kind], "its status changed");
    }

    let attempts = |node: &Node| -> Vec<Timestamp> {
        let log = node.log();
        let of_new = log.lines().filter(|line| line.contains("attempt") && line.contains("program=\"new\""));
        of_new.map(|line| line.split_whitespace().next().unwrap().parse().unwrap()).collect()
    };
    node.until("four attempts", |node| attempts(node).len() >= 4);
    let attempts = attempts(&node);
    let waits = attempts.windows(2).map(|two| two[1].duration_since(two[0]).as_secs_f64());
    // An attempt's line comes after its start, from which the wait counts: the sooner, the less busy the machine is.
    let is_longer = waits.zip([1.0, 2.0, 4.0]).all(|(wait, least)| wait >= 0.5 * least);
    assert!(is_longer, "it waits longer each time: {attempts:?}");

    node.run("mount", &["-o", "remount,rw", "/sys/fs/bpf"]);
    node.ready("new");
    node.ready("changed");
    assert_ne!(node.verified_details("changed")["programs"], before[0]["programs"]);
    node.until("the removal", |node| !node.exists(&node.home("removed")));
    for name in ["new", "changed"] {
        node.remove(name);
    }
    node.nothing_left();
}
