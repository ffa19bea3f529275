//! The largest report against the schemas of BpfNode and BpfNodeDetail, which the API server enforces.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use serde::Serialize;
use serde_json::Value;
use sockeye_crds::{
    Reason,
    definitions::definitions,
    node::{Drift, DriftKind},
    revision::ProgramRef,
};

use super::{
    limits::{MAX_MESSAGE, MAX_NOTES, MAX_ORDERED, MAX_ORDERS, MAX_RETAINED, MAX_USERS},
    *,
};
use crate::{
    control::drift::{self, Change},
    model::{
        desired::{Desired, DesiredProgram},
        kernel::{LINK_TYPE_CGROUP, LinkInfo, MapInfo, ProgramInfo, ProgramKind},
        observed::{LinkKey, ObservedLink, ObservedProgram, Predecessor},
        pods::CgroupOwner,
        trial::{Trial, TrialState},
    },
    node::failure::Failure,
};

/// More of each than a report lists.
const MANY: u32 = 200;

/// A name of the longest kind, in the order of the numbers.
fn long_name(n: u32, length: usize) -> String {
    format!("{n:0length$}")
}

fn map(id: u32, from: Option<MapRef>) -> ObservedMap {
    let kernel_name = "k".repeat(15);
    let info = MapInfo { id, map_type: 2, kernel_name, ..MapInfo::default() };
    ObservedMap { info, pinned: true, from, ..ObservedMap::default() }
}

/// A BpfProgram with many objects: functions of earlier revisions that could not be detached, and maps that were
/// retained.
fn largest() -> ProgramState {
    let function = |n: u32| {
        let map_ids = (0..2 * MANY).map(|map| 1000 + map).collect();
        let info = ProgramInfo {
            id: 1 + n,
            prog_type: 13,
            kernel_name: "k".repeat(15),
            tag: "0123456789abcdef".to_owned(),
            load_time: "2026-01-01T00:00:00Z".to_owned(),
            map_ids,
            ..ProgramInfo::default()
        };
        (long_name(n, 128), ObservedProgram { info, load_key: None, pinned: true })
    };
    let link = |n: u32| {
        let info = LinkInfo { id: 5000 + n, link_type: LINK_TYPE_CGROUP, program_id: 1, ..LinkInfo::default() };
        let key = LinkKey { function: long_name(n % 2, 128), place: (1_000_000 + n).to_string() };
        let path = Some(format!("/{}", "p".repeat(if n == 0 { 2000 } else { 50 })));
        (key, ObservedLink { info, path, in_effect: true, believed: false, pinned: true })
    };
    let observed = Observed {
        functions: (0..MANY).map(function).collect(),
        maps: (0..MANY).map(|n| (long_name(n, 128), map(1000 + n, None))).collect(),
        links: (0..MANY).map(link).collect(),
        ..Observed::default()
    };
    let mut failure = Failure::new(Reason::AttachFailed, "m".repeat(5000));
    failure.verifier_log = Some("v".repeat(8192));
    let change = |n: u32| Change { kind: DriftKind::PinRemoved, message: format!("{n}{}", "d".repeat(2000)) };
    let mut drifts: Vec<Drift> = Vec::new();
    for n in 0..MANY {
        drift::remember(&mut drifts, change(n), k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
    }
    let unpinned = (0..MANY).map(|n| (long_name(n, 120), MapInfo { id: 90_000 + n, ..MapInfo::default() })).collect();
    let mut program = ProgramState::default();
    (program.failure, program.drift, program.unpinned) = (Some(failure), drifts, unpinned);
    program.observe(observed);
    program
}

/// A BpfProgram that has a map of another one, and retained maps.
fn user(n: u32, owner: &str) -> ProgramState {
    let from = MapRef { program: owner.to_owned(), name: long_name(0, 128) };
    let mut maps: BTreeMap<String, ObservedMap> = [("shared".to_owned(), map(1000, Some(from)))].into();
    maps.extend((0..2).map(|m| (format!("kept-{m}"), map(70_000 + 2 * n + m, None))));
    let retained = maps.keys().filter(|pin| pin.starts_with("kept")).cloned().collect();
    let mut program = ProgramState::default();
    program.observe(Observed { maps, retained, ..Observed::default() });
    program
}

fn statuses(programs: &BTreeMap<String, ProgramState>) -> (BpfNodeStatus, BpfNodeDetailStatus) {
    let bpffs = Path::new("/sys/fs/bpf");
    report(&Reported {
        facts: &NodeFacts::default(),
        layout: &Layout::new(bpffs, bpffs),
        programs,
        monitor: &AttachmentMonitor::default(),
        suspended: None,
        draining: &[],
    })
}

/// The schema of a kind's status, as the API server enforces it.
fn schema(kind: &str) -> Value {
    let definitions = serde_json::to_value(definitions()).unwrap();
    let node = definitions.as_array().unwrap().iter().find(|crd| crd["spec"]["names"]["kind"] == kind).unwrap();
    let schema = node["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"].clone();
    assert!(schema["properties"]["programs"].is_object(), "{schema}");
    schema
}

/// Adds the places at which a value is longer than the schema allows, or is not in the schema.
fn violations(value: &Value, schema: &Value, path: &str, found: &mut Vec<String>) {
    let is_beyond = |length: usize, limit: &str| schema[limit].as_u64().is_some_and(|max| length as u64 > max);
    match value {
        Value::Array(items) => {
            if is_beyond(items.len(), "maxItems") {
                found.push(format!("{path}: {} items", items.len()));
            }
            items.iter().for_each(|item| violations(item, &schema["items"], &format!("{path}[]"), found));
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                let schema = match &schema["additionalProperties"] {
                    Value::Null => &schema["properties"][name],
                    any => any,
                };
                if schema.is_null() {
                    found.push(format!("{path}.{name}: not in the schema"));
                }
                violations(field, schema, &format!("{path}.{name}"), found);
            }
        }
        Value::String(text) if is_beyond(text.chars().count(), "maxLength") => {
            found.push(format!("{path}: {} characters", text.chars().count()));
        }
        _ => {}
    }
}

