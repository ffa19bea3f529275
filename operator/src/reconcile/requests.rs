//! The requests of the operator's writes. IO: none.
//!
//! Each write to an object that exists names the version that it is based on. So a write that is late, as that of an
//! operator that is no longer the leader, fails with HTTP 409 and changes nothing.

use k8s_openapi::{ByteString, api::core::v1::ConfigMap};
use kube::{
    Resource,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions, Request},
};
use serde::Serialize;
use serde_json::{Value, json};
use sockeye_client::objects::WriteRequest;
use sockeye_crds::{BpfProgram, BpfProgramStatus, BpfRevision, names, revision::RevisionState};

use crate::{config::MANAGER, reconcile::step::ObjectVersion};

/// Replaces the finalizers of a BpfProgram.
pub fn set_finalizers(program: &ObjectVersion, finalizers: &[String]) -> WriteRequest {
    let patch = based_on(program, json!({"metadata": {"finalizers": finalizers}}));
    of::<BpfProgram>(None).patch(&program.name, &as_manager(), &Patch::Merge(patch))
}

/// Writes the status of a BpfProgram.
pub fn write_status(program: &ObjectVersion, status: &BpfProgramStatus) -> WriteRequest {
    let patch = json!({
        "apiVersion": BpfProgram::api_version(&()),
        "kind": BpfProgram::kind(&()),
        "metadata": {"name": program.name},
        "status": status,
    });
    let params = PatchParams::apply(MANAGER).force();
    of::<BpfProgram>(None).patch_subresource("status", &program.name, &params, &Patch::Apply(based_on(program, patch)))
}

/// Creates a revision.
pub fn create_revision(revision: &BpfRevision) -> WriteRequest {
    create(None, revision)
}

/// Marks a revision as retired.
pub fn retire(revision: &ObjectVersion) -> WriteRequest {
    let patch = based_on(revision, json!({"spec": {"state": RevisionState::Retired}}));
    of::<BpfRevision>(None).patch(&revision.name, &as_manager(), &Patch::Merge(patch))
}

/// Deletes a revision.
pub fn delete_revision(revision: &ObjectVersion) -> WriteRequest {
    delete::<BpfRevision>(None, revision)
}

/// Creates the ConfigMap that stores the bytes of a digest.
pub fn create_config_map(namespace: &str, digest: &str, bytes: Vec<u8>) -> WriteRequest {
    let config_map = ConfigMap {
        metadata: ObjectMeta {
            name: Some(names::object_config_map(digest)),
            namespace: Some(namespace.to_owned()),
            labels: Some([(names::LABEL_OBJECT.to_owned(), "true".to_owned())].into()),
            ..ObjectMeta::default()
        },
        binary_data: Some([(names::OBJECT_KEY.to_owned(), ByteString(bytes))].into()),
        immutable: Some(true),
        data: None,
    };
    create(Some(namespace), &config_map)
}

/// Deletes a ConfigMap.
pub fn delete_config_map(namespace: &str, config_map: &ObjectVersion) -> WriteRequest {
    delete::<ConfigMap>(Some(namespace), config_map)
}

fn of<K: Resource<DynamicType = ()>>(namespace: Option<&str>) -> Request {
    Request::new(K::url_path(&(), namespace))
}

fn as_manager() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}

fn based_on(version: &ObjectVersion, mut patch: Value) -> Value {
    patch["metadata"]["uid"] = json!(version.uid);
    patch["metadata"]["resourceVersion"] = json!(version.resource_version);
    patch
}

fn create<K: Resource<DynamicType = ()> + Serialize>(namespace: Option<&str>, object: &K) -> WriteRequest {
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    let object = serde_json::to_vec(object).map_err(kube::core::request::Error::SerializeBody)?;
    of::<K>(namespace).create(&params, object)
}

fn delete<K: Resource<DynamicType = ()>>(namespace: Option<&str>, version: &ObjectVersion) -> WriteRequest {
    let ObjectVersion { name, uid, resource_version } = version.clone();
    let only = Preconditions { uid: Some(uid), resource_version: Some(resource_version) };
    of::<K>(namespace).delete(&name, &DeleteParams::background().preconditions(only))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version() -> ObjectVersion {
        ObjectVersion { name: "p".into(), uid: "u".into(), resource_version: "7".into() }
    }

    #[test]
    fn every_write_to_an_object_that_exists_names_its_version() {
        let version = version();
        let patches = [
            set_finalizers(&version, &[names::FINALIZER.to_owned()]),
            write_status(&version, &BpfProgramStatus::default()),
            retire(&version),
        ];
        for request in patches {
            let body: Value = serde_json::from_slice(request.unwrap().body()).unwrap();
            assert_eq!((&body["metadata"]["uid"], &body["metadata"]["resourceVersion"]), (&json!("u"), &json!("7")));
        }
        for request in [delete_revision(&version), delete_config_map("n", &version)] {
            let body: Value = serde_json::from_slice(request.unwrap().body()).unwrap();
            assert_eq!(body["preconditions"], json!({"uid": "u", "resourceVersion": "7"}));
        }
    }

    #[test]
    fn paths_are_those_of_the_objects() {
        let path = |request: WriteRequest| request.unwrap().uri().path().to_owned();
        let version = version();
        assert_eq!(path(set_finalizers(&version, &[])), "/apis/sockeye.dev/v1alpha1/bpfprograms/p");
        let status = write_status(&version, &BpfProgramStatus::default());
        assert_eq!(path(status), "/apis/sockeye.dev/v1alpha1/bpfprograms/p/status");
        assert_eq!(path(retire(&version)), "/apis/sockeye.dev/v1alpha1/bpfrevisions/p");
        assert_eq!(path(create_config_map("n", "sha256:ab", vec![])), "/api/v1/namespaces/n/configmaps");
        assert_eq!(path(delete_config_map("n", &version)), "/api/v1/namespaces/n/configmaps/p");
    }
}
