//! `Settings`: globals and entries of maps as bytes, and mistakes that name the field and the type.
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::{Value, json};
use sockeye_crds::{BpfProgramSpec, Reason};
use sockeye_crds_testing::provoked;
use sockeye_ebpf::{
    Object,
    check::check,
    link::{MapRequest, PlannedSlot, ProgramKind, Request, link},
    programs::{TCP_EVENTS, fixtures::KINDS},
    values::settings::Settings,
};
use sockeye_ebpf_testing::{
    builder::{BtfBuilder, DATA, ElfBuilder, OBJECT, PROGBITS},
    kernel::TableKernel,
};

fn spec(program: &str, globals: Value, maps: Value) -> BpfProgramSpec {
    let programs = json!([{"name": program, "attach": [{"type": "Node"}]}]);
    let spec = json!({"bytecode": {"inline": "AA=="}, "programs": programs, "globals": globals, "maps": maps});
    serde_json::from_value(spec).unwrap()
}

fn settings(globals: Value, maps: Value) -> Settings {
    let spec = spec("on_connect", globals, maps);
    check(&spec, KINDS).unwrap();
    Settings::read(&Object::read(KINDS).unwrap(), &spec.globals, &spec.maps).unwrap()
}

fn refusal(object: &[u8], program: &str, globals: Value, maps: Value) -> String {
    let refusal = check(&spec(program, globals, maps), object).unwrap_err();
    assert_eq!(refusal.reason, Reason::InvalidSpec, "{refusal}");
    provoked(refusal.reason, &refusal.message);
    refusal.message
}

