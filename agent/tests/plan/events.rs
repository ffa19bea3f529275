//! Random desired states, and the events that happen to a node between two plans.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use sockeye_agent::{
    model::{
        cgroup_path::highest,
        desired::{Desired, DesiredMap, DesiredProgram},
        kept_pod::KeptPod,
        kernel::{MapInfo, ProgramKind},
        map_shape::MapShape,
        observed::Observed,
        pods::CgroupOwner,
        trial::TrialState,
    },
    plan::{context::PlanContext, plan},
};
use sockeye_crds::{MapDefinition, names::pin_name, program::MapRef, revision::ProgramRef};
use sockeye_ebpf::kinds::{
    map_type::SOCKHASH,
    section::{STREAM_PARSER, STREAM_VERDICT, VERDICT, exclude_each_other},
};
use sockeye_fake::{Fake, Ids};

use crate::{Generations, PATHS, context};

const FUNCTIONS: [&str; 3] = ["f", "g", "h"];
/// Kept pods: two keepers, and two pods.
const KEPT: [(&str, &str); 4] = [
    ("0123456789abcdef", "pod-1"),
    ("0123456789abcdef", "pod-2"),
    ("fedcba9876543210", "pod-1"),
    ("fedcba9876543210", "pod-2"),
];
/// The object fills `slots` itself.
const MAPS: [&str; 5] = ["m", "n", "slots", ".rodata", ".bss"];

/// Two kinds for cgroups; a stream parser, two verdicts on received data, and one on sent data.
const KINDS: [ProgramKind; 6] = {
    const fn kind(prog_type: u32, attach_type: u32) -> ProgramKind {
        ProgramKind { prog_type, attach_type }
    }
    [kind(13, 1), kind(13, 2), kind(14, STREAM_PARSER), kind(14, STREAM_VERDICT), kind(14, VERDICT), kind(16, 7)]
};

/// A map of another BpfProgram.
pub(crate) fn shared_map(which: u8) -> MapRef {
    MapRef { program: format!("other-{which}"), name: "m".into() }
}

pub(crate) fn info(id: u32, entries: u32) -> MapInfo {
    let MapShape { map_type, key_size, value_size, max_entries, flags } = shape(entries);
    MapInfo { id, map_type, key_size, value_size, max_entries, flags, ..MapInfo::default() }
}

/// A map that is pinned or not.
fn pinned(pin: bool) -> DesiredMap {
    DesiredMap {
        pin_name: String::new(),
        pin,
        retain: false,
        definition: MapDefinition::Btf,
        of_load: false,
        sync: false,
        shape: MapShape::default(),
        recreate: false,
        from: None,
        attach_only: false,
        used_by: Vec::new(),
    }
}

/// A map of another BpfProgram that programs are only attached to.
fn borrowed_map(which: u8) -> DesiredMap {
    let from = shared_map(which);
    let pin_name = format!("{}~{}", from.program, from.name);
    DesiredMap { pin_name, from: Some(from), attach_only: true, ..pinned(true) }
}

/// The owner of a cgroup: a pod, or none where the spec names the cgroup.
fn owner() -> impl Strategy<Value = Option<CgroupOwner>> {
    let pod = CgroupOwner { pod: Some("default/pod".to_owned()), container: None };
    prop::option::of(Just(pod))
}

/// Some of the kept pods, with the paths of their cgroups.
fn kept_pods() -> impl Strategy<Value = BTreeMap<KeptPod, String>> {
    let kept = |((keeper, pod), path): ((&str, &str), &str)| (KeptPod::new(keeper, pod).unwrap(), path.to_owned());
    let all = prop::collection::btree_map(prop::sample::select(&KEPT[..]), prop::sample::select(&PATHS[..2]), 0..4);
    all.prop_map(move |some| some.into_iter().map(kept).collect())
}

/// The shape of a map. All maps are sockhashes, so that every one of them may have sockets in it.
pub(crate) fn shape(entries: u32) -> MapShape {
    MapShape { map_type: SOCKHASH, key_size: 4, value_size: 8, max_entries: entries, flags: 0 }
}

/// The cgroups that a function is attached to, with their owners.
type Paths = BTreeMap<&'static str, Option<CgroupOwner>>;

