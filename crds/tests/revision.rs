//! Which revision a node runs, and which edits need a new load.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{LabelSelector, Time},
    jiff::Timestamp,
};
use serde_json::json;
use sockeye_crds::{
    BpfRevision, BpfRevisionSpec, RevisionTemplate, names,
    program::{
        ConfigMapKeyRef, EntriesPolicy, EntriesSource, Entry, MapRef, MapSpec, OnIncompatible, Pinning, ProgramSpec,
        ReclaimPolicy, Sharing, StreamReader, StreamSpec,
    },
    revision::{Feature, ProgramRef, RevisionState, assigned},
    target::{AttachTarget, PodsTarget, WhenUnselected},
};

type Labels = BTreeMap<String, String>;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect()
}

fn entries(n: i64) -> Vec<Entry> {
    vec![Entry { key: Some(0.into()), value: n.into() }]
}

fn list(bytes: &[u8]) -> Option<EntriesSource> {
    let (name, key) = ("list".to_owned(), "list".to_owned());
    Some(EntriesSource { config_map_ref: ConfigMapKeyRef { name, key, digest: names::digest(bytes) } })
}

fn stream(reader: StreamReader) -> StreamSpec {
    StreamSpec { reader, type_name: Some("event".to_owned()), fields: Vec::new() }
}

fn map_ref(program: &str, name: &str) -> Option<MapRef> {
    Some(MapRef { program: program.into(), name: name.into() })
}

fn program(name: &str) -> ProgramSpec {
    ProgramSpec { name: name.into(), program_type: None, attach_type: None, attach: vec![AttachTarget::Node] }
}

fn template() -> RevisionTemplate {
    RevisionTemplate {
        digest: names::digest(b"object"),
        programs: vec![program("my_prog")],
        ..RevisionTemplate::default()
    }
}

/// Returns a revision that is active, with the name that its content determines after `edit`.
fn active(edit: impl FnOnce(&mut BpfRevisionSpec)) -> BpfRevision {
    let mut spec = BpfRevisionSpec {
        state: RevisionState::Active,
        program_ref: ProgramRef { name: "tcp-events".into(), uid: "uid-1".into() },
        program_generation: 1,
        sequence: 1,
        template: template(),
    };
    edit(&mut spec);
    BpfRevision::of(spec)
}

fn sequences(revisions: &[BpfRevision], node: &Labels) -> Vec<(String, i64)> {
    assigned(revisions, node).into_iter().map(|(name, r)| (name.to_owned(), r.spec.sequence)).collect()
}

#[test]
fn the_highest_active_sequence_runs_whatever_the_order_of_the_revisions() {
    let mut revisions = vec![active(|s| s.sequence = 2), active(|s| s.sequence = 3), active(|s| s.sequence = 1)];
    for _ in 0..revisions.len() {
        assert_eq!(sequences(&revisions, &labels(&[])), [("tcp-events".into(), 3)]);
        revisions.rotate_left(1);
    }
}

/// The name is checked again by agents, so that a copied revision of another name does not win.
#[test]
fn a_retired_deleted_or_misnamed_revision_does_not_run() {
    let retired = active(|s| (s.sequence, s.state) = (2, RevisionState::Retired));
    let mut deleted = active(|s| s.sequence = 3);
    deleted.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    let mut misnamed = active(|s| s.sequence = 4);
    misnamed.metadata.name = Some("tcp-events-5".into());
    let outside = active(|s| s.program_ref.name = "../x".into());
    let revisions = [active(|_| ()), retired, deleted, misnamed, outside];
    assert_eq!(sequences(&revisions, &labels(&[])), [("tcp-events".into(), 1)]);
}

#[test]
fn a_node_that_the_newer_revision_does_not_select_runs_the_older() {
    let selector = |key: &str, value: &str| {
        Some(LabelSelector { match_labels: Some(labels(&[(key, value)])), ..LabelSelector::default() })
    };
    let revisions = [
        active(|_| ()),
        active(|s| {
            s.sequence = 2;
            s.template.node_selector = selector("canary", "yes");
        }),
    ];
    assert_eq!(sequences(&revisions, &labels(&[("canary", "yes")])), [("tcp-events".into(), 2)]);
    assert_eq!(sequences(&revisions, &labels(&[("canary", "no")])), [("tcp-events".into(), 1)]);
    assert_eq!(sequences(&revisions[1..], &labels(&[])), []);
}

