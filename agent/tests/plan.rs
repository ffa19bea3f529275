//! Plans, against a fake that takes steps as the interpreter does: whatever is held and wanted, executing the plan leaves
//! nothing to plan.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use sockeye_agent::{
    around::Around,
    held::{Former, Held, HeldFunction, LinkKey, Names},
    kernel::{cgroup::Cgroup, info::MapInfo, load::ProgramKind},
    layout::{Trial, Verdict},
    plan::{Step, detach, plan, revert},
    pods::Occupant,
    shape::Shape,
    wanted::{Wanted, WantedFunction, WantedMap},
};
use sockeye_crds::{MapDefinition, Reason, names::pin_name, program::MapRef, revision::ProgramRef};
use sockeye_ebpf::kinds::section::{STREAM_PARSER, STREAM_VERDICT, VERDICT, exclude_each_other};
use sockeye_fake::{Fake, Ids};

const FUNCTIONS: [&str; 3] = ["f", "g", "h"];
/// `slots` is filled by its object.
const MAPS: [&str; 5] = ["m", "n", "slots", ".rodata", ".bss"];
const PATHS: [&str; 3] = ["/a", "/b", "/c"];

/// Two to cgroups; a parser, both verdicts on what is received, and one on what is sent.
const KINDS: [ProgramKind; 6] = {
    const fn kind(prog_type: u32, attach_type: u32) -> ProgramKind {
        ProgramKind { prog_type, attach_type }
    }
    [kind(13, 1), kind(13, 2), kind(14, STREAM_PARSER), kind(14, STREAM_VERDICT), kind(14, VERDICT), kind(16, 7)]
};

/// All cgroups there are, and these maps of others.
fn around(maps: &BTreeMap<MapRef, MapInfo>) -> Around {
    let cgroup =
        |(i, path): (usize, &&str)| ((*path).to_owned(), Cgroup { id: 100 + i as u64, path: (*path).to_owned() });
    Around { cgroups: PATHS.iter().enumerate().map(cgroup).collect(), maps: maps.clone(), ..Around::default() }
}

fn alone() -> Around {
    around(&BTreeMap::new())
}

/// The map of another BpfProgram.
fn other(which: u8) -> MapRef {
    MapRef { program: format!("other-{which}"), map: "m".into() }
}

fn info(id: u32, entries: u32) -> MapInfo {
    let Shape { map_type, key_size, value_size, max_entries, flags } = shape(entries);
    MapInfo { id, map_type, key_size, value_size, max_entries, flags, ..MapInfo::default() }
}

fn shape(entries: u32) -> Shape {
    Shape { map_type: 2, key_size: 4, value_size: 8, max_entries: entries, flags: 0 }
}

