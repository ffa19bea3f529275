//! [`GatheredBytecode`]: the bytes of a BpfProgram, read only if they are needed. IO: reads a ConfigMap.

use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Client};
use sockeye_client::objects::get;
use sockeye_crds::{Reason, Refusal, names, program::ConfigMapKeyRef};

use crate::{
    reconcile::{
        cache::{CheckInput, ProgramCache},
        intent::Intent,
        stored_object::StoredObjects,
    },
    watch::stores::Stores,
};

/// An error message names at most this many keys of a ConfigMap.
const MAX_NAMED_KEYS: usize = 5;

/// A ConfigMap could not be read.
#[derive(Debug, thiserror::Error)]
#[error("reading ConfigMap {name}: {source}")]
pub struct Error {
    /// The ConfigMap's name.
    pub name: String,
    /// The API server's answer.
    pub source: kube::Error,
}

/// The bytes of a BpfProgram.
#[derive(Clone, Debug)]
pub enum GatheredBytecode {
    /// Not read: the cached check holds, and the bytes are stored if it accepted them.
    Checked,
    /// In the spec: base64, or the name of a builtin.
    InSpec(CheckInput),
    /// Read from the ConfigMap that the spec names.
    Fetched(CheckInput, Vec<u8>),
    /// Not where the spec says; or the spec cannot be read.
    Unavailable(Refusal),
}

/// Reads the bytes of BpfPrograms.
pub struct BytecodeReader<'a> {
    /// Reads from the API server.
    pub client: &'a Client,
    /// The release namespace, where the ConfigMaps are.
    pub namespace: &'a str,
    /// The watched ConfigMaps.
    pub stores: &'a Stores,
    /// The stored bytes.
    pub stored: &'a StoredObjects,
}

impl BytecodeReader<'_> {
    /// Reads the bytes of a BpfProgram, unless the cached check holds.
    pub async fn read(&self, intent: &Intent, cache: &ProgramCache) -> Result<GatheredBytecode, Error> {
        let spec = match intent.spec() {
            Ok(_) if intent.is_deleted() => return Ok(GatheredBytecode::Checked),
            Ok(spec) => spec,
            Err(error) => {
                let message = format!("the BpfProgram cannot be read: {error}");
                return Ok(GatheredBytecode::Unavailable(Refusal { reason: Reason::InvalidSpec, message }));
            }
        };
        let mut input =
            CheckInput { uid: intent.program.uid.clone(), generation: intent.generation(), config_map: None };
        let Some(ConfigMapKeyRef { name, key, digest: _ }) = &spec.bytecode.config_map_ref else {
            let is_checked = self.is_checked(&input, cache).await?;
            return Ok(if is_checked { GatheredBytecode::Checked } else { GatheredBytecode::InSpec(input) });
        };
        // The watch may not have brought the ConfigMap yet: users apply it together with the BpfProgram.
        if let Some(watched) = self.stores.config_map(self.namespace, name) {
            input.config_map = version(&watched.metadata);
            if self.is_checked(&input, cache).await? {
                return Ok(GatheredBytecode::Checked);
            }
        }
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), self.namespace);
        let fetched = get(&api, name).await.map_err(|source| Error { name: name.clone(), source })?;
        let Some(mut config_map) = fetched else {
            return Ok(GatheredBytecode::Unavailable(missing_config_map(self.namespace, name)));
        };
        input.config_map = version(&config_map.metadata);
        Ok(match config_map.binary_data.as_mut().and_then(|data| data.remove(key)) {
            Some(bytes) => GatheredBytecode::Fetched(input, bytes.0),
            None => GatheredBytecode::Unavailable(missing_key(self.namespace, name, key, &config_map)),
        })
    }

    async fn is_checked(&self, input: &CheckInput, cache: &ProgramCache) -> Result<bool, Error> {
        match cache.checked(input).as_deref() {
            Some(Ok(accepted)) => self.is_stored(&accepted.digest).await,
            Some(Err(_)) => Ok(true),
            None => Ok(false),
        }
    }

    /// Reports whether the bytes of a digest are stored under its name.
    pub async fn is_stored(&self, digest: &str) -> Result<bool, Error> {
        let name = names::object_config_map(digest);
        let Some(watched) = self.stores.config_map(self.namespace, &name) else { return Ok(false) };
        self.stored.holds(&watched.metadata, digest).await.map_err(|source| Error { name, source })
    }
}

fn version(meta: &ObjectMeta) -> Option<(String, String)> {
    Some((meta.uid.clone().unwrap_or_default(), meta.resource_version.clone().unwrap_or_default()))
}

fn missing_config_map(namespace: &str, name: &str) -> Refusal {
    let message = format!(
        "spec.bytecode.configMapRef: there is no ConfigMap {name} in namespace {namespace}; create it: \
         kubectl create configmap {name} -n {namespace} --from-file=..."
    );
    Refusal { reason: Reason::BytecodeUnavailable, message }
}

fn missing_key(namespace: &str, name: &str, key: &str, config_map: &ConfigMap) -> Refusal {
    let is_text = config_map.data.as_ref().is_some_and(|data| data.contains_key(key));
    let keys = config_map.binary_data.iter().flatten().map(|(key, _)| key.as_str());
    let keys: Vec<&str> = keys.take(MAX_NAMED_KEYS).collect();
    let why = if is_text {
        "it is in data, as text, not in binaryData".to_owned()
    } else if keys.is_empty() {
        "its binaryData is empty".to_owned()
    } else {
        format!("its binaryData has {}", keys.join(", "))
    };
    let message =
        format!("spec.bytecode.configMapRef: ConfigMap {namespace}/{name} has no key {key} in binaryData: {why}");
    Refusal { reason: Reason::BytecodeUnavailable, message }
}
