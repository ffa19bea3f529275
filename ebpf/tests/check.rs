//! `check`: each mistake in a spec is refused with its reason and a message that names the field.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use sockeye_crds::{
    BpfProgramSpec, ProgramType, Reason, names,
    program::{
        Bytecode, ConfigMapKeyRef, MapRef, MapSpec, OnIncompatible, Pinning, ProgramSpec, ReclaimPolicy, Sharing,
    },
    revision::{ProgramRef, RevisionState},
    target::{AttachTarget, PodsTarget},
};
use sockeye_crds_testing::provoked;
use sockeye_ebpf::{
    check::{check, decode_inline, embedded_bytes},
    programs::{TCP_EVENTS, fixtures, types},
};

fn attached(name: &str, attach: Vec<AttachTarget>) -> ProgramSpec {
    ProgramSpec { name: name.into(), program_type: None, attach_type: None, attach }
}

fn program(name: &str) -> ProgramSpec {
    attached(name, vec![AttachTarget::Node])
}

fn map(name: &str) -> MapSpec {
    MapSpec::named(name)
}

fn unpinned(name: &str) -> MapSpec {
    MapSpec { pinning: Some(Pinning::None), ..map(name) }
}

fn borrowed(program: &str, of: &str) -> MapSpec {
    MapSpec { map_ref: Some(MapRef { program: program.into(), name: of.into() }), ..map("my_map") }
}

fn spec(programs: Vec<ProgramSpec>, maps: Vec<MapSpec>) -> BpfProgramSpec {
    let bytecode = Bytecode { inline: Some("AA==".into()), ..Bytecode::default() };
    BpfProgramSpec {
        bytecode,
        node_selector: None,
        attach: vec![],
        programs,
        maps,
        globals: BTreeMap::new(),
        priority: None,
        suspend: false,
        revision_history_limit: None,
        force_detach: false,
        accepted_regressions: Vec::new(),
    }
}

#[test]
fn an_accepted_spec_has_its_programs_types_set() {
    let accepted = check(&spec(vec![program("my_prog")], vec![map("my_map")]), TCP_EVENTS).unwrap();
    assert_eq!(accepted.programs[0].program_type, Some(ProgramType::SockOps));
    assert_eq!(accepted.digest, names::digest(TCP_EVENTS));
    assert!(accepted.notes.is_empty());
    let program_ref = ProgramRef { name: "p".into(), uid: "u".into() };
    let revision = accepted.into_revision_spec(program_ref.clone(), 3, 7);
    assert_eq!((revision.program_generation, revision.sequence, revision.state), (3, 7, RevisionState::Active));
    assert_eq!(revision.program_ref, program_ref);
    assert_eq!(revision.template.maps.len(), 1);
}

#[test]
fn an_accepted_spec_has_its_programs_targets_set() {
    let default = vec![AttachTarget::AllPods, AttachTarget::at("/a")];
    let programs = vec![attached("on_connect", vec![]), program("on_create")];
    let accepted = check(&BpfProgramSpec { attach: default.clone(), ..spec(programs, vec![]) }, fixtures::GLOBALS);
    let revision = accepted.unwrap().into_revision_spec(ProgramRef::default(), 1, 1);
    let targets = revision.template.programs.iter().map(|program| program.attach.clone());
    assert_eq!(targets.collect::<Vec<_>>(), [default, vec![AttachTarget::Node]]);
    assert!(revision.template.requires.contains(&"AllPods".to_owned()), "{:?}", revision.template.requires);
}

#[test]
fn a_pin_request_of_the_object_gives_a_note() {
    let accepted = check(&spec(vec![program("on_create")], vec![]), fixtures::GLOBALS).unwrap();
    assert!(accepted.notes.iter().any(|note| note.contains("shared")), "{:?}", accepted.notes);
}

const POD_SELECTOR: &str = "spec.programs[0].attach[0].pods.podSelector";
const NAMESPACE_SELECTOR: &str = "spec.programs[0].attach[0].pods.namespaceSelector";
const CONTAINERS: &str = "spec.programs[0].attach[0].pods.containers";
const PATH: &str = "spec.programs[0].attach[0].cgroupPath";

