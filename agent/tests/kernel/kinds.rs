//! Initial values of maps of each type and of global variables, as the program finds them and as bpftool reads them by
//! BTF.

use std::{net::Ipv6Addr, ops::Range};

use serde_json::{Value, json};
use sockeye_agent::kernel::kernel_features::KernelFeatures;
use sockeye_ebpf::programs::fixtures::{BLOOM, CGRP, KINDS};

use crate::node::Node;

/// The slots of the map `seen`, in the order of the object.
const KINDS_SEEN: [&str; 20] = [
    "array",
    "hash",
    "lru_hash",
    "percpu_array",
    "percpu_hash",
    "lru_percpu_hash",
    "lpm_trie",
    "ringbuf",
    "perf",
    "cgroup_storage",
    "percpu_cgroup_storage",
    "sk_storage",
    "array_of_maps",
    "hash_of_maps",
    "queue",
    "stack",
    "globals",
    "tail_call",
    "sockmap",
    "sockhash",
];

/// The programs have sockets join maps.
fn accepted() -> Value {
    json!(["SockmapFIONREAD"])
}

fn programs() -> Value {
    let attach = json!([{"type": "Node"}]);
    json!([{"name": "on_connect", "attach": attach}, {"name": "on_tcp", "attach": attach}])
}

fn globals() -> Value {
    json!({
        "rate": "0x0a", "verbose": "true", "label": "web", "mode": "AUTO", "gateway": "10.0.0.1", "gateway6": "::1",
        "mac": "[0, 0, 0, 9]", "offset": -2, "limits": r#"{"bytes": 50, "ports": [1, 2]}"#, "port": 443,
        "counters": "[0, 0, 0, 4]",
    })
}

/// The sum that the program computes of these variables.
const SUM: u64 = 10 + 1 + b'w' as u64 + 7 - 2 + 1000 + 50 + 443u16.swap_bytes() as u64 + 4;

/// The key of a composite type, which the spec has as JSON text.
fn flow() -> Value {
    json!({"address": "127.0.0.1", "port": 7})
}

/// The value of that key, of a composite type too.
fn rule() -> Value {
    json!({
        "limits": {"bytes": 12, "adjust": -3, "ports": [80, 443]}, "mode": "AUTO", "active": true,
        "label": "to the web", "via": "10.0.0.1", "port": 443, "low": 5, "high": 17, "octets": [1, 2],
        "next": "fd00::1",
    })
}

fn maps() -> Value {
    let one = |value: u64| json!([{"key": 1, "value": value}]);
    let pushed = |values: [u64; 2]| json!([{"value": values[0]}, {"value": values[1]}]);
    json!([
        {"name": "array", "entries": one(11)},
        {"name": "hash", "entries": [{"key": flow().to_string(), "value": rule().to_string()}]},
        {"name": "lru_hash", "entries": one(13)},
        {"name": "percpu_array", "entries": one(14)},
        {"name": "percpu_hash", "entries": one(15)},
        {"name": "lru_percpu_hash", "entries": one(16)},
        {"name": "lpm_trie", "entries": [{"key": "127.0.0.0/8", "value": 17}, {"key": "0.0.0.0/0", "value": 18}]},
        {"name": "queue", "entries": pushed([31, 32])},
        {"name": "stack", "entries": pushed([41, 42])},
        {"name": "first", "entries": [{"key": 0, "value": 51}]},
        {"name": "second", "entries": [{"key": 0, "value": 52}]},
    ])
}

/// The spec, but for the bytes.
pub fn spec() -> Value {
    json!({"acceptedRegressions": accepted(), "programs": programs(), "maps": maps(), "globals": globals()})
}

fn seen(node: &Node) -> Vec<(&'static str, u64)> {
    let counts = node.counts(&["pinned", &format!("{}/maps/seen", node.home("kinds"))]);
    KINDS_SEEN.into_iter().zip(counts).collect()
}

/// The bytes of two members of a rule, `octets` and `next`.
const OCTETS: Range<usize> = 52..56;
const NEXT: Range<usize> = 56..72;

/// Returns the bytes that bpftool prints as a list.
fn bytes_of(list: &Value) -> Vec<u8> {
    let byte = |byte: &Value| u8::from_str_radix(byte.as_str().unwrap().trim_start_matches("0x"), 16).unwrap();
    list.as_array().unwrap().iter().map(byte).collect()
}

/// Returns a map as bpftool dumps it.
fn dump(node: &Node, name: &str) -> Value {
    node.bpftool(&["map", "dump", "pinned", &format!("{}/maps/{name}", node.home("kinds"))])
}

fn ids(node: &Node) -> Vec<(String, Value)> {
    let details = node.details("kinds");
    let maps = details["maps"].as_array().unwrap().iter();
    maps.map(|map| (map["name"].as_str().unwrap().to_owned(), map["id"].clone())).collect()
}

