//! Entries of maps that a spec lists: kept in sync without a load, and compared where they only fill new maps.

mod killed;
mod writer;

use std::os::fd::AsFd as _;

use serde_json::{Value, json};
use sockeye_agent::kernel::{Fd, bpf};
use sockeye_crds_testing::provoked;
use sockeye_ebpf::programs::fixtures::LISTS;

use crate::node::Node;

const NAME: &str = "lists";

fn spec(maps: Value) -> Value {
    json!({"programs": [{"name": "ask", "attach": [{"type": "Node"}]}], "maps": maps})
}

/// Applies settings of maps, and waits until the program is Ready with them.
fn set(node: &Node, maps: Value) {
    node.apply_spec(NAME, LISTS, spec(maps));
    node.ready(NAME);
}

fn synced(name: &str, entries: Value) -> Value {
    json!({"name": name, "entriesPolicy": "Sync", "entries": entries})
}

/// Opens the pin of a map, as another process does.
fn open(node: &Node, map: &str) -> Fd {
    bpf::obj_get(None, &node.outer_path(&format!("{}/maps/{map}", node.home(NAME)))).unwrap().into()
}

/// Reads a value of 32-bit words.
fn read(map: &Fd, key: u32, words: usize) -> Option<Vec<u32>> {
    let mut value = vec![0; 4 * words];
    bpf::map_lookup(map.as_fd(), &key.to_ne_bytes(), &mut value)
        .unwrap()
        .then(|| value.chunks_exact(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap())).collect())
}

fn write(map: &Fd, key: u32, words: &[u32]) {
    let value: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    bpf::map_update(map.as_fd(), Some(&key.to_ne_bytes()), &value).unwrap();
}

fn details_of(node: &Node, map: &str) -> Value {
    let details = node.details(NAME);
    let maps = details["maps"].as_array().cloned().unwrap_or_default();
    maps.into_iter().find(|one| one["name"] == map).unwrap_or_default()
}

#[test]
fn an_edit_is_written_without_a_load_and_leaves_what_programs_and_others_wrote() {
    let mut node = Node::new("entries");
    node.start();
    let limit = |limit: u32| json!(format!("{{\"limit\": {limit}}}"));
    let maps = |hash: Value, quotas: Value| {
        let array = json!([{"key": 0, "value": limit(3)}, {"key": 2, "value": limit(5)}]);
        json!([
            synced("hash", hash),
            synced("quotas", quotas.clone()),
            synced("array", array),
            synced("percpu", quotas),
        ])
    };
    set(&node, maps(json!([{"key": 1, "value": 1}, {"key": 2, "value": 2}]), json!([{"key": 1, "value": limit(7)}])));
    let before = node.entry(NAME);
    assert_eq!(before["entries"], json!({"wanted": 6, "applied": 6}));
    let [hash, quotas, array] = ["hash", "quotas", "array"].map(|map| open(&node, map));

    // A program counts, and somebody adds an entry.
    write(&quotas, 1, &[7, 0, 40, 0]);
    write(&hash, 9, &[99]);
    write(&array, 2, &[5, 0, 6, 0]);
    let edited = json!([
        synced("hash", json!([{"key": 2, "value": 20}, {"key": 3, "value": 30}])),
        synced("quotas", json!([{"key": 1, "value": limit(8)}])),
        synced("array", json!([{"key": 0, "value": limit(4)}])),
        synced("percpu", json!([{"key": 1, "value": limit(8)}])),
    ]);
    set(&node, edited);
    let words = |key| read(&hash, key, 1);
    assert_eq!([1, 2, 3, 9].map(words), [None, Some(vec![20]), Some(vec![30]), Some(vec![99])]);
    assert_eq!(read(&quotas, 1, 4), Some(vec![8, 0, 40, 0]), "the count survives");
    assert_eq!(read(&array, 0, 4), Some(vec![4, 0, 0, 0]));
    assert_eq!(read(&array, 2, 4), Some(vec![0, 0, 6, 0]), "what was listed is as in a new array, the rest stays");
    for value in node.entries(NAME, "percpu")[0]["values"].as_array().unwrap() {
        assert_eq!(value["value"]["limit"], 8, "every CPU has it");
    }
    let after = node.entry(NAME);
    assert_eq!(
        (&after["programIDs"], &after["mapIDs"]),
        (&before["programIDs"], &before["mapIDs"]),
        "nothing is loaded"
    );
    assert_eq!(details_of(&node, "hash")["entries"], json!({"wanted": 2, "applied": 2}));
    assert_eq!(node.program(NAME)["status"]["entries"], json!({"wanted": 5, "applied": 5}));

    // A field that the spec named before and names no longer is as in a new entry.
    set(&node, json!([synced("quotas", json!([{"key": 1, "value": "{\"count\": 1}"}]))]));
    assert_eq!(read(&quotas, 1, 4), Some(vec![0, 0, 1, 0]));
    assert_eq!(words(2), Some(vec![20]), "a map that is no longer listed keeps its content");
    set(&node, json!([synced("hash", json!([])), synced("quotas", json!([]))]));
    assert_eq!(words(2), Some(vec![20]), "and the spec no longer knows what it listed there");
    assert_eq!(read(&quotas, 1, 4), None);
    node.remove(NAME);
    node.nothing_left();
}

