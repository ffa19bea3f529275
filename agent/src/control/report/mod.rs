//! Report: what is held, as the BpfNode's status. Pure.

pub mod bound;
mod notes;

use std::collections::{BTreeMap, BTreeSet};

use sockeye_crds::{
    BpfNodeStatus, Reason,
    names::{clip, pin_name},
    node::{
        AttachedLink, Details, HeldCounts, HeldProgram, LoadedMap, LoadedProgram, NodeFacts, OrderedProgram,
        RetainedMap, RunOrder, State, Truncated,
    },
    program::MapRef,
};
use sockeye_ebpf::kinds::{map_type, section};

use crate::{
    control::{
        attachments::AttachmentMonitor,
        program::{self, ProgramState},
    },
    model::{
        desired::Desired,
        kernel::{LINK_TYPE_CGROUP, LINK_TYPE_SOCKMAP, MapInfo},
        observed::{LinkKey, Observed, ObservedLink, ObservedMap, ObservedProgram},
        trial::Trial,
    },
    node::layout::{self, Home, Layout},
};
use bound::bound;

/// So many links of a BpfProgram are shown one by one; what there are more is counted.
const MAX_LINKS: usize = 64;
/// So many cgroups' orders are shown; what there are more is counted.
const MAX_ORDERS: usize = 64;
/// So many maps of one BpfProgram are shown, and named by ID: it can hold more, where earlier revisions' are retained.
const MAX_MAPS: usize = 128;
/// So many of those that use a map are named.
const MAX_USERS: usize = 16;

/// What a status is made from.
pub struct Reported<'a> {
    /// The node and its kernel.
    pub facts: &'a NodeFacts,
    /// The paths of pins.
    pub layout: &'a Layout,
    /// All BpfPrograms on the node.
    pub programs: &'a BTreeMap<String, ProgramState>,
    /// The attach orders.
    pub monitor: &'a AttachmentMonitor,
    /// Why nothing is to be attached on the node.
    pub suspended: Option<&'a str>,
}

/// Returns the node's status.
pub fn report(reported: &Reported<'_>) -> BpfNodeStatus {
    let Reported { facts, layout, programs, monitor, suspended } = *reported;
    let suspended = suspended.map(str::to_owned);
    let mut status = BpfNodeStatus { node: facts.clone(), suspended, ..BpfNodeStatus::default() };
    let (order, orders_beyond) = order(programs, monitor);
    status.order = order;
    let users = users(programs);
    let mut maps = 0;
    for (name, program_state) in programs {
        let home = layout.home(name);
        let shown = Shown { users: users.get(name.as_str()), ..Shown::of(program_state) };
        if program_state.is_desired()
            || !(program_state.observed.is_empty() || program_state.observed.is_retained_only())
        {
            status.programs.push(program(name, program_state, &shown));
            status.details.push(details(name, program_state, programs, &shown, &home));
            maps += count((shown.maps.len() + shown.unpinned.len()).saturating_sub(MAX_MAPS));
        }
        if !program_state.is_desired() {
            status.retained.extend(retained(name, &program_state.observed, &home));
        }
    }
    let links = programs.values().flat_map(|t| t.observed.links.values()).filter(|l| l.in_effect).count();
    status.counts = counts(&status.programs, count(links));
    let links = programs
        .values()
        .map(|program_state| count(program_state.observed.links.len().saturating_sub(MAX_LINKS)))
        .sum();
    bound(status, Truncated { links, maps, order: orders_beyond, ..Truncated::default() })
}

