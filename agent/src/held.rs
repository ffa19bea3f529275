//! `Held`: what one BpfProgram has on this node, as bpffs and the kernel tell it. A value; [`observe`](crate::observe) reads it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    kernel::info::{LinkInfo, MapInfo, ProgramInfo},
    shape::Shape,
};

/// What one BpfProgram has on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The BpfProgram's UID, from the note; absent where there is no note.
    pub uid: Option<String>,
    /// The revision in effect, from the note.
    pub revision: Option<String>,
    /// Pinned programs, by function.
    pub functions: BTreeMap<String, HeldFunction>,
    /// Pinned maps, by pin name.
    pub maps: BTreeMap<String, HeldMap>,
    /// Pinned links.
    pub links: BTreeMap<LinkKey, HeldLink>,
    /// The pin names of the maps to retain.
    pub retained: BTreeSet<String>,
    /// Whether a killed agent left something half-made.
    pub stray: bool,
}

/// A pinned program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldFunction {
    /// What the kernel says of it.
    pub info: ProgramInfo,
    /// The load it came from; absent where no note of it is to be believed.
    pub load_key: Option<String>,
}

/// A pinned map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldMap {
    /// What the kernel says of it.
    pub info: MapInfo,
}

impl HeldMap {
    /// Its shape.
    pub fn shape(&self) -> Shape {
        let MapInfo { map_type, key_size, value_size, max_entries, flags, .. } = self.info;
        Shape { map_type, key_size, value_size, max_entries, flags }
    }
}

/// Which link: a function's, at a place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkKey {
    /// The function.
    pub function: String,
    /// Where: the cgroup's ID, in decimal.
    pub place: String,
}

/// A pinned link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldLink {
    /// What the kernel says of it.
    pub info: LinkInfo,
    /// The cgroup's path below the root, from the note.
    pub path: Option<String>,
    /// Whether the kernel's own query of the cgroup lists the link's program.
    pub in_effect: bool,
}

impl Held {
    /// Whether nothing at all is there.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether all that is left are maps that outlive their BpfProgram.
    pub fn is_retained_only(&self) -> bool {
        let Self { uid: _, revision, functions, maps, links, retained, stray } = self;
        !maps.is_empty()
            && maps.keys().all(|pin| retained.contains(pin))
            && revision.is_none()
            && functions.is_empty()
            && links.is_empty()
            && !stray
    }
}