fn assert_valid(kind: &str, status: &impl Serialize) {
    let mut found = Vec::new();
    violations(&serde_json::to_value(status).unwrap(), &schema(kind), kind, &mut found);
    assert_eq!(found, Vec::<String>::new());
}

/// The statuses of these BpfPrograms, which the API server and the operator take.
fn valid(programs: &BTreeMap<String, ProgramState>) -> (BpfNodeStatus, BpfNodeDetailStatus) {
    let (node, detail) = statuses(programs);
    assert_valid("BpfNode", &node);
    let read: BpfNodeStatus = serde_json::from_value(serde_json::to_value(&node).unwrap()).unwrap();
    assert_eq!(read, node, "the operator reads it");
    assert_valid("BpfNodeDetail", &detail);
    (node, detail)
}

#[test]
fn forty_functions_pinned_after_failed_detaches_fit_into_the_schema() {
    let mut forty = largest();
    forty.observed.functions = forty.observed.functions.into_iter().take(40).collect();
    let (node, detail) = valid(&[("p".to_owned(), forty)].into());
    assert_eq!((node.programs[0].program_ids.len(), detail.programs[0].programs.len()), (32, 32));
    assert_eq!(detail.omitted.unwrap().functions, 8, "the others are counted");
}

#[test]
fn every_list_of_the_largest_report_fits_into_the_schema_and_what_is_left_out_is_counted() {
    let owner = long_name(0, 63);
    let users = (1..=700).map(|n| (long_name(n, 63), user(n, &owner)));
    let programs: BTreeMap<_, _> = users.chain([(owner.clone(), largest())]).collect();
    let (node, detail) = valid(&programs);
    assert_eq!(node.programs.len(), 701);
    assert!(detail.retained.len() <= MAX_RETAINED);
    assert!(detail.omitted.unwrap().retained >= 1400 - MAX_RETAINED as i64);

    // With fewer users, nothing is left out for the size of the statuses.
    let (node, detail) = valid(&programs.into_iter().take(1 + 2 * MAX_USERS).collect());
    assert_eq!(node.omitted, None);
    let largest = &detail.programs[0];
    let lengths = (largest.programs.len(), largest.maps.len(), largest.links.len(), largest.notes.len());
    assert_eq!(lengths, (MAX_FUNCTIONS, MAX_MAPS, MAX_LINKS, MAX_NOTES));
    assert_eq!((largest.programs[0].map_ids.len(), largest.maps[0].shared_by.len()), (MAX_MAPS, MAX_USERS));
    let entry = &node.programs[0];
    assert_eq!((entry.program_ids.len(), entry.map_ids.len()), (MAX_FUNCTIONS, MAX_MAPS));
    assert_eq!((entry.links, entry.message.as_ref().map(String::len)), (MANY.into(), Some(MAX_MESSAGE)));
    let omitted = detail.omitted.unwrap();
    let many = i64::from(MANY);
    assert_eq!((omitted.functions, omitted.maps, omitted.links), (many - 32, 2 * many - 128, many - 64));
}

#[test]
fn attach_orders_fit_into_the_schema() {
    let ids: Vec<u32> = (0..MANY).collect();
    let path = format!("/{}", "p".repeat(2000));
    let orders = || std::iter::repeat_n((path.as_str(), 3, ids.as_slice()), 2 * MAX_ORDERS);
    let (attach_order, beyond) = attach_orders(&[(long_name(0, 63), largest())].into(), MAX_ORDERS, orders);
    assert_eq!((attach_order.len(), attach_order[0].programs.len(), beyond), (MAX_ORDERS, MAX_ORDERED, 64));
    assert_valid("BpfNodeDetail", &BpfNodeDetailStatus { attach_order, ..BpfNodeDetailStatus::default() });
}

