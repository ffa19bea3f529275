//! Plan: the steps from what is held to what is wanted. Pure: no IO, and the same answer for the same values.
//!
//! Guarantees, which the property test shows:
//! - after the steps are executed, planning again gives nothing to do;
//! - nothing that is in effect is taken away before what replaces it is in effect;
//! - nothing visible happens before the load has succeeded, so that a revision that does not load changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use sockeye_crds::{Reason, names::pin_name};
use sockeye_ebpf::section::{STREAM_PARSER, exclude_each_other};

use crate::{
    held::{Held, HeldLink, LinkKey, Site},
    kernel::cgroup::Cgroup,
    layout::{Trial, Verdict},
    wanted::{Refusal, Wanted, WantedFunction, WantedMap},
};

/// One step; [`execute`](crate::execute) interprets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Remove what a killed agent left half-made.
    RemoveStray,
    /// Make the home and note whose it is.
    Claim {
        /// The BpfProgram's UID.
        uid: String,
    },
    /// Load the object: reuse these pinned maps (pin names), create the others.
    Load {
        /// Pin names of the maps whose content is carried over.
        reuse: BTreeSet<String>,
    },
    /// Note that a map is to outlive its BpfProgram.
    Retain(String),
    /// Forget that a map is to outlive its BpfProgram.
    Release(String),
    /// Pin a loaded map, by its name in the ELF, over what may be there.
    PinMap(String),
    /// Note where a loaded program comes from, and pin it over what may be there.
    PinProgram(String),
    /// Attach the pinned program, and pin the link over what may be there. What a map holds without a link is replaced.
    Attach {
        /// The function.
        function: String,
        /// Where.
        site: Site,
    },
    /// Make a pinned link, or a map, run the pinned program, atomically.
    Update(LinkKey),
    /// Note whether a revision cuts the node off.
    SetTrial(Trial),
    /// Pin again the program that ran before the one on trial.
    Restore(String),
    /// Pin a program again whose pin someone removed.
    RepinProgram(String),
    /// Pin a map again whose pin someone removed.
    RepinMap(String),
    /// Pin a link again whose pin someone removed.
    RepinLink(LinkKey),
    /// Note the revision that is now in effect.
    SetRevision(Option<String>),
    /// Detach and unpin a link.
    Detach(LinkKey),
    /// Unpin a program and forget where it came from.
    UnpinProgram(String),
    /// Unpin a map.
    UnpinMap(String),
    /// Remove the home, which is empty but for its notes and directories.
    Leave,
}

/// The steps that bring `held` to what is wanted. `cgroups` are the wanted cgroups that exist.
pub fn plan(wanted: Option<&Wanted>, held: &Held, cgroups: &BTreeMap<String, Cgroup>) -> Result<Vec<Step>, Refusal> {
    let Some(wanted) = wanted else { return Ok(dismantle(held)) };
    let trial = held.trial.as_ref().filter(|trial| trial.revision == wanted.revision);
    if trial.is_some_and(|trial| trial.verdict == Verdict::Reverted) {
        return Err(Refusal {
            reason: Reason::Reverted,
            message: format!(
                "revision {} was attached, this node then lost the API server until it was detached again: correct the \
                 program; the next revision is tried anew",
                wanted.revision
            ),
        });
    }
    let mut steps = Vec::new();
    let mut held = held.clone();
    if held.uid.as_ref().is_some_and(|uid| *uid != wanted.program.uid) {
        // Another object of the same name: what is left of it goes, but for the maps it was asked to retain.
        steps.extend(dismantle(&held).into_iter().filter(|step| *step != Step::Leave));
        let Held { retained, mut maps, .. } = held;
        maps.retain(|pin, _| retained.contains(pin));
        held = Held { retained, maps, ..Held::default() };
    } else {
        steps.extend(held.stray.then_some(Step::RemoveStray));
    }
    if held.uid.is_none() {
        steps.push(Step::Claim { uid: wanted.program.uid.clone() });
    }
    steps.extend(repin(wanted, &held));

    let loads = needs_load(wanted, &held);
    let load = if loads { load(wanted, &held)? } else { Vec::new() };
    let Attaching { steps: attach, keep, gone } = attach(wanted, &held, cgroups, &load)?;
    steps.extend(load);
    steps.extend(retention(wanted, &held));
    if trial.is_none() && attach.iter().any(|step| may_cut_off(wanted, step)) {
        steps.push(Step::SetTrial(Trial::open(&wanted.revision)));
    }
    steps.extend(attach);
    if held.revision.as_ref() != Some(&wanted.revision) {
        steps.push(Step::SetRevision(Some(wanted.revision.clone())));
    }
    steps.extend(remove(wanted, &held, &keep, &gone));
    Ok(steps)
}