/// Reads the two 64-bit words of each processor's value in a per-CPU array.
fn read_slots(map: &Fd, key: u32, slots: usize) -> Vec<[u64; 2]> {
    let mut value = vec![0; 16 * slots];
    assert!(bpf::map_lookup(map.as_fd(), &key.to_ne_bytes(), &mut value).unwrap());
    let word = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().unwrap());
    value.chunks_exact(16).map(|slot| [word(&slot[..8]), word(&slot[8..])]).collect()
}

/// Counts of a program stay on their processor. A key that is delisted has the listed fields cleared on all.
#[test]
fn every_processor_of_a_per_cpu_array_gets_the_listed_fields() {
    let mut node = Node::new("entries-percpu");
    node.start();
    let limits = |limits: &[(u32, u32)]| -> Value {
        limits.iter().map(|(key, limit)| json!({"key": key, "value": format!("{{\"limit\": {limit}}}")})).collect()
    };
    set(&node, json!([synced("percpu_array", limits(&[(0, 3), (2, 5)]))]));
    assert_eq!(node.entry(NAME)["entries"], json!({"wanted": 2, "applied": 2}));
    let map = open(&node, "percpu_array");
    let slots = node.entries(NAME, "percpu_array")[0]["values"].as_array().unwrap().len();
    assert_eq!(read_slots(&map, 0, slots), vec![[3, 0]; slots]);
    assert_eq!(read_slots(&map, 1, slots), vec![[0, 0]; slots], "not listed");

    // A program counts, on each processor for itself.
    let counted = |limit: u64| (0..slots as u64).map(|cpu| [limit, 10 + cpu]).collect::<Vec<_>>();
    for (key, limit) in [(0_u32, 3), (2, 5)] {
        let value: Vec<u8> = counted(limit).concat().iter().flat_map(|word| word.to_ne_bytes()).collect();
        bpf::map_update(map.as_fd(), Some(&key.to_ne_bytes()), &value).unwrap();
    }
    set(&node, json!([synced("percpu_array", limits(&[(0, 4), (3, 6)]))]));
    assert_eq!([0, 2].map(|key| read_slots(&map, key, slots)), [counted(4), counted(0)]);
    assert_eq!(read_slots(&map, 3, slots), vec![[6, 0]; slots]);
    node.remove(NAME);
    node.nothing_left();
}

