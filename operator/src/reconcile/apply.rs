//! Apply: runs [`Step`]s. IO: writes to the API server, and nothing else but what they collide with.
//!
//! It stops at the first step that fails. The steps before it stay applied, and the next reconciliation plans the rest.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{ListParams, ObjectMeta},
    core::DeserializeGuard,
};
use sockeye_client::{
    is_transient,
    objects::{WriteRequest, get, list, write, write_object},
};
use sockeye_crds::{BpfRevision, names, revision::ProgramRef};
use sockeye_metrics::OperatorMetrics;
use tracing::{info, warn};

use crate::{
    events::{ProgramEvent, publisher::Publisher},
    health::{Health, refuses_object},
    reconcile::{
        plan::is_same_revision,
        requests,
        step::{ObjectVersion, Step},
        stored_object::StoredObjects,
    },
};

/// A write failed.
#[derive(Debug, thiserror::Error)]
#[error("{action}: {source}")]
pub struct Error {
    action: String,
    source: WriteError,
}

/// The cause of a failed write.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    /// The API server's answer.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// The ConfigMap that was created is not the one that was sent.
    #[error(
        "ConfigMap {0} was created with other bytes, labels or without immutable: does an admission webhook do that?"
    )]
    Altered(String),
}

impl WriteError {
    const fn answer(&self) -> Option<&kube::Error> {
        match self {
            Self::Api(error) => Some(error),
            Self::Altered(_) => None,
        }
    }
}

impl Error {
    /// Returns a message for the user, if the API server would reject the same write again.
    pub fn rejection(&self) -> Option<String> {
        match &self.source {
            WriteError::Api(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 413 | 422) => Some(format!(
                "{}: {}: the operator tries again; have what refuses it changed",
                self.action, status.message
            )),
            WriteError::Api(_) => None,
            WriteError::Altered(_) => Some(self.to_string()),
        }
    }

    /// Returns whether the same write may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(&self.source, WriteError::Api(error) if is_transient(error))
    }

    /// Returns whether another writer was quicker, or the watch lags behind: the write was based on an older version.
    pub fn is_conflict(&self) -> bool {
        matches!(&self.source, WriteError::Api(kube::Error::Api(status)) if status.code == 409)
    }
}

/// Does the writes.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    namespace: String,
    stored: StoredObjects,
    publisher: Publisher,
    health: Health,
    metrics: OperatorMetrics,
}

impl Writer {
    /// Creates a writer that stores bytes in the namespace of `stored`, and records in `health` whether writes are
    /// accepted.
    pub fn new(client: Client, namespace: String, stored: StoredObjects, publisher: Publisher, health: Health) -> Self {
        Self { client, namespace, stored, publisher, health, metrics: OperatorMetrics::default() }
    }

    /// Has it count Events.
    #[must_use]
    pub fn counting(self, metrics: OperatorMetrics) -> Self {
        Self { metrics, ..self }
    }

    /// Runs the steps in order. `program` is the version of the BpfProgram that they are about, and becomes the one
    /// that the last write to it left.
    pub async fn apply(&self, program: &mut ObjectVersion, steps: Vec<Step>) -> Result<(), Error> {
        for step in steps {
            let action = describe(&step, program);
            let is_write = !matches!(step, Step::PublishEvent(_) | Step::KeepBytes { .. });
            let is_reported = is_reported(&step);
            let result = self.run(program, step).await;
            let answer = result.as_ref().err().and_then(WriteError::answer);
            if is_write && !(is_reported && answer.is_some_and(refuses_object)) {
                self.health.record_write(answer);
            }
            result.map_err(|source| Error { action: action.clone(), source })?;
            if is_write {
                info!(program = program.name, "{action}");
            }
        }
        Ok(())
    }

    /// Deletes the ConfigMap that stores an object's bytes, if it still has this version.
    pub async fn delete_bytes(&self, config_map: &ObjectVersion) -> Result<(), Error> {
        let result = ignore_not_found(self.write(requests::delete_config_map(&self.namespace, config_map)).await);
        self.health.record_write(result.as_ref().err());
        let action = format!("deleting ConfigMap {}", config_map.name);
        result.map_err(|source| Error { action: action.clone(), source: source.into() })?;
        info!("{action}");
        Ok(())
    }

    async fn run(&self, program: &mut ObjectVersion, step: Step) -> Result<(), WriteError> {
        match step {
            Step::AddFinalizer { mut present } => {
                present.push(names::FINALIZER.to_owned());
                self.write_program(program, requests::set_finalizers(program, &present)).await?;
            }
            Step::RemoveFinalizer { others } => {
                let request = requests::set_finalizers(program, &others);
                ignore_not_found(self.write_program(program, request).await)?;
            }
            Step::WriteStatus(status) => {
                self.write_program(program, requests::write_status(program, &status)).await?;
            }
            Step::StoreBytes { digest, bytes } => self.store(program, &digest, bytes).await?,
            Step::Dispatch(revision) => self.dispatch(&revision).await?,
            Step::Retire(revision) => ignore_not_found(self.write(requests::retire(&revision)).await)?,
            Step::DeleteRevision(revision) => {
                ignore_not_found(self.write(requests::delete_revision(&revision)).await)?;
            }
            Step::KeepBytes { digest, bytes } => {
                let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
                if api.get_metadata_opt(&names::object_config_map(&digest)).await?.is_none() {
                    self.store(program, &digest, bytes).await?;
                }
            }
            Step::PublishEvent(event) => self.publish(program, event).await,
        }
        Ok(())
    }