/// What runs where more than one program is; the first so many places, and how many more there are.
fn order(programs: &BTreeMap<String, ProgramState>, monitor: &AttachmentMonitor) -> (Vec<RunOrder>, i64) {
    let several = || monitor.attach_orders().filter(|(_, _, runs)| runs.len() > 1);
    if several().next().is_none() {
        return (Vec::new(), 0);
    }
    let functions = |(name, program_state): (&String, &'_ ProgramState)| {
        let named = |(f, observed): (&String, &ObservedProgram)| (observed.info.id, format!("{name}/{f}"));
        program_state.observed.functions.iter().map(named).collect::<Vec<_>>()
    };
    let names: BTreeMap<u32, String> = programs.iter().flat_map(functions).collect();
    let order = |(path, attach_type, runs): (&str, u32, &[u32])| RunOrder {
        cgroup_path: clip(path, 1024),
        attach_type: section::attach_type_name(attach_type).into_owned(),
        programs: runs.iter().map(|id| OrderedProgram { id: (*id).into(), name: names.get(id).cloned() }).collect(),
    };
    let shown: Vec<RunOrder> = several().take(MAX_ORDERS).map(order).collect();
    let beyond = count(several().count().saturating_sub(shown.len()));
    (shown, beyond)
}

/// Who uses whose maps, by the name of whose they are, by the map's pin name.
fn users(programs: &BTreeMap<String, ProgramState>) -> BTreeMap<&str, BTreeMap<&str, Vec<&str>>> {
    let mut users: BTreeMap<&str, BTreeMap<&str, Vec<&str>>> = BTreeMap::new();
    for (name, program_state) in programs {
        for MapRef { program, map } in
            program_state.observed.maps.values().filter_map(|map| program::owned(programs, map))
        {
            users.entry(program).or_default().entry(map).or_default().push(name);
        }
    }
    users
}

/// What of a program_state is shown, in the order of names.
struct Shown<'a> {
    functions: Vec<(&'a str, &'a ObservedProgram)>,
    /// By the name in the ELF.
    maps: Vec<(String, &'a ObservedMap)>,
    /// The maps that a program of ours uses and that are not pinned, or not by us.
    unpinned: BTreeSet<u32>,
    /// The other BpfPrograms that use its maps, by pin name.
    users: Option<&'a BTreeMap<&'a str, Vec<&'a str>>>,
}

impl<'a> Shown<'a> {
    fn of(program_state: &'a ProgramState) -> Self {
        let names: BTreeMap<String, &str> = program_state
            .desired
            .iter()
            .flat_map(|desired| desired.maps.keys().map(|name| (pin_name(name), name.as_str())))
            .collect();
        let name = |pin: &String| names.get(pin).map_or_else(|| pin.clone(), |name| (*name).to_owned());
        let mut maps: Vec<_> = program_state.observed.maps.iter().map(|(pin, map)| (name(pin), map)).collect();
        maps.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let functions = program_state.observed.functions.iter().map(|(f, observed)| (f.as_str(), observed)).collect();
        Self { functions, maps, unpinned: unpinned_ids(&program_state.observed), users: None }
    }
}

fn program(name: &str, program_state: &ProgramState, shown: &Shown<'_>) -> HeldProgram {
    let ProgramState { observed, .. } = program_state;
    let state = program_state.state();
    let reason = match state {
        State::Suspended => Some(Reason::Suspended),
        _ => program_state.failure.as_ref().map(|failure| failure.reason),
    };
    let maps = shown.maps.iter().map(|(_, m)| m.info.id).chain(shown.unpinned.iter().copied());
    HeldProgram {
        name: name.to_owned(),
        uid: program_state.uid().map(str::to_owned).or_else(|| observed.uid.clone()).unwrap_or_default(),
        revision: in_effect_revision(program_state),
        state,
        reason,
        program_ids: shown.functions.iter().map(|(_, f)| f.info.id.into()).collect(),
        map_ids: maps.map(i64::from).take(MAX_MAPS).collect(),
    }
}

/// The maps that a program of ours uses and that are not pinned, or not by us.
fn unpinned_ids(observed: &Observed) -> BTreeSet<u32> {
    let mut used: BTreeSet<u32> = observed.functions.values().flat_map(|f| f.info.map_ids.iter().copied()).collect();
    for map in observed.maps.values() {
        used.remove(&map.info.id);
    }
    used
}