#[test]
fn an_agent_that_starts_anew_deletes_what_was_delisted_meanwhile() {
    let mut node = Node::new("entries-restart");
    node.start();
    set(&node, json!([synced("trie", json!([{"key": "10.0.0.0/8", "value": 1}, {"key": "10.1.0.0/16", "value": 2}]))]));
    let size = |node: &Node| node.entries(NAME, "trie").len();
    assert_eq!(size(&node), 2);
    node.stop("KILL");
    node.apply_spec(NAME, LISTS, spec(json!([synced("trie", json!([{"key": "10.0.0.0/8", "value": 1}]))])));
    node.start();
    node.ready(NAME);
    assert_eq!(size(&node), 1);
    node.remove(NAME);
    node.nothing_left();
}

#[test]
fn a_list_that_does_not_fit_beside_the_old_one_is_refused_before_the_first_write() {
    let mut node = Node::new("entries-full");
    node.start();
    let entries = |keys: std::ops::Range<u32>| -> Value { keys.map(|key| json!({"key": key, "value": 1})).collect() };
    set(&node, json!([synced("hash", entries(0..10))]));
    node.apply_spec(NAME, LISTS, spec(json!([synced("hash", entries(5..17))])));
    let refused = node.condition_is(NAME, "Ready", "False");
    assert_eq!(refused["reason"], "EntriesNotInStep");
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("map hash: it has 10 entries") && message.contains("more than its 16"), "{message}");
    let hash = open(&node, "hash");
    let there: Vec<u32> = (0..20).filter(|key| read(&hash, *key, 1).is_some()).collect();
    assert_eq!(there, Vec::from_iter(0..10), "nothing was written");
    set(&node, json!([synced("hash", entries(5..15))]));
    let there: Vec<u32> = (0..20).filter(|key| read(&hash, *key, 1).is_some()).collect();
    assert_eq!(there, Vec::from_iter(5..15));
    node.remove(NAME);
    node.nothing_left();
}

#[test]
fn a_change_of_others_to_a_listed_entry_is_repaired_and_reported() {
    let mut node = Node::new("entries-drift");
    node.start();
    set(&node, json!([synced("hash", json!([{"key": 1, "value": 1}, {"key": 2, "value": 2}]))]));
    let hash = open(&node, "hash");
    write(&hash, 1, &[5]);
    bpf::map_delete(hash.as_fd(), &2_u32.to_ne_bytes()).unwrap();
    // Nothing reports writes to maps: the agent finds them by itself.
    node.until("the repair", |_| read(&hash, 1, 1) == Some(vec![1]) && read(&hash, 2, 1) == Some(vec![2]));
    node.until("the report", |node| node.entry(NAME)["drift"].to_string().contains("EntryChanged"));
    let drift = node.entry(NAME)["drift"].to_string();
    assert!(drift.contains("map hash: entries that the spec keeps in step were changed"), "{drift}");

    // So is the record of what was listed, if somebody removes it.
    std::fs::remove_file(node.outer_path(&format!("{}/_meta/entries~hash", node.home(NAME)))).unwrap();
    node.until("the record", |node| node.notes(NAME).contains(&"entries~hash".to_owned()));
    set(&node, json!([synced("hash", json!([{"key": 2, "value": 2}]))]));
    assert_eq!(read(&hash, 1, 1), None);
    node.remove(NAME);
    node.nothing_left();
}

#[test]
fn where_entries_only_fill_new_maps_a_difference_is_reported() {
    let mut node = Node::new("entries-create");
    node.start();
    let maps = |value: u32| json!([{"name": "hash", "entries": [{"key": 1, "value": 1}, {"key": 2, "value": value}]}]);
    set(&node, maps(2));
    assert_eq!(node.program(NAME)["status"]["entries"], json!({"wanted": 2, "applied": 2}));
    set(&node, maps(3));
    let hash = open(&node, "hash");
    assert_eq!(read(&hash, 2, 1), Some(vec![2]), "the map keeps its content");
    node.until("the note", |node| node.details(NAME)["notes"].to_string().contains("1 of the 2 entries"));
    let status = node.program(NAME)["status"]["entries"].clone();
    let differs = json!({"wanted": 2, "applied": 1, "differing": 1, "differingNodes": ["test"]});
    assert_eq!(status, differs);
    // Kept in sync from now on.
    set(&node, json!([synced("hash", json!([{"key": 2, "value": 3}]))]));
    assert_eq!((read(&hash, 1, 1), read(&hash, 2, 1)), (Some(vec![1]), Some(vec![3])), "key 1 was never kept in sync");
    node.remove(NAME);
    node.nothing_left();
}

