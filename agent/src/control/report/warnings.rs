//! Warnings: what a BpfProgram that is in effect does not do as one would expect. They are short, and go into the
//! BpfNode, from where the BpfProgram's conditions quote them. Pure.

use std::collections::{BTreeMap, BTreeSet};

use sockeye_crds::names::clip;
use sockeye_ebpf::kinds::section::exclude_each_other;

use super::limits::{MAX_WARNING, MAX_WARNINGS};
use crate::{
    control::program::{ProgramState, shared},
    model::cgroup_path::is_within,
};

/// The ID of the root of the cgroup v2 hierarchy (the root of a kernfs, `kernfs_create_root` in fs/kernfs/dir.c).
const ROOT_ID: &str = "1";

/// Returns the warnings on BpfPrograms, by name.
pub(super) fn warnings(programs: &BTreeMap<String, ProgramState>) -> BTreeMap<&str, Vec<String>> {
    let mut all: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, warning) in programs.iter().filter_map(|(name, program)| Some((name, root_warning(program)?))) {
        all.entry(name).or_default().push(warning);
    }
    for (name, warning) in rivals(programs).into_iter().chain(map_rivals(programs)) {
        all.entry(name).or_default().push(warning);
    }
    for warnings in all.values_mut() {
        warnings.truncate(MAX_WARNINGS);
        warnings.iter_mut().for_each(|warning| *warning = clip(warning, MAX_WARNING));
    }
    all
}

/// Warns of a node's cgroup root that is not the root of the hierarchy, as in a container: processes elsewhere are not
/// covered.
fn root_warning(program: &ProgramState) -> Option<String> {
    let mut links = program.observed.links.iter();
    let is_below = |place: &str, path: Option<&str>| path == Some("/") && place != ROOT_ID;
    let (key, _) = links.find(|(key, link)| link.in_effect && is_below(&key.place, link.path.as_deref()))?;
    Some(format!(
        "the node's cgroup root as the agent has it (cgroup {}) is not the root of the hierarchy: processes outside of \
         it are not covered; give the agent the host's own (--cgroup-root)",
        key.place
    ))
}

/// A sockmap that runs programs, and the cgroups in which programs put sockets into it.
#[derive(Default)]
struct Sockmap<'a> {
    /// The BpfPrograms that are attached to it, with the attach types.
    attached: BTreeSet<(&'a str, u32)>,
    /// The BpfPrograms that fill it, with the paths of their cgroups.
    fillers: BTreeSet<(&'a str, &'a str)>,
}

/// Warns of BpfPrograms that put the same sockets into two maps with programs of one kind. A socket runs one program of
/// a kind: the kernel keeps it out of the second map, with EBUSY (`sock_map_link` in net/core/sock_map.c).
fn rivals(programs: &BTreeMap<String, ProgramState>) -> Vec<(&str, String)> {
    let mut maps: BTreeMap<u32, Sockmap<'_>> = BTreeMap::new();
    for (name, program) in programs {
        for (_, link) in program.observed.links.iter().filter(|(key, link)| key.map().is_some() && link.in_effect) {
            maps.entry(link.info.map_id).or_default().attached.insert((name, link.info.attach_type));
        }
    }
    if maps.len() < 2 {
        return Vec::new();
    }
    for (name, program) in programs {
        let observed = &program.observed;
        for (key, link) in observed.links.iter().filter(|(_, link)| link.in_effect) {
            let (Some(path), Some(function)) = (link.path.as_deref(), observed.functions.get(&key.function)) else {
                continue;
            };
            for id in &function.info.map_ids {
                if let Some(map) = maps.get_mut(id) {
                    map.fillers.insert((name, path));
                }
            }
        }
    }
    let maps: Vec<Sockmap<'_>> = maps.into_values().collect();
    let mut warnings = BTreeSet::new();
    for (i, one) in maps.iter().enumerate() {
        for other in &maps[i + 1..] {
            warnings.extend(rivals_of(one, other));
        }
    }
    warnings.into_iter().collect()
}

/// Returns the warnings on two maps, for both sides.
fn rivals_of<'a>(one: &Sockmap<'a>, other: &Sockmap<'a>) -> Vec<(&'a str, String)> {
    let excludes = |(_, a): &(&str, u32)| other.attached.iter().any(|(_, b)| exclude_each_other(*a, *b));
    if !one.attached.iter().any(excludes) {
        return Vec::new();
    }
    let warning = |by: &str, path: &str| {
        format!(
            "BpfProgram {by} puts sockets of cgroup {path} into another map whose programs are of the same kind: a \
             socket gets into one of the two maps only, and in the other one nothing runs for it"
        )
    };
    let mut warnings = Vec::new();
    for (first, path) in &one.fillers {
        for (second, below) in &other.fillers {
            let lower = if is_within(path, below) { path } else { below };
            if first != second && (is_within(path, below) || is_within(below, path)) {
                warnings.extend([(*first, warning(second, lower)), (*second, warning(first, lower))]);
            }
        }
    }
    warnings
}