#[test]
fn the_younger_of_two_programs_of_one_name_runs() {
    let old = active(|s| s.sequence = 7);
    let young = active(|s| (s.sequence, s.program_ref.uid) = (8, "uid-2".into()));
    for revisions in [[old.clone(), young.clone()], [young, old]] {
        assert_eq!(sequences(&revisions, &labels(&[])), [("tcp-events".into(), 8)]);
    }
}

#[test]
fn programs_do_not_compete_with_each_other() {
    let revisions = [
        active(|s| s.sequence = 9),
        active(|s| s.program_ref = ProgramRef { name: "other".into(), uid: "uid-3".into() }),
    ];
    assert_eq!(sequences(&revisions, &labels(&[])), [("other".into(), 1), ("tcp-events".into(), 9)]);
}

fn key_after(edit: impl FnOnce(&mut RevisionTemplate)) -> String {
    let mut edited = template();
    edit(&mut edited);
    edited.load_key()
}

/// Targets, nodes and the later fate of maps are no reasons for a new load.
#[test]
fn edits_that_do_not_change_a_load_keep_the_load_key() {
    let key = template().load_key();
    assert_eq!(key.len(), 16);
    let map = || MapSpec::named("my_map");
    let kept: [(&str, String); 13] = [
        ("nodeSelector", key_after(|t| t.node_selector = Some(LabelSelector::default()))),
        ("attach", key_after(|t| t.programs[0].attach = vec![AttachTarget::at("/a")])),
        ("type", key_after(|t| t.programs[0].program_type = Some(sockeye_crds::ProgramType::SockOps))),
        ("a map's defaults", key_after(|t| t.maps = vec![map()])),
        (
            "reclaimPolicy",
            key_after(|t| t.maps = vec![MapSpec { reclaim_policy: Some(ReclaimPolicy::Retain), ..map() }]),
        ),
        (
            "onIncompatible",
            key_after(|t| t.maps = vec![MapSpec { on_incompatible: Some(OnIncompatible::Recreate), ..map() }]),
        ),
        ("sharing", key_after(|t| t.maps = vec![MapSpec { sharing: Some(Sharing::Shared), ..map() }])),
        ("suspend", key_after(|t| t.suspend = true)),
        ("priority", key_after(|t| t.priority = Some(1))),
        ("entries of a pinned map", key_after(|t| t.maps = vec![MapSpec { entries: entries(1), ..map() }])),
        ("a list of a pinned map", key_after(|t| t.maps = vec![MapSpec { entries_from: list(b"a"), ..map() }])),
        ("stream", key_after(|t| t.maps = vec![MapSpec { stream: Some(stream(StreamReader::Agent)), ..map() }])),
        ("entriesPolicy", key_after(|t| t.maps = vec![MapSpec { entries_policy: Some(EntriesPolicy::Sync), ..map() }])),
    ];
    for (edit, edited) in kept {
        assert_eq!(edited, key, "{edit}");
    }
}

#[test]
fn edits_that_change_a_load_change_the_load_key() {
    let map = || MapSpec::named("my_map");
    let sized = |n| MapSpec { max_entries: Some(n), ..map() };
    let unpinned = |entries| MapSpec { pinning: Some(Pinning::None), entries, ..map() };
    let taken = |program, name| MapSpec { map_ref: map_ref(program, name), ..map() };
    let global = |name: &str, value: i64| key_after(|t| drop(t.globals.insert(name.into(), value.into())));
    let keys = [
        ("nothing", template().load_key()),
        ("bytes", key_after(|t| t.digest = names::digest(b"other"))),
        ("a function more", key_after(|t| t.programs.push(program("second")))),
        ("maxEntries", key_after(|t| t.maps = vec![sized(20)])),
        ("another maxEntries", key_after(|t| t.maps = vec![sized(21)])),
        ("no pin", key_after(|t| t.maps = vec![unpinned(vec![])])),
        ("entries of an unpinned map", key_after(|t| t.maps = vec![unpinned(entries(1))])),
        ("other entries", key_after(|t| t.maps = vec![unpinned(entries(2))])),
        (
            "a list of an unpinned map",
            key_after(|t| t.maps = vec![MapSpec { entries_from: list(b"a"), ..unpinned(vec![]) }]),
        ),
        ("another list", key_after(|t| t.maps = vec![MapSpec { entries_from: list(b"b"), ..unpinned(vec![]) }])),
        ("a global", global("rate", 1)),
        ("another value", global("rate", 2)),
        ("another global", global("rates", 1)),
        ("a map of another", key_after(|t| t.maps = vec![taken("other", "m")])),
        ("another's", key_after(|t| t.maps = vec![taken("another", "m")])),
        ("another map of the same", key_after(|t| t.maps = vec![taken("other", "n")])),
        // Names must not run together with each other or with the maps.
        ("a function named as the map", key_after(|t| t.programs.push(program("my_map")))),
        ("two functions", key_after(|t| t.programs = vec![program("my"), program("_prog")])),
    ];
    for (i, (edit, key)) in keys.iter().enumerate() {
        for (other_edit, other) in &keys[..i] {
            assert_ne!(key, other, "{edit} and {other_edit}");
        }
    }
}

