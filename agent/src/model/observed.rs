//! `Observed`: the state that one BpfProgram has on this node, read from bpffs and the kernel by `node/observe`.
//! Values.

use std::collections::{BTreeMap, BTreeSet};

use sockeye_crds::{program::MapRef, target::PodsTarget};

use super::{
    keeper,
    kept_pod::{KeptByTarget, KeptPod},
    kernel::{Cgroup, LinkInfo, MapInfo, ProgramInfo},
    map_shape::MapShape,
    switch::ObservedSwitch,
    trial::Trial,
};

/// The state that one BpfProgram has on this node.
///
/// A program, map or link whose pin someone removed is observed all the same while this agent keeps a descriptor of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The BpfProgram's UID, from its note; `None` without a note.
    pub uid: Option<String>,
    /// The time at which the BpfProgram came to the node, in microseconds since 1970, from its note; 0 without one.
    pub claimed: u64,
    /// The revision in effect, from its note.
    pub revision: Option<String>,
    /// The connectivity trial, from its note.
    pub trial: Option<Trial>,
    /// The state before the revision on trial, as far as a revert can restore it.
    pub previous: Option<Predecessor>,
    /// Programs, by function.
    pub functions: BTreeMap<String, ObservedProgram>,
    /// Maps, by pin name.
    pub maps: BTreeMap<String, ObservedMap>,
    /// Links.
    pub links: BTreeMap<LinkKey, ObservedLink>,
    /// The pods that keepers go on selecting.
    pub kept_pods: BTreeMap<KeptPod, ObservedKeptPod>,
    /// The pin names of the maps to retain after the BpfProgram is deleted.
    pub retained: BTreeSet<String>,
    /// The pin names of the maps whose entries were kept in sync.
    pub recorded: BTreeSet<String>,
    /// The switch of its object, if that has one.
    pub switch: Option<ObservedSwitch>,
    /// True if a note says that sockets are to be taken out of maps at once, whatever is lost.
    pub force_detach: bool,
    /// True if a killed agent left half-made pins or an empty home.
    pub stray: bool,
}

/// The state before the revision on trial, as far as a revert can restore it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Predecessor {
    /// The revision that was in effect; `None` if a part of it was replaced for good.
    pub revision: Option<String>,
    /// The functions whose programs were replaced and can be pinned again.
    pub functions: BTreeSet<String>,
    /// The links that it had and that were not attached anew since.
    pub links: BTreeSet<LinkKey>,
}

/// A program of a BpfProgram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedProgram {
    /// The kernel's information.
    pub info: ProgramInfo,
    /// The key of the load that it came from; `None` if neither a note nor this agent knows it.
    pub load_key: Option<String>,
    /// True if its pin and its note exist; otherwise only the agent's descriptor holds the program.
    pub pinned: bool,
}

/// A map of a BpfProgram.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedMap {
    /// The kernel's information.
    pub info: MapInfo,
    /// True if its pin exists; otherwise only the agent's descriptor holds the map.
    pub pinned: bool,
    /// The BpfProgram and map that it is shared from, according to its note; `None` if it is the BpfProgram's own.
    pub from: Option<MapRef>,
    /// True if sockets can leave the map without loss: according to its note, nothing was ever attached to it, or to
    /// another map of its programs, but `sk_msg` programs that pass what is sent.
    pub lossless: bool,
    /// The number of sockets in it, counted while the BpfProgram has nothing attached.
    pub sockets: Option<u32>,
}

impl ObservedMap {
    /// Returns whether it is a sockmap or a sockhash.
    pub const fn holds_sockets(&self) -> bool {
        self.info.holds_sockets()
    }

    /// Returns the map's shape.
    pub fn shape(&self) -> MapShape {
        MapShape::of(&self.info)
    }
}

/// A cgroup or map that a function is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttachSite {
    /// A cgroup.
    Cgroup(Cgroup),
    /// A map, by its pin name.
    Map(String),
}

/// The identity of a link: one function at one cgroup or map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkKey {
    /// The function.
    pub function: String,
    /// The cgroup's ID in decimal, or `map-` and the map's pin name.
    pub place: String,
}

impl LinkKey {
    /// The prefix of a `place` that is a map.
    const MAP: &'static str = "map-";