/// Warns of BpfPrograms that are to attach programs of one kind to the same map, which runs one of a kind.
fn map_rivals(programs: &BTreeMap<String, ProgramState>) -> Vec<(&str, String)> {
    let mut wanted: BTreeMap<u32, BTreeSet<(&str, u32)>> = BTreeMap::new();
    for (name, program) in programs {
        let functions = program.desired.iter().flat_map(|desired| desired.functions.values());
        for (function, pin) in functions.flat_map(|function| function.maps.iter().map(move |pin| (function, pin))) {
            let from = program.desired.as_ref().and_then(|desired| desired.map_by_pin(pin)?.1.from.as_ref());
            let theirs = from.and_then(|from| shared(programs, from));
            if let Some(map) = theirs.or_else(|| program.observed.maps.get(pin)) {
                wanted.entry(map.info.id).or_default().insert((name, function.kind.attach_type));
            }
        }
    }
    let mut warnings = BTreeSet::new();
    for attached in wanted.values() {
        for (one, attach_type) in attached {
            let rival =
                |(other, other_type): &&(&str, u32)| other != one && exclude_each_other(*attach_type, *other_type);
            for (other, _) in attached.iter().filter(rival) {
                let warning = format!(
                    "BpfProgram {other} is to attach a program of the same kind to the same map, which runs one of a \
                     kind"
                );
                warnings.insert((*one, warning));
            }
        }
    }
    warnings.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        kernel::{LinkInfo, ProgramInfo},
        observed::{LinkKey, Observed, ObservedLink, ObservedProgram},
    };

    const SK_MSG: u32 = 7;
    const STREAM_VERDICT: u32 = 5;
    const SK_SKB_VERDICT: u32 = 38;
    const SOCK_OPS: u32 = 3;

    fn link(attach_type: u32, path: Option<&str>, map_id: u32) -> ObservedLink {
        let info = LinkInfo { id: 1, attach_type, map_id, ..LinkInfo::default() };
        ObservedLink { info, path: path.map(str::to_owned), in_effect: true, believed: false, pinned: true }
    }

    /// A BpfProgram whose sockops program fills a sockmap with the sockets of a cgroup, and whose other program is
    /// attached to that.
    fn redirector(map_id: u32, attach_type: u32, path: &str) -> ProgramState {
        let program = |map_ids: Vec<u32>| ObservedProgram {
            info: ProgramInfo { map_ids, ..ProgramInfo::default() },
            load_key: None,
            pinned: true,
        };
        let cgroup = LinkKey { function: "fill".into(), place: if path == "/" { "1" } else { "7" }.into() };
        let mut state = ProgramState::default();
        state.observe(Observed {
            functions: [("fill".to_owned(), program(vec![map_id])), ("act".to_owned(), program(vec![]))].into(),
            links: [
                (cgroup, link(SOCK_OPS, Some(path), 0)),
                (LinkKey::on_map("act", "socks"), link(attach_type, None, map_id)),
            ]
            .into(),
            ..Observed::default()
        });
        state
    }

    fn warned(programs: [ProgramState; 2]) -> Vec<(String, Vec<String>)> {
        let programs = BTreeMap::from_iter(["a", "b"].map(str::to_owned).into_iter().zip(programs));
        warnings(&programs).into_iter().map(|(name, warnings)| (name.to_owned(), warnings)).collect()
    }

    #[test]
    fn two_sockmaps_for_the_same_sockets_are_a_warning_on_both() {
        let found = warned([redirector(1, SK_MSG, "/"), redirector(2, SK_MSG, "/pods/x")]);
        let [(a, on_a), (b, on_b)] = &found[..] else { panic!("{found:?}") };
        assert!(
            (a.as_str(), on_a.len()) == ("a", 1) && on_a[0].contains("BpfProgram b") && on_a[0].contains("/pods/x")
        );
        assert!((b.as_str(), on_b.len()) == ("b", 1) && on_b[0].contains("BpfProgram a"));
        assert_eq!(warned([redirector(1, STREAM_VERDICT, "/"), redirector(2, SK_SKB_VERDICT, "/")]).len(), 2);
    }

    #[test]
    fn other_sockets_other_kinds_and_a_shared_map_are_no_warning() {
        for (one, other) in [
            (redirector(1, SK_MSG, "/pods/x"), redirector(2, SK_MSG, "/pods/y")),
            (redirector(1, SK_MSG, "/"), redirector(2, STREAM_VERDICT, "/")),
            (redirector(1, SK_MSG, "/"), redirector(1, STREAM_VERDICT, "/")),
        ] {
            assert_eq!(warned([one, other]), []);
        }
    }

    #[test]
    fn a_root_that_is_not_the_hierarchys_is_a_warning() {
        let mut state = ProgramState::default();
        let key = LinkKey { function: "f".into(), place: "4711".into() };
        state.observe(Observed { links: [(key, link(SOCK_OPS, Some("/"), 0))].into(), ..Observed::default() });
        let found = warned([state, redirector(1, SK_MSG, "/")]);
        assert!(found.len() == 1 && found[0].1[0].contains("cgroup 4711"), "{found:?}");
    }
}
