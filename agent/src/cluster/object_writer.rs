//! `ObjectWriter`: an object of the node's own, its BpfNode or its BpfNodeDetail, and what the API server has of it.
//! Does IO: requests.
//!
//! Guarantees:
//! - the status is written only when it differs from what the API server has;
//! - the object is created where there is none, and again where it belongs to a Node that is gone;
//! - what somebody else wrote since is overwritten.

use std::fmt::Debug;

use anyhow::{Context as _, Result};
use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::{ClusterResourceScope, ObjectMeta, PartialObjectMeta},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use sockeye_crds::{
    BpfNode, BpfNodeDetail, BpfNodeDetailStatus, BpfNodeStatus,
    node::{BpfNodeDetailSpec, BpfNodeSpec},
};

/// The field manager of a node's objects.
const FIELD_MANAGER: &str = "sockeye-agent";

/// A kind of which each node has one object, with the node's name.
pub trait NodeObject:
    Resource<DynamicType = (), Scope = ClusterResourceScope> + Clone + Debug + DeserializeOwned + Serialize
{
    /// The status.
    type Status: Clone + PartialEq + Serialize + Send + Sync;

    /// Returns an object without a status.
    fn with_metadata(metadata: ObjectMeta) -> Self;

    /// Returns the status, if there is one.
    fn status(&self) -> Option<&Self::Status>;
}

impl NodeObject for BpfNode {
    type Status = BpfNodeStatus;

    fn with_metadata(metadata: ObjectMeta) -> Self {
        Self { metadata, spec: BpfNodeSpec {}, status: None }
    }

    fn status(&self) -> Option<&BpfNodeStatus> {
        self.status.as_ref()
    }
}

impl NodeObject for BpfNodeDetail {
    type Status = BpfNodeDetailStatus;

    fn with_metadata(metadata: ObjectMeta) -> Self {
        Self { metadata, spec: BpfNodeDetailSpec {}, status: None }
    }

    fn status(&self) -> Option<&BpfNodeDetailStatus> {
        self.status.as_ref()
    }
}

/// Writes one object.
pub struct ObjectWriter<K: NodeObject> {
    api: Api<K>,
    node_name: String,
    written: Option<Written<K::Status>>,
}

/// What the API server has.
struct Written<S> {
    metadata: ObjectMeta,
    /// Absent where it can't be read, or where a write failed that may have been accepted nevertheless.
    status: Option<S>,
}

/// The object as it was seen last, by a watch or a request.
pub struct Existing<'a, S> {
    /// Its metadata.
    pub metadata: &'a ObjectMeta,
    /// Its status, where it has one that can be read.
    pub status: Option<&'a S>,
}

impl<K: NodeObject> ObjectWriter<K> {
    /// Returns a writer that knows nothing yet of what the API server has.
    pub fn new(client: Client, node_name: String) -> Self {
        Self { api: Api::all(client), node_name, written: None }
    }

    /// Returns the metadata of what the API server has, as far as it is known.
    pub fn metadata(&self) -> Option<&ObjectMeta> {
        self.written.as_ref().map(|written| &written.metadata)
    }

    /// Returns whether the API server has this status in an object of this Node, as far as it is known.
    pub fn has(&self, status: &K::Status, node: &PartialObjectMeta<Node>) -> bool {
        let has = |written: &Written<K::Status>| written.status.as_ref() == Some(status);
        self.written.as_ref().is_some_and(|written| has(written) && is_owned_by(&written.metadata, node))
    }

    /// Returns the object, without its status where it can't be read.
    ///
    /// # Errors
    /// Fails where the API server does not answer, or refuses.
    pub async fn get(&self) -> Result<Option<K>> {
        match self.api.get_opt(&self.node_name).await {
            Err(kube::Error::SerdeError(_)) => {
                Ok(self.get_metadata().await?.map(|found| K::with_metadata(found.metadata)))
            }
            found => found.with_context(|| format!("read of the {}", K::kind(&()))),
        }
    }

    /// Returns the object's metadata.
    ///
    /// # Errors
    /// Fails where the API server does not answer, or refuses.
    pub async fn get_metadata(&self) -> Result<Option<PartialObjectMeta<K>>> {
        self.api.get_metadata_opt(&self.node_name).await.with_context(|| format!("read of the {}", K::kind(&())))
    }

    /// Compares the object's version with that of the last write, and has the next write made if they differ: somebody
    /// else changed it, or an earlier state of etcd was restored, of which a watch need not say anything.
    ///
    /// # Errors
    /// Fails where the API server does not answer, or refuses.
    pub async fn check(&mut self) -> Result<()> {
        let version = |metadata: &ObjectMeta| (metadata.uid.clone(), metadata.resource_version.clone());
        let Some(known) = self.metadata().filter(|known| known.resource_version.is_some()).map(version) else {
            return Ok(());
        };
        let found = self.get_metadata().await?;
        if found.as_ref().map(|found| version(&found.metadata)) != Some(known) {
            tracing::info!(node = self.node_name, kind = %K::kind(&()), "it is not as written: writing it again");
            self.forget_status();
        }
        Ok(())
    }

    /// Forgets which status the API server has. Without a version nothing counts as newer than what may be there.
    fn forget_status(&mut self) {
        if let Some(written) = &mut self.written {
            written.metadata.resource_version = None;
            written.status = None;
        }
    }

