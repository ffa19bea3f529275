//! Plans, against a fake that takes steps as the interpreter does: whatever is held and wanted, executing the plan leaves
//! nothing to plan.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use sockeye_agent::{
    held::{Held, Names},
    kernel::{cgroup::Cgroup, load::ProgramKind},
    plan::{Step, plan},
    shape::Shape,
    wanted::{Wanted, WantedFunction, WantedMap},
};
use sockeye_crds::{MapDefinition, Reason, names::pin_name, revision::ProgramRef};
use sockeye_fake::{Fake, Ids};

const FUNCTIONS: [&str; 3] = ["f", "g", "h"];
const MAPS: [&str; 4] = ["m", "n", ".rodata", ".bss"];
const PATHS: [&str; 3] = ["/a", "/b", "/c"];

fn cgroups() -> BTreeMap<String, Cgroup> {
    let cgroup =
        |(i, path): (usize, &&str)| ((*path).to_owned(), Cgroup { id: 100 + i as u64, path: (*path).to_owned() });
    PATHS.iter().enumerate().map(cgroup).collect()
}

fn shape(entries: u32) -> Shape {
    Shape { map_type: 2, key_size: 4, value_size: 8, max_entries: entries, flags: 0 }
}

prop_compose! {
    fn wanteds()(
        uid in 0..2u8,
        load in 0..3u8,
        functions in prop::collection::btree_map(prop::sample::select(&FUNCTIONS[..]),
            (1..3u32, prop::collection::btree_set(prop::sample::select(&PATHS[..]), 1..3)), 1..3),
        maps in prop::collection::btree_map(prop::sample::select(&MAPS[..]), (any::<bool>(), any::<bool>()), 0..4),
    ) -> Wanted {
        let map = |(name, (pin, retain)): (&str, (bool, bool))| {
            let definition = if name.starts_with('.') { MapDefinition::Data } else { MapDefinition::Btf };
            let retain = retain && pin && !definition.is_data();
            (name.to_owned(), WantedMap { pin_name: pin_name(name), pin, retain, definition, shape: shape(10) })
        };
        let function = |(name, (attach_type, paths)): (&str, (u32, BTreeSet<&str>))| {
            let kind = ProgramKind { prog_type: 13, attach_type };
            (name.to_owned(), WantedFunction { kind, paths: paths.into_iter().map(str::to_owned).collect() })
        };
        let functions: BTreeMap<_, _> = functions.into_iter().map(function).collect();
        let maps: BTreeMap<_, _> = maps.into_iter().map(map).collect();
        // As the load key does it: another set of functions, or another pinning, is another load.
        let load_key = format!("{load}-{:?}-{:?}", functions.keys(), maps.iter().map(|(n, m)| (n, m.pin)).collect::<Vec<_>>());
        Wanted {
            program: ProgramRef { name: "p".into(), uid: format!("uid-{uid}") },
            revision: format!("p-{load_key}"),
            load_key,
            digest: "sha256:0".into(),
            functions,
            maps,
        }
    }
}

/// What happens to a node between two passes.
#[derive(Clone, Debug)]
enum Event {
    /// Something is wanted, or nothing is.
    Want(Box<Option<Wanted>>),
    /// The agent is killed after so many of the steps towards what is wanted, and started again.
    KilledAfter(usize),
    /// Someone removes a link's pin, or its cgroup dies.
    LinkLost(usize, bool),
    /// Someone removes a map's pin.
    MapLost(usize),
    /// A half-made pin is left.
    Stray,
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => wanteds().prop_map(|w| Event::Want(Box::new(Some(w)))),
        1 => Just(Event::Want(Box::new(None))),
        3 => (0..12usize).prop_map(Event::KilledAfter),
        1 => (0..4usize, any::<bool>()).prop_map(|(i, pin)| Event::LinkLost(i, pin)),
        1 => (0..4usize).prop_map(Event::MapLost),
        1 => Just(Event::Stray),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn executed_plans_leave_nothing_to_plan(events in prop::collection::vec(events(), 1..12)) {
        let cgroups = cgroups();
        let (mut fake, mut ids) = (Fake::default(), Ids::default());
        let mut wanted: Option<Wanted> = None;
        for event in events {
            let mut killed = usize::MAX;
            match event {
                Event::Want(other) => wanted = *other,
                Event::KilledAfter(steps) => killed = steps,
                Event::LinkLost(i, unpinned) => {
                    let key = fake.held.links.keys().nth(i).cloned();
                    if let Some(key) = key {
                        if unpinned {
                            fake.held.links.remove(&key);
                        } else {
                            let link = fake.held.links.get_mut(&key).unwrap();
                            link.in_effect = false;
                            link.info.cgroup_id = 0;
                        }
                    }
                }
                Event::MapLost(i) => {
                    let pin = fake.held.maps.keys().nth(i).cloned();
                    pin.map(|pin| fake.held.maps.remove(&pin));
                }
                Event::Stray => fake.held.stray = true,
            }
            let steps = plan(wanted.as_ref(), &fake.held, &cgroups).unwrap();
            let steps = &steps[..steps.len().min(killed)];
            let names = Names::of(&fake.held).after(steps);
            fake.execute(&mut ids, wanted.as_ref(), steps);
            prop_assert_eq!(Names::of(&fake.held), names);

            let steps = plan(wanted.as_ref(), &fake.held, &cgroups).unwrap();
            fake.execute(&mut ids, wanted.as_ref(), &steps);
            prop_assert_eq!(plan(wanted.as_ref(), &fake.held, &cgroups).unwrap(), vec![]);
            check(wanted.as_ref(), &fake.held)?;
        }
    }