/// The index of a function's kind, and the cgroups and maps to attach it to.
type Function = (usize, Paths, BTreeSet<&'static str>);

prop_compose! {
    pub(crate) fn any_desired()(
        uid in 0..2u8,
        load in 0..3u8,
        functions in prop::collection::btree_map(prop::sample::select(&FUNCTIONS[..]),
            (0..6usize, prop::collection::btree_map(prop::sample::select(&PATHS[..]), owner(), 1..3),
                prop::collection::btree_set(prop::sample::select(&MAPS[..2]), 0..3)), 1..4),
        maps in prop::collection::btree_map(prop::sample::select(&MAPS[..]), (any::<bool>(), any::<bool>(), 10..12u32,
            prop::option::weighted(0.3, 0..2u8)), 0..4),
        kept_pods in kept_pods(),
        suspended in prop::bool::weighted(0.2),
        can_cut_off in any::<bool>(),
        (passes_only, force_detach) in any::<(bool, bool)>(),
        borrowed in prop::option::weighted(0.3, 0..2u8),
    ) -> Desired {
        // Another test covers the refusal of a changed shape.
        let recreate = true;
        let map = |(name, (pin, retain, entries, from)): (&str, (bool, bool, u32, Option<u8>))| {
            let definition = if name.starts_with('.') { MapDefinition::Data } else { MapDefinition::Btf };
            let of_load = definition.is_data() || name == "slots";
            let from = from.filter(|_| !of_load).map(shared_map);
            let (pin, entries) = if from.is_some() { (true, 10) } else { (pin, entries) };
            let retain = retain && pin && !of_load && from.is_none();
            let shape = shape(entries);
            let (pin_name, used_by) = (pin_name(name), FUNCTIONS.map(str::to_owned).to_vec());
            let sync = pin && !of_load && from.is_none() && entries == 11;
            let map = DesiredMap { pin_name, retain, definition, of_load, sync, shape, recreate, ..pinned(pin) };
            (name.to_owned(), DesiredMap { from, used_by, ..map })
        };
        let mut maps: BTreeMap<_, _> = maps.into_iter().map(map).collect();
        let borrowed = borrowed.filter(|_| !suspended).map(borrowed_map);
        maps.extend(borrowed.clone().map(|map| (map.pin_name.clone(), map)));
        // As in a validated spec: only pinned maps are targets, and each of them of one program of a kind.
        let mut taken: Vec<(String, u32)> = Vec::new();
        let function = |(name, (kind, paths, to)): (&str, Function)| {
            let kind = KINDS[kind];
            let mut paths: BTreeMap<String, Option<CgroupOwner>> =
                paths.into_iter().map(|(path, owner)| (path.to_owned(), owner)).collect();
            let mut to: BTreeSet<String> = to.into_iter().map(str::to_owned).collect();
            to.extend(borrowed.iter().map(|map| map.pin_name.clone()));
            if suspended { paths.clear(); to.clear() }
            if kind.prog_type == 13 { to.clear() } else { paths.clear() }
            let paths = highest(&paths);
            to.retain(|pin| maps.get(pin).is_some_and(|map: &DesiredMap| map.pin)
                && !taken.iter().any(|(at, other)| at == pin && exclude_each_other(*other, kind.attach_type)));
            taken.extend(to.iter().map(|pin| (pin.clone(), kind.attach_type)));
            let passes_only = passes_only && kind.prog_type == 16;
            (name.to_owned(), DesiredProgram { kind, paths, maps: to, can_cut_off, passes_only })
        };
        let functions: BTreeMap<_, _> = functions.into_iter().map(function).collect();
        // As in a load key: other functions, pins or sizes are another load. So is another program, which alone decides
        // if the revision can cut the node off.
        let options: Vec<_> =
            maps.iter().filter(|(_, map)| !map.attach_only)
                .map(|(name, map)| (name, map.pin, map.shape.max_entries, &map.from)).collect();
        let kinds: Vec<_> = functions.iter().map(|(name, f)| (name, f.kind)).collect();
        let load_key = format!("{load}-{kinds:?}-{options:?}-{can_cut_off}-{passes_only}");
        Desired {
            program: ProgramRef { name: "p".into(), uid: format!("uid-{uid}") },
            revision: format!("p-{load_key}-{suspended}-{borrowed:?}"),
            load_key,
            digest: "sha256:0".into(),
            origin: Default::default(),
            functions,
            maps,
            kept_pods,
            attaches_to_maps: false,
            globals: BTreeMap::new(),
            settings: Vec::new(),
            priority: 500,
            unordered: false,
            suspended,
            force_detach,
        }
    }
}

/// An event that happens to a node between two plans. A number picks the object that it happens to.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A revision is desired, or none.
    Desire(Box<Option<Desired>>),
    /// Pods come, and others end: these are kept now.
    PodsChanged(BTreeMap<KeptPod, String>),
    /// A cgroup is removed, and another one takes its path.
    CgroupReplaced(usize),
    /// Someone removes the note of a kept pod, while an agent runs (true) and remembers the pod, or while none does.
    NoteLost(usize, bool),
    /// The agent is killed after so many steps towards another revision; then the previous one is desired again.
    TurnBack(Box<Desired>, usize),
    /// The agent is killed after so many steps of the next plan, and started again.
    KilledAfter(usize),
    /// Someone removes a link's pin while no agent runs (true), or its cgroup or map dies.
    LinkLost(usize, bool),
    /// Someone removes a map's pin, while an agent runs (true) and keeps the map, or while none does.
    MapLost(usize, bool),
    /// Someone pins another map in a map's place, which no program uses.
    MapReplaced(usize),
    /// Someone removes a program's pin, while an agent runs (true) and keeps the program, or while none does.
    ProgramLost(usize, bool),
    /// Someone removes a link's pin while an agent runs.
    LinkUnpinned(usize),
    /// Another BpfProgram creates its map anew (true) or removes it.
    Shared(u8, bool),
    /// Sockets are in a map.
    Joined(usize),
    /// A trial changes its state.
    TrialBecomes(TrialState),
    /// A killed agent leaves a half-made pin.
    Stray,
    /// The entries of maps were kept in sync, and those that the spec lists are recorded.
    EntriesKept,
}