fn bad_selector() -> LabelSelector {
    let expression = LabelSelectorRequirement { key: "a".into(), operator: "Like".into(), values: None };
    LabelSelector { match_expressions: Some(vec![expression]), ..LabelSelector::default() }
}

fn assert_refused(bad: &BpfProgramSpec, object: &[u8], reason: Reason, field: &str) {
    let refusal = check(bad, object).unwrap_err();
    assert_eq!(refusal.reason, reason, "{field}: {refusal}");
    assert!(refusal.message.starts_with(field), "{field}: {refusal}");
    provoked(refusal.reason, &refusal.message);
}

#[test]
fn each_mistake_is_refused_with_its_field_and_reason() {
    let typed = |t| spec(vec![ProgramSpec { program_type: Some(t), ..program("my_prog") }], vec![]);
    let mut no_source = spec(vec![program("my_prog")], vec![]);
    no_source.bytecode.inline = None;
    use Reason::*;
    for (bad, reason, field) in [
        (no_source, InvalidSpec, "spec.bytecode"),
        (spec(vec![], vec![]), InvalidSpec, "spec.programs"),
        (spec(vec![program("my_prog"), program("my_prog")], vec![]), InvalidSpec, "spec.programs[1].name"),
        (spec(vec![program("my_prog"), program("other")], vec![]), ProgramNotFound, "spec.programs[1].name"),
        (typed(ProgramType::CgroupSkb), TypeMismatch, "spec.programs[0].type"),
        (
            BpfProgramSpec { priority: Some(1001), ..spec(vec![program("my_prog")], vec![]) },
            InvalidSpec,
            "spec.priority",
        ),
    ] {
        assert_refused(&bad, TCP_EVENTS, reason, field);
    }
}

#[test]
fn each_mistake_in_a_target_is_refused_with_its_field() {
    let attach = |attach: Vec<AttachTarget>| spec(vec![attached("my_prog", attach)], vec![]);
    let pods = |edit: fn(&mut PodsTarget)| {
        let mut target = PodsTarget::default();
        edit(&mut target);
        attach(vec![target.into()])
    };
    let good = pods(|pods| {
        pods.namespace_selector = Some(LabelSelector::default());
        pods.containers = vec!["app".into(), "proxy".into()];
    });
    check(&good, TCP_EVENTS).unwrap();
    check(&attach(vec![AttachTarget::Node, AttachTarget::AllPods, AttachTarget::at("/a/b")]), TCP_EVENTS).unwrap();
    let long = format!("/{}", "a".repeat(1024));
    for (bad, field) in [
        (attach(vec![]), "spec.programs[0].attach must be set, or spec.attach"),
        (attach(vec![AttachTarget::Node; 17]), "spec.programs[0].attach has 17 items"),
        (attach(vec![AttachTarget::at("")]), PATH),
        (attach(vec![AttachTarget::at("a")]), PATH),
        (attach(vec![AttachTarget::at("/a/../b")]), PATH),
        (attach(vec![AttachTarget::at("/a/.")]), PATH),
        (attach(vec![AttachTarget::at("/a\n")]), PATH),
        (attach(vec![AttachTarget::at(long)]), PATH),
        (pods(|pods| pods.pod_selector = bad_selector()), POD_SELECTOR),
        (pods(|pods| pods.namespace_selector = Some(bad_selector())), NAMESPACE_SELECTOR),
        (pods(|pods| pods.containers = vec!["app".into(), "App".into()]), &format!("{CONTAINERS}[1]")),
        (pods(|pods| pods.containers = vec!["a".into(), "a".into()]), CONTAINERS),
        (pods(|pods| pods.containers = (0..17).map(|i| format!("c{i}")).collect()), CONTAINERS),
    ] {
        assert_refused(&bad, TCP_EVENTS, Reason::InvalidSpec, field);
    }
}

