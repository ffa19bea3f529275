//! Maps whose object changes, and maps that are not pinned.

use serde_json::{Value, json};
use sockeye_crds_testing::provoked;
use sockeye_ebpf::programs::{TCP_EVENTS, TCP_EVENTS_BTF, fixtures};

use crate::node::Node;

const ROOT: &str = r#"[{"type": "Node"}]"#;

fn programs(names: &[&str]) -> Value {
    let attach: Value = serde_json::from_str(ROOT).unwrap();
    names.iter().map(|name| json!({"name": name, "attach": attach})).collect()
}

fn map(details: &Value, name: &str) -> Value {
    let all = details["maps"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|map| map["name"] == name).unwrap_or_default()
}

#[test]
fn map_content_is_carried_over_unless_the_spec_recreates_the_map() {
    let mut node = Node::new("shapes");
    node.start();
    let apply = |node: &Node, object: &[u8], settings: Value| {
        let mut map = json!({"name": "my_map"});
        map.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        node.apply("counter", object, programs(&["my_prog"]), json!([map]));
    };
    apply(&node, TCP_EVENTS_BTF, json!({}));
    node.ready("counter");
    node.connect(5);
    let first = map(&node.details("counter"), "my_map");

    // The same shape, in a legacy definition.
    apply(&node, TCP_EVENTS, json!({}));
    node.ready("counter");
    assert_eq!(map(&node.details("counter"), "my_map")["id"], first["id"]);
    assert_eq!(node.events("counter")[4], 5);

    for (object, settings) in [(fixtures::RESHAPED, json!({})), (TCP_EVENTS, json!({"maxEntries": 11}))] {
        apply(&node, object, settings);
        let refused = node.condition_is("counter", "Ready", "False");
        assert_eq!(refused["reason"], "MapIncompatible");
        let message = refused["message"].as_str().unwrap();
        provoked(&refused["reason"], message);
        for words in ["max_entries 10", "max_entries 11", "onIncompatible"] {
            assert!(message.contains(words), "{message}");
        }
        node.connect(1);
    }
    assert_eq!(node.events("counter")[4], 7, "the last good one counts on");

    apply(&node, fixtures::RESHAPED, json!({"onIncompatible": "Recreate"}));
    node.ready("counter");
    let larger = map(&node.details("counter"), "my_map");
    assert_eq!(larger["maxEntries"], 11);
    assert_ne!(larger["id"], first["id"]);
    // Whoever reads the old one is told, with both IDs.
    let drift = node.entry("counter")["drift"].as_array().cloned().unwrap_or_default();
    let recreated: Vec<&Value> = drift.iter().filter(|drift| drift["kind"] == "MapRecreated").collect();
    let ids = format!("its ID was {} and is {};", first["id"], larger["id"]);
    assert!(recreated.len() == 1 && recreated[0]["message"].as_str().unwrap().contains(&ids), "{drift:?}");
    assert_eq!(node.events("counter").len(), 11);
    node.connect(2);
    assert_eq!(node.events("counter")[4], 2);
    node.remove("counter");
    node.nothing_left();
}

#[test]
fn a_map_that_the_object_drops_is_removed_unless_retained() {
    let mut node = Node::new("dropped");
    node.start();
    let apply = |node: &Node, object: &[u8], names: &[&str], maps: Value| {
        node.apply("changing", object, programs(names), maps);
        node.ready("changing");
    };
    let both = ["on_connect", "on_create"];
    apply(&node, fixtures::GLOBALS, &both, json!([{"name": "unused", "reclaimPolicy": "Retain"}]));
    let before = node.details("changing");
    let of_all = ["maps/_bss", "maps/_data", "maps/_rodata", "maps/shared", "maps/unused"];
    let maps = |node: &Node| -> Vec<String> {
        node.pins("changing").into_iter().filter(|pin| pin.starts_with("maps/")).collect()
    };
    assert_eq!(maps(&node), of_all);

    // Global data belongs to its revision: another load has global data of its own.
    apply(&node, fixtures::GLOBALS, &both[..1], json!([{"name": "unused", "reclaimPolicy": "Retain"}]));
    let after = node.details("changing");
    for (name, same) in [(".rodata", false), (".bss", false), ("shared", true), ("unused", true)] {
        assert_eq!(map(&before, name)["id"] == map(&after, name)["id"], same, "{name}");
    }

    apply(&node, TCP_EVENTS_BTF, &["my_prog"], json!([]));
    assert_eq!(maps(&node), ["maps/my_map", "maps/unused"], "what is retained stays");
    apply(&node, fixtures::GLOBALS, &both, json!([{"name": "unused", "reclaimPolicy": "Delete"}]));
    assert_eq!(map(&node.details("changing"), "unused")["id"], map(&before, "unused")["id"], "and is taken up again");
    apply(&node, TCP_EVENTS_BTF, &["my_prog"], json!([]));
    assert_eq!(maps(&node), ["maps/my_map"]);
    node.remove("changing");
    node.nothing_left();
}

/// The kernel frees an unpinned map with its program, as after `bpftool prog load`.
#[test]
fn an_unpinned_map_lives_as_long_as_its_program() {
    let mut node = Node::new("unpinned");
    node.start();
    node.apply("seed", TCP_EVENTS, programs(&["my_prog"]), json!([{"name": "my_map", "pinning": "None"}]));
    let program = node.ready("seed");
    let details = node.details("seed");
    let my_map = map(&details, "my_map");
    let id = my_map["id"].clone();
    assert_eq!((&my_map["used"], &my_map["pinPath"]), (&json!(true), &Value::Null), "{details}");
    assert_eq!(details["programs"][0]["mapIDs"], json!([id]), "the program keeps it");
    assert_eq!(node.bpftool(&["map", "show", "id", &id.to_string()])["name"], "my_map");
    assert_eq!(program["status"]["summary"]["mapIDs"], id.to_string());
    assert_eq!(node.pins("seed").iter().filter(|pin| pin.starts_with("maps/")).count(), 0);

    // Another agent knows only its ID.
    node.stop("KILL");
    node.start();
    node.until("another agent's note", |node| {
        node.details("seed")["notes"].to_string().contains("only their IDs are known")
    });
    let details = node.details("seed");
    assert!(details["notes"][0].as_str().unwrap().contains(&id.to_string()), "{details}");
    assert_eq!(node.program("seed")["status"]["summary"]["mapIDs"], id.to_string());

    // The kernel frees the map with its program.
    node.remove("seed");
    node.until("that the map is freed", |node| !node.bpftool_succeeds(&["map", "show", "id", &id.to_string()]));
    node.nothing_left();
}

#[test]
fn an_unused_unpinned_map_is_freed_after_the_load() {
    let mut node = Node::new("unused");
    node.start();
    let both = programs(&["on_connect", "on_create"]);
    node.apply("globals", fixtures::GLOBALS, both, json!([{"name": "unused", "pinning": "None"}]));
    node.ready("globals");
    let details = node.details("globals");
    assert_eq!(map(&details, "unused"), Value::Null);
    let note = details["notes"][0].as_str().unwrap();
    assert!(note.contains("map unused") && note.contains("no program uses it"), "{note}");
    node.remove("globals");
    node.nothing_left();
}