    /// Writes a status where it differs from what the API server has; `existing` is the object, if there is one as far
    /// as is known.
    ///
    /// # Errors
    /// Fails where the API server does not answer, or refuses.
    pub async fn write(
        &mut self,
        node: &PartialObjectMeta<Node>,
        existing: Option<Existing<'_, K::Status>>,
        status: &K::Status,
    ) -> Result<()> {
        let metadata = match existing {
            Some(existing) if is_owned_by(existing.metadata, node) => {
                // The status of the agent before this one may still be true, if it can be read: that agent may have
                // been newer. Later the watch may lag behind our own writes.
                if self.written.as_ref().is_none_or(|written| is_newer(existing.metadata, &written.metadata)) {
                    self.written =
                        Some(Written { metadata: existing.metadata.clone(), status: existing.status.cloned() });
                }
                // The watch may still show what was there before the last write, be it an object that is gone.
                let known = self.written.as_ref().filter(|written| written.metadata.resource_version.is_some());
                known.map_or(existing.metadata, |known| &known.metadata).clone()
            }
            Some(stale) => {
                let kind = K::kind(&());
                tracing::info!(node = self.node_name, %kind, "it belongs to a Node that is gone: creating it anew");
                let this = Preconditions { uid: stale.metadata.uid.clone(), ..Preconditions::default() };
                let params = DeleteParams { preconditions: Some(this), ..DeleteParams::default() };
                let gone = self.api.delete(&self.node_name, &params).await;
                ignore(gone, &[404, 409]).with_context(|| format!("deletion of the stale {kind}"))?;
                self.create(node).await?
            }
            // Created a moment ago, and not in the watch yet; or deleted by somebody.
            None => match self.known_and_there().await? {
                Some(metadata) => metadata,
                None => self.create(node).await?,
            },
        };
        let is_same = |written: &Written<K::Status>| written.metadata.uid == metadata.uid;
        if self.written.as_ref().is_some_and(is_same) && self.has(status, node) {
            return Ok(());
        }
        self.written = Some(Written { metadata, status: None });
        self.forget_status();
        let written = match write_status(&self.api, &self.node_name, status).await {
            // A watch may still show an object that is gone, for good after an earlier state of etcd was restored.
            Err(kube::Error::Api(status_of)) if status_of.code == 404 => {
                self.create(node).await?;
                write_status(&self.api, &self.node_name, status).await
            }
            written => written,
        };
        let written = written.with_context(|| format!("write of {}.status", K::kind(&())))?;
        self.written = Some(Written { metadata: written.meta().clone(), status: Some(status.clone()) });
        Ok(())
    }

    /// Returns the metadata of what was written last, if that is still there.
    async fn known_and_there(&self) -> Result<Option<ObjectMeta>> {
        let Some(known) = self.metadata() else { return Ok(None) };
        let found = self.get_metadata().await?.map(|found| found.metadata);
        Ok(found.filter(|found| found.uid == known.uid))
    }

    async fn create(&self, node: &PartialObjectMeta<Node>) -> Result<ObjectMeta> {
        let owner = OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: self.node_name.clone(),
            uid: node.uid().unwrap_or_default(),
            ..OwnerReference::default()
        };
        let object = K::with_metadata(ObjectMeta {
            name: Some(self.node_name.clone()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        });
        match self.api.create(&PostParams::default(), &object).await {
            Ok(created) => Ok(created.meta().clone()),
            // Another process was quicker, or the watch lags.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                Ok(self.api.get_metadata(&self.node_name).await?.metadata)
            }
            Err(error) => Err(error).with_context(|| format!("creation of the {}", K::kind(&()))),
        }
    }
}

/// Writes the status of a node's object: the one write that an agent makes again and again. A JSON patch, because for
/// server-side apply the API server reads a status as YAML, several times, which is most of the cost for a node with
/// many BpfPrograms.
///
/// # Errors
/// Fails where the API server does not answer, or refuses.
pub async fn write_status<K: NodeObject>(api: &Api<K>, name: &str, status: &K::Status) -> kube::Result<K> {
    let whole = json!([{"op": "add", "path": "/status", "value": status}]);
    let patch = serde_json::from_value(whole).map_err(kube::Error::SerdeError)?;
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    api.patch_status(name, &params, &Patch::Json::<()>(patch)).await
}

fn is_owned_by(metadata: &ObjectMeta, node: &PartialObjectMeta<Node>) -> bool {
    let uid = node.uid();
    let mut owners = metadata.owner_references.iter().flatten();
    owners.any(|owner| owner.kind == "Node" && Some(&owner.uid) == uid.as_ref())
}

/// Returns whether an object was seen in a later version than another one. Versions of one resource are integers that
/// grow with each write.
fn is_newer(seen: &ObjectMeta, other: &ObjectMeta) -> bool {
    let version = |metadata: &ObjectMeta| metadata.resource_version.as_ref()?.parse::<u64>().ok();
    version(seen).zip(version(other)).is_some_and(|(seen, other)| seen > other)
}

fn ignore<T>(answer: kube::Result<T>, codes: &[u16]) -> kube::Result<()> {
    match answer {
        Err(kube::Error::Api(status)) if codes.contains(&status.code) => Ok(()),
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_version_is_newer_and_what_has_none_is_not_compared() {
        let version = |version: Option<&str>| ObjectMeta {
            resource_version: version.map(str::to_owned),
            ..ObjectMeta::default()
        };
        let newer = |seen: Option<&str>, other: Option<&str>| is_newer(&version(seen), &version(other));
        assert!(newer(Some("10"), Some("9")));
        assert!(!newer(Some("9"), Some("10")) && !newer(Some("9"), Some("9")));
        assert!(!newer(Some("9"), None) && !newer(None, Some("9")) && !newer(Some("x"), Some("9")));
    }
}