#[test]
fn the_default_targets_are_checked_as_a_programs_own() {
    let default = |programs, attach| BpfProgramSpec { attach, ..spec(programs, vec![]) };
    let object = |name: &str| types::ALL.iter().find(|(of, _)| *of == name).unwrap().1;
    let none = || vec![attached("my_prog", vec![])];
    let pods = || vec![AttachTarget::from(PodsTarget { pod_selector: bad_selector(), ..PodsTarget::default() })];
    use Reason::*;
    for (bad, reason, field) in [
        (default(none(), vec![]), InvalidSpec, "spec.programs[0].attach must be set, or spec.attach"),
        (default(none(), vec![AttachTarget::at("a")]), InvalidSpec, "spec.attach[0].cgroupPath"),
        (default(none(), vec![AttachTarget::Node; 17]), InvalidSpec, "spec.attach has 17 items"),
        (default(none(), pods()), InvalidSpec, "spec.attach[0].pods.podSelector"),
        (default(none(), vec![AttachTarget::on_map("nonesuch")]), MapNotFound, "spec.attach[0].map.name"),
        (default(none(), vec![AttachTarget::on_map("my_map")]), InvalidSpec, "spec.attach[0].map.name"),
        // A default that no program uses is checked, too.
        (default(vec![program("my_prog")], vec![AttachTarget::at("a")]), InvalidSpec, "spec.attach[0].cgroupPath"),
    ] {
        assert_refused(&bad, TCP_EVENTS, reason, field);
    }
    let (redirect, remember) = (|| attached("redirect", vec![]), || attached("remember", vec![]));
    let sockets = || vec![AttachTarget::on_map("sockets")];
    let both = default(vec![redirect(), remember()], sockets());
    assert_refused(&both, object("sk-msg"), InvalidSpec, "spec.attach[0].type: remember is of type SockOps");
    let unpinned = BpfProgramSpec { maps: vec![unpinned("sockets")], ..default(vec![redirect()], sockets()) };
    assert_refused(&unpinned, object("sk-msg"), InvalidSpec, "spec.attach[0].map.name: map sockets has pinning: None");
    check(&default(vec![redirect(), program("remember")], sockets()), object("sk-msg")).unwrap();
}

#[test]
fn each_mistake_in_a_maps_settings_is_refused_with_its_field() {
    let maps = |maps| spec(vec![program("my_prog")], maps);
    let retained = |map| MapSpec { reclaim_policy: Some(ReclaimPolicy::Retain), ..map };
    let recreated = |map| MapSpec { on_incompatible: Some(OnIncompatible::Recreate), ..map };
    let shared = |map| MapSpec { sharing: Some(Sharing::Shared), ..map };
    let sized = |map, entries| MapSpec { max_entries: Some(entries), ..map };
    use Reason::*;
    for (bad, reason, field) in [
        (vec![map("other")], MapNotFound, "spec.maps[0].name"),
        (vec![map("my_map"), map("my_map")], InvalidSpec, "spec.maps[1].name"),
        (vec![sized(map("my_map"), 0)], InvalidSpec, "spec.maps[0].maxEntries"),
        (vec![sized(map("my_map"), 1 << 32)], InvalidSpec, "spec.maps[0].maxEntries"),
        (vec![retained(unpinned("my_map"))], InvalidSpec, "spec.maps[0].reclaimPolicy"),
        (vec![recreated(unpinned("my_map"))], InvalidSpec, "spec.maps[0].onIncompatible"),
        (vec![shared(unpinned("my_map"))], InvalidSpec, "spec.maps[0].sharing"),
        (vec![sized(borrowed("other", "m"), 0)], InvalidSpec, "spec.maps[0].maxEntries"),
        (vec![borrowed("../other", "m")], InvalidSpec, "spec.maps[0].mapRef.program"),
        (vec![borrowed("other", "../m")], InvalidSpec, "spec.maps[0].mapRef.name"),
    ] {
        assert_refused(&maps(bad), TCP_EVENTS, reason, field);
    }
    for good in [retained(shared(recreated(map("my_map")))), unpinned("my_map"), borrowed("other", "m")] {
        check(&maps(vec![good]), TCP_EVENTS).unwrap();
    }
    check(&maps(vec![sized(borrowed("other", "m"), 2)]), TCP_EVENTS).unwrap();
    let taken = |name: &str| MapSpec { name: name.into(), ..borrowed("o", "m") };
    let sk_msg = types::ALL.iter().find(|(of, _)| *of == "sk-msg").unwrap().1;
    for (object, name, bad, field) in [
        (fixtures::GLOBALS, "on_create", sized(map(".data"), 2), "spec.maps[0].maxEntries"),
        (fixtures::GLOBALS, "on_create", retained(map(".bss")), "spec.maps[0].reclaimPolicy: .bss is global data"),
        (fixtures::GLOBALS, "on_create", shared(map(".bss")), "spec.maps[0].sharing: .bss is global data"),
        (fixtures::GLOBALS, "on_create", taken(".bss"), "spec.maps[0].mapRef: .bss is global data"),
        (fixtures::EVERYTHING, "events", unpinned("jumps"), "spec.maps[0].pinning"),
        (sk_msg, "remember", unpinned("sockets"), "spec.maps[0].pinning: sockets holds sockets"),
        (fixtures::KINDS, "on_tcp", sized(map("sk_storage"), 2), "spec.maps[0].maxEntries"),
    ] {
        assert_refused(&spec(vec![program(name)], vec![bad]), object, InvalidSpec, field);
    }
}

