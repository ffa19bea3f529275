//! `PlanContext`: the state outside of a BpfProgram that its plan depends on. Values; `control/` gathers them.

use std::collections::{BTreeMap, BTreeSet};

use sockeye_crds::program::MapRef;

use super::order::Neighbour;
use crate::model::kernel::{Cgroup, MapInfo};

/// The links of BpfPrograms on each cgroup, by path and attach type, in the order in which the kernel runs them.
pub type AttachOrders = BTreeMap<String, BTreeMap<u32, Vec<Neighbour>>>;

/// The state outside of a BpfProgram that its plan depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanContext {
    /// The desired cgroups that exist, by path.
    pub cgroups: BTreeMap<String, Cgroup>,
    /// The desired maps of other BpfPrograms that are pinned on this node.
    pub maps: BTreeMap<MapRef, MapInfo>,
    /// The desired maps of other BpfPrograms that are not, each with the reason in words.
    pub absent: BTreeMap<MapRef, String>,
    /// The BpfPrograms attached to maps, by map ID and attach type, without the planned one.
    pub on_maps: BTreeMap<u32, BTreeMap<u32, String>>,
    /// The IDs of the sockmaps and sockhashes that other BpfPrograms have pinned too.
    pub lent: BTreeSet<u32>,
    /// The attach orders on the desired cgroups; only those where priorities differ, or the BpfProgram comes back, and
    /// the kernel keeps an order.
    pub attach_orders: AttachOrders,
    /// The revision changes entries that programs in effect look up.
    pub changes_entries: bool,
    /// The time at which the BpfProgram came to the node; the latest of all if it comes now.
    pub claimed: u64,
}

impl PlanContext {
    /// Returns the attach order on a cgroup; empty if it does not matter.
    pub fn attach_order(&self, path: &str, attach_type: u32) -> &[Neighbour] {
        self.attach_orders.get(path).and_then(|types| types.get(&attach_type)).map(Vec::as_slice).unwrap_or_default()
    }
}
