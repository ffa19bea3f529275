//! Kills of an agent that brings entries in sync, before each of its calls: the next one ends with the same content.

use std::os::fd::AsFd as _;

use serde_json::{Value, json};
use sockeye_agent::kernel::bpf;
use sockeye_ebpf::programs::fixtures::LISTS;

use super::{NAME, open, read, spec, synced, write};
use crate::node::{Node, text};

/// One list, another one, and none.
fn lists() -> [Value; 3] {
    let hash = |entries: &[(u32, u32)]| -> Value {
        synced("hash", entries.iter().map(|(key, value)| json!({"key": key, "value": value})).collect())
    };
    let trie = |entries: &[(&str, u32)]| -> Value {
        synced("trie", entries.iter().map(|(key, value)| json!({"key": key, "value": value})).collect())
    };
    [
        json!([hash(&[(1, 1), (2, 2)]), trie(&[("10.0.0.0/8", 1), ("10.1.0.0/16", 2)])]),
        json!([hash(&[(2, 3), (3, 3), (4, 3)]), trie(&[("10.1.0.0/16", 3), ("10.1.2.0/24", 3), ("10.2.0.0/16", 3)])]),
        json!([hash(&[]), trie(&[])]),
    ]
}

fn content(node: &Node) -> (Vec<(u32, u32)>, usize) {
    let hash = open(node, "hash");
    let entries = (0..16).filter_map(|key| Some((key, read(&hash, key, 1)?[0]))).collect();
    (entries, node.entries(NAME, "trie").len())
}

#[test]
fn an_agent_killed_between_two_writes_leaves_nothing_that_the_next_one_does_not_find() {
    let node = Node::new("entries-killed");
    let apply = |maps: &Value| node.apply_spec(NAME, LISTS, spec(maps.clone()));
    let once = |fault: Option<&str>| node.once(fault);
    let converge = |what: &str| {
        let done = once(None);
        assert!(done.status.success(), "{what}: {}", text(&done));
    };
    let [first, second, none] = lists();
    let hash = [vec![(1, 1), (2, 2), (9, 99)], vec![(2, 3), (3, 3), (4, 3), (9, 99)], vec![(9, 99)]];
    apply(&first);
    converge("first");
    write(&open(&node, "hash"), 9, &[99]);
    let mut kills = 0;
    for call in 1.. {
        apply(&first);
        converge("first");
        assert_eq!(content(&node), (hash[0].clone(), 2), "before call {call}");
        apply(&second);
        let killed = once(Some(&format!("kill@*#{call}")));
        if killed.status.success() {
            break;
        }
        kills += 1;
        // Half the time the list is edited once more before the next agent runs.
        let (maps, expected) = if call % 2 == 0 { (&second, (&hash[1], 3)) } else { (&none, (&hash[2], 0)) };
        apply(maps);
        converge("after the kill");
        let (entries, prefixes) = content(&node);
        assert_eq!((&entries, prefixes), expected, "killed before call {call}");
        assert_eq!(read(&open(&node, "hash"), 9, 1), Some(vec![99]), "another's entry stays");
    }
    assert!(kills > 4, "{kills} kills");
    bpf::map_delete(open(&node, "hash").as_fd(), &9_u32.to_ne_bytes()).unwrap();
    node.apply_spec(NAME, b"", json!({}));
    node.withdraw(NAME);
    converge("nothing");
    node.nothing_left();
}