/// A map of another BpfProgram has that one's settings, so that even a setting that changes nothing is refused.
#[test]
fn a_map_of_another_program_takes_no_setting_but_its_size() {
    let entry = serde_json::from_str(r#"{"key": 0, "value": 1}"#).unwrap();
    let other = || borrowed("other", "m");
    for (bad, setting) in [
        (MapSpec { pinning: Some(Pinning::ByName), ..other() }, "pinning"),
        (MapSpec { reclaim_policy: Some(ReclaimPolicy::Delete), ..other() }, "reclaimPolicy"),
        (MapSpec { on_incompatible: Some(OnIncompatible::Fail), ..other() }, "onIncompatible"),
        (MapSpec { entries: vec![entry], ..other() }, "entries"),
        (MapSpec { sharing: Some(Sharing::Private), ..other() }, "sharing"),
    ] {
        let bad = spec(vec![program("my_prog")], vec![bad]);
        assert_refused(
            &bad,
            TCP_EVENTS,
            Reason::InvalidSpec,
            "spec.maps[0].mapRef: my_map is map m of BpfProgram other",
        );
        let message = check(&bad, TCP_EVENTS).unwrap_err().message;
        assert!(message.contains("only name and maxEntries go with mapRef") && message.contains(setting), "{message}");
    }
}

#[test]
fn maps_that_a_program_cannot_attach_to_are_refused() {
    let object = |name: &str| types::ALL.iter().find(|(of, _)| *of == name).unwrap().1;
    let to = |name: &str, maps: &[&str]| attached(name, maps.iter().map(|map| AttachTarget::on_map(*map)).collect());
    let accepted = check(&spec(vec![to("redirect", &["sockets"])], vec![]), object("sk-msg")).unwrap();
    assert!(accepted.notes[0].contains("sockets that are in sockets keep"), "{:?}", accepted.notes);
    use Reason::*;
    for (name, programs, maps, reason, field, word) in [
        ("sk-msg", vec![to("redirect", &["nonesuch"])], vec![], MapNotFound, "[0].attach[0].map.name", "sockets"),
        ("sk-msg", vec![to("redirect", &["redirected"])], vec![], InvalidSpec, "[0].attach[0].map.name", "Array"),
        (
            "sk-msg",
            vec![to("redirect", &["sockets"])],
            vec![unpinned("sockets")],
            InvalidSpec,
            "[0].attach[0].map.name",
            "pinning: None",
        ),
        (
            "sk-msg",
            vec![to("redirect", &["sockets", "sockets"])],
            vec![],
            InvalidSpec,
            "[0].attach[1].map.name",
            "redirect",
        ),
        ("sk-msg", vec![to("remember", &["sockets"])], vec![], InvalidSpec, "[0].attach[0].type", "SockOps"),
        ("sk-msg", vec![program("redirect")], vec![], InvalidSpec, "[0].attach[0].type", "SkMsg"),
        (
            "sk-skb",
            vec![to("judge", &["streams"]), to("echo", &["echoes", "streams"])],
            vec![],
            InvalidSpec,
            "[1].attach[1].map.name",
            "judge",
        ),
    ] {
        let refusal = check(&spec(programs, maps), object(name)).unwrap_err();
        assert_eq!(refusal.reason, reason, "{refusal}");
        let at = format!("spec.programs{field}");
        assert!(refusal.message.starts_with(&at) && refusal.message.contains(word), "{refusal}");
        provoked(refusal.reason, &refusal.message);
    }
    // One map can have a parser and a verdict, and one program can attach to several maps.
    check(&spec(vec![to("parse", &["streams"]), to("judge", &["streams", "echoes"])], vec![]), object("sk-skb"))
        .unwrap();
}

#[test]
fn the_bytes_of_a_config_map_must_have_the_digest() {
    let of = |digest: &str| {
        let config_map_ref = ConfigMapKeyRef { name: "n".into(), key: "k".into(), digest: digest.into() };
        let bytecode = Bytecode { config_map_ref: Some(config_map_ref), ..Bytecode::default() };
        BpfProgramSpec { bytecode, ..spec(vec![program("my_prog")], vec![]) }
    };
    let (digest, other) = (names::digest(TCP_EVENTS), names::digest(b"other"));
    assert_eq!(check(&of(&digest), TCP_EVENTS).unwrap().digest, digest);
    assert_eq!(embedded_bytes(&of(&digest).bytecode), Ok(None));
    // Whatever the bytes are: they are not even read.
    for bytes in [&b"other"[..], b""] {
        let refusal = check(&of(&digest), bytes).unwrap_err();
        assert_eq!(refusal.reason, Reason::DigestMismatch);
        let words =
            ["spec.bytecode.configMapRef.digest", &digest, &names::digest(bytes), "key \"k\" of ConfigMap \"n\""];
        assert!(words.iter().all(|word| refusal.message.contains(word)), "{refusal}");
    }
    assert_refused(&of(&other), TCP_EVENTS, Reason::DigestMismatch, "spec.bytecode.configMapRef.digest");
    for bad in ["", "sha256:", &digest[1..], &digest.to_uppercase(), &format!("{digest}0"), &digest["sha256:".len()..]]
    {
        assert_refused(&of(bad), TCP_EVENTS, Reason::InvalidSpec, "spec.bytecode.configMapRef.digest");
        assert_eq!(embedded_bytes(&of(bad).bytecode).unwrap_err().reason, Reason::InvalidSpec);
    }
}

#[test]
fn a_refusal_lists_the_names_that_the_object_has() {
    let refusal = check(&spec(vec![program("nonesuch")], vec![]), fixtures::GLOBALS).unwrap_err();
    assert!(refusal.message.contains("on_connect, on_create"), "{refusal}");
    provoked(refusal.reason, &refusal.message);
    let object = check(&spec(vec![program("my_prog")], vec![]), b"#!/bin/sh").unwrap_err();
    assert_eq!(object.reason, Reason::InvalidObject);
    assert!(object.message.starts_with("spec.bytecode"), "{object}");
    provoked(object.reason, &object.message);
}

#[test]
fn inline_bytes_must_be_base64_and_within_the_limit() {
    assert_eq!(decode_inline("f0VM\n  Rg==").unwrap(), b"\x7fELF");
    for (text, word) in [("not base64!", "base64"), (&"A".repeat(4 * 50_000), "131072")] {
        let refusal = decode_inline(text).unwrap_err();
        assert_eq!(refusal.reason, Reason::InvalidSpec);
        assert!(refusal.message.starts_with("spec.bytecode.inline") && refusal.message.contains(word), "{refusal}");
        provoked(refusal.reason, &refusal.message);
    }
}
