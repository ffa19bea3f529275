//! `gather`: everything that one look at a BpfProgram needs to know, read once. IO: reads only, and of the API server only
//! what the watches do not bring: bytes, and revisions where a cache is not good enough.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    api::ListParams,
    core::{DeserializeGuard, error_boundary::InvalidObject},
};
use sockeye_crds::{
    BpfProgram, BpfProgramSpec, BpfProgramStatus, BpfRevision, Reason, Refusal, names,
    program::ConfigMapSource,
    revision::{ProgramRef, is_live},
};

use crate::{
    cluster::Cluster,
    memory::{Fingerprint, Memory},
    stores::Stores,
};

/// Why gathering failed: always worth another try.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ConfigMap with the bytes.
    #[error("reading ConfigMap {name}: {source}")]
    Bytecode {
        /// Its name.
        name: String,
        /// What the API server said.
        source: kube::Error,
    },
    /// The revisions.
    #[error("listing the revisions of {program}: {source}")]
    Revisions {
        /// The BpfProgram's name.
        program: String,
        /// What the API server said.
        source: kube::Error,
    },
}

/// Everything that one look at a BpfProgram needs to know.
#[derive(Clone, Debug)]
pub struct Gathered {
    /// What its user wants.
    pub intent: Intent,
    /// Where its bytes are.
    pub bytecode: Bytecode,
    /// Its revisions.
    pub revisions: Revisions,
    /// Digests whose bytes are stored.
    pub stored: BTreeSet<String>,
    /// Where it is to be deleted: the other BpfPrograms that use its maps, by name.
    pub users: Vec<String>,
    /// The nodes and what they say.
    pub cluster: Cluster,
}

impl Gathered {
    /// Whether it is to be deleted now: nobody else uses its maps. Where nodes are told to run it no more there is nothing to
    /// keep, and who comes to use them then waits for the next of that name.
    pub fn is_to_go(&self) -> bool {
        self.intent.deleting() && (self.users.is_empty() || !self.revisions.metadata().any(is_live))
    }
}

/// The revisions of one BpfProgram, live or not; none of an earlier object of the same name.
#[derive(Clone, Debug, Default)]
pub struct Revisions {
    /// Those that can be read.
    pub known: Vec<BpfRevision>,
    /// Metadata of those that can't, as a newer operator has made them.
    pub unreadable: Vec<ObjectMeta>,
}

impl Revisions {
    /// Those of all that are one's with this UID.
    pub fn of<'a>(uid: &str, all: impl IntoIterator<Item = &'a DeserializeGuard<BpfRevision>>) -> Self {
        let mut revisions = Self::default();
        for revision in all {
            match &revision.0 {
                Ok(known) if known.spec.program.uid == uid => revisions.known.push(known.clone()),
                Err(InvalidObject { metadata, .. }) if owned_by(metadata, uid) => {
                    revisions.unreadable.push(metadata.clone());
                }
                _ => {}
            }
        }
        revisions
    }

    /// Of the live ones that can be read, the one that agents run.
    pub fn newest(&self) -> Option<&BpfRevision> {
        self.known.iter().filter(|revision| revision.is_live()).max_by_key(|revision| revision.spec.sequence)
    }

    /// The metadata of all.
    pub fn metadata(&self) -> impl Iterator<Item = &ObjectMeta> {
        self.known.iter().map(|revision| &revision.metadata).chain(&self.unreadable)
    }
}

fn owned_by(metadata: &ObjectMeta, uid: &str) -> bool {
    metadata.owner_references.iter().flatten().any(|owner| owner.uid == uid)
}

/// What the user of a BpfProgram wants.
#[derive(Clone, Debug)]
pub struct Intent {
    /// Which object this is.
    pub program: ProgramRef,
    /// The object as it was watched, perhaps one that cannot be read.
    pub object: Arc<DeserializeGuard<BpfProgram>>,
    /// Its status as it was last written.
    pub status: BpfProgramStatus,
}

/// The bytes of a BpfProgram.
#[derive(Clone, Debug)]
pub enum Bytecode {
    /// Not read: what was found out about them holds, and they are stored.
    Known,
    /// In the spec itself: base64, or the name of a builtin.
    Given(Fingerprint),
    /// Fetched from where the spec says.
    Fetched(Fingerprint, Vec<u8>),
    /// Not where the spec says, or not to be looked for.
    Unavailable(Refusal),
}

impl Intent {
    /// What an object as it was watched says.
    pub fn read(object: Arc<DeserializeGuard<BpfProgram>>, memory: &Memory) -> Self {
        let program = ProgramRef { name: object.name_any(), uid: object.uid().unwrap_or_default() };
        let seen = object.0.as_ref().ok().and_then(|readable| readable.status.as_ref());
        let version = object.meta().resource_version.as_deref();
        let status = memory.latest_status(&program.uid, version, seen);
        Self { program, object, status }
    }

    /// Its metadata.
    pub fn meta(&self) -> &ObjectMeta {
        self.object.meta()
    }

    /// Its spec, or why it cannot be read.
    pub fn spec(&self) -> Result<&BpfProgramSpec, &str> {
        self.object.0.as_ref().map(|readable| &readable.spec).map_err(|invalid| invalid.error.as_str())
    }