prop_compose! {
    fn wanteds()(
        uid in 0..2u8,
        load in 0..3u8,
        functions in prop::collection::btree_map(prop::sample::select(&FUNCTIONS[..]),
            (0..6usize, prop::collection::btree_set(prop::sample::select(&PATHS[..]), 1..3),
                prop::collection::btree_set(prop::sample::select(&MAPS[..2]), 0..3)), 1..4),
        maps in prop::collection::btree_map(prop::sample::select(&MAPS[..]), (any::<bool>(), any::<bool>(), 10..12u32,
            prop::option::weighted(0.3, 0..2u8)), 0..4),
        suspended in prop::bool::weighted(0.2),
        can_cut_off in any::<bool>(),
    ) -> Wanted {
        // Shapes that change are recreated: what is refused is another test.
        let recreate = true;
        let map = |(name, (pin, retain, entries, from)): (&str, (bool, bool, u32, Option<u8>))| {
            let definition = if name.starts_with('.') { MapDefinition::Data } else { MapDefinition::Btf };
            let of_load = definition.is_data() || name == "slots";
            let from = from.filter(|_| !of_load).map(other);
            let (pin, entries) = if from.is_some() { (true, 10) } else { (pin, entries) };
            let retain = retain && pin && !of_load && from.is_none();
            let shape = shape(entries);
            (name.to_owned(), WantedMap { pin_name: pin_name(name), pin, retain, definition, of_load, shape, recreate, from,
                used_by: FUNCTIONS.map(str::to_owned).to_vec() })
        };
        let maps: BTreeMap<_, _> = maps.into_iter().map(map).collect();
        // As a checked spec has it: only to maps that are pinned, and to each one of a kind.
        let mut taken: Vec<(String, u32)> = Vec::new();
        let function = |(name, (kind, paths, to)): (&str, (usize, BTreeSet<&str>, BTreeSet<&str>))| {
            let kind = KINDS[kind];
            let mut paths: BTreeMap<String, Option<Occupant>> = paths.into_iter().map(|path| (path.to_owned(), None)).collect();
            let mut to: BTreeSet<String> = to.into_iter().map(str::to_owned).collect();
            if suspended { paths.clear(); to.clear() }
            if kind.prog_type == 13 { to.clear() } else { paths.clear() }
            to.retain(|pin| maps.get(pin).is_some_and(|map: &WantedMap| map.pin)
                && !taken.iter().any(|(at, other)| at == pin && exclude_each_other(*other, kind.attach_type)));
            taken.extend(to.iter().map(|pin| (pin.clone(), kind.attach_type)));
            (name.to_owned(), WantedFunction { kind, paths, maps: to, can_cut_off })
        };
        let functions: BTreeMap<_, _> = functions.into_iter().map(function).collect();
        // As the load key does it: another set of functions, another pinning or another size is another load; and so is
        // another program, which alone decides whether it can cut the node off.
        let options: Vec<_> = maps.iter().map(|(name, map)| (name, map.pin, map.shape.max_entries, &map.from)).collect();
        let kinds: Vec<_> = functions.iter().map(|(name, f)| (name, f.kind)).collect();
        let load_key = format!("{load}-{kinds:?}-{options:?}-{can_cut_off}");
        Wanted {
            program: ProgramRef { name: "p".into(), uid: format!("uid-{uid}") },
            revision: format!("p-{load_key}-{suspended}"),
            load_key,
            digest: "sha256:0".into(),
            functions,
            maps,
            attaches_to_maps: false,
            globals: BTreeMap::new(),
            settings: Vec::new(),
            priority: 500,
            unordered: false,
            suspended,
        }
    }
}

