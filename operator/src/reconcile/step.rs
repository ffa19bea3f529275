//! [`Step`]: one write, as a value. Plans are lists of steps, and [`apply`](super::apply) runs them. IO: none.

use sockeye_crds::{BpfProgramStatus, BpfRevision};

use crate::events::ProgramEvent;

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Adds the operator's finalizer to the BpfProgram.
    AddFinalizer {
        /// The finalizers that the BpfProgram has.
        present: Vec<String>,
    },
    /// Stores an object's bytes under their digest.
    StoreBytes {
        /// The digest.
        digest: String,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Creates a live revision, which agents run.
    Dispatch(Box<BpfRevision>),
    /// Marks a revision as not live, so that agents ignore it.
    Withdraw {
        /// The revision's name.
        revision: String,
        /// The revision's UID.
        uid: String,
    },
    /// Deletes a revision.
    DeleteRevision {
        /// The revision's name.
        revision: String,
        /// The revision's UID.
        uid: String,
    },
    /// Deletes stored bytes.
    DeleteBytes {
        /// The ConfigMap's name.
        config_map: String,
        /// The ConfigMap's UID.
        uid: String,
    },
    /// Writes the BpfProgram's status.
    WriteStatus(Box<BpfProgramStatus>),
    /// Publishes an Event about the BpfProgram.
    PublishEvent(ProgramEvent),
    /// Removes the operator's finalizer from the BpfProgram.
    RemoveFinalizer {
        /// The finalizer's index.
        index: usize,
    },
}