    /// Returns the key of a function's link to a cgroup.
    pub fn at(function: &str, cgroup: &Cgroup) -> Self {
        Self { function: function.to_owned(), place: cgroup.id.to_string() }
    }

    /// Returns the key of a function's link to a map.
    pub fn on_map(function: &str, pin: &str) -> Self {
        Self { function: function.to_owned(), place: format!("{}{pin}", Self::MAP) }
    }

    /// Returns the key of a function's link to a cgroup or map.
    pub fn to(function: &str, site: &AttachSite) -> Self {
        match site {
            AttachSite::Cgroup(cgroup) => Self::at(function, cgroup),
            AttachSite::Map(pin) => Self::on_map(function, pin),
        }
    }

    /// Returns the map's pin name if the link is to a map.
    pub fn map(&self) -> Option<&str> {
        self.place.strip_prefix(Self::MAP)
    }
}

/// A link of a BpfProgram.
///
/// A kernel without links for maps (before Linux 6.10) gives none: the map holds the program, and the program is pinned
/// in the link's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedLink {
    /// The kernel's information.
    pub info: LinkInfo,
    /// The cgroup's path below the cgroup root, from its note.
    pub path: Option<String>,
    /// True if the kernel's query of the cgroup or map lists the program.
    pub in_effect: bool,
    /// True if `in_effect` rests on this agent's own attachment, because the kernel can't be queried for it.
    pub believed: bool,
    /// True if its pin and the note on its cgroup exist; otherwise only the agent's descriptor holds the link.
    pub pinned: bool,
}

/// A pod that a keeper goes on selecting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedKeptPod {
    /// The path of the pod's cgroup below the cgroup root, from the note.
    pub path: String,
    /// True if the note exists; otherwise only the agent remembers it.
    pub noted: bool,
}

impl ObservedLink {
    /// Returns true for a kernel link, which can be updated; without one the map alone holds the program.
    pub const fn is_link(&self) -> bool {
        self.info.id != 0
    }
}

impl Observed {
    /// Returns whether the BpfProgram has nothing on this node.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns whether the BpfProgram has nothing left but retained maps.
    pub fn is_retained_only(&self) -> bool {
        let Self { revision, trial, functions, maps, links, kept_pods, retained, recorded, stray, .. } = self;
        !maps.is_empty()
            && maps.keys().all(|pin| retained.contains(pin))
            && revision.is_none()
            && trial.is_none()
            && functions.is_empty()
            && links.is_empty()
            && kept_pods.is_empty()
            && recorded.is_empty()
            && !stray
    }

    /// Returns the maps with sockets in them, by pin name, and the number of sockets, if the BpfProgram has nothing
    /// attached.
    pub fn draining(&self) -> impl Iterator<Item = (&String, &ObservedMap, u32)> {
        let maps = self.maps.iter().filter(|_| self.links.is_empty());
        maps.filter_map(|(pin, map)| Some((pin, map, map.sockets.filter(|sockets| *sockets > 0)?)))
    }

    /// Returns the pods that a target of a BpfProgram goes on selecting. Notes of a deleted BpfProgram of the same name
    /// do not count. Without the note of the UID, which somebody may have removed, they are this one's.
    pub fn kept_by(&self, program_uid: &str, target: &PodsTarget) -> KeptByTarget<'_> {
        let is_of_program = self.uid.as_ref().is_none_or(|uid| uid == program_uid);
        let Some(keeper) = keeper::identity(target).filter(|_| is_of_program) else { return KeptByTarget::new() };
        let kept = self.kept_pods.iter().filter(|(pod, _)| pod.keeper() == keeper);
        kept.map(|(pod, observed)| (pod.uid(), observed.path.as_str())).collect()
    }

    /// Returns whether a target of a BpfProgram goes on selecting a pod.
    pub fn keeps(&self, program_uid: &str, target: &PodsTarget, pod_uid: &str) -> bool {
        // A keeper's identity takes a while to compute.
        let may_keep = self.kept_pods.keys().any(|pod| pod.uid() == pod_uid);
        may_keep && self.kept_by(program_uid, target).contains_key(pod_uid)
    }
}
