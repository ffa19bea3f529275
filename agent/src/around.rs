//! `Around`: what of the node and of other BpfPrograms a plan for one depends on. Values; the agent gathers them.

use std::collections::BTreeMap;

use sockeye_crds::program::MapRef;

use crate::{
    kernel::{cgroup::Cgroup, info::MapInfo},
    order::Neighbour,
};

/// What of ours runs at cgroups, by path and attach type, in order.
pub type Lines = BTreeMap<String, BTreeMap<u32, Vec<Neighbour>>>;

/// What a plan depends on besides what is wanted and what is held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Around {
    /// The wanted cgroups that exist, by path.
    pub cgroups: BTreeMap<String, Cgroup>,
    /// Of the maps that are wanted of other BpfPrograms, those that are pinned here.
    pub maps: BTreeMap<MapRef, MapInfo>,
    /// Why the others are not, in words.
    pub absent: BTreeMap<MapRef, String>,
    /// What other BpfPrograms have attached to maps: by the map's ID, attach types and whose.
    pub on_maps: BTreeMap<u32, BTreeMap<u32, String>>,
    /// Of the wanted cgroups; only where priorities differ, and the kernel keeps an order.
    pub lines: Lines,
}

impl Around {
    /// What of ours runs at a cgroup.
    pub fn line(&self, path: &str, attach_type: u32) -> &[Neighbour] {
        self.lines.get(path).and_then(|types| types.get(&attach_type)).map(Vec::as_slice).unwrap_or_default()
    }
}
