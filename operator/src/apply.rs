//! `apply`: the one interpreter of [`Step`]s. IO: writes to the API server, and to nothing else. It stops at the first
//! step that fails; what was done stays done, and the next look plans the rest.

use k8s_openapi::{ByteString, api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client, Resource as _,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::DeserializeGuard,
};
use serde_json::{Value, json};
use sockeye_client::is_transient;
use sockeye_crds::{BpfProgram, BpfProgramStatus, BpfRevision, names, revision::ProgramRef};
use tracing::info;

use crate::{config::MANAGER, events::Events, health::Health, step::Step};

/// Which write failed.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {source}")]
pub struct Error {
    /// What the step was to do.
    doing: String,
    /// What the API server said.
    source: kube::Error,
    /// Whether it was a JSON patch with tests, which fails by 422 where the object has changed meanwhile.
    tests: bool,
}

impl Error {
    /// What to tell the user, where the API server will refuse it again: no conflict, no passing trouble of its own.
    pub fn refusal(&self) -> Option<String> {
        match &self.source {
            kube::Error::Api(status) if status.code == 422 && self.tests => None,
            kube::Error::Api(status) if matches!(status.code, 400 | 403 | 413 | 422) => {
                Some(format!("{}: {}", self.doing, status.message))
            }
            _ => None,
        }
    }

    /// Whether it passes by itself.
    pub fn is_transient(&self) -> bool {
        is_transient(&self.source)
    }
}

/// What the writes are done with.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    namespace: String,
    events: Events,
    health: Health,
}

/// The resource version that a status write made.
pub type Version = Option<u64>;

impl Writer {
    /// A writer whose bytes go to that namespace, and whose successes and failures are told to `health`.
    pub fn new(client: Client, namespace: String, events: Events, health: Health) -> Self {
        Self { client, namespace, events, health }
    }

    /// Does the steps, in order. Those that concern a BpfProgram concern `program`, this very one.
    pub async fn apply(&self, program: &ProgramRef, steps: Vec<Step>) -> Result<Version, Error> {
        let mut version = None;
        for step in steps {
            let doing = describe(&step, program);
            let tests = matches!(step, Step::AddFinalizer { .. } | Step::RemoveFinalizer { .. });
            let done = self.step(program, step).await;
            self.health.record_write(&done);
            match done {
                Ok(None) => {}
                Ok(written) => version = written,
                Err(source) => return Err(Error { doing, source, tests }),
            }
            info!(program = program.name, "{doing}");
        }
        Ok(version)
    }

    async fn step(&self, program: &ProgramRef, step: Step) -> Result<Version, kube::Error> {
        match step {
            Step::AddFinalizer { present } => self.patch(program, add_finalizer(program, &present)).await,
            Step::RemoveFinalizer { index } => {
                gone_is_done(self.patch(program, remove_finalizer(program, index)).await)
            }
            Step::StoreBytes { digest, bytes } => self.store(&digest, bytes).await,
            Step::Dispatch(revision) => self.dispatch(&revision).await,
            Step::Withdraw { revision, uid } => gone_is_done(self.withdraw(&revision, &uid).await),
            Step::DeleteRevision { revision, uid } => {
                let api: Api<DeserializeGuard<BpfRevision>> = Api::all(self.client.clone());
                gone_is_done(delete(&api, &revision, uid).await)
            }
            Step::DeleteBytes { config_map, uid } => {
                let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
                gone_is_done(delete(&api, &config_map, uid).await)
            }
            Step::WriteStatus(status) => self.write_status(program, &status).await,
            Step::Announce(announcement) => {
                self.events.publish(program, announcement).await;
                Ok(None)
            }
        }
    }

    fn programs(&self) -> Api<DeserializeGuard<BpfProgram>> {
        Api::all(self.client.clone())
    }

    async fn patch(&self, program: &ProgramRef, operations: Value) -> Result<Version, kube::Error> {
        let patch = serde_json::from_value(operations).map_err(kube::Error::SerdeError)?;
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        self.programs().patch(&program.name, &params, &Patch::Json::<()>(patch)).await?;
        Ok(None)
    }

    async fn store(&self, digest: &str, bytes: Vec<u8>) -> Result<Version, kube::Error> {
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
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        match api.create(&params, &config_map).await {
            // Named by their digest, so they are these; agents check.
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(None),
            created => created.map(|_| None),
        }
    }

    async fn dispatch(&self, revision: &BpfRevision) -> Result<Version, kube::Error> {
        let api: Api<DeserializeGuard<BpfRevision>> = Api::all(self.client.clone());
        let name = revision.metadata.name.as_deref().unwrap_or_default();
        api.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(revision)).await?;
        Ok(None)
    }

    async fn withdraw(&self, revision: &str, uid: &str) -> Result<Version, kube::Error> {
        let api: Api<DeserializeGuard<BpfRevision>> = Api::all(self.client.clone());
        let patch = json!({"metadata": {"uid": uid, "labels": {names::LABEL_LIVE: "false"}}});
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        api.patch(revision, &params, &Patch::Merge(patch)).await?;
        Ok(None)
    }

    async fn write_status(&self, program: &ProgramRef, status: &BpfProgramStatus) -> Result<Version, kube::Error> {
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

/// A JSON patch that fails when it is another object, or when somebody else changed the finalizers meanwhile.
fn add_finalizer(program: &ProgramRef, present: &[String]) -> Value {
    let same = json!({"op": "test", "path": "/metadata/uid", "value": program.uid});
    if present.is_empty() {
        return json!([
            same,
            {"op": "test", "path": "/metadata/finalizers", "value": null},
            {"op": "add", "path": "/metadata/finalizers", "value": [names::FINALIZER]},
        ]);
    }
    json!([
        same,
        {"op": "test", "path": "/metadata/finalizers", "value": present},
        {"op": "add", "path": "/metadata/finalizers/-", "value": names::FINALIZER},
    ])
}

fn remove_finalizer(program: &ProgramRef, index: usize) -> Value {
    let path = format!("/metadata/finalizers/{index}");
    json!([
        {"op": "test", "path": "/metadata/uid", "value": program.uid},
        {"op": "test", "path": path, "value": names::FINALIZER},
        {"op": "remove", "path": path},
    ])
}

/// Deletes that very object, not one that took its name since.
async fn delete<K>(api: &Api<K>, name: &str, uid: String) -> Result<Version, kube::Error>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let only = Preconditions { uid: Some(uid), resource_version: None };
    api.delete(name, &DeleteParams::background().preconditions(only)).await.map(|_| None)
}

/// What is to go and is not there is gone.
fn gone_is_done(result: Result<Version, kube::Error>) -> Result<Version, kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
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
        Step::Announce(announcement) => format!("publishing Event {} on BpfProgram {name}", announcement.reason),
        Step::RemoveFinalizer { index: _ } => format!("removing the finalizer from BpfProgram {name}"),
    }
}