pub(crate) fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => any_desired().prop_map(|desired| Event::Desire(Box::new(Some(desired)))),
        1 => Just(Event::Desire(Box::new(None))),
        2 => (any_desired(), 0..12usize).prop_map(|(desired, steps)| Event::TurnBack(Box::new(desired), steps)),
        3 => (0..12usize).prop_map(Event::KilledAfter),
        2 => kept_pods().prop_map(Event::PodsChanged),
        1 => (0..PATHS.len()).prop_map(Event::CgroupReplaced),
        1 => (0..4usize, any::<bool>()).prop_map(|(i, runs)| Event::NoteLost(i, runs)),
        1 => (0..4usize, any::<bool>()).prop_map(|(i, unpinned)| Event::LinkLost(i, unpinned)),
        1 => (0..4usize, any::<bool>()).prop_map(|(i, runs)| Event::MapLost(i, runs)),
        1 => (0..4usize).prop_map(Event::MapReplaced),
        1 => (0..4usize, any::<bool>()).prop_map(|(i, runs)| Event::ProgramLost(i, runs)),
        1 => (0..4usize).prop_map(Event::LinkUnpinned),
        2 => (0..2u8, prop::bool::weighted(0.7)).prop_map(|(which, exists)| Event::Shared(which, exists)),
        1 => prop::sample::select(&[TrialState::Passed, TrialState::Reprieved][..]).prop_map(Event::TrialBecomes),
        2 => (0..4usize).prop_map(Event::Joined),
        1 => Just(Event::Stray),
        1 => Just(Event::EntriesKept),
    ]
}

/// A fake node, and the desired state of the BpfProgram on it.
#[derive(Default)]
pub(crate) struct Scene {
    pub fake: Fake,
    pub ids: Ids,
    pub desired: Option<Desired>,
    pub generations: Generations,
    /// The number of maps that others have made.
    made: u32,
}

impl Scene {
    /// What a plan depends on besides.
    pub(crate) fn context(&self) -> PlanContext {
        context(&self.fake.others, self.generations)
    }

