//! `Kept`: the agent's own descriptors of what one BpfProgram has pinned. While the agent runs they keep programs, maps and
//! links alive whose pins someone removes, so that these can be pinned again as they were. A cache of what the pins and
//! notes say, not a state to lose: an agent that starts anew opens the pins, and ends nothing by closing these.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    held::{Former, LinkKey, Names},
    kernel::Fd,
};

/// The descriptors of one home.
#[derive(Debug, Default)]
pub struct Kept {
    /// By function.
    pub programs: BTreeMap<String, KeptProgram>,
    /// By pin name.
    pub maps: BTreeMap<String, Fd>,
    /// By function and place.
    pub links: BTreeMap<LinkKey, KeptLink>,
    /// What ran before the revision that is on trial.
    pub previous: Option<Previous>,
}

/// What there was before a revision that is on trial. Only while the agent runs: one that starts anew knows of nothing to go
/// back to.
#[derive(Debug)]
pub struct Previous {
    /// The revision; absent where some of it was replaced for good.
    pub revision: Option<String>,
    /// Its programs that were replaced, by function.
    pub programs: BTreeMap<String, KeptProgram>,
    /// Where it was attached, by links that have not been made anew since.
    pub links: BTreeSet<LinkKey>,
}

impl Previous {
    /// Takes what another revision has replaced, which functions it has loaded, and which links it has made. A link is gone back
    /// to only if it ran this one's program, and can again.
    pub fn give_way(
        &mut self,
        replaced: BTreeMap<String, KeptProgram>,
        loaded: &BTreeMap<String, Fd>,
        made: &BTreeSet<LinkKey>,
    ) {
        let Self { revision, programs, links } = self;
        for (function, program) in replaced {
            programs.entry(function).or_insert(program);
        }
        let had = links.len();
        let can = |function: &String| programs.contains_key(function) || !loaded.contains_key(function);
        links.retain(|key| !made.contains(key) && can(&key.function));
        if links.len() < had {
            *revision = None;
        }
    }

    /// As it is observed.
    pub fn held(&self) -> Former {
        let Self { revision, programs, links } = self;
        Former { revision: revision.clone(), functions: programs.keys().cloned().collect(), links: links.clone() }
    }
}

/// A program.
#[derive(Debug)]
pub struct KeptProgram {
    /// Its descriptor.
    pub fd: Fd,
    /// Its ID.
    pub id: u32,
    /// The load that it came from, as the note said when it was last there.
    pub load_key: Option<String>,
}

/// A link, or what stands in its place.
#[derive(Debug)]
pub struct KeptLink {
    /// Its descriptor.
    pub fd: Fd,
    /// The ID of a link to a cgroup; 0 else: a map is asked each time.
    pub id: u32,
    /// The cgroup's path, as the note said when it was last there.
    pub path: Option<String>,
    /// Where it is a program that this agent has attached to a map without a link: the attach type.
    pub attached: Option<u32>,
}

impl Kept {
    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        let Self { programs, maps, links, previous: _ } = self;
        programs.is_empty() && maps.is_empty() && links.is_empty()
    }

    /// What is kept and not among the names of what is pinned.
    pub fn beyond(&self, names: &Names) -> Names {
        fn others<K: Ord + Clone, V>(kept: &BTreeMap<K, V>, pinned: &BTreeSet<K>) -> BTreeSet<K> {
            kept.keys().filter(|key| !pinned.contains(key)).cloned().collect()
        }
        Names {
            functions: others(&self.programs, &names.functions),
            maps: others(&self.maps, &names.maps),
            links: others(&self.links, &names.links),
            ..Names::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::OwnedFd};

    use super::*;

    fn program(id: u32) -> KeptProgram {
        KeptProgram { fd: Fd::new(OwnedFd::from(File::open("/dev/null").unwrap())), id, load_key: None }
    }

    fn keys(places: &[(&str, &str)]) -> BTreeSet<LinkKey> {
        places
            .iter()
            .map(|(function, place)| LinkKey { function: (*function).into(), place: (*place).into() })
            .collect()
    }

    #[test]
    fn a_link_is_gone_back_to_only_if_it_ran_the_program_and_can_again() {
        let links = keys(&[("f", "1"), ("f", "2"), ("g", "1"), ("h", "1")]);
        let mut previous = Previous { revision: Some("p-1".into()), programs: BTreeMap::new(), links };
        // The next one differs by its places alone.
        previous.give_way(BTreeMap::new(), &BTreeMap::new(), &BTreeSet::new());
        assert_eq!(previous.revision.as_deref(), Some("p-1"));
        assert_eq!(previous.links.len(), 4);
        // One more has other programs: g's was replaced, f's too, and f got another link at one place; h's pin was gone.
        let loaded = ["f", "g", "h"].map(|function| (function.to_owned(), program(9).fd)).into();
        let replaced = [("f".to_owned(), program(1)), ("g".to_owned(), program(2))].into();
        previous.give_way(replaced, &loaded, &keys(&[("f", "2")]));
        assert_eq!(previous.links, keys(&[("f", "1"), ("g", "1")]));
        assert_eq!(previous.revision, None, "not all of it can be gone back to");
        // What the third replaces is the second's.
        previous.give_way([("f".to_owned(), program(9))].into(), &loaded, &BTreeSet::new());
        assert_eq!(previous.programs["f"].id, 1);
    }
}
