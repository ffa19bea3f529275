//! `Handles`: the agent's own descriptors of everything that one BpfProgram has pinned.
//!
//! While the agent runs, the descriptors keep programs, maps and links alive whose pins somebody removes, so that the
//! same ones can be pinned again. They are a cache of what pins and notes say, and no state: an agent that starts opens
//! the pins, and an agent that ends closes descriptors without ending anything.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    kernel::Fd,
    model::{
        kept_pod::KeptPod,
        observed::{LinkKey, Predecessor},
        pin_names::PinNames,
    },
};

/// The descriptors of one home.
#[derive(Debug, Default)]
pub struct Handles {
    /// Programs, by function.
    pub programs: BTreeMap<String, ProgramHandle>,
    /// Maps, by pin name.
    pub maps: BTreeMap<String, Fd>,
    /// Links, by function and place.
    pub links: BTreeMap<LinkKey, LinkHandle>,
    /// The records of entries, by the maps' pin names.
    pub records: BTreeMap<String, Fd>,
    /// Kept pods, each with the path of its cgroup, as the notes last said.
    pub kept_pods: BTreeMap<KeptPod, String>,
    /// What ran before the revision that is on trial.
    pub previous: Option<PredecessorHandles>,
}

/// The descriptors that are read outside of the controller, by whoever asks what programs and maps hold. Whoever has
/// them keeps the programs and maps alive.
#[derive(Clone, Debug, Default)]
pub struct Descriptors {
    /// Programs, by function.
    pub programs: BTreeMap<String, Fd>,
    /// Maps, by pin name.
    pub maps: BTreeMap<String, Fd>,
    /// The programs that ran before the revision that is on trial, by function.
    pub previous: BTreeMap<String, Fd>,
}

/// What ran before a revision that is on trial, so that the agent can go back to it. Known only while the agent runs:
/// one that starts has nothing to go back to.
#[derive(Debug)]
pub struct PredecessorHandles {
    /// The revision; absent once some part of it can't be restored.
    pub revision: Option<String>,
    /// Its programs that were replaced, by function.
    pub programs: BTreeMap<String, ProgramHandle>,
    /// Its links, without those that were made anew since.
    pub links: BTreeSet<LinkKey>,
}

impl PredecessorHandles {
    /// Records what a later revision changed: the programs that it `replaced`, the functions that it `loaded`, and the
    /// links that it `created`. A link can be restored only if it ran the predecessor's program and that program still
    /// exists.
    pub fn record_change(
        &mut self,
        replaced: BTreeMap<String, ProgramHandle>,
        loaded: &BTreeMap<String, Fd>,
        created: &BTreeSet<LinkKey>,
    ) {
        let Self { revision, programs, links } = self;
        for (function, program) in replaced {
            programs.entry(function).or_insert(program);
        }
        let before = links.len();
        let has_program = |function: &String| programs.contains_key(function) || !loaded.contains_key(function);
        links.retain(|key| !created.contains(key) && has_program(&key.function));
        if links.len() < before {
            *revision = None;
        }
    }

    /// Returns the predecessor without descriptors.
    pub fn observed(&self) -> Predecessor {
        let Self { revision, programs, links } = self;
        Predecessor { revision: revision.clone(), functions: programs.keys().cloned().collect(), links: links.clone() }
    }
}

/// A program.
#[derive(Debug)]
pub struct ProgramHandle {
    /// Its descriptor.
    pub fd: Fd,
    /// Its ID.
    pub id: u32,
    /// The key of the load that it came from, as the note last said.
    pub load_key: Option<String>,
}

/// A link, or the program that is pinned in its place.
#[derive(Debug)]
pub struct LinkHandle {
    /// Its descriptor.
    pub fd: Fd,
    /// The ID of a link to a cgroup; 0 for a map, which is queried each time.
    pub id: u32,
    /// The cgroup's path, as the note last said.
    pub path: Option<String>,
    /// The attach type, if this agent attached a program to a map without a link.
    pub map_attach_type: Option<u32>,
}

impl LinkHandle {
    /// A link to a cgroup.
    pub const fn to_cgroup(fd: Fd, id: u32, path: Option<String>) -> Self {
        Self { fd, id, path, map_attach_type: None }
    }

    /// A link to a map, or the program that the map holds without a link; that one with its attach type if this agent
    /// attached it.
    pub const fn to_map(fd: Fd, map_attach_type: Option<u32>) -> Self {
        Self { fd, id: 0, path: None, map_attach_type }
    }
}

impl Handles {
    /// Returns the descriptors of programs and maps.
    pub fn descriptors(&self) -> Descriptors {
        let fds = |programs: &BTreeMap<String, ProgramHandle>| {
            programs.iter().map(|(function, program)| (function.clone(), Fd::clone(&program.fd))).collect()
        };
        let previous = self.previous.as_ref().map(|previous| fds(&previous.programs));
        Descriptors { programs: fds(&self.programs), maps: self.maps.clone(), previous: previous.unwrap_or_default() }
    }

    /// Returns whether no program, map or link is held, and no kept pod remembered.
    pub fn is_empty(&self) -> bool {
        let Self { programs, maps, links, kept_pods, records: _, previous: _ } = self;
        programs.is_empty() && maps.is_empty() && links.is_empty() && kept_pods.is_empty()
    }

    /// The names of what is orphaned: held here, and not among the pins.
    pub fn orphaned(&self, pins: &PinNames) -> PinNames {
        fn unpinned<K: Ord + Clone, V>(held: &BTreeMap<K, V>, pinned: &BTreeSet<K>) -> BTreeSet<K> {
            held.keys().filter(|key| !pinned.contains(key)).cloned().collect()
        }
        PinNames {
            functions: unpinned(&self.programs, &pins.functions),
            maps: unpinned(&self.maps, &pins.maps),
            links: unpinned(&self.links, &pins.links),
            ..PinNames::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::OwnedFd};

    use super::*;

    fn program(id: u32) -> ProgramHandle {
        ProgramHandle { fd: Fd::new(OwnedFd::from(File::open("/dev/null").unwrap())), id, load_key: None }
    }

    fn keys(places: &[(&str, &str)]) -> BTreeSet<LinkKey> {
        places
            .iter()
            .map(|(function, place)| LinkKey { function: (*function).into(), place: (*place).into() })
            .collect()
    }

    #[test]
    fn a_predecessors_link_is_kept_while_its_program_can_be_restored() {
        let links = keys(&[("f", "1"), ("f", "2"), ("g", "1"), ("h", "1")]);
        let mut previous = PredecessorHandles { revision: Some("p-1".into()), programs: BTreeMap::new(), links };
        // The second revision differs in its places only.
        previous.record_change(BTreeMap::new(), &BTreeMap::new(), &BTreeSet::new());
        assert_eq!(previous.revision.as_deref(), Some("p-1"));
        assert_eq!(previous.links.len(), 4);
        // The third has other programs: it replaced f's and g's, made one link of f anew, and found no pin of h to
        // replace.
        let loaded = ["f", "g", "h"].map(|function| (function.to_owned(), program(9).fd)).into();
        let replaced = [("f".to_owned(), program(1)), ("g".to_owned(), program(2))].into();
        previous.record_change(replaced, &loaded, &keys(&[("f", "2")]));
        assert_eq!(previous.links, keys(&[("f", "1"), ("g", "1")]));
        assert_eq!(previous.revision, None, "not all of it can be restored");
        // The fourth replaces the third's program, which is not the predecessor's.
        previous.record_change([("f".to_owned(), program(9))].into(), &loaded, &BTreeSet::new());
        assert_eq!(previous.programs["f"].id, 1);
    }
}