    /// Lets an event happen. Returns the number of steps of the next plan after which the agent is killed.
    pub(crate) fn happen(&mut self, event: Event) -> usize {
        let context = self.context();
        let Self { fake, ids, desired, generations, made } = self;
        match event {
            Event::Desire(next) => *desired = *next,
            Event::PodsChanged(kept_pods) => {
                if let Some(desired) = desired {
                    desired.kept_pods = kept_pods;
                }
            }
            Event::CgroupReplaced(i) => {
                generations[i] += 1;
                let id = context.cgroups[PATHS[i]].id;
                for link in fake.observed.links.values_mut().filter(|link| link.info.cgroup_id == id) {
                    link.in_effect = false;
                    link.info.cgroup_id = 0;
                }
            }
            Event::NoteLost(i, true) => {
                if let Some(kept) = fake.observed.kept_pods.values_mut().nth(i) {
                    kept.noted = false;
                }
            }
            Event::NoteLost(i, false) => {
                let pod = fake.observed.kept_pods.keys().nth(i).cloned();
                pod.map(|pod| fake.observed.kept_pods.remove(&pod));
            }
            Event::TurnBack(other, killed) => {
                if let Ok(steps) = plan(Some(&other), &fake.observed, &context) {
                    fake.execute(ids, Some(&other), &steps[..steps.len().min(killed)]);
                }
            }
            Event::KilledAfter(steps) => return steps,
            Event::LinkLost(i, unpinned) => {
                let key = fake.observed.links.keys().nth(i).cloned();
                if let Some(key) = key {
                    if unpinned {
                        fake.observed.links.remove(&key);
                    } else {
                        let link = fake.observed.links.get_mut(&key).unwrap();
                        link.in_effect = false;
                        link.info.cgroup_id = 0;
                        link.info.map_id = 0;
                    }
                }
            }
            Event::MapLost(i, true) => {
                if let Some(map) = fake.observed.maps.values_mut().nth(i) {
                    map.pinned = false;
                }
            }
            Event::MapLost(i, false) => {
                let pin = fake.observed.maps.keys().nth(i).cloned();
                if let Some(pin) = pin {
                    fake.observed.maps.remove(&pin);
                    detach_from(&mut fake.observed, &pin);
                }
            }
            Event::MapReplaced(i) => {
                let map = fake.observed.maps.iter_mut().nth(i).filter(|(_, map)| map.pinned);
                if let Some((pin, map)) = map {
                    *made += 1;
                    map.info.id = 2_000_000 + *made;
                    let pin = pin.clone();
                    detach_from(&mut fake.observed, &pin);
                }
            }
            Event::ProgramLost(i, true) => {
                if let Some(program) = fake.observed.functions.values_mut().nth(i) {
                    program.pinned = false;
                }
            }
            Event::ProgramLost(i, false) => {
                let function = fake.observed.functions.keys().nth(i).cloned();
                function.map(|function| fake.observed.functions.remove(&function));
            }
            Event::LinkUnpinned(i) => {
                if let Some(link) = fake.observed.links.values_mut().nth(i) {
                    link.pinned = false;
                }
            }
            Event::Shared(which, true) => {
                *made += 1;
                fake.others.insert(shared_map(which), info(1_000_000 + *made, 10));
            }
            Event::Shared(which, false) => drop(fake.others.remove(&shared_map(which))),
            Event::Joined(i) => {
                if let Some(map) = fake.observed.maps.values_mut().nth(i) {
                    map.sockets = Some(3);
                }
            }
            Event::TrialBecomes(state) => {
                if let Some(trial) = &mut fake.observed.trial {
                    trial.state = state;
                }
            }
            Event::Stray => fake.observed.stray = true,
            Event::EntriesKept => {
                let maps = fake.observed.maps.iter().filter(|(_, map)| map.from.is_none());
                let pins: Vec<String> = maps.map(|(pin, _)| pin.clone()).collect();
                fake.observed.recorded.extend(pins);
            }
        }
        usize::MAX
    }
}

/// Marks all links to a map as not in effect.
fn detach_from(observed: &mut Observed, pin: &str) {
    let links = observed.links.iter_mut().filter(|(key, _)| key.map() == Some(pin));
    links.for_each(|(_, link)| link.in_effect = false);
}