#[test]
fn limits_are_those_of_the_schemas() {
    for (kind, list, limit) in [
        ("BpfNodeDetail", "programs.programs", MAX_FUNCTIONS),
        ("BpfNodeDetail", "programs.programs.mapIDs", MAX_MAPS),
        ("BpfNodeDetail", "programs.maps", MAX_MAPS),
        ("BpfNodeDetail", "programs.maps.sharedBy", MAX_USERS),
        ("BpfNodeDetail", "programs.notes", MAX_NOTES),
        ("BpfNodeDetail", "programs.links", MAX_LINKS),
        ("BpfNodeDetail", "attachOrder", MAX_ORDERS),
        ("BpfNodeDetail", "attachOrder.programs", MAX_ORDERED),
        ("BpfNodeDetail", "retained", MAX_RETAINED),
    ] {
        let (first, rest) = list.split_once('.').unwrap_or((list, ""));
        let step = |schema: &Value, name: &str| schema["properties"][name].clone();
        let found = rest.split('.').filter(|name| !name.is_empty());
        let found = found.fold(step(&schema(kind), first), |list, name| step(&list["items"], name));
        assert_eq!(found["maxItems"], limit, "{kind} {list}");
    }
}

/// A program that is attached to a pod, to a container of it, to a pod where it is not in effect, and to two cgroups
/// that the spec names.
#[test]
fn pods_are_counted_once_and_only_those_in_effect() {
    let paths = [("/1", Some("shop/a")), ("/1/c", Some("shop/a")), ("/2", Some("shop/b")), ("/3", None), ("/4", None)];
    let owner = |pod: Option<&str>| pod.map(|pod| CgroupOwner { pod: Some(pod.to_owned()), ..CgroupOwner::default() });
    let function = DesiredProgram {
        kind: ProgramKind { prog_type: 13, attach_type: 3 },
        paths: paths.map(|(path, pod)| (path.to_owned(), owner(pod))).into(),
        maps: BTreeSet::new(),
        can_cut_off: false,
        passes_only: false,
    };
    let link = |(n, (path, _)): (usize, (&str, Option<&str>))| {
        let info = LinkInfo { id: 1, program_id: 1, ..LinkInfo::default() };
        let link =
            ObservedLink { info, path: Some(path.to_owned()), in_effect: path != "/2", believed: false, pinned: true };
        (LinkKey { function: "f".to_owned(), place: n.to_string() }, link)
    };
    let mut program = ProgramState::default();
    program.observe(Observed {
        uid: Some("u".to_owned()),
        revision: Some("p-1".to_owned()),
        links: paths.into_iter().enumerate().map(link).collect(),
        ..Observed::default()
    });
    program.desire(Some(Arc::new(Desired {
        program: ProgramRef::default(),
        revision: "p-2".to_owned(),
        load_key: String::new(),
        digest: String::new(),
        origin: Default::default(),
        functions: [("f".to_owned(), function)].into(),
        maps: BTreeMap::new(),
        kept_pods: BTreeMap::new(),
        attaches_to_maps: false,
        globals: BTreeMap::new(),
        settings: Vec::new(),
        priority: 500,
        unordered: false,
        suspended: false,
        force_detach: false,
    })));
    let (node, detail) = valid(&[("p".to_owned(), program)].into());
    let entry = &node.programs[0];
    assert_eq!((entry.links, entry.pods, node.counts.links), (4, 1, 4));
    assert_eq!(detail.programs[0].links[1].pod.as_deref(), Some("shop/a"));
}

#[test]
fn the_revision_that_a_revert_brings_back_is_known_good_until_the_trial_is_decided() {
    for (state, known_good) in
        [(TrialState::Open, Some("p-1")), (TrialState::Reopened, Some("p-1")), (TrialState::Passed, None)]
    {
        let info = ProgramInfo { id: 1, ..ProgramInfo::default() };
        let key = LinkKey { function: "f".to_owned(), place: "1".to_owned() };
        let link_info = LinkInfo { id: 2, program_id: 1, ..LinkInfo::default() };
        let link = ObservedLink { info: link_info, path: None, in_effect: true, believed: false, pinned: true };
        let previous = Predecessor { revision: Some("p-1".to_owned()), ..Predecessor::default() };
        let mut program = ProgramState::default();
        program.observe(Observed {
            revision: Some("p-2".to_owned()),
            trial: Some(Trial { revision: "p-2".to_owned(), state }),
            previous: Some(previous),
            functions: [("f".to_owned(), ObservedProgram { info, load_key: None, pinned: true })].into(),
            links: [(key, link)].into(),
            ..Observed::default()
        });
        let (node, _) = valid(&[("p".to_owned(), program)].into());
        let entry = &node.programs[0];
        assert_eq!((entry.revision.as_deref(), entry.known_good_revision.as_deref()), (Some("p-2"), known_good));
    }
}

#[test]
fn a_trial_that_could_not_watch_the_kubelet_is_noted() {
    for (state, noted) in [(TrialState::Passed, 0), (TrialState::PassedWithoutLease, 1)] {
        let mut program = ProgramState::default();
        let trial = Some(Trial { revision: "p-1".to_owned(), state });
        program.observe(Observed { uid: Some("u".to_owned()), trial, ..Observed::default() });
        let notes = notes::notes(&program, &Contents::of(&program, None, &Limits::OF_STATUSES), &BTreeMap::new());
        assert_eq!(notes.len(), noted, "{notes:?}");
    }
}
