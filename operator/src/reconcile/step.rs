//! [`Step`]: one write, as a value. Plans are lists of steps, and [`apply`](super::apply) runs them. IO: none.

use kube::api::ObjectMeta;
use sockeye_crds::{BpfProgramStatus, BpfRevision};

use crate::events::ProgramEvent;

/// One version of an object. A write that is based on it fails with HTTP 409 if the object is another one, or has
/// changed since.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectVersion {
    /// The object's name.
    pub name: String,
    /// The object's UID.
    pub uid: String,
    /// The object's resource version.
    pub resource_version: String,
}

impl ObjectVersion {
    /// Returns the version that the metadata is of.
    pub fn of(metadata: &ObjectMeta) -> Option<Self> {
        let ObjectMeta { name: Some(name), uid: Some(uid), resource_version: Some(resource_version), .. } = metadata
        else {
            return None;
        };
        Some(Self { name: name.clone(), uid: uid.clone(), resource_version: resource_version.clone() })
    }
}

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
    /// Creates an active revision, which agents run.
    Dispatch(Box<BpfRevision>),
    /// Stores bytes again if somebody deleted them: an operator that led before may just have taken them for garbage.
    KeepBytes {
        /// The digest.
        digest: String,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Marks a revision as retired, so that agents ignore it.
    Retire(ObjectVersion),
    /// Deletes a revision.
    DeleteRevision(ObjectVersion),
    /// Writes the BpfProgram's status.
    WriteStatus(Box<BpfProgramStatus>),
    /// Publishes an Event about the BpfProgram.
    PublishEvent(ProgramEvent),
    /// Removes the operator's finalizer from the BpfProgram.
    RemoveFinalizer {
        /// The other finalizers that the BpfProgram has.
        others: Vec<String>,
    },
}
