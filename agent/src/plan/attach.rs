//! What puts every wanted link into effect, at its place, and in which order.

use std::collections::{BTreeMap, BTreeSet};

use sockeye_crds::{Reason, names::pin_name};
use sockeye_ebpf::kinds::section::{STREAM_PARSER, exclude_each_other};

use super::Step;
use crate::{
    around::Around,
    held::{Held, HeldLink, LinkKey, Site},
    kernel::cgroup::Cgroup,
    order,
    wanted::{Refusal, Wanted, WantedFunction},
};

/// What puts every wanted link into effect.
#[derive(Default)]
pub(super) struct Attaching {
    pub steps: Vec<Step>,
    /// The links that are wanted.
    pub keep: BTreeSet<LinkKey>,
    /// Those that had to go first.
    pub gone: BTreeSet<LinkKey>,
}

/// The steps that put every wanted link into effect, after those of a load.
pub(super) fn attach(wanted: &Wanted, held: &Held, around: &Around, load: &[Step]) -> Result<Attaching, Refusal> {
    let pins = |step: &Step, pin: &str| match step {
        Step::PinMap(name) | Step::ShareMap { name, .. } => pin_name(name) == pin,
        _ => false,
    };
    let made_anew = |pin: &str| load.iter().any(|step| pins(step, pin));
    // What is in effect already goes on at all other places; another revision takes its place whole, or not at all.
    let is_in_effect = load.is_empty() && held.revision.as_ref() == Some(&wanted.revision);
    if let Some(refusal) = missing(wanted, &around.cgroups).filter(|_| !is_in_effect) {
        return Err(refusal);
    }
    let sites = sites(wanted, &around.cgroups);
    let keep = sites.iter().map(|(function, _, site)| LinkKey::to(function, site)).collect();
    let mut attaching = Attaching { keep, ..Attaching::default() };
    for (function, attach_type, site) in sites {
        let key = LinkKey::to(function, &site);
        let before = |cgroup: &Cgroup, key: &LinkKey| {
            let line = around.line(&cgroup.path, attach_type);
            order::successor(line, &wanted.program.name, key, wanted.priority).cloned()
        };
        let anew = key.map().is_some_and(made_anew);
        let program = held.functions.get(function).map(|f| f.info.id);
        let Attaching { steps, keep, gone } = &mut attaching;
        let mut first = Vec::new();
        match held.links.get(&key).filter(|_| !gone.contains(&key)) {
            Some(link) if link.in_effect && link.info.attach_type == attach_type && !anew => {
                steps.extend((link.is_link() && !link.pinned).then(|| Step::RepinLink(key.clone())));
                let runs_another = !load.is_empty() || Some(link.info.program_id) != program;
                steps.extend(runs_another.then(|| Step::Update(key.clone())));
                if let Site::Cgroup(cgroup) = site
                    && order::is_astray(around.line(&cgroup.path, attach_type), &wanted.program.name, &key)
                {
                    let before = before(&cgroup, &key);
                    steps.push(Step::Move { key, cgroup, before });
                }
                continue;
            }
            // At a cgroup a dead link, or one of another attach type, is replaced by another link, and goes after it. A map has no
            // room for both; one to its predecessor, and what it holds without a link, are replaced.
            Some(link) if key.map().is_some() && !anew && (link.is_link() || link.in_effect) => first.push(key.clone()),
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
        let before = match &site {
            Site::Cgroup(cgroup) => before(cgroup, &key),
            Site::Map(pin) => match taken(wanted, held, around, pin, attach_type) {
                Some(whose) => return Err(is_taken(function, pin, whose)),
                None => None,
            },
        };
        steps.push(Step::Attach { function: function.to_owned(), site, before });
    }
    Ok(attaching)
}

/// Whose program a map runs already that can't run another of that type. A kernel without links for maps would let it be
/// replaced.
fn taken<'a>(wanted: &Wanted, held: &Held, around: &'a Around, pin: &str, attach_type: u32) -> Option<&'a String> {
    let (_, map) = wanted.map_by_pin(pin)?;
    let id = match &map.from {
        Some(from) => around.maps.get(from)?.id,
        None => held.maps.get(pin)?.info.id,
    };
    around.on_maps.get(&id)?.iter().find(|(other, _)| exclude_each_other(**other, attach_type)).map(|(_, whose)| whose)
}

fn is_taken(function: &str, pin: &str, whose: &str) -> Refusal {
    let message = format!(
        "program {function}, map {pin}: BpfProgram {whose} has one attached to it, and a map runs one of a kind: attach to \
         another map, or take that one off"
    );
    Refusal { reason: Reason::AttachRefused, message }
}

/// Everything that is to be attached, in order: a parser before the verdict that asks for it, and both before what puts sockets
/// into their map: a socket keeps the programs that it finds there.
fn sites<'a>(wanted: &'a Wanted, cgroups: &BTreeMap<String, Cgroup>) -> Vec<(&'a str, u32, Site)> {
    let mut sites = Vec::new();
    for (function, WantedFunction { kind, paths, maps, can_cut_off: _ }) in &wanted.functions {
        let there = paths.keys().filter_map(|path| cgroups.get(path));
        sites.extend(there.map(|cgroup| (function.as_str(), kind.attach_type, Site::Cgroup(cgroup.clone()))));
        sites.extend(maps.iter().map(|pin| (function.as_str(), kind.attach_type, Site::Map(pin.clone()))));
    }
    sites.sort_by_key(|(_, attach_type, site)| rank(matches!(site, Site::Map(_)), *attach_type));
    sites
}

/// That a cgroup which is named by its place is not there. A pod's comes and goes, and is no mistake.
pub fn missing(wanted: &Wanted, cgroups: &BTreeMap<String, Cgroup>) -> Option<Refusal> {
    let places = wanted.functions.iter().flat_map(|(function, of)| of.paths.iter().map(move |at| (function, at)));
    let mut missing = places.filter(|(_, (path, occupant))| occupant.is_none() && !cgroups.contains_key(*path));
    missing.next().map(|(function, (path, _))| not_there(function, path))
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
pub(super) fn going(held: &Held) -> impl Iterator<Item = &LinkKey> {
    let mut links: Vec<(&LinkKey, &HeldLink)> = held.links.iter().collect();
    links.sort_by_key(|(key, link)| std::cmp::Reverse(rank(key.map().is_some(), link.info.attach_type)));
    links.into_iter().map(|(key, _)| key)
}

fn not_there(function: &str, path: &str) -> Refusal {
    let remedy = remedy(path);
    let message =
        format!("program {function}: there is no cgroup v2 directory {path} below the node's cgroup root: {remedy}");
    Refusal { reason: Reason::CgroupNotFound, message }
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
        "the path is taken below that root: leave out /sys/fs/cgroup, and /unified after it where v1 controllers stand beside"
    } else {
        "create it, or correct the path"
    }
}