    /// The latest generation.
    pub fn generation(&self) -> i64 {
        self.meta().generation.unwrap_or_default()
    }

    /// Whether it is being deleted.
    pub fn deleting(&self) -> bool {
        self.meta().deletion_timestamp.is_some()
    }

    /// Where the operator's finalizer stands.
    pub fn finalizer(&self) -> Option<usize> {
        self.meta().finalizers.iter().flatten().position(|finalizer| finalizer == names::FINALIZER)
    }
}

/// Gathers what one look at `object` needs.
pub async fn gather(
    client: &Client,
    namespace: &str,
    stores: &Stores,
    object: Arc<DeserializeGuard<BpfProgram>>,
    memory: &Memory,
) -> Result<Gathered, Error> {
    let intent = Intent::read(object, memory);
    let revisions = if intent.deleting() {
        revisions(client, &intent.program).await?
    } else {
        stores.revisions_of(&intent.program.uid)
    };
    let stored = stores.digests();
    let bytecode = bytecode(client, namespace, stores, &stored, &intent, memory).await?;
    let users = if intent.deleting() { stores.users_of(&intent.program.name) } else { Vec::new() };
    Ok(Gathered { intent, bytecode, revisions, stored, users, cluster: stores.cluster() })
}

/// The revisions of one BpfProgram as the API server has them this moment. A dispatch is decided on these: on a cache that
/// lags behind, two revisions might get the same sequence.
pub async fn revisions(client: &Client, program: &ProgramRef) -> Result<Revisions, Error> {
    let ProgramRef { name, uid } = program;
    let labelled = ListParams::default().labels(&format!("{}={name}", names::LABEL_PROGRAM));
    let api: Api<DeserializeGuard<BpfRevision>> = Api::all(client.clone());
    let list = api.list(&labelled).await.map_err(|source| Error::Revisions { program: name.clone(), source })?;
    Ok(Revisions::of(uid, &list.items))
}

async fn bytecode(
    client: &Client,
    namespace: &str,
    stores: &Stores,
    stored: &BTreeSet<String>,
    intent: &Intent,
    memory: &Memory,
) -> Result<Bytecode, Error> {
    let spec = match intent.spec() {
        Ok(_) if intent.deleting() => return Ok(Bytecode::Known),
        Ok(spec) => spec,
        Err(words) => {
            let message = format!("the BpfProgram cannot be read: {words}");
            return Ok(Bytecode::Unavailable(Refusal { reason: Reason::InvalidSpec, message }));
        }
    };
    let mut fingerprint =
        Fingerprint { uid: intent.program.uid.clone(), generation: intent.generation(), config_map: None };
    let known = |fingerprint: &Fingerprint| {
        memory.verdict_on(fingerprint).is_some_and(|verdict| match &*verdict {
            Ok(accepted) => stored.contains(&accepted.digest),
            Err(_) => true,
        })
    };
    let Some(ConfigMapSource { name, key }) = &spec.bytecode.config_map else {
        return Ok(if known(&fingerprint) { Bytecode::Known } else { Bytecode::Given(fingerprint) });
    };
    // One that the watch has not brought yet may be there nevertheless: users apply both at once.
    if let Some(seen) = stores.config_map(namespace, name) {
        fingerprint.config_map = version(&seen.metadata);
        if known(&fingerprint) {
            return Ok(Bytecode::Known);
        }
    }
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let fetched = api.get_opt(name).await.map_err(|source| Error::Bytecode { name: name.clone(), source })?;
    let Some(mut config_map) = fetched else { return Ok(Bytecode::Unavailable(missing(namespace, name))) };
    fingerprint.config_map = version(&config_map.metadata);
    Ok(match config_map.binary_data.as_mut().and_then(|data| data.remove(key)) {
        Some(bytes) => Bytecode::Fetched(fingerprint, bytes.0),
        None => Bytecode::Unavailable(without_key(namespace, name, key, &config_map)),
    })
}

fn version(meta: &ObjectMeta) -> Option<(String, String)> {
    Some((meta.uid.clone().unwrap_or_default(), meta.resource_version.clone().unwrap_or_default()))
}

fn missing(namespace: &str, name: &str) -> Refusal {
    let message = format!(
        "spec.bytecode.configMap: there is no ConfigMap {name} in namespace {namespace}; create it: \
         kubectl create configmap {name} -n {namespace} --from-file=..."
    );
    Refusal { reason: Reason::BytecodeUnavailable, message }
}

fn without_key(namespace: &str, name: &str, key: &str, config_map: &ConfigMap) -> Refusal {
    let text = config_map.data.as_ref().is_some_and(|data| data.contains_key(key));
    let present: Vec<&str> = config_map.binary_data.iter().flatten().map(|(key, _)| key.as_str()).take(5).collect();
    let why = if text {
        "it is in data, as text, not in binaryData".to_owned()
    } else if present.is_empty() {
        "its binaryData is empty".to_owned()
    } else {
        format!("its binaryData has {}", present.join(", "))
    };
    let message =
        format!("spec.bytecode.configMap: ConfigMap {namespace}/{name} has no key {key} in binaryData: {why}");
    Refusal { reason: Reason::BytecodeUnavailable, message }
}
