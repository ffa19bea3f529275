//! `Step`: one change to a node. Values; `node/execute` executes them.

use std::collections::{BTreeMap, BTreeSet};

use sockeye_crds::program::MapRef;

use super::order::Neighbour;
use crate::model::{
    draining_map::SocketFate,
    kept_pod::KeptPod,
    kernel::Cgroup,
    observed::{AttachSite, LinkKey},
    trial::Trial,
};

/// One change to what a BpfProgram has on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Remove the half-made pins that a killed agent left.
    RemoveStray,
    /// Create the home and note its BpfProgram.
    Claim {
        /// The BpfProgram's UID.
        uid: String,
    },
    /// Load the object with these maps, and create the others.
    Load {
        /// The pin names of the maps that are carried over.
        reuse: BTreeSet<String>,
        /// The maps of other BpfPrograms, by their names in the ELF.
        shared: BTreeMap<String, MapRef>,
    },
    /// Forget which load a pinned program comes from, because maps of another load are about to be pinned.
    ForgetLoad(String),
    /// Note that a keeper goes on selecting a pod.
    KeepPod {
        /// The keeper and the pod.
        pod: KeptPod,
        /// The path of the pod's cgroup.
        path: String,
    },
    /// Remove the note that a keeper goes on selecting a pod.
    ForgetPod(KeptPod),
    /// Note that a map, by pin name, is retained after the BpfProgram is deleted.
    Retain(String),
    /// Remove the note that a map, by pin name, is retained.
    Release(String),
    /// Forget which entries of a map, by pin name, the spec listed.
    ForgetEntries(String),
    /// Pin a loaded map, by its pin name, in place of any other.
    PinMap(String),
    /// Note that a map is shared from another BpfProgram, and pin it here too, in place of any other.
    ShareMap {
        /// Its name in the ELF.
        name: String,
        /// The BpfProgram and map that it is shared from.
        from: MapRef,
    },
    /// Pin a map of another BpfProgram here too, in place of any other, and note whose it is: programs are attached to
    /// it.
    BorrowMap {
        /// Its pin name here.
        pin: String,
        /// The BpfProgram and map that it is.
        from: MapRef,
    },
    /// Note whether sockets are to be taken out of maps at once.
    SetForceDetach(bool),
    /// Note that sockets can't leave a map, by pin name, without loss any more.
    NoteLossy(String),
    /// Take all sockets out of a map, by pin name.
    TakeSocketsOut(String),
    /// Pin a map at another place too, where it stays for the sockets in it.
    KeepForSockets {
        /// Its pin name here.
        pin: String,
        /// What becomes of the sockets.
        fate: SocketFate,
    },
    /// Note which load a program comes from, and pin the program in place of any other.
    PinProgram(String),
    /// Attach the pinned program, and pin the link in place of any other. A program that a map holds without a link is
    /// replaced.
    Attach {
        /// The function.
        function: String,
        /// The cgroup or map.
        site: AttachSite,
        /// The links before which it is to run, in their order; none means last.
        before: Vec<Neighbour>,
    },
    /// Attach a link anew at another position on its cgroup, then detach the old one.
    Move {
        /// The link.
        key: LinkKey,
        /// Its cgroup.
        cgroup: Cgroup,
        /// The links before which it is to run, in their order; none means last.
        before: Vec<Neighbour>,
    },
    /// Have the object's switch say what it said before it was turned off.
    SwitchOn,
    /// Clear the object's switch, after noting what it says.
    SwitchOff,
    /// Replace the program of a link, or of a map without one, by the pinned program, atomically.
    Update(LinkKey),
    /// Note the state of a connectivity trial.
    SetTrial(Trial),
    /// Pin the program of a function again that ran before the revision on trial.
    Restore(String),
    /// Restore the pin of a program.
    RepinProgram(String),
    /// Restore the pin of a map.
    RepinMap(String),
    /// Restore the pin of a link.
    RepinLink(LinkKey),
    /// Note the revision that is now in effect; `None` also ends a trial.
    SetRevision(Option<String>),
    /// Detach and unpin a link.
    Detach(LinkKey),
    /// Unpin a program and forget which load it comes from.
    UnpinProgram(String),
    /// Unpin a map.
    UnpinMap(String),
    /// Remove the home, in which only notes and empty directories are left.
    Leave,
}
