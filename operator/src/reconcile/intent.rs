//! [`Intent`]: a BpfProgram as its user wrote it, with its latest status. IO: none.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource as _, ResourceExt as _, core::DeserializeGuard};
use sockeye_crds::{BpfProgram, BpfProgramSpec, BpfProgramStatus, names, revision::ProgramRef};

use crate::reconcile::cache::ProgramCache;

/// A BpfProgram as its user wrote it.
#[derive(Clone, Debug)]
pub struct Intent {
    /// Its name and UID.
    pub program: ProgramRef,
    /// The object that the watch brought. It may be one that cannot be read.
    pub object: Arc<DeserializeGuard<BpfProgram>>,
    /// Its latest status.
    pub status: BpfProgramStatus,
}

impl Intent {
    /// Reads a watched object.
    pub fn new(object: Arc<DeserializeGuard<BpfProgram>>, cache: &ProgramCache) -> Self {
        let program = ProgramRef { name: object.name_any(), uid: object.uid().unwrap_or_default() };
        let watched = object.0.as_ref().ok().and_then(|readable| readable.status.as_ref());
        let status = cache.latest_status(&program.uid, object.meta().resource_version.as_deref(), watched);
        Self { program, object, status }
    }

    /// Returns the object's metadata.
    pub fn meta(&self) -> &ObjectMeta {
        self.object.meta()
    }

    /// Returns the spec, or the reason why it cannot be read.
    pub fn spec(&self) -> Result<&BpfProgramSpec, &str> {
        self.object.0.as_ref().map(|readable| &readable.spec).map_err(|invalid| invalid.error.as_str())
    }

    /// Returns the latest generation.
    pub fn generation(&self) -> i64 {
        self.meta().generation.unwrap_or_default()
    }

    /// Reports whether the object is being deleted.
    pub fn is_deleted(&self) -> bool {
        self.meta().deletion_timestamp.is_some()
    }

    /// Returns the index of the operator's finalizer.
    pub fn finalizer_index(&self) -> Option<usize> {
        self.meta().finalizers.iter().flatten().position(|finalizer| finalizer == names::FINALIZER)
    }
}