#[test]
fn flags_that_limit_a_descriptor_or_a_program_do_not_limit_the_agent() {
    let mut node = Node::new("entries-flags");
    node.start();
    let names = ["read_only", "write_only", "program_reads"];
    let maps =
        |value: u32| -> Value { names.iter().map(|name| synced(name, json!([{"key": 1, "value": value}]))).collect() };
    set(&node, maps(1));
    let before = node.entry(NAME);
    for value in [1, 2] {
        set(&node, maps(value));
        for name in names {
            assert_eq!(read(&open(&node, name), 1, 1), Some(vec![value]), "{name}");
        }
    }
    // Another revision carries the maps over: they still have the shape that the object asks for.
    let mut spec = spec(maps(2));
    spec["globals"] = json!({"turn": 5});
    node.apply_spec(NAME, LISTS, spec);
    node.ready(NAME);
    let after = node.entry(NAME);
    assert_ne!(after["programIDs"], before["programIDs"]);
    for name in names {
        assert_eq!(read(&open(&node, name), 1, 1), Some(vec![2]), "{name}");
    }
    node.remove(NAME);
    node.nothing_left();
}

#[test]
fn a_frozen_map_is_refused_by_name() {
    let mut node = Node::new("entries-frozen");
    node.start();
    set(&node, json!([synced("hash", json!([{"key": 1, "value": 1}]))]));
    bpf::map_freeze(open(&node, "hash").as_fd()).unwrap();
    set(&node, json!([synced("hash", json!([{"key": 1, "value": 1}]))]));
    node.apply_spec(NAME, LISTS, spec(json!([synced("hash", json!([{"key": 1, "value": 2}]))])));
    let refused = node.condition_is(NAME, "Ready", "False");
    let message = refused["message"].as_str().unwrap();
    assert!(refused["reason"] == "EntriesNotInStep" && message.contains("map hash: it is frozen"), "{message}");
    provoked(&refused["reason"], message);
    node.remove(NAME);
    node.nothing_left();
}

/// The list of a revision that is not in effect is in no map, also after a restart of the agent.
#[test]
fn a_revision_that_fails_leaves_the_entries_of_the_one_that_runs() {
    let mut node = Node::new("entries-failing");
    node.start();
    let maps = |value: u32| json!([synced("hash", json!([{"key": 1, "value": value}]))]);
    set(&node, maps(1));
    let hash = open(&node, "hash");
    let nowhere = json!({
        "programs": [{"name": "ask", "attach": [{"type": "CgroupPath", "cgroupPath": "/nowhere"}]}], "maps": maps(2),
    });
    node.apply_spec(NAME, LISTS, nowhere);
    assert_eq!(node.condition_is(NAME, "Ready", "False")["reason"], "CgroupNotFound");
    assert_eq!(read(&hash, 1, 1), Some(vec![1]));
    assert_eq!(node.attached().len(), 1);
    write(&hash, 1, &[7]);
    node.until("the repair of the list that runs", |_| read(&hash, 1, 1) == Some(vec![1]));
    node.stop("KILL");
    node.start();
    node.condition_is(NAME, "Ready", "False");
    assert_eq!((read(&hash, 1, 1), node.attached().len()), (Some(vec![1]), 1));
    set(&node, maps(2));
    assert_eq!(read(&hash, 1, 1), Some(vec![2]));
    node.remove(NAME);
    node.nothing_left();
}
