//! Rivals: BpfPrograms of which one runs for sockets, or on a map, and the other one does not. Pure.
//!
//! The cost grows with the number of attachments, not with that of their pairs: a report is made after each change. A
//! BpfProgram has room for a few warnings, so of many rivals at one place a few are looked at.

use std::collections::{BTreeMap, BTreeSet};

use sockeye_ebpf::kinds::section::exclusion;

use super::limits::MAX_WARNINGS;
use crate::{
    control::program::{ProgramState, shared},
    model::cgroup_path::with_ancestors,
};

/// One more than the warnings on a BpfProgram, which may be among those that are looked at.
const ENOUGH: usize = MAX_WARNINGS + 1;

/// The BpfPrograms that put sockets into maps, by map, each with the path of a cgroup: a few of a few maps.
#[derive(Default)]
struct Fillers<'a>(BTreeMap<u32, BTreeMap<&'a str, &'a str>>);

impl<'a> Fillers<'a> {
    fn add(&mut self, Filler { name, path, map, .. }: Filler<'a>) {
        if self.0.contains_key(&map) || self.0.len() < ENOUGH {
            let programs = self.0.entry(map).or_default();
            if programs.len() < ENOUGH {
                programs.entry(name).or_insert(path);
            }
        }
    }

    /// Returns those who fill other maps than this one does.
    fn rivals(&self, one: Filler<'a>) -> impl Iterator<Item = (&'a str, &'a str)> {
        let others = self.0.iter().filter(move |(map, _)| **map != one.map).flat_map(|(_, programs)| programs);
        others.map(|(name, path)| (*name, *path)).filter(move |(name, _)| *name != one.name)
    }
}

/// A BpfProgram that puts the sockets of a cgroup into a map with programs of a kind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Filler<'a> {
    name: &'a str,
    path: &'a str,
    map: u32,
    kind: u32,
}

/// Warns of BpfPrograms that put the same sockets into two maps with programs of one kind. A socket runs one program of
/// a kind: the kernel keeps it out of the second map, with EBUSY (`sock_map_link` in net/core/sock_map.c).
pub(super) fn socket_rivals(programs: &BTreeMap<String, ProgramState>) -> Vec<(&str, String)> {
    let kinds = kinds(programs);
    if kinds.len() < 2 {
        return Vec::new();
    }
    let fillers = fillers(programs, &kinds);
    // By kind and cgroup: who fills from there, and who from below.
    let mut at: BTreeMap<(u32, &str), Fillers<'_>> = BTreeMap::new();
    let mut below: BTreeMap<(u32, &str), Fillers<'_>> = BTreeMap::new();
    for filler in &fillers {
        at.entry((filler.kind, filler.path)).or_default().add(*filler);
        for path in with_ancestors(filler.path).skip(1) {
            below.entry((filler.kind, path)).or_default().add(*filler);
        }
    }
    let mut warnings = BTreeSet::new();
    for &filler in &fillers {
        let above = with_ancestors(filler.path).filter_map(|path| at.get(&(filler.kind, path)));
        let above = above.flat_map(|fillers| fillers.rivals(filler)).map(|(name, _)| (name, filler.path));
        let below = below.get(&(filler.kind, filler.path)).into_iter().flat_map(|fillers| fillers.rivals(filler));
        let rivals = above.chain(below).take(ENOUGH);
        warnings.extend(rivals.map(|(rival, path)| (filler.name, puts_elsewhere(rival, path))));
    }
    warnings.into_iter().collect()
}

fn puts_elsewhere(rival: &str, path: &str) -> String {
    format!(
        "BpfProgram {rival} puts sockets of cgroup {path} into another map whose programs are of the same kind: a \
         socket gets into one of the two maps only, and in the other one nothing runs for it"
    )
}

/// Returns the kinds of the programs on each sockmap, by its ID.
fn kinds(programs: &BTreeMap<String, ProgramState>) -> BTreeMap<u32, BTreeSet<u32>> {
    let mut kinds: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
    let links = programs.values().flat_map(|program| &program.observed.links);
    for (_, link) in links.filter(|(key, link)| key.map().is_some() && link.in_effect) {
        kinds.entry(link.info.map_id).or_default().insert(exclusion(link.info.attach_type));
    }
    kinds
}

fn fillers<'a>(
    programs: &'a BTreeMap<String, ProgramState>,
    kinds: &BTreeMap<u32, BTreeSet<u32>>,
) -> BTreeSet<Filler<'a>> {
    let mut fillers = BTreeSet::new();
    for (name, program) in programs {
        let observed = &program.observed;
        for (key, link) in observed.links.iter().filter(|(_, link)| link.in_effect) {
            let (Some(path), Some(function)) = (link.path.as_deref(), observed.functions.get(&key.function)) else {
                continue;
            };
            for (&map, kinds) in function.info.map_ids.iter().filter_map(|id| Some((id, kinds.get(id)?))) {
                fillers.extend(kinds.iter().map(|&kind| Filler { name, path, map, kind }));
            }
        }
    }
    fillers
}

/// Warns of BpfPrograms that are to attach programs of one kind to the same map, which runs one of a kind.
pub(super) fn map_rivals(programs: &BTreeMap<String, ProgramState>) -> Vec<(&str, String)> {
    let mut wanted: BTreeMap<(u32, u32), BTreeSet<&str>> = BTreeMap::new();
    for (name, program) in programs {
        let functions = program.desired.iter().flat_map(|desired| desired.functions.values());
        for (function, pin) in functions.flat_map(|function| function.maps.iter().map(move |pin| (function, pin))) {
            let from = program.desired.as_ref().and_then(|desired| desired.map_by_pin(pin)?.1.from.as_ref());
            let theirs = from.and_then(|from| shared(programs, from));
            if let Some(map) = theirs.or_else(|| program.observed.maps.get(pin)) {
                wanted.entry((map.info.id, exclusion(function.kind.attach_type))).or_default().insert(name);
            }
        }
    }
    let warning = |other: &str| {
        format!("BpfProgram {other} is to attach a program of the same kind to the same map, which runs one of a kind")
    };
    let mut warnings = Vec::new();
    for names in wanted.values() {
        for one in names {
            let others = names.iter().take(ENOUGH).filter(|other| *other != one);
            warnings.extend(others.map(|other| (*one, warning(other))));
        }
    }
    warnings
}
