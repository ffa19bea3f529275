//! [`Intent`]: a BpfProgram as its user wrote it, with its latest status. IO: none.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource as _, ResourceExt as _, core::DeserializeGuard};
use sockeye_crds::{BpfProgram, BpfProgramSpec, BpfProgramStatus, names, revision::ProgramRef};

use crate::reconcile::{cache::ProgramCache, step::ObjectVersion};

/// A BpfProgram as its user wrote it.
#[derive(Clone, Debug)]
pub struct Intent {
    /// Its name and UID.
    pub program: ProgramRef,
    /// The object that the watch brought. It may be one that cannot be read.
    pub object: Arc<DeserializeGuard<BpfProgram>>,
    /// Its latest status.
    pub status: BpfProgramStatus,
    /// The version that its writes are based on: the one with the latest status.
    pub version: ObjectVersion,
}

impl Intent {
    /// Reads a watched object.
    pub fn new(object: Arc<DeserializeGuard<BpfProgram>>, cache: &ProgramCache) -> Self {
        let program = ProgramRef { name: object.name_any(), uid: object.uid().unwrap_or_default() };
        let watched = object.0.as_ref().ok().and_then(|readable| readable.status.as_ref());
        let resource_version = object.meta().resource_version.as_deref();
        let status = cache.latest_status(&program.uid, resource_version, watched);
        let resource_version = cache.latest_version(&program.uid, resource_version);
        let version = ObjectVersion { name: program.name.clone(), uid: program.uid.clone(), resource_version };
        Self { program, object, status, version }
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

    /// Returns whether the object is being deleted.
    pub fn is_deleted(&self) -> bool {
        self.meta().deletion_timestamp.is_some()
    }

    /// Returns whether the object has the operator's finalizer.
    pub fn has_finalizer(&self) -> bool {
        self.meta().finalizers.iter().flatten().any(|finalizer| finalizer == names::FINALIZER)
    }
}
