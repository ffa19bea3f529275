//! Which revision a node runs, and which edits need a new load.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{LabelSelector, Time},
    jiff::{Timestamp, ToSpan as _},
};
use kube::core::ObjectMeta;
use serde_json::json;
use sockeye_crds::{
    BpfRevision, BpfRevisionSpec, ObjectInfo, names,
    program::{Entry, MapRef, MapSpec, OnDelete, OnShapeChange, ProgramSpec},
    revision::{Feature, ProgramRef, desired},
    target::{Attach, CgroupTarget, Scope},
};

type Labels = BTreeMap<String, String>;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect()
}

fn target(scope: Scope, path: Option<&str>) -> Attach {
    Attach { cgroup: Some(CgroupTarget { path: path.map(str::to_owned), ..CgroupTarget::whole(scope) }), map: None }
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

fn entries(n: u32) -> Vec<Entry> {
    vec![Entry { key: Some(json!(0)), value: json!(n) }]
}

fn from(program: &str, map: &str) -> Option<MapRef> {
    Some(MapRef { program: program.into(), map: map.into() })
}

fn program(name: &str) -> ProgramSpec {
    ProgramSpec { name: name.into(), program_type: None, attach: vec![target(Scope::Node, None)] }
}

fn spec() -> BpfRevisionSpec {
    BpfRevisionSpec {
        program: ProgramRef { name: "tcp-events".into(), uid: "uid-1".into() },
        generation: 1,
        sequence: 1,
        digest: names::digest(b"object"),
        object: ObjectInfo::default(),
        node_selector: None,
        requires: vec![],
        programs: vec![program("my_prog")],
        maps: vec![],
        globals: BTreeMap::new(),
        priority: None,
        suspend: false,
    }
}

/// Returns a live revision, created `minute` minutes after the first.
fn live(minute: i64, edit: impl FnOnce(&mut BpfRevisionSpec)) -> BpfRevision {
    let mut spec = spec();
    edit(&mut spec);
    let name = format!("{}-{}-{}", spec.program.name, spec.program.uid, spec.sequence);
    BpfRevision {
        metadata: ObjectMeta {
            name: Some(name),
            labels: Some(labels(&[(names::LABEL_LIVE, "true")])),
            creation_timestamp: Some(Time(Timestamp::UNIX_EPOCH + minute.minutes())),
            ..ObjectMeta::default()
        },
        spec,
    }
}

fn sequences(revisions: &[BpfRevision], node: &Labels) -> Vec<(String, i64)> {
    desired(revisions, node).into_iter().map(|(name, r)| (name.to_owned(), r.spec.sequence)).collect()
}

#[test]
fn the_highest_live_sequence_runs_whatever_the_order_of_the_revisions() {
    let mut revisions = vec![live(0, |s| s.sequence = 2), live(1, |s| s.sequence = 3), live(2, |s| s.sequence = 1)];
    for _ in 0..revisions.len() {
        assert_eq!(sequences(&revisions, &labels(&[])), [("tcp-events".into(), 3)]);
        revisions.rotate_left(1);
    }
}

#[test]
fn a_retired_or_deleted_revision_does_not_run() {
    let mut retired = live(1, |s| s.sequence = 2);
    retired.metadata.labels = Some(labels(&[(names::LABEL_LIVE, "false")]));
    let mut deleted = live(2, |s| s.sequence = 3);
    deleted.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    let unlabelled = BpfRevision { metadata: ObjectMeta::default(), ..live(3, |s| s.sequence = 4) };
    let revisions = [live(0, |_| ()), retired, deleted, unlabelled];
    assert_eq!(sequences(&revisions, &labels(&[])), [("tcp-events".into(), 1)]);
}

#[test]
fn a_node_that_the_newer_revision_does_not_select_runs_the_older() {
    let selector = |key: &str, value: &str| {
        Some(LabelSelector { match_labels: Some(labels(&[(key, value)])), ..LabelSelector::default() })
    };
    let revisions = [
        live(0, |_| ()),
        live(1, |s| {
            s.sequence = 2;
            s.node_selector = selector("canary", "yes");
        }),
    ];
    assert_eq!(sequences(&revisions, &labels(&[("canary", "yes")])), [("tcp-events".into(), 2)]);
    assert_eq!(sequences(&revisions, &labels(&[("canary", "no")])), [("tcp-events".into(), 1)]);
    assert_eq!(sequences(&revisions[1..], &labels(&[])), []);
}

#[test]
fn the_younger_of_two_programs_of_one_name_runs() {
    let old = live(0, |s| s.sequence = 7);
    let young = live(5, |s| s.program.uid = "uid-2".into());
    for revisions in [[old.clone(), young.clone()], [young, old]] {
        assert_eq!(sequences(&revisions, &labels(&[])), [("tcp-events".into(), 1)]);
    }
}

#[test]
fn programs_do_not_compete_with_each_other() {
    let revisions = [
        live(0, |s| s.sequence = 9),
        live(0, |s| {
            s.program = ProgramRef { name: "other".into(), uid: "uid-3".into() };
        }),
    ];
    assert_eq!(sequences(&revisions, &labels(&[])), [("other".into(), 1), ("tcp-events".into(), 9)]);
}

fn key_after(edit: impl FnOnce(&mut BpfRevisionSpec)) -> String {
    let mut edited = spec();
    edit(&mut edited);
    edited.load_key()
}

/// Targets, nodes and the later fate of maps are no reasons for a new load.
#[test]
fn edits_that_do_not_change_a_load_keep_the_load_key() {
    let key = spec().load_key();
    assert_eq!(key.len(), 16);
    let kept: [(&str, String); 11] = [
        ("sequence", key_after(|s| s.sequence = 2)),
        ("generation", key_after(|s| s.generation = 2)),
        ("nodeSelector", key_after(|s| s.node_selector = Some(LabelSelector::default()))),
        ("attach", key_after(|s| s.programs[0].attach = vec![target(Scope::Path, Some("/a"))])),
        ("type", key_after(|s| s.programs[0].program_type = Some(sockeye_crds::ProgramType::SockOps))),
        ("a map's defaults", key_after(|s| s.maps = vec![map("my_map")])),
        ("onDelete", key_after(|s| s.maps = vec![MapSpec { on_delete: OnDelete::Retain, ..map("my_map") }])),
        (
            "onShapeChange",
            key_after(|s| s.maps = vec![MapSpec { on_shape_change: OnShapeChange::Recreate, ..map("my_map") }]),
        ),
        ("suspend", key_after(|s| s.suspend = true)),
        ("priority", key_after(|s| s.priority = Some(1))),
        (
            "what a pinned map begins with",
            key_after(|s| s.maps = vec![MapSpec { initial: entries(1), ..map("my_map") }]),
        ),
    ];
    for (edit, edited) in kept {
        assert_eq!(edited, key, "{edit}");
    }
}

#[test]
fn edits_that_change_a_load_change_the_load_key() {
    let sized = |n| MapSpec { max_entries: Some(n), ..map("my_map") };
    let unpinned = |n| MapSpec { pin: false, initial: entries(n), ..map("my_map") };
    let keys = [
        ("nothing", spec().load_key()),
        ("bytes", key_after(|s| s.digest = names::digest(b"other"))),
        ("a function more", key_after(|s| s.programs.push(program("second")))),
        ("maxEntries", key_after(|s| s.maps = vec![sized(20)])),
        ("another maxEntries", key_after(|s| s.maps = vec![sized(21)])),
        ("no pin", key_after(|s| s.maps = vec![MapSpec { pin: false, ..map("my_map") }])),
        ("what an unpinned map begins with", key_after(|s| s.maps = vec![unpinned(1)])),
        ("another beginning", key_after(|s| s.maps = vec![unpinned(2)])),
        ("a global", key_after(|s| drop(s.globals.insert("rate".into(), json!(1))))),
        ("another value", key_after(|s| drop(s.globals.insert("rate".into(), json!("1"))))),
        ("a map of another", key_after(|s| s.maps = vec![MapSpec { from: from("other", "m"), ..map("my_map") }])),
        ("another's", key_after(|s| s.maps = vec![MapSpec { from: from("another", "m"), ..map("my_map") }])),
        (
            "another map of the same",
            key_after(|s| s.maps = vec![MapSpec { from: from("other", "n"), ..map("my_map") }]),
        ),
        ("another global", key_after(|s| drop(s.globals.insert("rates".into(), json!(1))))),
        // Names must not run together with each other or with the maps.
        ("a function named as the map", key_after(|s| s.programs.push(program("my_map")))),
        ("two functions", key_after(|s| s.programs = vec![program("my"), program("_prog")])),
    ];
    for (i, (edit, key)) in keys.iter().enumerate() {
        for (other_edit, other) in &keys[..i] {
            assert_ne!(key, other, "{edit} and {other_edit}");
        }
    }
}

#[test]
fn the_load_key_is_independent_of_the_order_of_programs() {
    let a = key_after(|s| s.programs = vec![program("a"), program("b")]);
    let b = key_after(|s| s.programs = vec![program("b"), program("a")]);
    assert_eq!(a, b);
}

#[test]
fn a_revision_names_the_features_that_it_uses() {
    let uses = |edit: fn(&mut BpfRevisionSpec)| {
        let mut edited = spec();
        edit(&mut edited);
        Feature::of(&edited)
    };
    assert!(uses(|_| ()).is_empty());
    assert_eq!(uses(|s| drop(s.globals.insert("rate".into(), json!(1)))), ["Globals"]);
    assert_eq!(uses(|s| s.maps = vec![MapSpec { initial: entries(1), ..map("m") }]), ["InitialEntries"]);
    let holds: fn(&mut BpfRevisionSpec) = |s| {
        let info = json!({"name": "m", "type": "ProgArray", "keySize": 4, "valueSize": 4, "maxEntries": 1,
            "definition": "Btf", "holds": ["f"]});
        s.object.maps = vec![serde_json::from_value(info).unwrap()];
    };
    assert_eq!(uses(holds), ["InitialEntries"]);
    assert_eq!(uses(|s| s.priority = Some(500)), ["Priority"]);
    assert_eq!(uses(|s| s.maps = vec![MapSpec { from: from("other", "m"), ..map("m") }]), ["SharedMaps"]);
}
