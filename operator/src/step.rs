//! `Step`: one write to the API server, as a value. Plans are lists of these; `apply` is their one interpreter.

use sockeye_crds::{BpfProgramStatus, BpfRevision};

/// One write to the API server.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Puts the operator's finalizer on the BpfProgram, whose finalizers are the `present` ones.
    AddFinalizer {
        /// The finalizers it has.
        present: Vec<String>,
    },
    /// Stores an object's bytes under their digest.
    StoreBytes {
        /// Their digest.
        digest: String,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Tells agents to run this revision.
    Dispatch(Box<BpfRevision>),
    /// Tells agents to consider a revision no longer.
    Withdraw {
        /// The revision's name.
        revision: String,
        /// Its UID.
        uid: String,
    },
    /// Deletes a revision.
    DeleteRevision {
        /// The revision's name.
        revision: String,
        /// Its UID.
        uid: String,
    },
    /// Deletes stored bytes.
    DeleteBytes {
        /// The ConfigMap's name.
        config_map: String,
        /// Its UID.
        uid: String,
    },
    /// Writes the BpfProgram's status.
    WriteStatus(Box<BpfProgramStatus>),
    /// Publishes an Event on the BpfProgram.
    Announce(Announcement),
    /// Takes the operator's finalizer off the BpfProgram.
    RemoveFinalizer {
        /// Where it stands in the list of finalizers.
        index: usize,
    },
}

/// An Event to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Whether somebody should have a look.
    pub warning: bool,
    /// Why, in one word.
    pub reason: String,
    /// What the operator did or saw.
    pub action: &'static str,
    /// Why, in words.
    pub note: String,
}
