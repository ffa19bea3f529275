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

/// What a revision that is on trial has replaced. Only while the agent runs: one that starts anew knows of nothing to go back
/// to.
#[derive(Debug)]
pub struct Previous {
    /// The revision.
    pub revision: String,
    /// Its programs, by function.
    pub programs: BTreeMap<String, KeptProgram>,
}

impl Previous {
    /// As it is observed.
    pub fn held(&self) -> Former {
        Former { revision: self.revision.clone(), functions: self.programs.keys().cloned().collect() }
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