/// What happens to a node between two passes.
#[derive(Clone, Debug)]
enum Event {
    /// Something is wanted, or nothing is.
    Want(Box<Option<Wanted>>),
    /// The agent is killed after so many of the steps towards another, and then what was wanted before is wanted again.
    TurnBack(Box<Wanted>, usize),
    /// The agent is killed after so many of the steps towards what is wanted, and started again.
    KilledAfter(usize),
    /// Someone removes a link's pin, or its cgroup dies.
    LinkLost(usize, bool),
    /// Someone removes a map's pin: while an agent runs, which then holds it alone, or while none does.
    MapLost(usize, bool),
    /// Someone puts another map there, which no program uses.
    MapSwapped(usize),
    /// The same with a program's.
    FunctionLost(usize, bool),
    /// The same with a link's.
    LinkUnpinned(usize),
    /// Another BpfProgram's map is made (anew), or is gone.
    Other(u8, bool),
    /// A trial is over, and well; or it is to be gone through once more.
    TrialIs(Verdict),
    /// A half-made pin is left.
    Stray,
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => wanteds().prop_map(|w| Event::Want(Box::new(Some(w)))),
        1 => Just(Event::Want(Box::new(None))),
        2 => (wanteds(), 0..12usize).prop_map(|(w, steps)| Event::TurnBack(Box::new(w), steps)),
        3 => (0..12usize).prop_map(Event::KilledAfter),
        1 => (0..4usize, any::<bool>()).prop_map(|(i, pin)| Event::LinkLost(i, pin)),
        1 => (0..4usize, any::<bool>()).prop_map(|(i, runs)| Event::MapLost(i, runs)),
        1 => (0..4usize).prop_map(Event::MapSwapped),
        1 => (0..4usize, any::<bool>()).prop_map(|(i, runs)| Event::FunctionLost(i, runs)),
        1 => (0..4usize).prop_map(Event::LinkUnpinned),
        2 => (0..2u8, prop::bool::weighted(0.7)).prop_map(|(which, there)| Event::Other(which, there)),
        1 => prop::sample::select(&[Verdict::Passed, Verdict::Reprieved][..]).prop_map(Event::TrialIs),
        1 => Just(Event::Stray),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if std::env::var_os("SOCKEYE_CHAOS").is_some() { 500_000 } else { 10_000 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn executed_plans_leave_nothing_to_plan(events in prop::collection::vec(events(), 1..12), unlinked in any::<bool>()) {
        let (mut fake, mut ids) = (Fake { unlinked, ..Fake::default() }, Ids::default());
        let mut wanted: Option<Wanted> = None;
        let mut made = 0;
        for event in events {
            let mut killed = usize::MAX;
            match event {
                Event::Want(other) => wanted = *other,
                Event::TurnBack(other, after) => if let Ok(steps) = plan(Some(&other), &fake.held, &around(&fake.others)) {
                    fake.execute(&mut ids, Some(&other), &steps[..steps.len().min(after)]);
                },
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
                            link.info.map_id = 0;
                        }
                    }
                }
                Event::MapLost(i, true) => if let Some(map) = fake.held.maps.values_mut().nth(i) {
                    map.pinned = false;
                },
                Event::MapLost(i, false) => {
                    let pin = fake.held.maps.keys().nth(i).cloned();
                    if let Some(pin) = pin {
                        fake.held.maps.remove(&pin);
                        let on_it = fake.held.links.iter_mut().filter(|(key, _)| key.map() == Some(&pin));
                        on_it.for_each(|(_, link)| link.in_effect = false);
                    }
                }
                Event::MapSwapped(i) => if let Some((pin, map)) = fake.held.maps.iter_mut().nth(i).filter(|(_, map)| map.pinned) {
                    made += 1;
                    map.info.id = 2_000_000 + made;
                    let on_it = fake.held.links.iter_mut().filter(|(key, _)| key.map() == Some(pin));
                    on_it.for_each(|(_, link)| link.in_effect = false);
                },
                Event::FunctionLost(i, true) => if let Some(function) = fake.held.functions.values_mut().nth(i) {
                    function.pinned = false;
                },
                Event::FunctionLost(i, false) => {
                    let name = fake.held.functions.keys().nth(i).cloned();
                    name.map(|name| fake.held.functions.remove(&name));
                }
                Event::LinkUnpinned(i) => if let Some(link) = fake.held.links.values_mut().nth(i) {
                    link.pinned = false;
                },
                Event::Other(which, true) => {
                    made += 1;
                    fake.others.insert(other(which), info(1_000_000 + made, 10));
                }
                Event::Other(which, false) => drop(fake.others.remove(&other(which))),
                Event::TrialIs(verdict) => if let Some(trial) = &mut fake.held.trial {
                    trial.verdict = verdict;
                },
                Event::Stray => fake.held.stray = true,
            }
            let around = around(&fake.others);
            let steps = match plan(wanted.as_ref(), &fake.held, &around) {
                Err(refusal) => {
                    prop_assert_eq!(refusal.reason, Reason::SharedMapMissing);
                    continue;
                }
                steps => steps.unwrap(),
            };
            let steps = &steps[..steps.len().min(killed)];
            let names = Names::of(&fake.held).after(steps);
            fake.execute(&mut ids, wanted.as_ref(), steps);
            prop_assert_eq!(Names::of(&fake.held), names);

