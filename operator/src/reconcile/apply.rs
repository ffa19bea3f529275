//! Apply: runs [`Step`]s. IO: writes to the API server, and nothing else.
//!
//! It stops at the first step that fails. The steps before it stay applied, and the next reconciliation plans the rest.

use std::fmt::Debug;

use k8s_openapi::{ByteString, api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client, Resource as _,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::DeserializeGuard,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sockeye_client::is_transient;
use sockeye_crds::{BpfProgram, BpfProgramStatus, BpfRevision, names, revision::ProgramRef};
use tracing::{info, warn};

use crate::{
    config::MANAGER,
    events::publisher::Publisher,
    health::Health,
    reconcile::{
        finalizer_patch::{add_finalizer, remove_finalizer},
        step::Step,
    },
};

/// A write failed.
#[derive(Debug, thiserror::Error)]
#[error("{action}: {source}")]
pub struct Error {
    action: String,
    source: kube::Error,
    /// True if HTTP 422 may mean that a precondition failed.
    has_preconditions: bool,
}

impl Error {
    /// Returns a message for the user, if the API server would reject the same write again.
    pub fn rejection(&self) -> Option<String> {
        match &self.source {
            kube::Error::Api(status) if status.code == 422 && self.has_preconditions => None,
            kube::Error::Api(status) if matches!(status.code, 400 | 403 | 413 | 422) => {
                Some(format!("{}: {}", self.action, status.message))
            }
            _ => None,
        }
    }

    /// Reports whether the same write may succeed later.
    pub fn is_transient(&self) -> bool {
        is_transient(&self.source)
    }
}

/// Does the writes.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    namespace: String,
    publisher: Publisher,
    health: Health,
}

/// The resource version that a status write created.
type StatusVersion = Option<u64>;

impl Writer {
    /// Creates a writer that stores bytes in `namespace`, and records in `health` whether writes are accepted.
    pub fn new(client: Client, namespace: String, publisher: Publisher, health: Health) -> Self {
        Self { client, namespace, publisher, health }
    }

    /// Runs the steps in order. `program` is the BpfProgram that they are about. Returns the resource version of its
    /// status, if one was written.
    pub async fn apply(&self, program: &ProgramRef, steps: Vec<Step>) -> Result<Option<u64>, Error> {
        let mut version = None;
        for step in steps {
            let action = describe(&step, program);
            let has_preconditions = matches!(step, Step::AddFinalizer { .. } | Step::RemoveFinalizer { .. });
            let is_event = matches!(step, Step::PublishEvent(_));
            let result = self.run(program, step).await;
            if !is_event {
                self.health.record_write(&result);
            }
            match result {
                Ok(written) => version = written.or(version),
                // An Event that is lost delays no write.
                Err(error) if is_event => {
                    warn!(program = program.name, %error, "{action} failed");
                    continue;
                }
                Err(source) => return Err(Error { action, source, has_preconditions }),
            }
            info!(program = program.name, "{action}");
        }
        Ok(version)
    }

    async fn run(&self, program: &ProgramRef, step: Step) -> Result<StatusVersion, kube::Error> {
        match step {
            Step::AddFinalizer { present } => self.patch(program, add_finalizer(program, &present)).await?,
            Step::RemoveFinalizer { index } => {
                ignore_not_found(self.patch(program, remove_finalizer(program, index)).await)?;
            }
            Step::StoreBytes { digest, bytes } => self.store(&digest, bytes).await?,
            Step::Dispatch(revision) => self.dispatch(&revision).await?,
            Step::Withdraw { revision, uid } => ignore_not_found(self.withdraw(&revision, &uid).await)?,
            Step::DeleteRevision { revision, uid } => delete(&self.revisions(), &revision, uid).await?,
            Step::DeleteBytes { config_map, uid } => delete(&self.config_maps(), &config_map, uid).await?,
            Step::WriteStatus(status) => return self.write_status(program, &status).await,
            Step::PublishEvent(event) => self.publisher.publish(program, event).await?,
        }
        Ok(None)
    }

    fn programs(&self) -> Api<DeserializeGuard<BpfProgram>> {
        Api::all(self.client.clone())
    }

    fn revisions(&self) -> Api<DeserializeGuard<BpfRevision>> {
        Api::all(self.client.clone())
    }

    fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn patch(&self, program: &ProgramRef, operations: Value) -> Result<(), kube::Error> {
        let patch = serde_json::from_value(operations).map_err(kube::Error::SerdeError)?;
        self.programs().patch(&program.name, &as_manager(), &Patch::Json::<()>(patch)).await.map(drop)
    }

