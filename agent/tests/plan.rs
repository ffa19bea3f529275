//! Plans, executed on a fake node: from any observed state to any desired one, executing the plan leaves nothing to
//! plan.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use sockeye_agent::{
    model::{
        desired::{Desired, DesiredMap, DesiredProgram},
        draining_map::SocketFate,
        kept_pod::KeptPod,
        kernel::{Cgroup, MapInfo, ProgramKind},
        observed::{LinkKey, Observed, ObservedKeptPod, ObservedMap, ObservedProgram, Predecessor},
        pin_names::PinNames,
        trial::{Trial, TrialState},
    },
    plan::{Step, context::PlanContext, detach, plan, revert},
};
use sockeye_crds::{MapDefinition, Reason, program::MapRef, revision::ProgramRef};
use sockeye_crds_testing::provoked;
use sockeye_fake::{Fake, Ids};

use self::events::{Scene, any_desired, events, info, shape, shared_map};

#[path = "plan/events.rs"]
mod events;

const PATHS: [&str; 4] = ["/a", "/b", "/c", "/c/d"];

/// For each path, how many cgroups had it before the present one.
type Generations = [u64; PATHS.len()];

/// A context in which all cgroups exist, and these maps of other BpfPrograms.
fn context(maps: &BTreeMap<MapRef, MapInfo>, generations: Generations) -> PlanContext {
    let cgroup = |(i, path): (usize, &&str)| {
        ((*path).to_owned(), Cgroup { id: 100 * (1 + generations[i]) + i as u64, path: (*path).to_owned() })
    };
    PlanContext {
        cgroups: PATHS.iter().enumerate().map(cgroup).collect(),
        maps: maps.clone(),
        ..PlanContext::default()
    }
}