            let steps = plan(wanted.as_ref(), &fake.held, &around).unwrap();
            let nowhere = fake.held.links.is_empty();
            fake.execute(&mut ids, wanted.as_ref(), &steps);
            let guards = |function: &String| wanted.as_ref().is_some_and(|w| w.functions[function].can_cut_off);
            let attaches = steps.iter().any(|s| matches!(s, Step::Attach { function, .. } if guards(function)));
            let on_trial = fake.held.trial.as_ref().is_some_and(|trial| trial.verdict.is_open());
            prop_assert!(!(attaches && nowhere) || on_trial, "what is attached anew is on trial: {:?}", fake.held.trial);
            prop_assert_eq!(plan(wanted.as_ref(), &fake.held, &around).unwrap(), vec![]);
            check(wanted.as_ref(), &fake.held, &fake.others)?;
        }
    }

    /// A wanted revision never takes a link away before what it asks for is in effect.
    #[test]
    fn links_go_only_after_everything_wanted_is_in_effect(first in wanteds(), mut second in wanteds()) {
        second.program.uid.clone_from(&first.program.uid);
        let others: BTreeMap<_, _> = (0..2).map(|which| (other(which), info(1_000_000 + u32::from(which), 10))).collect();
        let around = around(&others);
        let (mut fake, mut ids) = (Fake { others, ..Fake::default() }, Ids::default());
        fake.execute(&mut ids, Some(&first), &plan(Some(&first), &fake.held, &around).unwrap());
        let steps = plan(Some(&second), &fake.held, &around).unwrap();
        let last_made = steps.iter().rposition(|s| matches!(s, Step::Attach { .. } | Step::Update(_) | Step::Load { .. }));
        for (i, step) in steps.iter().enumerate() {
            if let Step::Detach(key) = step {
                // The one exception: what holds the room on a map is replaced right after.
                let next = steps[i..].iter().find(|step| !matches!(step, Step::Detach(_)));
                let replaced = key.map().is_some() && matches!(next, Some(Step::Attach { function, site, .. })
                    if LinkKey::to(function, site).place == key.place);
                prop_assert!(replaced || last_made.is_none_or(|made| i > made), "{steps:?}");
            }
        }
    }
}

fn check(wanted: Option<&Wanted>, held: &Held, others: &BTreeMap<MapRef, MapInfo>) -> Result<(), TestCaseError> {
    let Some(wanted) = wanted else {
        prop_assert!(held.is_empty() || held.is_retained_only(), "{held:?}");
        prop_assert!(held.maps.values().all(|map| map.pinned), "{held:?}");
        return Ok(());
    };
    prop_assert_eq!(held.uid.as_ref(), Some(&wanted.program.uid));
    let links: usize = wanted.functions.values().map(|f| f.paths.len() + f.maps.len()).sum();
    prop_assert_eq!(held.links.len(), links);
    for (key, link) in &held.links {
        prop_assert!(link.in_effect);
        prop_assert_eq!(link.info.program_id, held.functions[&key.function].info.id);
        prop_assert_eq!(key.map().map(|pin| held.maps[pin].info.id).unwrap_or_default(), link.info.map_id);
    }
    prop_assert!(held.functions.values().all(|f| f.pinned) && held.links.values().all(|l| l.pinned));
    prop_assert!(held.maps.values().all(|map| map.pinned), "{held:?}");
    for map in wanted.maps.values().filter(|map| map.pin && !map.definition.is_data()) {
        prop_assert_eq!(held.maps[&map.pin_name].shape(), map.shape);
    }
    for map in wanted.maps.values().filter(|map| map.pin) {
        let pinned = &held.maps[&map.pin_name];
        let used = |function: &HeldFunction| function.info.map_ids.contains(&pinned.info.id);
        prop_assert!(held.functions.values().all(used), "what is pinned is what is used: {held:?}");
        prop_assert_eq!(&pinned.from, &map.from);
        let other = map.from.as_ref().and_then(|from| others.get(from));
        prop_assert!(other.is_none_or(|other| other.id == pinned.info.id), "one map, shared by both");
        prop_assert!(
            map.from.is_some() || !(1_000_000..2_000_000).contains(&pinned.info.id),
            "what was shared is not taken for one's own"
        );
    }
    let risky = wanted.functions.values().any(|f| f.can_cut_off && !f.paths.is_empty());
    let tried = held.trial.as_ref().is_some_and(|trial| trial.revision == wanted.revision);
    prop_assert!(!risky || tried, "what can cut the node off is on trial, or was: {:?}", held.trial);
    let open = held.trial.as_ref().is_some_and(|trial| trial.verdict.is_open());
    prop_assert!(!open || tried, "a trial ends with its revision: {:?}", held.trial);
    let pinned: BTreeSet<&String> = wanted.maps.values().filter(|m| m.pin).map(|m| &m.pin_name).collect();
    prop_assert!(pinned.iter().all(|pin| held.maps.contains_key(*pin)));
    prop_assert!(held.maps.keys().all(|pin| pinned.contains(pin) || held.retained.contains(pin)));
    Ok(())
}

