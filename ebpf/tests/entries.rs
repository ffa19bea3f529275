//! Entries that a spec lists: long lists, the bits that values name, and maps whose entries can't be kept in sync.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;

use serde_json::{Value, json};
use sockeye_crds::{BpfProgramSpec, Reason, Refusal, names};
use sockeye_crds_testing::provoked;
use sockeye_ebpf::{
    Object,
    check::{check, check_with},
    programs::fixtures::{BLOOM, KINDS, LISTS},
    values::{
        list::Lists,
        settings::{Settings, clear_host_bits},
    },
};

fn spec(program: &str, maps: Value) -> BpfProgramSpec {
    let programs = json!([{"name": program, "attach": [{"type": "Node"}]}]);
    serde_json::from_value(json!({"bytecode": {"inline": "AA=="}, "programs": programs, "maps": maps})).unwrap()
}

fn refusal(object: &[u8], program: &str, map: Value) -> Refusal {
    let refusal = check(&spec(program, json!([map])), object).unwrap_err();
    provoked(refusal.reason, &refusal.message);
    refusal
}

#[test]
fn maps_whose_entries_can_not_be_kept_in_step_are_refused_by_name() {
    let policy = |name: &str| json!({"name": name, "entriesPolicy": "Sync"});
    for (name, why) in [
        ("lru_hash", "of type LruHash: the kernel removes entries of it by itself"),
        ("lru_percpu_hash", "of type LruPercpuHash: the kernel removes entries of it by itself"),
        ("queue", "of type Queue: it has no keys"),
        ("stack", "of type Stack: it has no keys"),
        ("sockmap", "of type Sockmap: it holds sockets"),
        ("sockhash", "of type Sockhash: it holds sockets"),
        ("perf", "of type PerfEventArray: no values can be written for it"),
        ("ringbuf", "of type RingBuf"),
        ("sk_storage", "of type SkStorage"),
        (".rodata", "global data: set spec.globals instead"),
    ] {
        let refused = refusal(KINDS, "on_connect", policy(name));
        assert_eq!(refused.reason, Reason::Unsupported, "{refused}");
        let field = format!("spec.maps[0].entriesPolicy: the entries of {name} can't be kept in step: ");
        assert!(refused.message.starts_with(&field) && refused.message.contains(why), "{refused}");
    }
    for name in ["hash", "array", "percpu_hash", "percpu_array", "lpm_trie"] {
        check(&spec("on_connect", json!([policy(name)])), KINDS).unwrap();
    }
    let unpinned = json!({"name": "hash", "entriesPolicy": "Sync", "pinning": "None"});
    assert!(refusal(KINDS, "on_connect", unpinned).message.contains("pinning: None"));
    for name in ["array_of_maps", "hash_of_maps", "prog_array"] {
        let refused = refusal(KINDS, "on_connect", policy(name));
        assert!(refused.message.contains("filled by the object itself"), "{refused}");
    }
    let refused = refusal(BLOOM, "on_connect", policy("bloom"));
    assert!(refused.message.contains("of type BloomFilter: it has no keys"), "{refused}");
}