    /// A wanted revision never takes a link away before what it asks for is in effect.
    #[test]
    fn links_go_only_after_everything_wanted_is_in_effect(first in wanteds(), mut second in wanteds()) {
        second.program.uid.clone_from(&first.program.uid);
        let cgroups = cgroups();
        let (mut fake, mut ids) = (Fake::default(), Ids::default());
        fake.execute(&mut ids, Some(&first), &plan(Some(&first), &fake.held, &cgroups).unwrap());
        let steps = plan(Some(&second), &fake.held, &cgroups).unwrap();
        let last_made = steps.iter().rposition(|s| matches!(s, Step::Attach { .. } | Step::Update(_) | Step::Load { .. }));
        for (i, step) in steps.iter().enumerate() {
            if let Step::Detach(key) = step {
                // The one exception: a link of another attach type is replaced in place, right after.
                let replaced = matches!(steps.get(i + 1), Some(Step::Attach { function, .. }) if *function == key.function);
                prop_assert!(replaced || last_made.is_none_or(|made| i > made), "{steps:?}");
            }
        }
    }
}

fn check(wanted: Option<&Wanted>, held: &Held) -> Result<(), TestCaseError> {
    let Some(wanted) = wanted else {
        prop_assert!(held.is_empty() || held.is_retained_only(), "{held:?}");
        return Ok(());
    };
    prop_assert_eq!(held.uid.as_ref(), Some(&wanted.program.uid));
    let links: usize = wanted.functions.values().map(|f| f.paths.len()).sum();
    prop_assert_eq!(held.links.len(), links);
    for (key, link) in &held.links {
        prop_assert!(link.in_effect);
        prop_assert_eq!(link.info.program_id, held.functions[&key.function].info.id);
    }
    let pinned: BTreeSet<&String> = wanted.maps.values().filter(|m| m.pin).map(|m| &m.pin_name).collect();
    prop_assert!(pinned.iter().all(|pin| held.maps.contains_key(*pin)));
    prop_assert!(held.maps.keys().all(|pin| pinned.contains(pin) || held.retained.contains(pin)));
    Ok(())
}

#[test]
fn a_map_of_another_shape_is_refused_and_nothing_is_touched() {
    let mut wanted = Wanted {
        program: ProgramRef { name: "p".into(), uid: "u".into() },
        revision: "p-1".into(),
        load_key: "1".into(),
        digest: "sha256:0".into(),
        functions: BTreeMap::new(),
        maps: BTreeMap::new(),
    };
    let kind = ProgramKind { prog_type: 13, attach_type: 3 };
    wanted.functions.insert("f".into(), WantedFunction { kind, paths: ["/a".to_owned()].into() });
    let map =
        WantedMap { pin_name: "m".into(), pin: true, retain: false, definition: MapDefinition::Btf, shape: shape(10) };
    wanted.maps.insert("m".into(), map);
    let (mut fake, mut ids) = (Fake::default(), Ids::default());
    fake.execute(&mut ids, Some(&wanted), &plan(Some(&wanted), &fake.held, &cgroups()).unwrap());

    wanted.load_key = "2".into();
    wanted.maps.get_mut("m").unwrap().shape = shape(11);
    let refusal = plan(Some(&wanted), &fake.held, &cgroups()).unwrap_err();
    assert_eq!(refusal.reason, Reason::MapShapeChanged);
    assert!(refusal.message.contains("max_entries 10") && refusal.message.contains("max_entries 11"), "{refusal}");
}

#[test]
fn a_cgroup_that_is_not_there_is_named() {
    let kind = ProgramKind { prog_type: 13, attach_type: 3 };
    let function = WantedFunction { kind, paths: ["/nowhere".to_owned()].into() };
    let wanted = Wanted {
        program: ProgramRef { name: "p".into(), uid: "u".into() },
        revision: "p-1".into(),
        load_key: "1".into(),
        digest: "sha256:0".into(),
        functions: [("f".to_owned(), function)].into(),
        maps: BTreeMap::new(),
    };
    let refusal = plan(Some(&wanted), &Held::default(), &cgroups()).unwrap_err();
    assert_eq!(refusal.reason, Reason::CgroupNotFound);
    assert!(refusal.message.contains("/nowhere") && refusal.message.contains('f'), "{refusal}");
}