    async fn store(&self, digest: &str, bytes: Vec<u8>) -> Result<(), kube::Error> {
        let config_map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(names::object_config_map(digest)),
                namespace: Some(self.namespace.clone()),
                labels: Some([(names::LABEL_OBJECT.to_owned(), "true".to_owned())].into()),
                ..ObjectMeta::default()
            },
            binary_data: Some([(names::OBJECT_KEY.to_owned(), ByteString(bytes))].into()),
            immutable: Some(true),
            data: None,
        };
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        match self.config_maps().create(&params, &config_map).await {
            // The name is the digest, so the bytes are the same. Agents compare them.
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            created => created.map(drop),
        }
    }

    async fn dispatch(&self, revision: &BpfRevision) -> Result<(), kube::Error> {
        let name = revision.metadata.name.as_deref().unwrap_or_default();
        let params = PatchParams::apply(MANAGER).force();
        self.revisions().patch(name, &params, &Patch::Apply(revision)).await.map(drop)
    }

    async fn withdraw(&self, revision: &str, uid: &str) -> Result<(), kube::Error> {
        let patch = json!({"metadata": {"uid": uid, "labels": {names::LABEL_LIVE: "false"}}});
        self.revisions().patch(revision, &as_manager(), &Patch::Merge(patch)).await.map(drop)
    }

    async fn write_status(
        &self,
        program: &ProgramRef,
        status: &BpfProgramStatus,
    ) -> Result<StatusVersion, kube::Error> {
        let ProgramRef { name, uid } = program;
        let patch = json!({
            "apiVersion": BpfProgram::api_version(&()),
            "kind": BpfProgram::kind(&()),
            "metadata": {"name": name, "uid": uid},
            "status": status,
        });
        let params = PatchParams::apply(MANAGER).force();
        let written = self.programs().patch_status(name, &params, &Patch::Apply(patch)).await?;
        Ok(written.meta().resource_version.as_deref().and_then(|version| version.parse().ok()))
    }
}

fn as_manager() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}

/// Deletes the object with this UID, not another one of the same name.
async fn delete<K>(api: &Api<K>, name: &str, uid: String) -> Result<(), kube::Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    let only = Preconditions { uid: Some(uid), resource_version: None };
    ignore_not_found(api.delete(name, &DeleteParams::background().preconditions(only)).await.map(drop))
}

/// Turns a 404 into success, for writes that remove something.
fn ignore_not_found(result: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other,
    }
}

fn describe(step: &Step, program: &ProgramRef) -> String {
    let name = &program.name;
    match step {
        Step::AddFinalizer { present: _ } => format!("adding the finalizer to BpfProgram {name}"),
        Step::StoreBytes { digest, bytes } => format!("storing {} bytes as {digest}", bytes.len()),
        Step::Dispatch(revision) => {
            format!("dispatching BpfRevision {}", revision.metadata.name.as_deref().unwrap_or_default())
        }
        Step::Withdraw { revision, uid: _ } => format!("withdrawing BpfRevision {revision}"),
        Step::DeleteRevision { revision, uid: _ } => format!("deleting BpfRevision {revision}"),
        Step::DeleteBytes { config_map, uid: _ } => format!("deleting ConfigMap {config_map}"),
        Step::WriteStatus(_) => format!("writing the status of BpfProgram {name}"),
        Step::PublishEvent(event) => format!("publishing Event {} on BpfProgram {name}", event.reason),
        Step::RemoveFinalizer { index: _ } => format!("removing the finalizer from BpfProgram {name}"),
    }
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use kube::{client::Body, runtime::events::Reporter};
    use sockeye_client::probes::Health as _;
    use tower::util::service_fn;

    use super::*;
    use crate::events::ProgramEvent;

    /// Creates a writer whose Events are accepted and whose other writes get `code`.
    fn writer(code: u16, health: &Health) -> Writer {
        let service = service_fn(move |request: Request<Body>| async move {
            let is_event = request.uri().path().starts_with("/apis/events.k8s.io/");
            let (code, body) = if is_event { (201, json!({"metadata": {}})) } else { (code, status(code)) };
            Response::builder().status(code).body(Body::from(body.to_string().into_bytes()))
        });
        let client = Client::new(service, "default");
        let reporter = Reporter { controller: MANAGER.to_owned(), instance: None };
        Writer::new(client.clone(), "default".to_owned(), Publisher::new(client, reporter), health.clone())
    }

    fn status(code: u16) -> Value {
        let reason = if code == 404 { "NotFound" } else { "No" };
        json!({"kind": "Status", "status": "Failure", "message": "no", "reason": reason, "code": code})
    }

    fn publish() -> Vec<Step> {
        let event = ProgramEvent { is_warning: false, reason: "R".into(), action: "A", note: "n".into() };
        vec![Step::PublishEvent(event)]
    }

    fn delete_bytes() -> Vec<Step> {
        vec![Step::DeleteBytes { config_map: "c".into(), uid: "u".into() }]
    }

    #[tokio::test]
    async fn an_event_does_not_make_an_operator_ready_whose_last_write_was_rejected() {
        let (health, program) = (Health::default(), ProgramRef { name: "p".into(), uid: "u".into() });
        health.set_listed();
        let writer = writer(403, &health);
        assert!(writer.apply(&program, delete_bytes()).await.unwrap_err().rejection().is_some());
        assert!(health.ready().is_err());
        writer.apply(&program, publish()).await.unwrap();
        assert!(health.ready().is_err(), "nothing but an Event was written");
    }

    #[tokio::test]
    async fn an_event_that_cannot_be_published_fails_no_write() {
        let health = Health::default();
        health.set_listed();
        let service = service_fn(|_: Request<Body>| async {
            Response::builder().status(403).body(Body::from(status(403).to_string().into_bytes()))
        });
        let client = Client::new(service, "default");
        let publisher = Publisher::new(client.clone(), Reporter { controller: MANAGER.to_owned(), instance: None });
        let writer = Writer::new(client, "default".to_owned(), publisher, health.clone());
        assert_eq!(writer.apply(&ProgramRef::default(), publish()).await.unwrap(), None);
        assert_eq!(health.ready(), Ok(()));
    }

    #[tokio::test]
    async fn a_deletion_of_a_missing_object_succeeds() {
        let health = Health::default();
        let writer = writer(404, &health);
        assert_eq!(writer.apply(&ProgramRef::default(), delete_bytes()).await.unwrap(), None);
    }
}