/// Whether the wanted functions and maps are there, from the wanted load.
fn needs_load(wanted: &Wanted, held: &Held) -> bool {
    let loaded =
        |function: &String| held.functions.get(function).is_some_and(|f| f.load_key.as_ref() == Some(&wanted.load_key));
    let pinned = |map: &WantedMap| !map.pin || held.maps.contains_key(&map.pin_name);
    !wanted.functions.keys().all(loaded) || !wanted.maps.values().all(pinned)
}

fn load(wanted: &Wanted, held: &Held) -> Result<Vec<Step>, Refusal> {
    let mut reuse = BTreeSet::new();
    let mut pins = Vec::new();
    for (name, map) in &wanted.maps {
        match held.maps.get(&map.pin_name).filter(|_| !map.definition.is_data() && map.pin) {
            Some(pinned) if pinned.shape() == map.shape => drop(reuse.insert(map.pin_name.clone())),
            Some(_) if map.recreate => pins.push(Step::PinMap(name.clone())),
            Some(pinned) => {
                return Err(Refusal {
                    reason: Reason::MapShapeChanged,
                    message: format!(
                        "map {name}: the pinned map is {}, the object wants {}; its content can't be carried over: \
                         rename the map, or set its onShapeChange to Recreate, which loses the content",
                        pinned.shape(),
                        map.shape
                    ),
                });
            }
            None if map.pin => pins.push(Step::PinMap(name.clone())),
            None => {}
        }
    }
    let programs = wanted.functions.keys().cloned().map(Step::PinProgram);
    Ok([Step::Load { reuse }].into_iter().chain(pins).chain(programs).collect())
}

/// Maps and programs that the agent alone still holds. Before a load, which takes maps from their pins.
fn repin(wanted: &Wanted, held: &Held) -> Vec<Step> {
    let maps = held.maps.iter().filter(|(pin, map)| !map.pinned && keeps(wanted, held, pin));
    let programs = held.functions.iter().filter(|(name, f)| !f.pinned && wanted.functions.contains_key(*name));
    // What a map holds is told by this pin, or by the function's, which a load replaces.
    let links = held.links.iter().filter(|(_, link)| !link.is_link() && link.in_effect && !link.pinned);
    let maps = maps.map(|(pin, _)| Step::RepinMap(pin.clone()));
    let programs = programs.map(|(name, _)| Step::RepinProgram(name.clone()));
    maps.chain(programs).chain(links.map(|(key, _)| Step::RepinLink(key.clone()))).collect()
}

/// Whether a step lets something run anew that can keep this agent from the API server.
fn may_cut_off(wanted: &Wanted, step: &Step) -> bool {
    let function = match step {
        Step::Attach { function, .. } => function,
        Step::Update(key) => &key.function,
        _ => return false,
    };
    wanted.functions.get(function).is_some_and(|function| function.can_cut_off)
}

/// Whether a map's pin is to stay.
fn keeps(wanted: &Wanted, held: &Held, pin: &str) -> bool {
    wanted.map_by_pin(pin).is_some_and(|(_, map)| map.pin) || held.retained.contains(pin)
}