/// What wants these functions and no maps.
fn revision(uid: &str, name: &str, functions: BTreeMap<String, WantedFunction>) -> Wanted {
    Wanted {
        program: ProgramRef { name: "p".into(), uid: uid.into() },
        revision: name.into(),
        load_key: "1".into(),
        digest: "sha256:0".into(),
        functions,
        maps: BTreeMap::new(),
        attaches_to_maps: false,
        globals: BTreeMap::new(),
        settings: Vec::new(),
        priority: 500,
        unordered: false,
        suspended: false,
    }
}

/// Whose shape is not changed for the asking.
fn map(retain: bool) -> WantedMap {
    WantedMap {
        pin_name: "m".into(),
        pin: true,
        retain,
        definition: MapDefinition::Btf,
        of_load: false,
        shape: shape(10),
        recreate: false,
        from: None,
        used_by: Vec::new(),
    }
}

#[test]
fn a_map_of_another_shape_is_refused_and_nothing_is_touched() {
    let mut wanted = revision("u", "p-1", BTreeMap::new());
    let kind = ProgramKind { prog_type: 13, attach_type: 3 };
    wanted.functions.insert(
        "f".into(),
        WantedFunction { kind, paths: [("/a".to_owned(), None)].into(), maps: BTreeSet::new(), can_cut_off: false },
    );
    wanted.maps.insert("m".into(), map(false));
    let (mut fake, mut ids) = (Fake::default(), Ids::default());
    fake.execute(&mut ids, Some(&wanted), &plan(Some(&wanted), &fake.held, &alone()).unwrap());

    wanted.load_key = "2".into();
    wanted.maps.get_mut("m").unwrap().shape = shape(11);
    let refusal = plan(Some(&wanted), &fake.held, &alone()).unwrap_err();
    assert_eq!(refusal.reason, Reason::MapShapeChanged);
    assert!(refusal.message.contains("max_entries 10") && refusal.message.contains("max_entries 11"), "{refusal}");
}

/// The object is deleted and made again while a map that it is to leave is held by the agent alone.
#[test]
fn a_retained_map_is_pinned_again_once_whoever_comes_next() {
    let wanted =
        |uid: &str, maps: BTreeMap<String, WantedMap>| Wanted { maps, ..revision(uid, "p-1", BTreeMap::new()) };
    let first = wanted("1", [("m".to_owned(), map(true))].into());
    let (mut fake, mut ids) = (Fake::default(), Ids::default());
    fake.execute(&mut ids, Some(&first), &plan(Some(&first), &fake.held, &alone()).unwrap());
    let id = fake.held.maps["m"].info.id;
    for second in [wanted("2", BTreeMap::new()), wanted("3", first.maps.clone())] {
        fake.held.maps.get_mut("m").unwrap().pinned = false;
        let steps = plan(Some(&second), &fake.held, &alone()).unwrap();
        fake.execute(&mut ids, Some(&second), &steps);
        assert_eq!(steps.iter().filter(|step| **step == Step::RepinMap("m".into())).count(), 1, "{steps:?}");
        assert_eq!(plan(Some(&second), &fake.held, &alone()).unwrap(), []);
    }
    assert_eq!(fake.held.maps["m"].info.id, id);
}

