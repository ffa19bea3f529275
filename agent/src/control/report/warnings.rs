//! Warnings: what a BpfProgram that is in effect does not do as one would expect. They are short, and go into the
//! BpfNode, from where the BpfProgram's conditions quote them. Pure.

use std::collections::BTreeMap;

use sockeye_crds::names::clip;

use super::{
    limits::{MAX_WARNING, MAX_WARNINGS},
    rivals::{map_rivals, socket_rivals},
};
use crate::control::program::ProgramState;

/// The ID of the root of the cgroup v2 hierarchy (the root of a kernfs, `kernfs_create_root` in fs/kernfs/dir.c).
const ROOT_ID: &str = "1";

/// Returns the warnings on BpfPrograms, by name.
pub(super) fn warnings(programs: &BTreeMap<String, ProgramState>) -> BTreeMap<&str, Vec<String>> {
    let mut all: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, warning) in programs.iter().filter_map(|(name, program)| Some((name, root_warning(program)?))) {
        all.entry(name).or_default().push(warning);
    }
    for (name, warning) in socket_rivals(programs).into_iter().chain(map_rivals(programs)) {
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

    /// Each has a pod and a map of its own; the last one fills its map from all pods.
    #[test]
    fn thousands_of_sockmaps_are_compared_at_once() {
        let pods = (0..4000).map(|n| (format!("p-{n}"), redirector(n, SK_MSG, &format!("/pods/{n}"))));
        let all = ("q".to_owned(), redirector(4000, SK_MSG, "/pods"));
        let programs = BTreeMap::from_iter(pods.chain([all]));
        let begin = std::time::Instant::now();
        let warnings = warnings(&programs);
        // Compared in pairs they take many times as long.
        assert!(begin.elapsed() < std::time::Duration::from_secs(1), "{:?}", begin.elapsed());
        assert!(programs.keys().all(|name| warnings.contains_key(name.as_str())));
        assert_eq!(warnings["p-7"].len(), 1);
        assert!(warnings["p-7"][0].contains("BpfProgram q puts sockets of cgroup /pods/7"), "{warnings:?}");
        assert_eq!(warnings["q"].len(), MAX_WARNINGS);
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