#[test]
fn a_value_names_the_fields_that_its_text_has() {
    let named = |map: &str, key: Value, value: Value| {
        let spec = spec("on_connect", json!([{"name": map, "entries": [{"key": key, "value": value}]}]));
        let settings = Settings::read(&Object::read(KINDS).unwrap(), &spec.globals, &spec.maps).unwrap();
        settings.named[map][0].clone()
    };
    assert_eq!(named("array", json!(0), json!(7)), vec![0xff; 8], "a number is named whole");
    let flow = json!("{\"port\": 1}");
    let rule = |text: &str| named("hash", flow.clone(), json!(text));
    let bits = |named: &[u8]| named.iter().map(|byte| byte.count_ones()).sum::<u32>();
    assert_eq!(bits(&rule("{}")), 0);
    // struct limits is first: bytes, adjust, ports.
    let limits = rule(r#"{"limits": {"adjust": 0, "ports": [1]}}"#);
    assert_eq!((&limits[..8], &limits[8..18], bits(&limits)), (&[0; 8][..], &[0xff; 10][..], 80));
    assert_eq!(bits(&rule(r#"{"low": 1}"#)), 3, "a bit field");
    assert_eq!(bits(&rule(r#"{"high": 1, "octets": [1, 2]}"#)), 5 + 32, "a union's member");
    assert_eq!(bits(&rule(r#"{"label": "web", "next": "::1", "active": true}"#)), 8 * (12 + 16 + 1));
}

fn list_spec(digest: &str) -> BpfProgramSpec {
    let source = json!({"configMapRef": {"name": "list", "key": "list", "digest": digest}});
    spec("ask", json!([{"name": "trie", "entriesPolicy": "Sync", "entriesFrom": source}]))
}

fn check_list(text: &str, digest: &str) -> Result<(), Refusal> {
    let lists: Lists = [("trie".to_owned(), Arc::from(text.as_bytes()))].into();
    check_with(&list_spec(digest), LISTS, &lists).map(drop)
}

#[test]
fn a_list_of_a_config_map_is_checked_by_its_digest_and_by_line() {
    let text = "# networks\n{\"key\": \"10.0.0.0/8\", \"value\": 1}\n\n[\"10.1.0.0/16\", 2]\n";
    check_list(text, &names::digest(text.as_bytes())).unwrap();
    let lists: Lists = [("trie".to_owned(), Arc::from(text.as_bytes()))].into();
    let spec = list_spec(&names::digest(text.as_bytes()));
    let settings = Settings::read_with(&Object::read(LISTS).unwrap(), &spec.globals, &spec.maps, &lists).unwrap();
    assert_eq!(settings.entries["trie"][1], (vec![16, 0, 0, 0, 10, 1, 0, 0], vec![2, 0, 0, 0]));

    let refused = check_list(text, &names::digest(b"another")).unwrap_err();
    assert_eq!(refused.reason, Reason::DigestMismatch);
    provoked(refused.reason, &refused.message);
    assert!(refused.message.starts_with("spec.maps[0].entriesFrom.configMapRef.digest is sha256:"), "{refused}");
    for (text, message) in [
        ("\n[\"10.0.0.0/33\", 1]", "spec.maps[0].entriesFrom[line 2].key: expected an address prefix"),
        ("[\"10.0.0.0/8\", -1]", "spec.maps[0].entriesFrom[line 1].value: expected __u32"),
        ("[\"10.0.0.0/8\", 1]\n[\"10.0.0.0/8\", 2]", "[line 2].key: it is the key of [line 1], too"),
        ("[\"10.0.0.0/8\"]", "spec.maps[0].entriesFrom[line 1]: expected an entry"),
    ] {
        let refused = check_list(text, &names::digest(text.as_bytes())).unwrap_err();
        assert_eq!(refused.reason, Reason::InvalidSpec);
        provoked(refused.reason, &refused.message);
        assert!(refused.message.contains(message), "{refused}");
    }
    let unread = check(&list_spec(&names::digest(b"")), LISTS).unwrap_err();
    assert_eq!(unread.reason, Reason::BytecodeUnavailable);
    provoked(unread.reason, &unread.message);
    let most: String = (0..17).map(|n| format!("[\"10.{n}.0.0/16\", 1]\n")).collect();
    let refused = check_list(&most, &names::digest(most.as_bytes())).unwrap_err();
    assert!(refused.message.contains("17 entries are more than the map's 16"), "{refused}");
}

#[test]
fn the_entries_of_a_spec_fit_into_an_annotation() {
    let entries = |count: u32| -> Value {
        (0..count).map(|key| json!({"key": key, "value": format!("{:>0120}", key)})).collect()
    };
    let spec = |count| {
        let map = json!({"name": "hash", "maxEntries": 1024, "entries": entries(count)});
        spec("ask", json!([map, {"name": "percpu"}]))
    };
    let refused = check(&spec(500), LISTS).unwrap_err();
    assert!(refused.message.contains("they may have 65536") && refused.message.contains("entriesFrom"), "{refused}");
    check(&spec(400), LISTS).unwrap();
}

#[test]
fn keys_of_a_trie_that_differ_beyond_their_prefix_are_one() {
    for (key, cleared) in [
        ([12, 0, 0, 0, 10, 0xff, 1, 2], [12, 0, 0, 0, 10, 0xf0, 0, 0]),
        ([0, 0, 0, 0, 1, 2, 3, 4], [0; 8]),
        ([32, 0, 0, 0, 1, 2, 3, 4], [32, 0, 0, 0, 1, 2, 3, 4]),
        ([200, 0, 0, 0, 1, 2, 3, 4], [200, 0, 0, 0, 1, 2, 3, 4]),
    ] {
        let mut bytes = key;
        clear_host_bits(&mut bytes);
        assert_eq!(bytes, cleared);
    }
    let key = |length: u8, last: u8| json!(format!("{{\"length\": {length}, \"address\": [10, 0, 0, {last}]}}"));
    let entries = json!([{"key": key(8, 1), "value": 1}, {"key": key(8, 2), "value": 1}]);
    let refused = refusal(LISTS, "ask", json!({"name": "trie", "entries": entries}));
    assert!(refused.message.contains("entries[1].key: it is the key of entries[0], too"), "{refused}");
    let entries = json!([{"key": key(33, 1), "value": 1}]);
    let refused = refusal(LISTS, "ask", json!({"name": "trie", "entries": entries}));
    assert!(refused.message.contains("its prefix must have 0 to 32 bits, and has 33"), "{refused}");
}
