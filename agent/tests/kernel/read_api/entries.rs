//! Entries of maps of each type, as the API decodes them and as bpftool does.

use serde_json::{Value, json};
use sockeye_ebpf::programs::{TCP_EVENTS, fixtures};
use sockeye_read_api::{
    FailureReason,
    map::Entry,
    route::{Cpus, EntriesQuery},
};

use super::client::{self, Client};
use crate::{kinds, node::Node, sockets::connection::Connection};

/// Applies an object with a map of each type.
pub fn apply(node: &Node) {
    node.apply_spec("kinds", fixtures::KINDS, kinds::spec());
    node.ready("kinds");
    node.connect(1);
}

fn all(client: &Client, map: &str) -> Vec<(Value, Option<Value>)> {
    client.entries("kinds", map, 100)
}

fn sorted(mut entries: Vec<(Value, Option<Value>)>) -> Vec<(Value, Option<Value>)> {
    entries.sort_by_key(|(key, _)| key.to_string());
    entries
}

fn one(client: &Client, map: &str, key: &str) -> Entry {
    let query = EntriesQuery { key: Some(key.to_owned()), ..EntriesQuery::default() };
    let mut page = client.page("kinds", map, query);
    assert_eq!((page.entries.len(), page.next), (1, None));
    page.entries.remove(0)
}

/// Returns the entries of a map as bpftool formats them, but for the fields that it prints otherwise.
fn shown(node: &Node, map: &str) -> Vec<(Value, Option<Value>)> {
    let entries = node.entries("kinds", map).into_iter();
    entries.map(|entry| (entry["key"].clone(), Some(entry["value"].clone()))).collect()
}

#[test]
fn entries_of_each_type_of_map_agree_with_bpftool() {
    let mut node = Node::new("readkinds");
    let client = client::start(&mut node);
    apply(&node);
    for map in ["array", "lru_hash", "seen"] {
        assert_eq!(sorted(all(&client, map)), sorted(shown(&node, map)), "{map}");
    }
    let prefix =
        |length: u32, address: u32, value: u32| (json!({"length": length, "address": address}), Some(json!(value)));
    assert_eq!(sorted(all(&client, "lpm_trie")), sorted(vec![prefix(8, 127 << 24, 17), prefix(0, 0, 18)]));
    // bpftool prints a Boolean as it does numbers, and numbers in network order as those of the host.
    let [(key, Some(value))] = &all(&client, "hash")[..] else { panic!() };
    assert_eq!(key, &json!({"address": 0x0100_007f, "port": 7, "zero": 0}));
    assert_eq!(value["limits"], json!({"bytes": 12, "adjust": -3, "ports": [80, 443, 0]}));
    assert_eq!(
        (&value["mode"], &value["active"], &value["label"]),
        (&json!("AUTO"), &json!(true), &json!("to the web"))
    );
    assert_eq!((&value["low"], &value["high"], &value["octets"]), (&json!(5), &json!(17), &json!([1, 2, 0, 0])));

    // The values of processors.
    for map in ["percpu_array", "percpu_hash", "lru_percpu_hash"] {
        let dump = node.bpftool(&["map", "dump", "pinned", &format!("{}/maps/{map}", node.home("kinds"))]);
        let dump = dump.as_array().unwrap().iter().find(|entry| entry["formatted"]["key"] == 1).unwrap().clone();
        let values: Vec<Value> =
            dump["formatted"]["values"].as_array().unwrap().iter().map(|one| one["value"].clone()).collect();
        let query = EntriesQuery { key: Some("1".to_owned()), cpus: Cpus::Separate, ..EntriesQuery::default() };
        let separate = client.page("kinds", map, query).entries.remove(0);
        assert_eq!((separate.value, &separate.values), (None, &values), "{map}");
        let total: u64 = values.iter().map(|value| value.as_u64().unwrap()).sum();
        assert_eq!(one(&client, map, "1").value, Some(json!(total)), "{map}");
    }

    // Without keys, only the next value shows, and stays: one of each was taken.
    for _ in 0..2 {
        assert_eq!(all(&client, "queue"), [(Value::Null, Some(json!(32)))]);
        assert_eq!(all(&client, "stack"), [(Value::Null, Some(json!(41)))]);
    }

    // What the kernel has put there itself.
    let details = node.details("kinds");
    let id = |list: &str, name: &str| {
        details[list].as_array().unwrap().iter().find(|one| one["name"] == name).map(|one| one["id"].clone())
    };
    assert_eq!(all(&client, "prog_array"), [(json!(2), id("programs", "on_tail_call"))]);
    assert_eq!(all(&client, "array_of_maps"), [(json!(1), id("maps", "first"))]);
    // Its definition says no type of the keys.
    let mut page = client.page("kinds", "hash_of_maps", EntriesQuery::default());
    page.entries.sort_by_key(|entry| entry.key.to_string());
    let inner: Vec<_> = page.entries.into_iter().map(|entry| (entry.key, entry.value)).collect();
    assert_eq!(inner, [(json!("02000000"), id("maps", "second")), (json!("03000000"), id("maps", "first"))]);
    assert!(page.undecoded.is_some());

    // Storage of cgroups is read by key, as bpftool reads it.
    for map in ["cgroup_storage", "percpu_cgroup_storage"] {
        let entries = all(&client, map);
        let [(key, Some(value))] = &entries[..] else { panic!("{map}: {entries:?}") };
        assert!(key["cgroup_inode_id"].is_u64() && *value == json!(1), "{map}: {key} {value}");
    }
    node.remove("kinds");
    node.nothing_left();
}

