//! [`Revisions`]: the BpfRevisions of one BpfProgram. IO: none.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{DeserializeGuard, error_boundary::InvalidObject};
use sockeye_crds::BpfRevision;

/// The revisions of one BpfProgram, live or not. An earlier BpfProgram's of the same name are not among them.
#[derive(Clone, Debug, Default)]
pub struct Revisions {
    /// Those that this operator can read.
    pub readable: Vec<BpfRevision>,
    /// The metadata of the others, which a newer operator created.
    pub unreadable: Vec<ObjectMeta>,
}

impl Revisions {
    /// Picks the revisions of the BpfProgram with this UID.
    pub fn of<'a>(uid: &str, all: impl IntoIterator<Item = &'a DeserializeGuard<BpfRevision>>) -> Self {
        let mut revisions = Self::default();
        for revision in all {
            match &revision.0 {
                Ok(readable) if readable.spec.program.uid == uid => revisions.readable.push(readable.clone()),
                Err(InvalidObject { metadata, .. }) if is_owned_by(metadata, uid) => {
                    revisions.unreadable.push(metadata.clone());
                }
                _ => {}
            }
        }
        revisions
    }

    /// Returns the revision that agents run: the live one of the highest sequence, among those that can be read.
    pub fn newest(&self) -> Option<&BpfRevision> {
        self.readable.iter().filter(|revision| revision.is_live()).max_by_key(|revision| revision.spec.sequence)
    }

    /// Lists the metadata of all revisions.
    pub fn metadata(&self) -> impl Iterator<Item = &ObjectMeta> {
        self.readable.iter().map(|revision| &revision.metadata).chain(&self.unreadable)
    }
}

fn is_owned_by(metadata: &ObjectMeta, uid: &str) -> bool {
    metadata.owner_references.iter().flatten().any(|owner| owner.uid == uid)
}