/// Someone who undoes what is attached, and what was taken back, are no reasons to have it again.
#[test]
fn what_was_taken_back_stays_so_until_another_revision_is_wanted() {
    let kind = ProgramKind { prog_type: 8, attach_type: 0 };
    let function =
        WantedFunction { kind, paths: [("/a".to_owned(), None)].into(), maps: BTreeSet::new(), can_cut_off: true };
    let mut wanted = revision("u", "p-1", [("f".to_owned(), function)].into());
    let (mut fake, mut ids) = (Fake::default(), Ids::default());
    let steps = plan(Some(&wanted), &fake.held, &alone()).unwrap();
    let at = |of: fn(&Step) -> bool| steps.iter().position(of).unwrap();
    assert!(at(|s| matches!(s, Step::SetTrial(_))) < at(|s| matches!(s, Step::Attach { .. })), "{steps:?}");
    fake.execute(&mut ids, Some(&wanted), &steps);

    let trial = |verdict| Trial { revision: "p-1".into(), verdict };
    let back = |verdict| [&detach(&fake.held)[..], &[Step::SetTrial(trial(verdict))]].concat();
    let (suspected, reverted) = (back(Verdict::Suspected), back(Verdict::Reverted));
    fake.execute(&mut ids, Some(&wanted), &suspected);
    assert_eq!(plan(Some(&wanted), &fake.held, &alone()).unwrap_err().reason, Reason::NotInEffect);

    // Once more, if that is what is noted, and on trial again before anything is attached.
    fake.execute(&mut ids, None, &[Step::SetTrial(trial(Verdict::Reprieved))]);
    let steps = plan(Some(&wanted), &fake.held, &alone()).unwrap();
    assert!(matches!(&steps[..], [Step::SetTrial(again), Step::Attach { .. }] if *again == trial(Verdict::Reopened)));
    fake.execute(&mut ids, Some(&wanted), &steps);
    fake.execute(&mut ids, Some(&wanted), &reverted);
    assert_eq!(plan(Some(&wanted), &fake.held, &alone()).unwrap_err().reason, Reason::Reverted);
    wanted.revision = "p-2".into();
    fake.execute(&mut ids, Some(&wanted), &plan(Some(&wanted), &fake.held, &alone()).unwrap());
    assert_eq!(fake.held.trial, Some(Trial { revision: "p-2".into(), verdict: Verdict::Open }));

    // Where something ran before, that is what is gone back to.
    let link = fake.held.links.keys().next().unwrap().clone();
    let former = |functions: &[&str], links: &[&LinkKey]| Former {
        revision: Some("p-1".into()),
        functions: functions.iter().map(|f| (*f).to_owned()).collect(),
        links: links.iter().map(|key| (*key).clone()).collect(),
    };
    fake.held.previous = Some(former(&["f"], &[&link]));
    let steps = revert(&fake.held);
    let shown: Vec<String> =
        steps.iter().map(|step| format!("{step:?}").split('(').next().unwrap().to_owned()).collect();
    assert_eq!(shown, ["Restore", "Update", "SetRevision"]);
    assert!(steps.contains(&Step::SetRevision(Some("p-1".into()))), "{steps:?}");
    assert!(fake.held.links.values().all(|link| link.in_effect) && fake.held.links.len() == 1);
    // What came with the revision on trial has nothing to go back to, be it another place of the same program.
    fake.held.previous = Some(former(&["f"], &[]));
    assert!(matches!(&revert(&fake.held)[..], [Step::Detach(key), Step::SetRevision(_)] if *key == link));
    // Where only places have changed, programs are the same; and one of them is gone, so that it is not that revision again.
    let gone = LinkKey { function: "f".into(), place: "7".into() };
    fake.held.previous = Some(former(&[], &[&link, &gone]));
    assert_eq!(revert(&fake.held), []);
}

#[test]
fn a_cgroup_that_is_not_there_is_named() {
    let kind = ProgramKind { prog_type: 13, attach_type: 3 };
    let function = WantedFunction {
        kind,
        paths: [("/nowhere".to_owned(), None)].into(),
        maps: BTreeSet::new(),
        can_cut_off: false,
    };
    let wanted = revision("u", "p-1", [("f".to_owned(), function)].into());
    let refusal = plan(Some(&wanted), &Held::default(), &alone()).unwrap_err();
    assert_eq!(refusal.reason, Reason::CgroupNotFound);
    assert!(refusal.message.contains("/nowhere") && refusal.message.contains('f'), "{refusal}");
}