#[test]
fn globals_are_encoded_by_section() {
    let set = |globals: Value| {
        let all = settings(globals, json!([])).globals;
        let [(section, values)] = &all.into_iter().collect::<Vec<_>>()[..] else { panic!("one section") };
        let [(_, bytes)] = &values[..] else { panic!("one value") };
        (section.clone(), bytes.clone())
    };
    for (globals, section, bytes) in [
        (json!({"rate": 258}), ".rodata", vec![2, 1, 0, 0]),
        (json!({"rate": "0x10"}), ".rodata", vec![16, 0, 0, 0]),
        (json!({"verbose": "true"}), ".rodata", vec![1]),
        (json!({"verbose": "false"}), ".rodata", vec![0]),
        (json!({"verbose": 1}), ".rodata", vec![1]),
        (json!({"mode": "AUTO"}), ".rodata", vec![7, 0, 0, 0]),
        (json!({"gateway": "10.0.0.1"}), ".rodata", vec![10, 0, 0, 1]),
        (json!({"gateway": 0x0a00_0001}), ".rodata", vec![10, 0, 0, 1]),
        (json!({"gateway6": "::1"}), ".rodata", [&[0; 15][..], &[1]].concat()),
        (json!({"mac": "10.0.0.9"}), ".rodata", vec![10, 0, 0, 9]),
        (json!({"mac": "[1, 2, 3]"}), ".rodata", vec![1, 2, 3, 0]),
        (json!({"offset": -2}), ".rodata", (-2_i64).to_le_bytes().to_vec()),
        (json!({"label": "web"}), ".rodata", [&b"web"[..], &[0; 13]].concat()),
        (json!({"port": 443}), ".bss", vec![1, 187]),
        (
            json!({"counters": "[1, 2]"}),
            ".bss",
            [[1, 0, 0, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0, 0, 0], [0; 8], [0; 8]].concat(),
        ),
    ] {
        assert_eq!(set(globals.clone()), (section.to_owned(), bytes), "{globals}");
    }
    let limits = set(json!({"limits": r#"{"adjust": -1, "ports": [80, 443]}"#}));
    assert_eq!(limits, (".data".to_owned(), [&[0; 8][..], &[0xff; 4], &[80, 0, 187, 1], &[0; 8]].concat()));
}

#[test]
fn entries_are_encoded_as_keys_and_values() {
    let entries = |name: &str, entries: Value| {
        let all = settings(json!({}), json!([{"name": name, "entries": entries}])).entries;
        all[name].clone()
    };
    let four = |n: u32| n.to_le_bytes().to_vec();
    let eight = |n: u64| n.to_le_bytes().to_vec();
    assert_eq!(entries("array", json!([{"key": 3, "value": 9}])), [(four(3), eight(9))]);
    assert_eq!(entries("queue", json!([{"value": 9}, {"value": 9}])), [(vec![], eight(9)), (vec![], eight(9))]);
    let prefix = [&four(8)[..], &[10, 0, 0, 0]].concat();
    assert_eq!(entries("lpm_trie", json!([{"key": "10.0.0.0/8", "value": 1}])), [(prefix.clone(), eight(1))]);
    let object = " {\"length\": 8, \"address\": \"10.0.0.0\"}";
    assert_eq!(entries("lpm_trie", json!([{"key": object, "value": 1}])), [(prefix, eight(1))]);
    let key = json!({"address": "10.0.0.1", "port": 7}).to_string();
    let rule =
        json!({"limits": {"bytes": 1, "ports": [7]}, "mode": "ON", "label": "a", "number": 1, "low": 7, "high": 1});
    let [(key, value)] = &entries("hash", json!([{"key": key, "value": rule.to_string()}]))[..] else {
        panic!("one entry")
    };
    assert_eq!(key[..], [10, 0, 0, 1, 7, 0, 0, 0]);
    assert_eq!((value[0], value[12], value[24], value[29], value.len() % 8), (1, 7, 1, b'a', 0));
}

#[test]
fn each_mistake_names_the_field_and_the_expected_type() {
    let no_maps = || json!([]);
    for (globals, words) in [
        (json!({"rat": 1}), &["spec.globals.rat: the object has no such global variable", "rate", "verbose"][..]),
        (json!({"rate": -1}), &["spec.globals.rate: expected __u32, a whole number from 0 to 4294967295", "got -1"]),
        (json!({"rate": "1.5"}), &["expected __u32", "got \"1.5\""]),
        (json!({"rate": "ten"}), &["expected __u32", "got \"ten\""]),
        (json!({"rate": "{}"}), &["expected __u32", "got \"{}\""]),
        (json!({"verbose": 2}), &["spec.globals.verbose: expected _Bool, true or false, got 2"]),
        (json!({"verbose": "yes"}), &["spec.globals.verbose: expected _Bool, true or false, got \"yes\""]),
        (json!({"mode": "MAYBE"}), &["spec.globals.mode: expected enum mode, one of OFF, ON, AUTO, or its number"]),
        (json!({"label": "sixteen and more"}), &["spec.globals.label: expected char[16], text of at most 15 bytes"]),
        (
            json!({"mac": "[1, 2, 3, 4, 5]"}),
            &["expected __u8[4], JSON text of a list of at most 4, or an IPv4 address, got a list of 5"],
        ),
        (json!({"mac": "[1, 256]"}), &["spec.globals.mac[1]: expected __u8, a whole number from 0 to 255, got 256"]),
        (
            json!({"gateway": "10.0.0"}),
            &["spec.globals.gateway: expected __be32", "or an IPv4 address, got \"10.0.0\""],
        ),
        (json!({"gateway6": "10.0.0.1"}), &["spec.globals.gateway6: expected struct in6_addr", "an IPv6 address"]),
        (
            json!({"mac": "10.0.0"}),
            &["or an IPv4 address, got \"10.0.0\", which can't be read as JSON: ", " at line 1 column "],
        ),
        (
            json!({"limits": "{\"bites\": 1}"}),
            &["spec.globals.limits.bites: struct limits has no such field; it has: bytes, adjust, ports"],
        ),
        (json!({"limits": "{\"ports\": [1, 70000]}"}), &["spec.globals.limits.ports[1]: expected __u16", "got 70000"]),
        (
            json!({"limits": "[1]"}),
            &["expected struct limits, JSON text of an object with any of: bytes, adjust, ports, got a list of 1"],
        ),
        (json!({"limits": 5}), &["expected struct limits, JSON text of an object", "ports, got 5"]),
        (
            json!({"limits": "{\"bytes\": 1,\n\"bytes\": 2}"}),
            &["spec.globals.limits: expected struct limits", "field \"bytes\" is there twice at line 2 column "],
        ),
        (
            json!({"limits": "{\"ports\": [1, null]}"}),
            &["spec.globals.limits.ports[1]: expected __u16", "got null: leave out what has no value"],
        ),
    ] {
        let said = refusal(KINDS, "on_connect", globals.clone(), no_maps());
        assert!(words.iter().all(|word| said.contains(word)), "{globals}: {said}");
    }
    let entry = |key: Value, value: Value| json!([{"key": key, "value": value}]);
    for (map, more, entries, words) in [
        (
            "array",
            json!({}),
            entry(json!(4), json!(1)),
            &["spec.maps[0].entries[0].key: expected an index from 0 to 3, got 4"][..],
        ),
        ("array", json!({"maxEntries": 5}), entry(json!(5), json!(1)), &["from 0 to 4"]),
        ("array", json!({}), entry(json!(0), json!("{}")), &["spec.maps[0].entries[0].value: expected __u64"]),
        ("array", json!({}), json!([{"value": 1}]), &["spec.maps[0].entries[0].key: it must be set"]),
        (
            "array",
            json!({}),
            json!([{"key": 1, "value": 1}, {"key": 0, "value": 1}, {"key": 1, "value": 2}]),
            &["spec.maps[0].entries[2].key: it is the key of entries[0], too"],
        ),
        (
            "array",
            json!({"maxEntries": 1}),
            json!([{"key": 0, "value": 1}, {"key": 1, "value": 1}]),
            &["more than the map's 1"],
        ),
        ("queue", json!({}), entry(json!(0), json!(1)), &["spec.maps[0].entries[0].key: a Queue has no keys"]),
        (
            "lpm_trie",
            json!({}),
            entry(json!("10.0.0.1/8"), json!(1)),
            &["expected an address prefix", "beyond its prefix"],
        ),
        ("lpm_trie", json!({}), entry(json!("fd00::/8"), json!(1)), &["key of 20 bytes, and the map's have 8"]),
        (
            "hash",
            json!({}),
            entry(json!("{\"address\": \"10.0.0.1\"}"), json!("{\"limits\": {\"ports\": [\"x\"]}}")),
            &["spec.maps[0].entries[0].value.limits.ports[0]: expected __u16"],
        ),
        (
            "ringbuf",
            json!({}),
            entry(json!(0), json!(1)),
            &["spec.maps[0].entries: a map of type RingBuf can't be given entries"],
        ),
        ("prog_array", json!({}), entry(json!(0), json!(1)), &["ProgArray can't"]),
        (".data", json!({}), entry(json!(0), json!(1)), &["set spec.globals instead"]),
    ] {
        let mut spec = more;
        spec["name"] = json!(map);
        spec["entries"] = entries;
        let said = refusal(KINDS, "on_connect", json!({}), json!([spec]));
        assert!(words.iter().all(|word| said.contains(word)), "{map}: {said}");
    }
    let legacy = json!([{"name": "my_map", "entries": [{"key": 0, "value": 1}]}]);
    let said = refusal(TCP_EVENTS, "my_prog", json!({}), legacy);
    assert!(said.contains("says no type of it"), "{said}");
    for (member, value) in [("reclaimPolicy", "Retain"), ("sharing", "Shared")] {
        let said = refusal(KINDS, "on_connect", json!({}), json!([{"name": "prog_array", member: value}]));
        let place = format!("spec.maps[0].{member}");
        assert!(said.starts_with(&place) && said.contains("filled by the object itself"), "{said}");
    }
}

#[test]
fn slots_of_maps_of_maps_and_program_arrays_are_read() {
    let object = Object::read(KINDS).unwrap();
    let mut selection = object.select(object.programs().map(|(name, _)| name), []).unwrap();
    let info = object.info(&mut selection);
    let holds = |name: &str| info.maps.iter().find(|map| map.name == name).unwrap().holds.clone();
    assert_eq!(holds("hash_of_maps"), ["first", "second"]);
    assert!(holds("array").is_empty());

    let request = Request {
        programs: object.programs().map(|(name, _)| (name, ProgramKind::default())).collect(),
        maps: object.maps().map(|name| (name, MapRequest::default())).collect(),
    };
    let settings = Settings::default();
    let plan = link(&object, &request, &settings, &TableKernel::new(true, None)).unwrap();
    let slots = |name: &str| plan.maps.iter().find(|map| map.name == name).unwrap().slots.clone();
    assert_eq!(slots("array_of_maps"), [(1, PlannedSlot::Map("first"))]);
    assert_eq!(slots("hash_of_maps"), [(2, PlannedSlot::Map("second")), (3, PlannedSlot::Map("first"))]);
    assert_eq!(slots("prog_array"), [(2, PlannedSlot::Program("on_tail_call"))]);
}

/// The size of a value is checked before its buffer is allocated.
#[test]
fn values_beyond_the_size_limit_are_refused() {
    let mut types = BtfBuilder::new();
    let names = ["map", ".maps", "type", "key", "value", "max_entries", "char"].map(|name| types.string(name));
    let [map, section, type_, key, value, max_entries, char_] = names;
    let [hash, one] = [1, 1].map(|number| types.uint(number));
    let byte = types.add(char_, (1, 0), 1, &[1 << 24 | 8]);
    let huge = types.add(0, (3, 0), 0, &[byte, byte, u32::MAX]);
    let [byte, huge] = [byte, huge].map(|of| types.add(0, (2, 0), of, &[]));
    let fields = [type_, hash, 0, key, byte, 64, value, huge, 128, max_entries, one, 192];
    let definition = types.add(0, (4, 4), 32, &fields);
    let variable = types.add(map, (14, 0), definition, &[1]);
    types.add(section, (15, 1), 32, &[variable, 0, 32]);
    let mut elf = ElfBuilder::new();
    elf.program("p0");
    let maps = elf.section(".maps", PROGBITS, DATA, vec![0; 32]);
    elf.symbol("map", OBJECT, maps, (0, 32));
    elf.section(".BTF", PROGBITS, 0, types.build());
    let entries = json!([{"name": "map", "entries": [{"key": 1, "value": "x"}]}]);
    let said = refusal(&elf.build(), "p0", json!({}), entries);
    assert_eq!(said, "spec.maps[0].entries[0].value: all that is set has more than 4194304 bytes");
}
