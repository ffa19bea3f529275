//! `spec.maps[].stream`: accepted where the map is a buffer and its records are what the spec says, else refused.
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::{Value, json};
use sockeye_crds::{
    BpfProgramSpec, Builtin, Reason,
    program::{MapSpec, StreamSpec},
};
use sockeye_ebpf::{
    Object,
    check::check,
    programs::builtin,
    values::{Budget, RecordShape},
};

fn refusal(map: Value) -> Option<(Reason, String)> {
    let spec = json!({
        "bytecode": {"builtin": "connect-audit"},
        "programs": [{"name": "connect4", "attach": [{"type": "Node"}]}],
        "maps": [map],
    });
    let spec: BpfProgramSpec = serde_json::from_value(spec).unwrap();
    check(&spec, builtin(Builtin::ConnectAudit)).err().map(|refusal| (refusal.reason, refusal.message))
}

fn events(stream: Value) -> Value {
    json!({"name": "events", "stream": stream})
}

#[test]
fn a_stream_that_fits_its_buffer_is_accepted() {
    let field = |name: &str, format: &str| json!({"name": name, "format": format});
    let fields = [field("address", "IPAddress"), field("cgroup", "Pod"), field("uid", "Hex"), field("what", "Enum")];
    for stream in [
        json!({"reader": "Agent"}),
        json!({"reader": "External"}),
        json!({"reader": "Agent", "typeName": "event", "fields": fields}),
    ] {
        assert_eq!(refusal(events(stream.clone())), None, "{stream}");
    }
    let external = json!({"name": "events", "pinning": "None", "stream": {"reader": "External"}});
    assert_eq!(refusal(external), None, "a program may lead others to it");
}

#[test]
fn a_stream_that_does_not_fit_is_refused_with_its_field() {
    let agent = json!({"reader": "Agent"});
    let typed = |fields: Value| events(json!({"reader": "Agent", "typeName": "event", "fields": fields}));
    for (map, at, words) in [
        (json!({"name": "lost", "stream": agent}), "spec.maps[0].stream: ", "lost is of type Array; only maps of type"),
        (
            json!({"name": "events", "pinning": "None", "stream": agent}),
            "spec.maps[0].stream.reader: ",
            "leave it pinned",
        ),
        (
            json!({"name": "events", "mapRef": {"program": "other", "name": "events"}, "stream": agent}),
            "spec.maps[0].mapRef: ",
            "so set stream there",
        ),
        (
            events(json!({"reader": "Agent", "typeName": "evnt"})),
            "spec.maps[0].stream.typeName: ",
            "no struct or union \"evnt\"; its structs: bpf_sock",
        ),
        // A typedef of an integer, and an enum, are no records.
        (
            events(json!({"reader": "Agent", "typeName": "__u64"})),
            "spec.maps[0].stream.typeName: ",
            "no struct or union",
        ),
        (
            typed(json!([{"name": "pid", "format": "Hex"}, {"name": "port.x", "format": "Hex"}])),
            "spec.maps[0].stream.fields[1].name: ",
            "no field \"x\"",
        ),
        (
            typed(json!([{"name": "comm", "format": "Port"}])),
            "spec.maps[0].stream.fields[0].format: ",
            "Port takes an unsigned integer of two or four bytes",
        ),
        (
            typed(json!([{"name": "pid", "format": "Hex"}, {"name": "pid", "format": "Decimal"}])),
            "spec.maps[0].stream.fields[1].name: ",
            "there twice",
        ),
        (
            typed(json!([{"name": "cgroup", "format": "Pod"}, {"name": "cookie", "format": "Pod"}])),
            "spec.maps[0].stream.fields[1].format: ",
            "a record has one pod",
        ),
        (
            events(json!({"reader": "External", "typeName": "event"})),
            "spec.maps[0].stream: ",
            "leave them out with reader: External",
        ),
        (
            events(json!({"reader": "Agent", "fields": [{"name": "pid", "format": "Hex"}]})),
            "spec.maps[0].stream.fields: ",
            "set typeName",
        ),
    ] {
        let (reason, message) = refusal(map.clone()).unwrap();
        assert_eq!(reason, Reason::InvalidSpec, "{map}: {message}");
        assert!(message.starts_with(at) && message.contains(words), "{map}: {message}");
    }
}

#[test]
fn a_record_is_decoded_as_the_spec_says() {
    let fields = json!([{"name": "address", "format": "IPAddress"}, {"name": "cgroup", "format": "Pod"}]);
    let stream = json!({"reader": "Agent", "typeName": "event", "fields": fields});
    let stream: StreamSpec = serde_json::from_value(stream).unwrap();
    assert_eq!(MapSpec { stream: Some(stream.clone()), ..MapSpec::named("events") }.stream, Some(stream.clone()));
    let object = Object::read(builtin(Builtin::ConnectAudit)).unwrap();
    let RecordShape { shape, pod } = RecordShape::of(&object, &stream).unwrap();
    let mut record = [0u8; 80];
    record[24..32].copy_from_slice(&77u64.to_le_bytes());
    record[40..44].copy_from_slice(b"curl");
    record[56..72].copy_from_slice(&"::ffff:10.1.2.3".parse::<std::net::Ipv6Addr>().unwrap().octets());
    record[72..74].copy_from_slice(&443u16.to_le_bytes());
    record[74..76].copy_from_slice(&[6, 2]);
    let value = shape.unwrap().decode(&record, &Budget::default()).unwrap();
    let shown = json!([value["comm"], value["address"], value["port"], value["what"], value["cgroup"]]);
    assert_eq!(shown, json!(["curl", "10.1.2.3", 443, "FAILED", 77]));
    assert_eq!(pod.unwrap().number(&record), Some(77));
}