/// A revision is in effect while every link it left is, and runs its program. One that picks pods leaves none where no such pod
/// is. One that was taken back is not, whatever of another goes on.
fn in_effect_revision(program_state: &ProgramState) -> Option<String> {
    let ProgramState { observed, desired, suspended, converged, .. } = program_state;
    let has_no_place = || desired.as_ref().is_some_and(|desired| desired.paths().is_empty());
    let whole = match observed.links.is_empty() {
        true => *converged && suspended.is_none() && has_no_place(),
        false => observed.links.iter().all(|(key, link)| {
            let program = observed.functions.get(&key.function).map(|function| function.info.id);
            link.in_effect && Some(link.info.program_id) == program
        }),
    };
    let taken_back =
        |Trial { revision, verdict }: &Trial| verdict.is_taken_back() && observed.revision.as_ref() == Some(revision);
    observed.revision.clone().filter(|_| whole && !observed.trial.as_ref().is_some_and(taken_back))
}

fn details(
    name: &str,
    program_state: &ProgramState,
    programs: &BTreeMap<String, ProgramState>,
    shown: &Shown<'_>,
    home: &Home,
) -> Details {
    let ProgramState { observed, desired, failure, suspended, unpinned, drift, .. } = program_state;
    let message = failure.as_ref().map(|f| &f.message).or(suspended.as_ref());
    let of_unpinned = unpinned.iter().filter(|(_, info)| shown.unpinned.contains(&info.id));
    let of_unpinned = of_unpinned.map(|(name, info)| map_entry(name, info, desired.as_deref(), true, None));
    let used: BTreeSet<u32> = observed.functions.values().flat_map(|f| f.info.map_ids.iter().copied()).collect();
    Details {
        name: name.to_owned(),
        wanted: program_state.revision().map(str::to_owned),
        message: message.map(|message| clip(message, 2048)),
        verifier_log: failure.as_ref().and_then(|f| f.verifier_log.clone()),
        notes: notes::notes(program_state, &shown.unpinned, programs),
        drift: drift.clone(),
        programs: shown
            .functions
            .iter()
            .filter_map(|(f, program)| loaded_program(f, program, observed, home))
            .collect(),
        maps: shown
            .maps
            .iter()
            .map(|(map, observed)| loaded_map(map, observed, desired.as_deref(), &used, shown, home))
            .chain(of_unpinned)
            .take(MAX_MAPS)
            .collect(),
        cgroups: count(cgroups(observed)),
        links: observed
            .links
            .iter()
            .take(MAX_LINKS)
            .map(|(key, link)| attached_link(key, link, desired.as_deref(), home))
            .collect(),
    }
}

/// How many cgroups something is in effect at.
fn cgroups(observed: &Observed) -> usize {
    let at_cgroups = observed.links.iter().filter(|(key, link)| key.map().is_none() && link.in_effect);
    at_cgroups.map(|(key, _)| &key.place).collect::<BTreeSet<_>>().len()
}

fn loaded_program(
    function: &str,
    program: &ObservedProgram,
    observed: &Observed,
    home: &Home,
) -> Option<LoadedProgram> {
    let info = &program.info;
    let links = observed.links.values().filter(|link| link.in_effect && link.info.program_id == info.id);
    Some(LoadedProgram {
        name: function.to_owned(),
        kernel_name: info.kernel_name.clone(),
        id: info.id.into(),
        program_type: section::program_type(info.prog_type)?,
        tag: info.tag.clone(),
        gpl_compatible: info.gpl_compatible,
        loaded_at: info.loaded_at.clone(),
        uid: info.uid.into(),
        xlated_bytes: info.xlated_bytes.into(),
        jited_bytes: info.jited_bytes.into(),
        memlock_bytes: info.memlock_bytes.cast_signed(),
        map_ids: info.map_ids.iter().map(|&id| id.into()).collect(),
        btf_id: info.btf_id.map(i64::from),
        links: Some(count(links.count())),
        pin_path: home.host(&layout::program(function)),
    })
}