fn expected(globals: u64) -> [(&'static str, u64); 20] {
    let values = [11, 12, 13, 14, 15, 16, 17, 1, 1, 1, 1, 1, 51, 52, 31, 42, globals, 1, 1, 1];
    std::array::from_fn(|i| (KINDS_SEEN[i], values[i]))
}

#[test]
fn programs_find_the_initial_values_of_maps_and_variables() {
    let mut node = Node::new("kinds");
    node.start();
    node.apply_spec("kinds", KINDS, spec());
    node.ready("kinds");
    node.connect(1);
    assert_eq!(seen(&node), expected(SUM));

    // The target of a tail call is loaded and pinned with the others, and attached nowhere.
    let details = node.verified_details("kinds");
    let loaded: Vec<&str> =
        details["programs"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(loaded, ["on_connect", "on_tail_call", "on_tcp"]);
    assert_eq!(details["links"].as_array().map(Vec::len), Some(2));

    // bpftool formats values by the BTF that the kernel keeps with the map.
    let formatted = dump(&node, "hash")[0]["formatted"].clone();
    let value = &formatted["value"];
    assert_eq!(formatted["key"], json!({"address": 0x0100_007f, "port": 7, "zero": 0}));
    assert_eq!(value["limits"], json!({"bytes": 12, "adjust": -3, "ports": [80, 443, 0]}), "{value}");
    assert_eq!(
        (&value["mode"], &value["active"], &value["label"]),
        (&json!("AUTO"), &json!(true), &json!("to the web"))
    );
    assert_eq!((&value["via"], &value["port"]), (&json!(0x0100_000a), &json!(0xbb01)));
    assert_eq!((&value["low"], &value["high"]), (&json!("0x5"), &json!("0x11")));
    let raw = bytes_of(&dump(&node, "hash")[0]["value"]);
    assert_eq!(raw[OCTETS], [1, 2, 0, 0], "{formatted}");
    assert_eq!(raw[NEXT], "fd00::1".parse::<Ipv6Addr>().unwrap().octets(), "{formatted}");
    for (name, each) in [("percpu_array", 14), ("percpu_hash", 15), ("lru_percpu_hash", 16)] {
        let dump = dump(&node, name);
        let entry = dump.as_array().unwrap().iter().find(|entry| entry["formatted"]["key"] == 1).unwrap();
        let values: Vec<&Value> =
            entry["formatted"]["values"].as_array().unwrap().iter().map(|v| &v["value"]).collect();
        assert!(!values.is_empty() && values.iter().all(|value| **value == each), "{name}: {entry}");
    }
    node.remove("kinds");
    node.nothing_left();
}

#[test]
fn only_new_maps_are_filled_and_only_maps_that_the_object_fills_are_recreated() {
    let mut node = Node::new("carried");
    node.start();
    let apply = |node: &Node, globals: Value, maps: Value| {
        let (accepted, programs) = (accepted(), programs());
        let spec = json!({"acceptedRegressions": accepted, "programs": programs, "maps": maps, "globals": globals});
        node.apply_spec("kinds", KINDS, spec);
        node.ready("kinds");
    };
    apply(&node, globals(), maps());
    node.connect(1);
    let before = ids(&node);
    let program = |node: &Node| node.details("kinds")["programs"][0]["id"].clone();
    let loaded = program(&node);

    // Other initial entries alone do not change existing maps.
    let pin = format!("{}/maps/array", node.home("kinds"));
    let bytes =
        |n: u8, len: usize| (0..len).map(|i| if i == 0 { n.to_string() } else { "0".into() }).collect::<Vec<_>>();
    let update = [
        &["map", "update", "pinned", &pin, "key"].map(str::to_owned)[..],
        &bytes(1, 4),
        &["value".to_owned()],
        &bytes(99, 8),
    ];
    let update: Vec<String> = update.concat();
    node.run("bpftool", &update.iter().map(String::as_str).collect::<Vec<_>>());
    let mut other = maps();
    other[0]["entries"][0]["value"] = json!(77);
    apply(&node, globals(), other.clone());
    assert_eq!((program(&node), ids(&node)), (loaded.clone(), before.clone()));

    // Other variables are another load, which carries over all maps except those that belong to one load.
    let mut faster = globals();
    faster["rate"] = json!(20);
    apply(&node, faster.clone(), other.clone());
    assert_ne!(program(&node), loaded);
    let after = ids(&node);
    let recreated: Vec<&str> =
        before.iter().zip(&after).filter(|(one, other)| one.1 != other.1).map(|(one, _)| one.0.as_str()).collect();
    assert_eq!(recreated, [".bss", ".data", ".rodata", "array_of_maps", "hash_of_maps", "prog_array"]);
    node.connect(1);
    let found = seen(&node);
    assert_eq!(found[0], ("array", 99), "what others wrote is carried over");
    assert_eq!(found[16], ("globals", SUM + 10));
    assert_eq!(found[14..16], [("queue", 32), ("stack", 41)]);
    assert_eq!((found[12], found[17]), (("array_of_maps", 51), ("tail_call", 1)));

    // Another agent finds the maps, and pins one again whose pin is removed.
    node.stop("KILL");
    for status in ["node.status.yaml", "node.detail.status.yaml"] {
        std::fs::remove_file(node.folder().join(status)).unwrap();
    }
    node.start();
    node.until("the same again", |node| !node.details("kinds").is_null());
    assert_eq!((ids(&node), dump(&node, "array")[1]["formatted"]["value"].clone()), (after.clone(), json!(99)));
    node.run("rm", &[&pin]);
    node.until("the pin again", |node| node.exists(&pin));
    assert_eq!(dump(&node, "array")[1]["formatted"]["value"], 99);

    // Without an agent nothing holds the map: it is recreated and filled.
    node.stop("TERM");
    let unused = format!("{}/maps/second", node.home("kinds"));
    node.run("rm", &[&unused]);
    node.start();
    node.until("the pin again", |node| node.exists(&unused));
    assert_eq!(dump(&node, "second")[0]["formatted"]["value"], 52);
    node.remove("kinds");
    node.nothing_left();
}

#[test]
fn an_invalid_value_is_refused_and_nothing_is_loaded() {
    let mut node = Node::new("mistaken");
    node.start();
    let spec = |globals: Value, maps: Value| {
        let (accepted, programs) = (accepted(), programs());
        json!({"acceptedRegressions": accepted, "programs": programs, "maps": maps, "globals": globals})
    };
    node.apply_spec("kinds", KINDS, spec(json!({"rate": "fast"}), json!([])));
    let refused = node.condition_is("kinds", "Accepted", "False");
    assert_eq!(refused["reason"], "InvalidSpec");
    let message = refused["message"].as_str().unwrap();
    assert!(message.starts_with("spec.globals.rate: expected __u32") && message.ends_with("got \"fast\""), "{message}");
    assert_eq!(node.pins("kinds"), Vec::<String>::new());

    node.apply_spec("kinds", KINDS, spec(globals(), maps()));
    node.ready("kinds");
    let loaded = node.details("kinds")["programs"].clone();
    let mut mistaken = rule();
    mistaken["limits"]["ports"] = json!([80, 70_000]);
    for (value, words) in [
        (mistaken.to_string(), "spec.maps[1].entries[0].value.limits.ports[1]: expected __u16"),
        (rule().to_string().replacen('{', "[", 1), "spec.maps[1].entries[0].value: expected struct rule"),
    ] {
        let mut wrong = maps();
        wrong[1]["entries"][0]["value"] = json!(value);
        node.apply_spec("kinds", KINDS, spec(globals(), wrong));
        let refused = node.condition_is("kinds", "Accepted", "False");
        let message = refused["message"].as_str().unwrap();
        assert!(message.starts_with(words), "{message}");
        assert_eq!(node.details("kinds")["programs"], loaded, "what was accepted last runs on");
    }

    // Only the kernel detects an inner map that differs from its outer map's definition.
    node.remove("kinds");
    node.apply_spec("kinds", KINDS, spec(json!({}), json!([{"name": "first", "maxEntries": 2}])));
    let refused = node.condition_is("kinds", "Ready", "False");
    assert_eq!(refused["reason"], "MapCreateFailed");
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("does not take first into its slot") && message.contains("max_entries"), "{message}");
    assert_eq!(node.pins("kinds"), Vec::<String>::new());
    node.remove("kinds");
    node.nothing_left();
}

#[test]
fn a_bloom_filter_has_its_initial_values_if_the_kernel_has_the_type() {
    let mut node = Node::new("bloom");
    node.start();
    let programs = json!([{"name": "on_connect", "attach": [{"type": "Node"}]}]);
    node.apply("bloom", BLOOM, programs, json!([{"name": "bloom", "entries": [{"value": 1}]}]));
    if KernelFeatures::probe().lacks.contains("MapBloomFilter") {
        let refused = node.condition_is("bloom", "Ready", "False");
        assert_eq!(refused["reason"], "KernelUnsupported", "{refused}");
    } else {
        node.ready("bloom");
        node.connect(3);
        assert_eq!(node.counts(&["pinned", &format!("{}/maps/seen", node.home("bloom"))]), [3, 3]);
    }
    node.remove("bloom");
    node.nothing_left();
}

#[test]
fn cgroup_storage_works_if_the_kernel_has_it() {
    let mut node = Node::new("cgrp");
    node.start();
    let attach = json!([{"type": "Node"}]);
    node.apply("cgrp", CGRP, json!([{"name": "on_tcp", "attach": attach}]), json!([]));
    if KernelFeatures::probe().lacks.contains("MapCgrpStorage") {
        let refused = node.condition_is("cgrp", "Ready", "False");
        assert_eq!(refused["reason"], "KernelUnsupported", "{refused}");
    } else if !node.loads_foreign(CGRP, "/sys/fs/bpf/foreign") {
        // Some builds of 6.18 do not trust a pointer to a cgroup that was read from a socket: libbpf fails as well.
        let refused = node.condition_is("cgrp", "Ready", "False");
        assert!(refused["message"].as_str().unwrap().contains("type=untrusted_ptr_ expected=ptr_"), "{refused}");
    } else {
        node.ready("cgrp");
        node.connect(3);
        assert_eq!(node.counts(&["pinned", &format!("{}/maps/seen", node.home("cgrp"))]), [3]);
    }
    node.remove("cgrp");
    node.nothing_left();
}