#[test]
fn global_data_is_shown_by_variable() {
    let mut node = Node::new("readdata");
    let client = client::start(&mut node);
    apply(&node);
    let value = |map: &str| {
        let entries = all(&client, map);
        let [(key, Some(value))] = &entries[..] else { panic!("{map}: {entries:?}") };
        assert_eq!(key, &json!(0));
        value.clone()
    };
    let constants = value(".rodata");
    assert_eq!((&constants["rate"], &constants["verbose"]), (&json!(10), &json!(true)));
    assert_eq!((&constants["label"], &constants["mode"]), (&json!("web"), &json!("AUTO")));
    assert_eq!(value(".data")["limits"], json!({"bytes": 50, "adjust": 0, "ports": [1, 2, 0]}));
    assert_eq!(value(".bss")["counters"], json!([0, 0, 0, 4]));
    // A pin's name is as good.
    assert_eq!(value("_rodata"), constants);
    node.remove("kinds");
    node.nothing_left();
}

#[test]
fn one_key_is_found_as_the_spec_writes_it() {
    let mut node = Node::new("readkey");
    let client = client::start(&mut node);
    apply(&node);
    let flow = json!({"address": "127.0.0.1", "port": 7}).to_string();
    assert_eq!(one(&client, "hash", &flow).value.unwrap()["limits"]["bytes"], 12);
    assert_eq!(one(&client, "array", "1").value, Some(json!(11)));
    // A look-up in a trie would find the longest prefix; a prefix that it does not have is none of its keys.
    assert_eq!(one(&client, "lpm_trie", "127.0.0.0/8").value, Some(json!(17)));
    assert_eq!(one(&client, "lpm_trie", "0.0.0.0/0").value, Some(json!(18)));
    for absent in ["127.0.0.0/16", "127.0.0.1/32", "128.0.0.0/1"] {
        let path = format!("/v1/programs/kinds/maps/lpm_trie/entries?key={absent}");
        assert_eq!(client.fails(&path).reason, FailureReason::EntryNotFound, "{absent}");
    }
    node.remove("kinds");
    node.nothing_left();
}

#[test]
fn sockets_are_shown_by_cookie_or_by_key() {
    let mut node = Node::new("readsocks");
    let client = client::start(&mut node);
    apply(&node);
    let held = Connection::new(&node, 0);
    let hash = all(&client, "sockhash");
    let [(key, Some(cookie))] = &hash[..] else { panic!("{hash:?}") };
    assert!(*key == json!(1) && cookie.as_u64().is_some_and(|cookie| cookie > 0), "{hash:?}");
    assert_eq!(
        all(&client, "sockmap"),
        [(json!(1), None)],
        "values of 4 bytes tell no cookies, but which keys have a socket"
    );
    held.close();
    node.until("the socket's end", |_| all(&client, "sockhash").is_empty());
    node.remove("kinds");
    node.nothing_left();
}

#[test]
fn without_types_bytes_come_with_the_reason() {
    let mut node = Node::new("readhex");
    let client = client::start(&mut node);
    let programs = json!([{"name": "my_prog", "attach": [{"type": "Node"}]}]);
    node.apply("legacy", TCP_EVENTS, programs.clone(), json!([]));
    node.ready("legacy");
    let page = client.page("legacy", "my_map", EntriesQuery { limit: 3, ..EntriesQuery::default() });
    assert!(page.undecoded.as_ref().is_some_and(|why| why.contains("types")), "{page:?}");
    assert_eq!(page.entries.iter().map(|entry| entry.key.clone()).collect::<Vec<_>>(), [json!(0), json!(1), json!(2)]);
    assert!(page.entries.iter().all(|entry| entry.value.as_ref().is_some_and(|value| value.as_str().is_some())));

    // A map that is not pinned has no way to it.
    node.apply("legacy", TCP_EVENTS, programs, json!([{"name": "my_map", "pinning": "None"}]));
    node.ready("legacy");
    node.until("the map to go", |_| {
        let (status, _) = client.get("/v1/programs/legacy/maps/my_map/entries");
        status != 200
    });
    let failure = client.fails("/v1/programs/legacy/maps/my_map/entries");
    assert_eq!(failure.reason, FailureReason::NotReadable, "{failure}");
    assert!(failure.message.contains("pinning"), "{failure}");
    node.remove("legacy");
    node.nothing_left();
}
