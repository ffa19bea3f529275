//! Pages of maps that change meanwhile.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use serde_json::{Value, json};
use sockeye_agent::kernel::bpf;
use sockeye_ebpf::programs::fixtures;
use sockeye_read_api::route::EntriesQuery;

use super::client;
use crate::{kinds, node::Node};

/// The keys that nobody touches while the map is read.
const STABLE: u32 = 3000;

/// Opens a map at its pin.
fn open(node: &Node, program: &str, map: &str) -> OwnedFd {
    bpf::obj_get(None, &node.outer_path(&format!("{}/maps/{map}", node.home(program)))).unwrap()
}

/// Applies a BpfProgram whose map `shared` has room for ten thousand entries, and opens that.
pub fn shared_hash(node: &Node) -> OwnedFd {
    let attach = json!([{"type": "Node"}]);
    let programs = json!([{"name": "on_connect", "attach": attach}, {"name": "on_create", "attach": attach}]);
    node.apply("globals", fixtures::GLOBALS, programs, json!([{"name": "shared", "maxEntries": 10_000}]));
    node.ready("globals");
    open(node, "globals", "shared")
}

/// Writes an entry.
pub fn set(map: &OwnedFd, key: &[u8], value: u64) {
    bpf::map_update(map.as_fd(), Some(key), &value.to_ne_bytes()).unwrap();
}

#[test]
fn a_hash_is_read_whole_whatever_comes_and_goes() {
    let mut node = Node::new("pages");
    let client = client::start(&mut node);
    let map = shared_hash(&node);
    (0..STABLE).for_each(|key| set(&map, &key.to_ne_bytes(), u64::from(key) << 40));

    // Nothing changes: each comes once.
    for limit in [1024, 100, 7] {
        let all = client.entries("globals", "shared", limit);
        let values: BTreeMap<u64, Option<u64>> =
            all.iter().map(|(key, value)| (key.as_u64().unwrap(), value.as_ref().and_then(Value::as_u64))).collect();
        assert_eq!((all.len(), values.len()), (STABLE as usize, STABLE as usize), "limit {limit}");
        assert!(values.iter().all(|(key, value)| *value == Some(key << 40)), "limit {limit}");
    }

    // Others come and go, the last keys of pages among them: no page begins anew, and each key that stays comes.
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let changes = scope.spawn(|| {
            let mut rounds = 0;
            while !done.load(Ordering::Relaxed) {
                for key in STABLE..STABLE + 500 {
                    set(&map, &key.to_ne_bytes(), 1);
                }
                for key in STABLE..STABLE + 500 {
                    bpf::map_delete(map.as_fd(), &key.to_ne_bytes()).unwrap();
                }
                rounds += 1;
            }
            rounds
        });
        for _ in 0..5 {
            let (mut query, mut seen) = (EntriesQuery { limit: 50, ..EntriesQuery::default() }, BTreeMap::new());
            loop {
                let page = client.page("globals", "shared", query.clone());
                assert!(!page.restarted);
                page.entries.iter().for_each(|entry| *seen.entry(entry.key.as_u64().unwrap()).or_insert(0) += 1);
                let Some(next) = page.next else { break };
                query.after = Some(next);
            }
            let stable: Vec<u32> = (0..STABLE).map(|key| seen.get(&key.into()).copied().unwrap_or_default()).collect();
            assert!(stable.iter().all(|count| *count >= 1), "a key that stays did not come");
            assert!(stable.iter().filter(|count| **count > 1).count() < STABLE as usize / 20, "keys come twice");
        }
        done.store(true, Ordering::Relaxed);
        assert!(changes.join().unwrap() > 0);
    });
    node.remove("globals");
    node.nothing_left();
}

#[test]
fn a_trie_goes_on_behind_a_key_that_was_deleted_and_says_where_it_begins_anew() {
    let mut node = Node::new("triepages");
    let client = client::start(&mut node);
    let mut spec = kinds::spec();
    let maps = spec["maps"].as_array_mut().unwrap();
    let trie = maps.iter_mut().find(|map| map["name"] == "lpm_trie").unwrap();
    *trie = json!({"name": "lpm_trie", "maxEntries": 4096});
    node.apply_spec("kinds", fixtures::KINDS, spec);
    node.ready("kinds");
    let map = open(&node, "kinds", "lpm_trie");
    let key = |n: u32| [32_u32.to_ne_bytes(), (0x0a00_0000 + n).to_be_bytes()].concat();
    (0..1000).for_each(|n| set(&map, &key(n), n.into()));
    let number = |entry: &Value| entry["address"].as_u64().unwrap() as u32 - 0x0a00_0000;
    let page = |after: Option<String>| {
        let page = client.page("kinds", "lpm_trie", EntriesQuery { limit: 50, after, ..EntriesQuery::default() });
        let numbers: Vec<u32> = page.entries.iter().map(|entry| number(&entry.key)).collect();
        (numbers, page.next, page.restarted)
    };
    let delete = |n: &u32| assert!(bpf::map_delete(map.as_fd(), &key(*n)).unwrap());

    let (first, next, restarted) = page(None);
    assert!(first.len() == 50 && !restarted);
    // The last three keys of the page go: the next page begins behind the one before them.
    first.iter().rev().take(3).for_each(delete);
    let (second, _, restarted) = page(next.clone());
    assert!(!restarted && second.len() == 50);
    assert!(second.iter().all(|n| !first.contains(n)), "what came before does not come again");
    // All of the cursor's keys go.
    first.iter().rev().skip(3).take(20).for_each(delete);
    let (again, _, restarted) = page(next);
    assert!(restarted);
    assert!(again.iter().any(|n| first.contains(n)), "it begins at the first key that is left");

    // A whole walk ends, and has every key that is left.
    let all = client.entries("kinds", "lpm_trie", 50);
    let numbers: std::collections::BTreeSet<u32> = all.iter().map(|(key, _)| number(key)).collect();
    assert_eq!((all.len(), numbers.len()), (1000 - 23, 1000 - 23));
    node.remove("kinds");
    node.nothing_left();
}

#[test]
fn an_array_with_few_programs_is_read_in_bounded_pages() {
    let mut node = Node::new("slots");
    let client = client::start(&mut node);
    let mut spec = kinds::spec();
    spec["maps"].as_array_mut().unwrap().push(json!({"name": "prog_array", "maxEntries": 40_000}));
    node.apply_spec("kinds", fixtures::KINDS, spec);
    node.ready("kinds");
    let (mut query, mut pages, mut found) = (EntriesQuery::default(), 0, Vec::new());
    loop {
        let page = client.page("kinds", "prog_array", query.clone());
        pages += 1;
        found.extend(page.entries.into_iter().map(|entry| entry.key));
        let Some(next) = page.next else { break };
        query.after = Some(next);
    }
    assert_eq!((pages, found), (3, vec![json!(2)]), "no page looks at all of its slots");
    node.remove("kinds");
    node.nothing_left();
}
