//! [`GatheredBytecode`]: the bytes of a BpfProgram and its lists of entries, read only if they are needed. IO: reads
//! ConfigMaps.

use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Client};
use sockeye_client::objects::get;
use sockeye_crds::{
    BpfProgramSpec, Reason, Refusal, names,
    program::{ConfigMapKeyRef, EntriesSource},
};
use sockeye_ebpf::values::list::Lists;

use crate::{
    images::Images,
    reconcile::{
        cache::{CheckInput, ProgramCache, Version},
        image_content::ImageContent,
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
    InSpec(CheckInput, Lists),
    /// Read from the ConfigMap that the spec names.
    Fetched(CheckInput, Vec<u8>, Lists),
    /// From an image.
    Image(CheckInput, ImageContent, Lists),
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
    /// The images that BpfPrograms want.
    pub images: &'a Images,
    /// True if revisions are to have a proof of who signed them.
    pub needs_proof: bool,
}

impl BytecodeReader<'_> {
    /// Reads the bytes of a BpfProgram, unless the cached check holds.
    pub async fn read(&self, intent: &Intent, cache: &ProgramCache) -> Result<GatheredBytecode, Error> {
        let spec = match intent.spec() {
            Ok(_) if intent.is_deleted() => {
                self.images.release(&intent.program.name);
                return Ok(GatheredBytecode::Checked);
            }
            Ok(spec) => spec,
            Err(error) => {
                let message = format!("the BpfProgram cannot be read: {error}");
                return Ok(GatheredBytecode::Unavailable(Refusal { reason: Reason::InvalidSpec, message }));
            }
        };
        let mut input =
            CheckInput { uid: intent.program.uid.clone(), generation: intent.generation(), ..CheckInput::default() };
        let object = spec.bytecode.config_map_ref.as_ref();
        // The watch may not have brought the ConfigMaps yet: users apply them together with the BpfProgram.
        let watched =
            |source: &ConfigMapKeyRef| version(&self.stores.config_map(self.namespace, &source.name)?.metadata);
        input.config_map = object.and_then(watched);
        input.lists = lists_of(spec).map(|(_, _, source)| watched(source)).collect();
        // The content of an image that waits for a list would be in the way of other images.
        let mut read = None;
        if spec.bytecode.image.is_some() && !cache.check.as_ref().is_some_and(|(last, _)| last.is_like(&input)) {
            match self.lists(spec).await? {
                Ok(lists) => read = Some(lists),
                Err(refusal) => {
                    self.images.release(&intent.program.name);
                    return Ok(GatheredBytecode::Unavailable(refusal));
                }
            }
        }
        let image = match &spec.bytecode.image {
            Some(image) => match self.find_image(intent, image, &input, cache).await? {
                Ok(found) => Some((image, found)),
                Err(refusal) => return Ok(GatheredBytecode::Unavailable(refusal)),
            },
            None => {
                self.images.release(&intent.program.name);
                None
            }
        };
        if let Some((_, found)) = &image {
            input.signatures = found.signatures(&input, cache);
            input.image = Some(found.digest.clone());
        }
        let is_watched = input.config_map.is_some() == object.is_some() && input.lists.iter().all(Option::is_some);
        if is_watched && self.is_checked(&input, cache).await? {
            return Ok(GatheredBytecode::Checked);
        }
        let (lists, versions) = match read {
            Some(read) => read,
            None => match self.lists(spec).await? {
                Ok(read) => read,
                Err(refusal) => return Ok(GatheredBytecode::Unavailable(refusal)),
            },
        };
        input.lists = versions;
        if let Some((image, found)) = image {
            return Ok(match self.image_content(image, found).await? {
                Ok(content) => GatheredBytecode::Image(input, content, lists),
                Err(refusal) => GatheredBytecode::Unavailable(refusal),
            });
        }
        let Some(source) = object else { return Ok(GatheredBytecode::InSpec(input, lists)) };
        Ok(match self.fetch("spec.bytecode.configMapRef", source, false).await? {
            Ok((version, bytes)) => {
                GatheredBytecode::Fetched(CheckInput { config_map: version, ..input }, bytes, lists)
            }
            Err(refusal) => GatheredBytecode::Unavailable(refusal),
        })
    }

    /// Reads the lists of entries that a spec names, with the versions of their ConfigMaps.
    async fn lists(&self, spec: &BpfProgramSpec) -> Result<Result<(Lists, Vec<Option<Version>>), Refusal>, Error> {
        let (mut lists, mut versions) = (Lists::new(), Vec::new());
        for (field, map, source) in lists_of(spec) {
            match self.fetch(&field, source, true).await? {
                Ok((version, bytes)) => {
                    versions.push(version);
                    lists.insert(map.to_owned(), bytes.into());
                }
                Err(refusal) => return Ok(Err(refusal)),
            }
        }
        Ok(Ok((lists, versions)))
    }

    /// Reads a key of a ConfigMap, in binaryData or, for text, in data. Returns it with the ConfigMap's version.
    async fn fetch(
        &self,
        field: &str,
        ConfigMapKeyRef { name, key, digest: _ }: &ConfigMapKeyRef,
        is_text: bool,
    ) -> Result<Result<(Option<Version>, Vec<u8>), Refusal>, Error> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), self.namespace);
        let fetched = get(&api, name).await.map_err(|source| Error { name: name.clone(), source })?;
        let Some(mut config_map) = fetched else {
            return Ok(Err(missing_config_map(field, self.namespace, name)));
        };
        let version = version(&config_map.metadata);
        let text = config_map.data.as_mut().filter(|_| is_text).and_then(|data| data.remove(key));
        let bytes = config_map.binary_data.as_mut().and_then(|data| data.remove(key)).map(|bytes| bytes.0);
        let bytes = bytes.or_else(|| text.map(String::into_bytes));
        Ok(bytes.map(|bytes| (version, bytes)).ok_or_else(|| {
            let place = if is_text { "data or binaryData" } else { "binaryData" };
            missing_key(field, (self.namespace, name, key, place), &config_map)
        }))
    }

    async fn is_checked(&self, input: &CheckInput, cache: &ProgramCache) -> Result<bool, Error> {
        match cache.checked(input).as_deref() {
            Some(Ok(accepted)) => self.all_stored(accepted.digests()).await,
            Some(Err(_)) => Ok(true),
            None => Ok(false),
        }
    }

    /// Reports whether the bytes of all these digests are stored.
    pub async fn all_stored(&self, digests: impl Iterator<Item = &str>) -> Result<bool, Error> {
        for digest in digests {
            if !self.is_stored(digest).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reports whether the bytes of a digest are stored under its name.
    async fn is_stored(&self, digest: &str) -> Result<bool, Error> {
        let name = names::object_config_map(digest);
        let Some(watched) = self.stores.config_map(self.namespace, &name) else { return Ok(false) };
        self.stored.holds(&watched.metadata, digest).await.map_err(|source| Error { name, source })
    }
}

/// Lists the lists of entries that a spec names: the field, the map and the source of each.
pub fn lists_of(spec: &BpfProgramSpec) -> impl Iterator<Item = (String, &str, &ConfigMapKeyRef)> {
    spec.maps.iter().enumerate().filter_map(|(i, map)| {
        let EntriesSource { config_map_ref } = map.entries_from.as_ref()?;
        Some((format!("spec.maps[{i}].entriesFrom.configMapRef"), map.name.as_str(), config_map_ref))
    })
}

fn version(meta: &ObjectMeta) -> Option<Version> {
    Some((meta.uid.clone().unwrap_or_default(), meta.resource_version.clone().unwrap_or_default()))
}

fn missing_config_map(field: &str, namespace: &str, name: &str) -> Refusal {
    let message = format!(
        "{field}: there is no ConfigMap {name} in namespace {namespace}; create it: \
         kubectl create configmap {name} -n {namespace} --from-file=..."
    );
    Refusal { reason: Reason::BytecodeUnavailable, message }
}

fn missing_key(
    field: &str,
    (namespace, name, key, place): (&str, &str, &str, &str),
    config_map: &ConfigMap,
) -> Refusal {
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
    let message = format!(
        "{field}: ConfigMap {namespace}/{name} has no key {key} in {place}: {why}; correct the key, or create it \
         anew: kubectl create configmap {name} -n {namespace} --from-file={key}=..."
    );
    Refusal { reason: Reason::BytecodeUnavailable, message }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use sockeye_crds_testing::provoked;

    use super::*;

    #[test]
    fn a_missing_key_is_named_with_those_that_are_there() {
        let binary = |keys: &[&str]| ConfigMap {
            binary_data: Some(keys.iter().map(|key| ((*key).to_owned(), ByteString(vec![]))).collect()),
            ..ConfigMap::default()
        };
        let text = ConfigMap { data: Some([("object".to_owned(), String::new())].into()), ..ConfigMap::default() };
        let place = ("sockeye-system", "objects", "object", "binaryData");
        for (config_map, why) in [
            (binary(&["a.o", "b.o"]), "its binaryData has a.o, b.o"),
            (binary(&[]), "its binaryData is empty"),
            (text, "it is in data, as text"),
        ] {
            let refusal = missing_key("spec.bytecode.configMapRef", place, &config_map);
            assert!(refusal.message.contains(why) && refusal.message.contains("--from-file=object="), "{refusal}");
            provoked(refusal.reason, &refusal.message);
        }
        let refusal = missing_config_map("spec.bytecode.configMapRef", "sockeye-system", "objects");
        assert!(refusal.message.contains("there is no ConfigMap objects in namespace sockeye-system"), "{refusal}");
        provoked(refusal.reason, &refusal.message);
    }
}