#[test]
fn the_load_key_is_independent_of_the_order_of_programs() {
    let a = key_after(|t| t.programs = vec![program("a"), program("b")]);
    let b = key_after(|t| t.programs = vec![program("b"), program("a")]);
    assert_eq!(a, b);
}

#[test]
fn a_revision_names_the_features_that_it_uses() {
    let uses = |edit: fn(&mut RevisionTemplate)| {
        let mut edited = template();
        edit(&mut edited);
        Feature::of(&edited)
    };
    assert!(uses(|_| ()).is_empty());
    assert_eq!(uses(|t| drop(t.globals.insert("rate".into(), 1.into()))), ["Globals"]);
    assert_eq!(uses(|t| t.maps = vec![MapSpec { entries: entries(1), ..MapSpec::named("m") }]), ["MapEntries"]);
    let holds: fn(&mut RevisionTemplate) = |t| {
        let info = json!({"name": "m", "type": "ProgArray", "keySizeBytes": 4, "valueSizeBytes": 4, "maxEntries": 1,
            "definition": "BTF", "holds": ["f"]});
        t.object.maps = vec![serde_json::from_value(info).unwrap()];
    };
    assert_eq!(uses(holds), ["MapEntries"]);
    let alike: fn(&mut RevisionTemplate) = |t| {
        let data = |name| {
            json!({"name": name, "type": "Array", "keySizeBytes": 4, "valueSizeBytes": 4, "maxEntries": 1,
            "definition": "Data"})
        };
        t.object.maps = [".data.a.b", ".data.a_b"].map(|name| serde_json::from_value(data(name)).unwrap()).into();
    };
    assert_eq!(uses(alike), ["DistinctPins"]);
    let read = |reader| vec![MapSpec { stream: Some(stream(reader)), ..MapSpec::named("m") }];
    let of_maps = |maps| Feature::of(&RevisionTemplate { maps, ..template() });
    assert_eq!(of_maps(read(StreamReader::Agent)), ["Streams"]);
    assert!(of_maps(read(StreamReader::External)).is_empty(), "no agent does anything for it");
    let policy = |policy| MapSpec { entries_policy: Some(policy), ..MapSpec::named("m") };
    let of_map = |map: MapSpec| Feature::of(&RevisionTemplate { maps: vec![map], ..template() });
    assert_eq!(of_map(policy(EntriesPolicy::Sync)), ["SyncEntries"]);
    assert!(of_map(policy(EntriesPolicy::OnCreate)).is_empty(), "as without a policy");
    let long = MapSpec { entries_from: list(b"a"), ..MapSpec::named("m") };
    assert_eq!(of_map(long), ["EntriesFrom", "MapEntries"]);
    assert_eq!(uses(|t| t.priority = Some(500)), ["Priority"]);
    assert_eq!(
        uses(|t| t.maps = vec![MapSpec { map_ref: map_ref("other", "m"), ..MapSpec::named("m") }]),
        ["SharedMaps"]
    );
    let kept: fn(&mut RevisionTemplate) = |t| {
        let when_unselected = Some(WhenUnselected::KeepUntilPodEnds);
        t.programs[0].attach = vec![PodsTarget { when_unselected, ..PodsTarget::default() }.into()];
    };
    assert_eq!(uses(kept), ["KeepUnselected", "PodSelectors"]);
}