fn retention(wanted: &Wanted, held: &Held) -> impl Iterator<Item = Step> {
    let wants = |pin: &String| wanted.map_by_pin(pin).is_none_or(|(_, map)| map.retain && map.pin);
    let retain = wanted.maps.values().filter(|map| map.retain && map.pin && !held.retained.contains(&map.pin_name));
    let release = held.retained.iter().filter(|pin| !wants(pin)).cloned();
    retain
        .map(|map| Step::Retain(map.pin_name.clone()))
        .chain(release.map(Step::Release))
        .collect::<Vec<_>>()
        .into_iter()
}

/// What puts every wanted link into effect.
#[derive(Default)]
struct Attaching {
    steps: Vec<Step>,
    /// The links that are wanted.
    keep: BTreeSet<LinkKey>,
    /// Those that had to go first.
    gone: BTreeSet<LinkKey>,
}

/// The steps that put every wanted link into effect, after those of a load.
fn attach(
    wanted: &Wanted,
    held: &Held,
    cgroups: &BTreeMap<String, Cgroup>,
    load: &[Step],
) -> Result<Attaching, Refusal> {
    let made_anew = |pin: &str| load.iter().any(|step| matches!(step, Step::PinMap(name) if pin_name(name) == pin));
    let sites = sites(wanted, cgroups)?;
    let keep = sites.iter().map(|(function, _, site)| LinkKey::to(function, site)).collect();
    let mut attaching = Attaching { keep, ..Attaching::default() };
    for (function, attach_type, site) in sites {
        let key = LinkKey::to(function, &site);
        let anew = key.map().is_some_and(made_anew);
        let program = held.functions.get(function).map(|f| f.info.id);
        let Attaching { steps, keep, gone } = &mut attaching;
        let mut first = Vec::new();
        match held.links.get(&key).filter(|_| !gone.contains(&key)) {
            Some(link) if link.in_effect && link.info.attach_type == attach_type && !anew => {
                steps.extend((link.is_link() && !link.pinned).then(|| Step::RepinLink(key.clone())));
                let runs_another = !load.is_empty() || Some(link.info.program_id) != program;
                steps.extend(runs_another.then_some(Step::Update(key)));
                continue;
            }
            // A dead link, or one of another attach type, can't be made to run the program; one to a map's predecessor, and
            // what a map holds without a link, are replaced.
            Some(link) if !anew && (link.is_link() || link.in_effect) => first.push(key.clone()),
            _ => {}
        }
        let in_its_place = |(other, link): &(&LinkKey, &HeldLink)| {
            let excluded =
                exclude_each_other(link.info.attach_type, attach_type) || !link.in_effect && !keep.contains(*other);
            **other != key && key.map().is_some() && other.map() == key.map() && excluded && !anew
        };
        let others = held.links.iter().filter(|(other, _)| !gone.contains(*other));
        first.extend(others.filter(in_its_place).map(|(other, _)| other.clone()));
        steps.extend(first.iter().cloned().map(Step::Detach));
        gone.extend(first);
        steps.push(Step::Attach { function: function.to_owned(), site });
    }
    Ok(attaching)
}

/// Everything that is to be attached, in order: a parser before the verdict that asks for it, and both before what puts sockets
/// into their map: a socket keeps the programs that it finds there.
fn sites<'a>(wanted: &'a Wanted, cgroups: &BTreeMap<String, Cgroup>) -> Result<Vec<(&'a str, u32, Site)>, Refusal> {
    let mut sites = Vec::new();
    for (function, WantedFunction { kind, paths, maps, can_cut_off: _ }) in &wanted.functions {
        for path in paths {
            let cgroup = cgroups.get(path).ok_or_else(|| Refusal {
                reason: Reason::CgroupNotFound,
                message: format!(
                    "program {function}: there is no cgroup v2 directory {path} below the node's cgroup root: {}",
                    remedy(path)
                ),
            })?;
            sites.push((function.as_str(), kind.attach_type, Site::Cgroup(cgroup.clone())));
        }
        sites.extend(maps.iter().map(|pin| (function.as_str(), kind.attach_type, Site::Map(pin.clone()))));
    }
    sites.sort_by_key(|(_, attach_type, site)| rank(matches!(site, Site::Map(_)), *attach_type));
    Ok(sites)
}

