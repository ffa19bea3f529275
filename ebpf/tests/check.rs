//! `check`: each mistake in a spec is refused with its reason and a message that names the field.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use sockeye_crds::{
    BpfProgramSpec, ProgramType, Reason,
    program::{Bytecode, MapRef, MapSpec, OnDelete, OnShapeChange, ProgramSpec},
    revision::ProgramRef,
    target::{Attach, CgroupTarget, Scope},
};
use sockeye_ebpf::{
    check::{check, decode_inline},
    programs::{TCP_EVENTS, fixtures, types},
};

fn cgroup(scope: Scope, path: Option<&str>) -> Attach {
    Attach { cgroup: Some(CgroupTarget { path: path.map(str::to_owned), ..CgroupTarget::whole(scope) }), map: None }
}

fn program(name: &str) -> ProgramSpec {
    ProgramSpec { name: name.into(), program_type: None, attach: vec![cgroup(Scope::Node, None)] }
}

fn map(name: &str) -> MapSpec {
    MapSpec {
        name: name.into(),
        pin: true,
        max_entries: None,
        on_delete: OnDelete::Remove,
        on_shape_change: OnShapeChange::Refuse,
        initial: vec![],
        from: None,
    }
}

fn shared(program: &str, of: &str) -> MapSpec {
    MapSpec { from: Some(MapRef { program: program.into(), map: of.into() }), ..map("my_map") }
}

fn spec(programs: Vec<ProgramSpec>, maps: Vec<MapSpec>) -> BpfProgramSpec {
    let bytecode = Bytecode { inline: Some("AA==".into()), ..Bytecode::default() };
    BpfProgramSpec {
        bytecode,
        node_selector: None,
        programs,
        maps,
        globals: BTreeMap::new(),
        priority: None,
        suspend: false,
    }
}

#[test]
fn an_accepted_spec_has_its_programs_types_set() {
    let accepted = check(&spec(vec![program("my_prog")], vec![map("my_map")]), TCP_EVENTS).unwrap();
    assert_eq!(accepted.programs[0].program_type, Some(ProgramType::SockOps));
    assert_eq!(accepted.digest, sockeye_crds::names::digest(TCP_EVENTS));
    assert!(accepted.notes.is_empty());
    let revision = accepted.into_revision_spec(ProgramRef { name: "p".into(), uid: "u".into() }, 3, 7);
    assert_eq!((revision.generation, revision.sequence, revision.maps.len()), (3, 7, 1));
}

#[test]
fn a_pin_request_of_the_object_gives_a_note() {
    let accepted = check(&spec(vec![program("on_create")], vec![]), fixtures::GLOBALS).unwrap();
    assert!(accepted.notes.iter().any(|note| note.contains("shared")), "{:?}", accepted.notes);
}

const POD_SELECTOR: &str = "spec.programs[0].attach[0].cgroup.podSelector";

fn selector(target: &mut CgroupTarget) -> &mut LabelSelector {
    target.pod_selector.get_or_insert_default()
}

fn bad_expression() -> LabelSelectorRequirement {
    LabelSelectorRequirement { key: "a".into(), operator: "Like".into(), values: None }
}

