//! `Desired`: the state that one BpfProgram should have on this node. Values; `resolve/` computes them from a revision.

use std::collections::{BTreeMap, BTreeSet};

use sockeye_crds::{
    MapDefinition, Value,
    program::{MapRef, MapSpec},
    provenance::Origin,
    revision::ProgramRef,
};
use sockeye_ebpf::kinds::map_type::{SOCKHASH, SOCKMAP};

use super::{kept_pod::KeptPod, kernel::ProgramKind, map_shape::MapShape, pods::CgroupOwner};

/// The state that one BpfProgram should have on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// The BpfProgram.
    pub program: ProgramRef,
    /// The revision's name.
    pub revision: String,
    /// The identity of the load; see [`RevisionTemplate::load_key`](sockeye_crds::RevisionTemplate::load_key).
    pub load_key: String,
    /// The digest of the object's bytes.
    pub digest: String,
    /// The image that the bytes come from, and what proves who signed them.
    pub origin: Origin,
    /// The programs to load, by function.
    pub functions: BTreeMap<String, DesiredProgram>,
    /// Every map of the object, by its name in the ELF.
    pub maps: BTreeMap<String, DesiredMap>,
    /// The pods that keepers select or go on selecting, each with the path of its cgroup. They are noted also while
    /// nothing is to be attached.
    pub kept_pods: BTreeMap<KeptPod, String>,
    /// True if the spec attaches any program to a map, even while it is suspended.
    pub attaches_to_maps: bool,
    /// The values of global variables.
    pub globals: BTreeMap<String, Value>,
    /// The spec's settings of maps. Their entries are encoded by the object's BTF, at the load.
    pub settings: Vec<MapSpec>,
    /// The position among other programs on the same cgroup: lower ones run first.
    pub priority: i64,
    /// True if the spec sets a priority and this kernel keeps no order.
    pub unordered: bool,
    /// True if the programs are to be loaded and attached nowhere.
    pub suspended: bool,
    /// True if sockets are to be taken out of maps at once, whatever is lost.
    pub force_detach: bool,
}

/// A program to load and attach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredProgram {
    /// The kind by which it is verified and attached.
    pub kind: ProgramKind,
    /// The cgroups to attach it to, as paths below the cgroup root, none below another.
    ///
    /// A cgroup that a selector picked has an owner and may come and go. Without an owner, a missing cgroup is an
    /// error.
    pub paths: BTreeMap<String, Option<CgroupOwner>>,
    /// The maps to attach it to, by pin name.
    pub maps: BTreeSet<String>,
    /// True if it can cut this node's agent or kubelet off from the API server, so that its attachment starts a
    /// connectivity trial.
    pub can_cut_off: bool,
    /// True for an `sk_msg` program that redirects and holds back nothing: sockets can leave its maps without loss.
    pub passes_only: bool,
}

/// A map to create, carry over or share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredMap {
    /// The name of its pin.
    pub pin_name: String,
    /// True if it is to be pinned.
    pub pin: bool,
    /// True if its pin is to remain after the BpfProgram is deleted.
    pub retain: bool,
    /// The form of its definition in the object.
    pub definition: MapDefinition,
    /// True if each load creates it anew and never carries it over: global data, and maps that the object fills itself.
    pub of_load: bool,
    /// True if its entries are to be kept in sync with the spec.
    pub sync: bool,
    /// Its shape, with the defaults of the loader and the kernel applied.
    pub shape: MapShape,
    /// True if it is to be created anew when the pinned map has another shape.
    pub recreate: bool,
    /// The map of another BpfProgram that is to be used in its place.
    pub from: Option<MapRef>,
    /// True if it is no map of the object: programs are attached to it, and no program uses it.
    pub attach_only: bool,
    /// All functions of the object that use it, including those that are not loaded.
    pub used_by: Vec<String>,
}

impl DesiredMap {
    /// Returns whether it is a sockmap or a sockhash.
    pub const fn holds_sockets(&self) -> bool {
        matches!(self.shape.map_type, SOCKMAP | SOCKHASH)
    }
}

impl Desired {
    /// Returns all cgroup paths that any function is to be attached to.
    pub fn paths(&self) -> BTreeSet<&str> {
        self.functions.values().flat_map(|function| function.paths.keys().map(String::as_str)).collect()
    }

    /// Returns whether any of the programs that are to be attached to maps can keep bytes in a map's queues.
    pub fn diverts(&self) -> bool {
        self.functions.values().any(|function| !function.maps.is_empty() && !function.passes_only)
    }

    /// Returns the map with a pin name, and its name in the ELF.
    pub fn map_by_pin(&self, pin: &str) -> Option<(&str, &DesiredMap)> {
        self.maps.iter().find(|(_, map)| map.pin_name == pin).map(|(name, map)| (name.as_str(), map))
    }
}