/// Where something stands in the order in which things are attached.
const fn rank(to_map: bool, attach_type: u32) -> u8 {
    match (to_map, attach_type) {
        (true, STREAM_PARSER) => 0,
        (true, _) => 1,
        (false, _) => 2,
    }
}

/// Links in the order in which they go: the other way round.
fn going(held: &Held) -> impl Iterator<Item = &LinkKey> {
    let mut links: Vec<(&LinkKey, &HeldLink)> = held.links.iter().collect();
    links.sort_by_key(|(key, link)| std::cmp::Reverse(rank(key.map().is_some(), link.info.attach_type)));
    links.into_iter().map(|(key, _)| key)
}

/// What to do about a path that is not there, by how it looks.
fn remedy(path: &str) -> &'static str {
    const V1_CONTROLLERS: [&str; 13] = [
        "blkio",
        "cpu",
        "cpuacct",
        "cpuset",
        "devices",
        "freezer",
        "hugetlb",
        "memory",
        "net_cls",
        "net_prio",
        "perf_event",
        "pids",
        "systemd",
    ];
    let below = path.strip_prefix("/sys/fs/cgroup");
    let first = below.unwrap_or(path).split('/').nth(1).unwrap_or_default();
    if first.split(',').all(|part| V1_CONTROLLERS.contains(&part)) {
        "it looks like a cgroup v1 path, of one controller's own tree, and programs attach to cgroup v2 only: name the \
         cgroup v2 directory"
    } else if below.is_some() {
        "the path is taken below that root: leave out /sys/fs/cgroup"
    } else {
        "create it, or correct the path"
    }
}

/// What is held and no longer wanted: links first, so that nothing runs that is half gone.
fn remove(wanted: &Wanted, held: &Held, keep: &BTreeSet<LinkKey>, gone: &BTreeSet<LinkKey>) -> Vec<Step> {
    let links = going(held).filter(|key| !keep.contains(key) && !gone.contains(key)).cloned().map(Step::Detach);
    let functions =
        held.functions.keys().filter(|f| !wanted.functions.contains_key(*f)).cloned().map(Step::UnpinProgram);
    let maps = held.maps.keys().filter(|pin| !keeps(wanted, held, pin)).cloned().map(Step::UnpinMap);
    links.chain(functions).chain(maps).collect()
}

/// The steps after which nothing is attached, and everything else is as it was.
pub fn detach(held: &Held) -> Vec<Step> {
    going(held).cloned().map(Step::Detach).collect()
}

/// The steps that take back what is on trial: back to what ran before it, or, where there is nothing to go back to, detached.
pub fn revert(held: &Held) -> Vec<Step> {
    let Some(previous) = &held.previous else { return detach(held) };
    let functions: BTreeSet<&String> = held.links.keys().map(|key| &key.function).collect();
    let restore = functions.into_iter().cloned().map(Step::Restore);
    let update = held.links.keys().cloned().map(Step::Update);
    restore.chain(update).chain([Step::SetRevision(Some(previous.clone()))]).collect()
}

/// The steps that leave nothing but the maps to retain.
fn dismantle(held: &Held) -> Vec<Step> {
    if held.is_empty() || held.is_retained_only() {
        return Vec::new();
    }
    let Held { uid: _, revision, trial: _, previous: _, functions, maps, links: _, retained, stray } = held;
    let mut steps: Vec<Step> = stray.then_some(Step::RemoveStray).into_iter().collect();
    steps.extend(going(held).cloned().map(Step::Detach));
    steps.extend(functions.keys().cloned().map(Step::UnpinProgram));
    steps.extend(maps.keys().filter(|pin| !retained.contains(*pin)).cloned().map(Step::UnpinMap));
    if maps.keys().any(|pin| retained.contains(pin)) {
        steps.extend(revision.is_some().then_some(Step::SetRevision(None)));
    } else {
        steps.push(Step::Leave);
    }
    steps
}