    async fn write(&self, request: WriteRequest) -> Result<ObjectMeta, kube::Error> {
        write(&self.client, request).await
    }

    /// Writes to the BpfProgram. The next write is based on the version that this one leaves.
    async fn write_program(
        &self,
        program: &mut ObjectVersion,
        request: WriteRequest,
    ) -> Result<ObjectMeta, kube::Error> {
        let written = self.write(request).await?;
        if let Some(version) = &written.resource_version {
            program.resource_version.clone_from(version);
        }
        Ok(written)
    }

    /// Creates a revision. One that is there already is no error if it is the same.
    async fn dispatch(&self, revision: &BpfRevision) -> Result<(), kube::Error> {
        let created = self.write(requests::create_revision(revision)).await;
        let Err(kube::Error::Api(status)) = created else { return created.map(drop) };
        if !status.is_already_exists() {
            return Err(kube::Error::Api(status));
        }
        let name = revision.metadata.name.as_deref().unwrap_or_default();
        let api: Api<DeserializeGuard<BpfRevision>> = Api::all(self.client.clone());
        let page = list(&api, &ListParams::default().fields(&format!("metadata.name={name}"))).await?;
        let existing = page.items.first().and_then(|existing| existing.0.as_ref().ok());
        if existing.is_some_and(|existing| is_same_revision(existing, revision)) {
            return Ok(());
        }
        Err(kube::Error::Api(status))
    }

    /// Stores bytes. A ConfigMap of their name that somebody else created, or that can be changed, is replaced.
    async fn store(&self, program: &ObjectVersion, digest: &str, bytes: Vec<u8>) -> Result<(), WriteError> {
        let name = names::object_config_map(digest);
        let request = || requests::create_config_map(&self.namespace, digest, bytes.clone());
        let created = match write_object(&self.client, request()).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
                let existing = get(&api, &name).await?;
                if existing.as_ref().is_some_and(|existing| self.stored.record(existing, digest)) {
                    return Ok(());
                }
                if let Some(other) = existing.and_then(|existing| ObjectVersion::of(&existing.metadata)) {
                    warn!(config_map = name, "replacing a ConfigMap that does not hold the bytes of its name for good");
                    ignore_not_found(self.write(requests::delete_config_map(&self.namespace, &other)).await)?;
                    self.publish(program, replaced(&name)).await;
                }
                write_object(&self.client, request()).await?
            }
            created => created?,
        };
        if created.is_some_and(|created: ConfigMap| self.stored.record(&created, digest)) {
            return Ok(());
        }
        Err(WriteError::Altered(name))
    }

    /// Publishes an Event. One that is lost delays no write.
    async fn publish(&self, program: &ObjectVersion, event: ProgramEvent) {
        let reason = event.reason.clone();
        let ObjectVersion { name, uid, resource_version: _ } = program.clone();
        let published = self.publisher.publish(&ProgramRef { name, uid }, event).await;
        self.metrics.events.inc(&[if published.is_ok() { "published" } else { "failed" }]);
        match published {
            Ok(()) => info!(program = program.name, reason, "published an Event"),
            Err(error) => warn!(program = program.name, reason, %error, "an Event could not be published"),
        }
    }
}

/// Returns whether the status of the BpfProgram says why the API server refuses this write.
const fn is_reported(step: &Step) -> bool {
    matches!(step, Step::AddFinalizer { .. } | Step::StoreBytes { .. } | Step::Dispatch(_) | Step::Retire(_))
}

fn replaced(config_map: &str) -> ProgramEvent {
    let note = format!(
        "ConfigMap {config_map} did not hold the bytes that its name says, or could be changed: it was replaced. Find \
         out who may create ConfigMaps in sockeye's namespace"
    );
    ProgramEvent { is_warning: true, reason: "BytesReplaced".to_owned(), action: "Store", note, quoted: vec![] }
}

/// Turns a 404 into success, for writes that remove something.
fn ignore_not_found(result: Result<ObjectMeta, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other.map(drop),
    }
}

fn describe(step: &Step, program: &ObjectVersion) -> String {
    let name = &program.name;
    match step {
        Step::AddFinalizer { present: _ } => format!("adding the finalizer to BpfProgram {name}"),
        Step::StoreBytes { digest, bytes } => format!("storing {} bytes as {digest}", bytes.len()),
        Step::KeepBytes { digest, bytes: _ } => format!("keeping the bytes of {digest}"),
        Step::Dispatch(revision) => {
            format!("dispatching BpfRevision {}", revision.metadata.name.as_deref().unwrap_or_default())
        }
        Step::Retire(revision) => format!("retiring BpfRevision {}", revision.name),
        Step::DeleteRevision(revision) => format!("deleting BpfRevision {}", revision.name),
        Step::WriteStatus(_) => format!("writing the status of BpfProgram {name}"),
        Step::PublishEvent(event) => format!("publishing Event {} on BpfProgram {name}", event.reason),
        Step::RemoveFinalizer { others: _ } => format!("removing the finalizer from BpfProgram {name}"),
    }
}