/// A context without other BpfPrograms.
fn alone() -> PlanContext {
    context(&BTreeMap::new(), Generations::default())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if std::env::var_os("SOCKEYE_CHAOS").is_some() { 500_000 } else { 10_000 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn executed_plans_leave_nothing_to_plan(
        events in prop::collection::vec(events(), 1..12),
        unlinked in any::<bool>(),
    ) {
        let mut scene = Scene::default();
        scene.fake.unlinked = unlinked;
        for event in events {
            let killed = scene.happen(event);
            let context = scene.context();
            let Scene { fake, ids, desired, .. } = &mut scene;
            let desired = desired.as_ref();
            let steps = match plan(desired, &fake.observed, &context) {
                Err(refusal) => {
                    prop_assert_eq!(refusal.reason, Reason::SharedMapNotFound);
                    continue;
                }
                steps => steps.unwrap(),
            };
            check_notes(desired, &steps, &fake.observed)?;
            let steps = &steps[..steps.len().min(killed)];
            let before = fake.observed.clone();
            let names = PinNames::of(&fake.observed).after(steps);
            fake.execute(ids, desired, steps);
            prop_assert_eq!(PinNames::of(&fake.observed), names);
            check_kept(&before, fake)?;

            let steps = plan(desired, &fake.observed, &context).unwrap();
            check_notes(desired, &steps, &fake.observed)?;
            let had_no_links = fake.observed.links.is_empty();
            let before = fake.observed.clone();
            fake.execute(ids, desired, &steps);
            check_kept(&before, fake)?;
            let made = steps;
            // Once nothing is attached any more, sockets are counted, and the next plan takes them out.
            let steps = plan(desired, &fake.observed, &context).unwrap();
            prop_assert!(steps.iter().all(|step| matches!(step, Step::TakeSocketsOut(_))), "{steps:?}");
            fake.execute(ids, desired, &steps);
            let is_risky = |function: &String| desired.is_some_and(|desired| desired.functions[function].can_cut_off);
            let attaches = made.iter().any(|step| matches!(step, Step::Attach { function, .. } if is_risky(function)));
            let is_open = fake.observed.trial.as_ref().is_some_and(|trial| trial.state.is_open());
            let trial = &fake.observed.trial;
            prop_assert!(!(attaches && had_no_links) || is_open, "a new attachment starts a trial: {trial:?}");
            prop_assert_eq!(plan(desired, &fake.observed, &context).unwrap(), vec![]);
            check(desired, &fake.observed, &fake.others)?;
        }
    }

    /// A plan detaches a link only after everything desired is in effect.
    #[test]
    fn links_are_detached_after_everything_desired_is_in_effect(first in any_desired(), mut second in any_desired()) {
        second.program.uid.clone_from(&first.program.uid);
        let map = |which: u8| (shared_map(which), info(1_000_000 + u32::from(which), 10));
        let others: BTreeMap<_, _> = (0..2).map(map).collect();
        let context = context(&others, Generations::default());
        let (mut fake, mut ids) = (Fake { others, ..Fake::default() }, Ids::default());
        fake.execute(&mut ids, Some(&first), &plan(Some(&first), &fake.observed, &context).unwrap());
        let steps = plan(Some(&second), &fake.observed, &context).unwrap();
        let makes = |step: &Step| matches!(step, Step::Attach { .. } | Step::Update(_) | Step::Load { .. });
        let last_made = steps.iter().rposition(makes);
        for (i, step) in steps.iter().enumerate() {
            if let Step::Detach(key) = step {
                // The exception: a map runs one program of a kind, so the old one is detached right before.
                let next = steps[i..].iter().find(|step| !matches!(step, Step::Detach(_)));
                let replaced = key.map().is_some() && matches!(next, Some(Step::Attach { function, site, .. })
                    if LinkKey::to(function, site).place == key.place);
                prop_assert!(replaced || last_made.is_none_or(|made| i > made), "{steps:?}");
            }
        }
    }
}

/// Checks that all kept pods are noted while anything is attached or detached: a killed agent leaves no link that the
/// next one would not keep.
fn check_notes(desired: Option<&Desired>, steps: &[Step], observed: &Observed) -> Result<(), TestCaseError> {
    let Some(desired) = desired.filter(|desired| observed.uid.as_ref() == Some(&desired.program.uid)) else {
        return Ok(());
    };
    let noted = observed.kept_pods.iter().filter(|(_, kept)| kept.noted);
    let mut noted: BTreeSet<&KeptPod> = noted.map(|(pod, _)| pod).collect();
    let mut is_forgotten = false;
    for step in steps {
        match step {
            Step::KeepPod { pod, .. } => drop(noted.insert(pod)),
            Step::ForgetPod(pod) => {
                prop_assert!(noted.remove(pod) || !observed.kept_pods[pod].noted);
                is_forgotten = true;
            }
            Step::Attach { .. } | Step::Update(_) | Step::Move { .. } | Step::Detach(_) => {
                prop_assert!(!is_forgotten, "{steps:?}");
                prop_assert!(desired.kept_pods.keys().all(|pod| noted.contains(pod)), "{steps:?}");
            }
            _ => {}
        }
    }
    Ok(())
}

/// Checks that no map has ended with sockets in it: those that are no longer pinned in the home are kept elsewhere. Of
/// those whose sockets are taken out, only pass-through programs or the spec allow it.
fn check_kept(before: &Observed, fake: &Fake) -> Result<(), TestCaseError> {
    let has = |observed: &Observed, id: u32| observed.maps.values().any(|map| map.info.id == id);
    for map in before.maps.values().filter(|map| !has(&fake.observed, map.info.id)) {
        let fates = fake.kept.iter().filter(|(id, _)| *id == map.info.id);
        let fates: Vec<SocketFate> = fates.map(|(_, fate)| *fate).collect();
        prop_assert!(!fates.is_empty(), "{map:?} ended");
        let may_leave = map.lossless || before.force_detach || fake.observed.force_detach;
        prop_assert!(may_leave || fates.contains(&SocketFate::Keep), "{map:?}: {fates:?}");
    }
    Ok(())
}

/// Checks that the observed state is the desired one.
fn check(
    desired: Option<&Desired>,
    observed: &Observed,
    others: &BTreeMap<MapRef, MapInfo>,
) -> Result<(), TestCaseError> {
    let Some(desired) = desired else {
        prop_assert!(observed.is_empty() || observed.is_retained_only(), "{observed:?}");
        prop_assert!(observed.maps.values().all(|map| map.pinned), "{observed:?}");
        return Ok(());
    };
    prop_assert_eq!(observed.uid.as_ref(), Some(&desired.program.uid));
    let links: usize = desired.functions.values().map(|f| f.paths.len() + f.maps.len()).sum();
    prop_assert_eq!(observed.links.len(), links);
    let kept = |(pod, path): (&KeptPod, &String)| (pod.clone(), ObservedKeptPod { path: path.clone(), noted: true });
    prop_assert_eq!(&observed.kept_pods, &desired.kept_pods.iter().map(kept).collect::<BTreeMap<_, _>>());
    for (key, link) in &observed.links {
        prop_assert!(link.in_effect);
        prop_assert_eq!(link.info.program_id, observed.functions[&key.function].info.id);
        prop_assert_eq!(key.map().map(|pin| observed.maps[pin].info.id).unwrap_or_default(), link.info.map_id);
    }
    prop_assert!(observed.functions.values().all(|f| f.pinned) && observed.links.values().all(|l| l.pinned));
    prop_assert!(observed.maps.values().all(|map| map.pinned), "{observed:?}");
    let (diverts, lossless) = (desired.diverts(), observed.maps.values().any(|map| map.lossless));
    prop_assert!(!(diverts && lossless), "what diverts bytes makes maps lossy: {observed:?}");
    prop_assert_eq!(observed.force_detach, desired.force_detach);
    let may_leave = |map: &&ObservedMap| map.from.is_none() && (map.lossless || desired.force_detach);
    let nothing_runs = desired.suspended && observed.links.is_empty();
    for map in observed.maps.values().filter(|_| nothing_runs).filter(may_leave) {
        prop_assert_eq!(map.sockets.unwrap_or_default(), 0, "sockets are taken out where that loses nothing");
    }
    for map in desired.maps.values().filter(|map| map.pin && !map.definition.is_data() && !map.attach_only) {
        prop_assert_eq!(observed.maps[&map.pin_name].shape(), map.shape);
    }
    for map in desired.maps.values().filter(|map| map.pin) {
        let pinned = &observed.maps[&map.pin_name];
        let is_used = |function: &ObservedProgram| function.info.map_ids.contains(&pinned.info.id);
        prop_assert!(
            map.attach_only || observed.functions.values().all(is_used),
            "programs use the pinned maps: {observed:?}"
        );
        prop_assert_eq!(&pinned.from, &map.from);
        let other = map.from.as_ref().and_then(|from| others.get(from));
        prop_assert!(other.is_none_or(|other| other.id == pinned.info.id), "both BpfPrograms share one map");
        prop_assert!(
            map.from.is_some() || !(1_000_000..2_000_000).contains(&pinned.info.id),
            "a map that was shared does not become the BpfProgram's own"
        );
    }
    let is_risky = desired.functions.values().any(|f| f.can_cut_off && !f.paths.is_empty());
    let has_trial = observed.trial.as_ref().is_some_and(|trial| trial.revision == desired.revision);
    prop_assert!(!is_risky || has_trial, "a risky revision is on trial, or was: {:?}", observed.trial);
    let is_open = observed.trial.as_ref().is_some_and(|trial| trial.state.is_open());
    prop_assert!(!is_open || has_trial, "a trial ends with its revision: {:?}", observed.trial);
    let pinned: BTreeSet<&String> = desired.maps.values().filter(|m| m.pin).map(|m| &m.pin_name).collect();
    prop_assert!(pinned.iter().all(|pin| observed.maps.contains_key(*pin)));
    prop_assert!(observed.maps.keys().all(|pin| pinned.contains(pin) || observed.retained.contains(pin)));
    Ok(())
}

/// A revision with these functions and no maps.
fn revision(uid: &str, name: &str, functions: BTreeMap<String, DesiredProgram>) -> Desired {
    Desired {
        program: ProgramRef { name: "p".into(), uid: uid.into() },
        revision: name.into(),
        load_key: "1".into(),
        digest: "sha256:0".into(),
        origin: Default::default(),
        functions,
        maps: BTreeMap::new(),
        kept_pods: BTreeMap::new(),
        attaches_to_maps: false,
        globals: BTreeMap::new(),
        settings: Vec::new(),
        priority: 500,
        unordered: false,
        suspended: false,
        force_detach: false,
    }
}

/// A function that is to be attached to one cgroup, which the spec names.
fn function_at(path: &str, kind: ProgramKind) -> DesiredProgram {
    let paths = [(path.to_owned(), None)].into();
    DesiredProgram { kind, paths, maps: BTreeSet::new(), can_cut_off: false, passes_only: false }
}

/// A map that is not recreated when its shape changes.
fn map(retain: bool) -> DesiredMap {
    DesiredMap {
        pin_name: "m".into(),
        pin: true,
        retain,
        definition: MapDefinition::Btf,
        of_load: false,
        sync: false,
        shape: shape(10),
        recreate: false,
        from: None,
        attach_only: false,
        used_by: Vec::new(),
    }
}

#[test]
fn a_changed_map_shape_is_refused_before_any_step() {
    let mut desired = revision("u", "p-1", BTreeMap::new());
    desired.functions.insert("f".into(), function_at("/a", ProgramKind { prog_type: 13, attach_type: 3 }));
    desired.maps.insert("m".into(), map(false));
    let (mut fake, mut ids) = (Fake::default(), Ids::default());
    fake.execute(&mut ids, Some(&desired), &plan(Some(&desired), &fake.observed, &alone()).unwrap());

    desired.load_key = "2".into();
    desired.maps.get_mut("m").unwrap().shape = shape(11);
    let refusal = plan(Some(&desired), &fake.observed, &alone()).unwrap_err();
    assert_eq!(refusal.reason, Reason::MapIncompatible);
    assert!(refusal.message.contains("max_entries 10") && refusal.message.contains("max_entries 11"), "{refusal}");
    provoked(refusal.reason, &refusal.message);
}

/// A BpfProgram is deleted and created again while only the agent's descriptor holds its retained map.
#[test]
fn a_retained_map_is_pinned_again_once_when_its_bpfprogram_is_recreated() {
    let desired =
        |uid: &str, maps: BTreeMap<String, DesiredMap>| Desired { maps, ..revision(uid, "p-1", BTreeMap::new()) };
    let first = desired("1", [("m".to_owned(), map(true))].into());
    let (mut fake, mut ids) = (Fake::default(), Ids::default());
    fake.execute(&mut ids, Some(&first), &plan(Some(&first), &fake.observed, &alone()).unwrap());
    let id = fake.observed.maps["m"].info.id;
    for second in [desired("2", BTreeMap::new()), desired("3", first.maps.clone())] {
        fake.observed.maps.get_mut("m").unwrap().pinned = false;
        let steps = plan(Some(&second), &fake.observed, &alone()).unwrap();
        fake.execute(&mut ids, Some(&second), &steps);
        assert_eq!(steps.iter().filter(|step| **step == Step::RepinMap("m".into())).count(), 1, "{steps:?}");
        assert_eq!(plan(Some(&second), &fake.observed, &alone()).unwrap(), []);
    }
    assert_eq!(fake.observed.maps["m"].info.id, id);
}

/// A revision whose one program can cut the node off.
fn risky_revision(name: &str) -> Desired {
    let function = function_at("/a", ProgramKind { prog_type: 8, attach_type: 0 });
    let function = DesiredProgram { can_cut_off: true, ..function };
    revision("u", name, [("f".to_owned(), function)].into())
}

#[test]
fn a_reverted_revision_is_refused_until_another_one_is_desired() {
    let mut desired = risky_revision("p-1");
    let (mut fake, mut ids) = (Fake::default(), Ids::default());
    let steps = plan(Some(&desired), &fake.observed, &alone()).unwrap();
    let at = |of: fn(&Step) -> bool| steps.iter().position(of).unwrap();
    assert!(at(|s| matches!(s, Step::SetTrial(_))) < at(|s| matches!(s, Step::Attach { .. })), "{steps:?}");
    fake.execute(&mut ids, Some(&desired), &steps);

    let trial = |state| Trial { revision: "p-1".into(), state };
    let reverted_to = |state| [&detach(&fake.observed)[..], &[Step::SetTrial(trial(state))]].concat();
    let (suspected, reverted) = (reverted_to(TrialState::Suspected), reverted_to(TrialState::Reverted));
    fake.execute(&mut ids, Some(&desired), &suspected);
    assert_eq!(plan(Some(&desired), &fake.observed, &alone()).unwrap_err().reason, Reason::NotInEffect);

    // A reprieved revision is attached once more, and its trial reopens first.
    fake.execute(&mut ids, None, &[Step::SetTrial(trial(TrialState::Reprieved))]);
    let steps = plan(Some(&desired), &fake.observed, &alone()).unwrap();
    assert!(
        matches!(&steps[..], [Step::SetTrial(again), Step::Attach { .. }] if *again == trial(TrialState::Reopened))
    );
    fake.execute(&mut ids, Some(&desired), &steps);
    fake.execute(&mut ids, Some(&desired), &reverted);
    assert_eq!(plan(Some(&desired), &fake.observed, &alone()).unwrap_err().reason, Reason::ConnectivityLost);
    desired.revision = "p-2".into();
    fake.execute(&mut ids, Some(&desired), &plan(Some(&desired), &fake.observed, &alone()).unwrap());
    assert_eq!(fake.observed.trial, Some(Trial { revision: "p-2".into(), state: TrialState::Open }));
}

#[test]
fn a_revert_restores_the_predecessor_and_detaches_all_else() {
    let desired = risky_revision("p-2");
    let (mut fake, mut ids) = (Fake::default(), Ids::default());
    fake.execute(&mut ids, Some(&desired), &plan(Some(&desired), &fake.observed, &alone()).unwrap());
    let link = fake.observed.links.keys().next().unwrap().clone();
    let predecessor = |functions: &[&str], links: &[&LinkKey]| Predecessor {
        revision: Some("p-1".into()),
        functions: functions.iter().map(|f| (*f).to_owned()).collect(),
        links: links.iter().map(|key| (*key).clone()).collect(),
    };
    fake.observed.previous = Some(predecessor(&["f"], &[&link]));
    let steps = revert(&fake.observed);
    let names: Vec<String> =
        steps.iter().map(|step| format!("{step:?}").split('(').next().unwrap().to_owned()).collect();
    assert_eq!(names, ["Restore", "Update", "SetRevision"]);
    assert!(steps.contains(&Step::SetRevision(Some("p-1".into()))), "{steps:?}");
    assert!(fake.observed.links.values().all(|link| link.in_effect) && fake.observed.links.len() == 1);
    // The revision on trial added a link; its program is the predecessor's.
    fake.observed.previous = Some(predecessor(&["f"], &[]));
    assert!(matches!(&revert(&fake.observed)[..], [Step::Detach(key), Step::SetRevision(_)] if *key == link));
    // The revision on trial kept the programs and detached a link, so the predecessor is not whole.
    let gone = LinkKey { function: "f".into(), place: "7".into() };
    fake.observed.previous = Some(predecessor(&[], &[&link, &gone]));
    assert_eq!(revert(&fake.observed), []);
}

#[test]
fn a_refusal_names_the_missing_cgroup_and_the_function() {
    let function = function_at("/nowhere", ProgramKind { prog_type: 13, attach_type: 3 });
    let desired = revision("u", "p-1", [("f".to_owned(), function)].into());
    let refusal = plan(Some(&desired), &Observed::default(), &alone()).unwrap_err();
    assert_eq!(refusal.reason, Reason::CgroupNotFound);
    assert!(refusal.message.contains("/nowhere") && refusal.message.contains('f'), "{refusal}");
    provoked(refusal.reason, &refusal.message);
}