#[test]
fn each_mistake_is_refused_with_its_field_and_reason() {
    let attach = |attach: Vec<Attach>| spec(vec![ProgramSpec { attach, ..program("my_prog") }], vec![]);
    let typed = |t| spec(vec![ProgramSpec { program_type: Some(t), ..program("my_prog") }], vec![]);
    let maps = |maps| spec(vec![program("my_prog")], maps);
    let none = Attach { cgroup: None, map: None };
    let to_map = Attach { cgroup: None, map: Some("my_map".into()) };
    let mut two_sources = spec(vec![program("my_prog")], vec![]);
    two_sources.bytecode.inline = None;
    let pods = |edit: fn(&mut CgroupTarget)| {
        let mut target =
            CgroupTarget { pod_selector: Some(LabelSelector::default()), ..CgroupTarget::whole(Scope::Pods) };
        edit(&mut target);
        attach(vec![Attach { cgroup: Some(target), map: None }])
    };
    assert!(check(&pods(|t| t.containers = vec!["app".into()]), TCP_EVENTS).is_ok());
    let long = format!("/{}", "a".repeat(1024));
    use Reason::*;
    for (bad, reason, field) in [
        (two_sources, InvalidSpec, "spec.bytecode"),
        (spec(vec![], vec![]), InvalidSpec, "spec.programs"),
        (spec(vec![program("my_prog"), program("my_prog")], vec![]), InvalidSpec, "spec.programs[1].name"),
        (spec(vec![program("my_prog"), program("other")], vec![]), NoSuchProgram, "spec.programs[1].name"),
        (typed(ProgramType::CgroupSkb), TypeMismatch, "spec.programs[0].type"),
        (attach(vec![]), InvalidSpec, "spec.programs[0].attach"),
        (attach(vec![none]), InvalidSpec, "spec.programs[0].attach[0]"),
        (attach(vec![to_map]), InvalidSpec, "spec.programs[0].attach[0].map"),
        (attach(vec![cgroup(Scope::Node, Some("/a"))]), InvalidSpec, "spec.programs[0].attach[0].cgroup.path"),
        (attach(vec![cgroup(Scope::Path, None)]), InvalidSpec, "spec.programs[0].attach[0].cgroup.path"),
        (attach(vec![cgroup(Scope::Path, Some("a"))]), InvalidSpec, "spec.programs[0].attach[0].cgroup.path"),
        (attach(vec![cgroup(Scope::Path, Some("/a/../b"))]), InvalidSpec, "spec.programs[0].attach[0].cgroup.path"),
        (attach(vec![cgroup(Scope::Path, Some(&long))]), InvalidSpec, "spec.programs[0].attach[0].cgroup.path"),
        (attach(vec![cgroup(Scope::Pods, Some("/a"))]), InvalidSpec, "spec.programs[0].attach[0].cgroup.path"),
        (pods(|t| t.scope = Scope::Node), InvalidSpec, "spec.programs[0].attach[0].cgroup.podSelector"),
        (pods(|t| selector(t).match_expressions = Some(vec![bad_expression()])), InvalidSpec, POD_SELECTOR),
        (pods(|t| t.containers = vec!["App".into()]), InvalidSpec, "spec.programs[0].attach[0].cgroup.containers[0]"),
        (
            pods(|t| t.containers = vec!["a".into(), "a".into()]),
            InvalidSpec,
            "spec.programs[0].attach[0].cgroup.containers",
        ),
        (maps(vec![map("other")]), NoSuchMap, "spec.maps[0].name"),
        (maps(vec![map("my_map"), map("my_map")]), InvalidSpec, "spec.maps[1].name"),
        (maps(vec![MapSpec { max_entries: Some(0), ..map("my_map") }]), InvalidSpec, "spec.maps[0].maxEntries"),
        (maps(vec![MapSpec { max_entries: Some(1 << 32), ..map("my_map") }]), InvalidSpec, "spec.maps[0].maxEntries"),
        (
            maps(vec![MapSpec { pin: false, on_delete: OnDelete::Retain, ..map("my_map") }]),
            InvalidSpec,
            "spec.maps[0].onDelete",
        ),
        (
            maps(vec![MapSpec { pin: false, on_shape_change: OnShapeChange::Recreate, ..map("my_map") }]),
            InvalidSpec,
            "spec.maps[0].onShapeChange",
        ),
        (maps(vec![MapSpec { max_entries: Some(0), ..shared("other", "m") }]), InvalidSpec, "spec.maps[0].maxEntries"),
        (maps(vec![MapSpec { pin: false, ..shared("other", "m") }]), InvalidSpec, "spec.maps[0].from"),
        (maps(vec![shared("../other", "m")]), InvalidSpec, "spec.maps[0].from.program"),
        (maps(vec![shared("other", "../m")]), InvalidSpec, "spec.maps[0].from.map"),
        (BpfProgramSpec { priority: Some(1001), ..maps(vec![]) }, InvalidSpec, "spec.priority"),
    ] {
        let refusal = check(&bad, TCP_EVENTS).unwrap_err();
        assert_eq!(refusal.reason, reason, "{refusal}");
        assert!(refusal.message.starts_with(field), "{field}: {refusal}");
    }
    let data = spec(vec![program("on_create")], vec![MapSpec { max_entries: Some(2), ..map(".data") }]);
    assert!(check(&data, fixtures::GLOBALS).unwrap_err().message.starts_with("spec.maps[0].maxEntries"));
    let jumps = spec(vec![program("events")], vec![MapSpec { pin: false, ..map("jumps") }]);
    assert!(check(&jumps, fixtures::EVERYTHING).unwrap_err().message.starts_with("spec.maps[0].pin"));
    let storage = spec(vec![program("on_tcp")], vec![MapSpec { max_entries: Some(2), ..map("sk_storage") }]);
    assert!(check(&storage, fixtures::KINDS).unwrap_err().message.starts_with("spec.maps[0].maxEntries"));
    let awaited = maps(vec![MapSpec { max_entries: Some(2), ..shared("other", "m") }]);
    assert!(check(&awaited, TCP_EVENTS).is_ok(), "maxEntries may name the other map's size");
    let kept = spec(vec![program("on_create")], vec![MapSpec { on_delete: OnDelete::Retain, ..map(".bss") }]);
    assert!(check(&kept, fixtures::GLOBALS).unwrap_err().message.starts_with("spec.maps[0].onDelete"));
    let taken = spec(vec![program("on_create")], vec![MapSpec { from: shared("o", "m").from, ..map(".bss") }]);
    assert!(check(&taken, fixtures::GLOBALS).unwrap_err().message.contains("global data"));
    assert!(check(&maps(vec![shared("other", "m")]), TCP_EVENTS).is_ok());
}