fn loaded_map(
    name: &str,
    observed: &ObservedMap,
    desired: Option<&Desired>,
    used: &BTreeSet<u32>,
    shown: &Shown<'_>,
    home: &Home,
) -> LoadedMap {
    let (info, pin) = (&observed.info, pin_name(name));
    let users = shown.users.and_then(|users| users.get(pin.as_str())).into_iter().flatten();
    LoadedMap {
        from: observed.from.clone(),
        shared_by: users.take(MAX_USERS).map(|user| (*user).to_owned()).collect(),
        ..map_entry(name, info, desired, used.contains(&info.id), Some(home.host(&layout::map(&pin))))
    }
}

fn map_entry(name: &str, info: &MapInfo, desired: Option<&Desired>, used: bool, pin_path: Option<String>) -> LoadedMap {
    LoadedMap {
        name: name.to_owned(),
        kernel_name: info.kernel_name.clone(),
        id: info.id.into(),
        map_type: map_type::name(info.map_type).into_owned(),
        flags: info.flags.into(),
        key_size: info.key_size.into(),
        value_size: info.value_size.into(),
        max_entries: info.max_entries.into(),
        memlock_bytes: info.memlock_bytes.cast_signed(),
        frozen: info.frozen,
        btf_id: info.btf_id.map(i64::from),
        definition: desired.and_then(|w| w.maps.get(name)).map(|map| map.definition),
        from: None,
        shared_by: Vec::new(),
        used,
        pin_path,
    }
}

fn attached_link(key: &LinkKey, link: &ObservedLink, desired: Option<&Desired>, home: &Home) -> AttachedLink {
    let info = &link.info;
    let paths = desired.and_then(|desired| desired.functions.get(&key.function)).map(|function| &function.paths);
    let occupant = paths.and_then(|paths| paths.get(link.path.as_ref()?)).and_then(Option::as_ref);
    AttachedLink {
        program: key.function.clone(),
        id: info.id.into(),
        link_type: link_type(info.link_type).to_owned(),
        program_id: info.program_id.into(),
        attach_type: section::attach_type_name(info.attach_type).into_owned(),
        cgroup_id: key.map().is_none().then(|| info.cgroup_id.cast_signed()),
        cgroup_path: link.path.as_deref().map(|path| clip(path, 1024)),
        pod: occupant.map(|occupant| occupant.pod.clone()),
        container: occupant.and_then(|occupant| occupant.container.clone()),
        map: key.map().map(str::to_owned),
        map_id: key.map().map(|_| info.map_id.into()),
        in_effect: link.in_effect,
        pin_path: home.host(&layout::link(&key.function, &key.place)),
    }
}

/// As bpftool names it.
const fn link_type(number: u32) -> &'static str {
    match number {
        LINK_TYPE_CGROUP => "cgroup",
        LINK_TYPE_SOCKMAP => "sockmap",
        _ => "none",
    }
}

fn retained(name: &str, observed: &Observed, home: &Home) -> Vec<RetainedMap> {
    let handles = observed.maps.iter().filter(|(pin, _)| observed.retained.contains(*pin));
    let entry = |(pin, map): (&String, &ObservedMap)| RetainedMap {
        program: name.to_owned(),
        name: pin.clone(),
        id: map.info.id.into(),
        pin_path: home.host(&layout::map(pin)),
    };
    handles.map(entry).collect()
}

/// Returns the counts of a status.
pub fn counts(programs: &[HeldProgram], links: i64) -> HeldCounts {
    let failed = programs.iter().filter(|p| !matches!(p.state, State::Attached | State::Suspended)).count();
    HeldCounts { programs: count(programs.len()), failed: count(failed), links }
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