#[test]
fn maps_that_a_program_cannot_attach_to_are_refused() {
    let object = |name: &str| types::ALL.iter().find(|(of, _)| *of == name).unwrap().1;
    let to = |name: &str, maps: &[&str]| {
        let attach = maps.iter().map(|map| Attach { cgroup: None, map: Some((*map).to_owned()) }).collect();
        ProgramSpec { attach, ..program(name) }
    };
    let accepted = check(&spec(vec![to("redirect", &["sockets"])], vec![]), object("sk-msg")).unwrap();
    assert!(accepted.notes[0].contains("sockets that are in sockets keep"), "{:?}", accepted.notes);
    let unpinned = MapSpec { pin: false, ..map("sockets") };
    for (name, programs, maps, reason, field, word) in [
        (
            "sk-msg",
            vec![to("redirect", &["nonesuch"])],
            vec![],
            Reason::NoSuchMap,
            "programs[0].attach[0].map",
            "sockets",
        ),
        (
            "sk-msg",
            vec![to("redirect", &["redirected"])],
            vec![],
            Reason::InvalidSpec,
            "programs[0].attach[0].map",
            "Array",
        ),
        (
            "sk-msg",
            vec![to("redirect", &["sockets"])],
            vec![unpinned],
            Reason::InvalidSpec,
            "programs[0].attach[0].map",
            "pin: false",
        ),
        (
            "sk-msg",
            vec![to("redirect", &["sockets", "sockets"])],
            vec![],
            Reason::InvalidSpec,
            "programs[0].attach[1].map",
            "redirect",
        ),
        (
            "sk-msg",
            vec![to("remember", &["sockets"])],
            vec![],
            Reason::InvalidSpec,
            "programs[0].attach[0].map",
            "SockOps",
        ),
        ("sk-msg", vec![program("redirect")], vec![], Reason::InvalidSpec, "programs[0].attach[0].cgroup", "SkMsg"),
        (
            "sk-skb",
            vec![to("judge", &["streams"]), to("echo", &["echoes", "streams"])],
            vec![],
            Reason::InvalidSpec,
            "programs[1].attach[1].map",
            "judge",
        ),
    ] {
        let refusal = check(&spec(programs, maps), object(name)).unwrap_err();
        assert_eq!(refusal.reason, reason, "{refusal}");
        assert!(refusal.message.starts_with(&format!("spec.{field}")) && refusal.message.contains(word), "{refusal}");
    }
    // One map can have a parser and a verdict, and one program can attach to several maps.
    check(&spec(vec![to("parse", &["streams"]), to("judge", &["streams", "echoes"])], vec![]), object("sk-skb"))
        .unwrap();
}

#[test]
fn a_refusal_lists_the_names_that_the_object_has() {
    let refusal = check(&spec(vec![program("nonesuch")], vec![]), fixtures::GLOBALS).unwrap_err();
    assert!(refusal.message.contains("on_connect, on_create"), "{refusal}");
    let object = check(&spec(vec![program("my_prog")], vec![]), b"#!/bin/sh").unwrap_err();
    assert_eq!(object.reason, Reason::InvalidObject);
    assert!(object.message.starts_with("spec.bytecode"), "{object}");
}

#[test]
fn inline_bytes_must_be_base64_and_within_the_limit() {
    assert_eq!(decode_inline("f0VM\n  Rg==").unwrap(), b"\x7fELF");
    for (text, word) in [("not base64!", "base64"), (&"A".repeat(4 * 50_000), "131072")] {
        let refusal = decode_inline(text).unwrap_err();
        assert_eq!(refusal.reason, Reason::InvalidSpec);
        assert!(refusal.message.starts_with("spec.bytecode.inline") && refusal.message.contains(word), "{refusal}");
    }
}
