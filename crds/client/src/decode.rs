//! [`Decode`]: reads objects one at a time, so that one which can't be read affects no other. IO: none.
//!
//! - serde_json refuses what is nested deeper than 128 levels, and with it a whole list. A `RawValue` is skipped
//!   without recursion, so a list is split into its objects however deep they are.
//! - Of an object that can't be read, the metadata is read, without annotations and `managedFields`. The latter are as
//!   deep as the object is.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Debug,
    hash::{BuildHasher as _, RandomState},
};

use k8s_openapi::{
    api::core::v1::{ConfigMap, Pod},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time},
};
use kube::{
    Resource,
    core::{DeserializeGuard, PartialObjectMeta, error_boundary::InvalidObject},
};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use tracing::warn;

/// The maximum number of bytes that are kept or logged of an error. serde's errors quote values whole.
const MAX_ERROR: usize = 200;

/// A decoder remembers at most this many unreadable versions, then forgets all of them.
const MAX_REMEMBERED: usize = 1024;

/// An object that is reported even if it can't be read.
pub trait Decode: Resource<DynamicType = ()> + Clone + Debug + Send + 'static {
    /// Reads the object.
    ///
    /// # Errors
    /// Fails where the JSON is not such an object, or is nested deeper than 128 levels.
    fn decode(json: &str) -> serde_json::Result<Self>;

    /// Returns the object that has this metadata and can't be read for this reason.
    fn unreadable(metadata: ObjectMeta, error: String) -> Self;
}

impl<K> Decode for DeserializeGuard<K>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static,
{
    fn decode(json: &str) -> serde_json::Result<Self> {
        serde_json::from_str(json).map(|object| Self(Ok(object)))
    }

    fn unreadable(metadata: ObjectMeta, error: String) -> Self {
        Self(Err(InvalidObject { error, metadata }))
    }
}

impl<K> Decode for PartialObjectMeta<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + 'static,
{
    fn decode(json: &str) -> serde_json::Result<Self> {
        serde_json::from_str(json)
    }

    fn unreadable(metadata: ObjectMeta, _: String) -> Self {
        Self { types: None, metadata, _phantom: std::marker::PhantomData }
    }
}

impl Decode for ConfigMap {
    fn decode(json: &str) -> serde_json::Result<Self> {
        serde_json::from_str(json)
    }

    fn unreadable(metadata: ObjectMeta, _: String) -> Self {
        Self { metadata, ..Self::default() }
    }
}

impl Decode for Pod {
    fn decode(json: &str) -> serde_json::Result<Self> {
        serde_json::from_str(json)
    }

    fn unreadable(metadata: ObjectMeta, _: String) -> Self {
        Self { metadata, ..Self::default() }
    }
}

/// An object, and the reason if it could not be read. There is no object if its metadata could not be read either.
pub(crate) struct Decoded<K> {
    pub(crate) object: Option<K>,
    pub(crate) error: Option<String>,
}

/// Reads an object, or its metadata.
pub(crate) fn decode<K: Decode>(json: &str) -> Decoded<K> {
    match K::decode(json) {
        Ok(object) => Decoded { object: Some(object), error: None },
        Err(error) => {
            let error = describe(&error);
            Decoded { object: metadata(json).map(|meta| K::unreadable(meta, error.clone())), error: Some(error) }
        }
    }
}

/// Reads an object's metadata, whatever the rest of the object is.
pub fn metadata(json: &str) -> Option<ObjectMeta> {
    #[derive(Deserialize)]
    struct Outline {
        #[serde(deserialize_with = "deserialize_metadata")]
        metadata: ObjectMeta,
    }
    serde_json::from_str::<Outline>(json).ok().map(|outline| outline.metadata)
}

/// Reads metadata without annotations and `managedFields`: for `serde(deserialize_with)`.
///
/// # Errors
/// Fails where a field has another type than Kubernetes gives it.
pub fn deserialize_metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct MetadataOutline {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        generation: Option<i64>,
        creation_timestamp: Option<Time>,
        deletion_timestamp: Option<Time>,
        labels: Option<BTreeMap<String, String>>,
        finalizers: Option<Vec<String>>,
        owner_references: Option<Vec<OwnerReference>>,
    }
    let outline = MetadataOutline::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: outline.name,
        namespace: outline.namespace,
        uid: outline.uid,
        resource_version: outline.resource_version,
        generation: outline.generation,
        creation_timestamp: outline.creation_timestamp,
        deletion_timestamp: outline.deletion_timestamp,
        labels: outline.labels,
        finalizers: outline.finalizers,
        owner_references: outline.owner_references,
        ..ObjectMeta::default()
    })
}

/// Reads the objects of a watch, and logs each version that can't be read once.
#[derive(Default)]
pub(crate) struct Decoder {
    hasher: RandomState,
    logged: HashSet<u64>,
}

impl Decoder {
    /// Reads an object, or its metadata.
    pub(crate) fn decode<K: Decode>(&mut self, json: &str) -> Option<K> {
        let Decoded { object, error } = decode::<K>(json);
        if let Some(error) = error {
            self.log(json, object.as_ref(), &error);
        }
        object
    }

    fn log<K: Decode>(&mut self, json: &str, object: Option<&K>, error: &str) {
        let meta = object.map(Resource::meta);
        let version = match meta {
            Some(meta) => self.hasher.hash_one((&meta.uid, &meta.name, &meta.resource_version)),
            None => self.hasher.hash_one(json),
        };
        if self.logged.len() >= MAX_REMEMBERED {
            self.logged.clear();
        }
        if !self.logged.insert(version) {
            return;
        }
        let resource = K::plural(&());
        match meta.and_then(|meta| meta.name.as_deref()) {
            Some(name) => warn!(%resource, name, error, "an object can't be read; the others are"),
            None => warn!(%resource, error, begin = clip(json), "an object without a name is left out"),
        }
    }
}

/// Returns what is wrong, without the place. That is a column of a text that nobody sees, and moves with every write.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    clip(text.rsplit_once(" at line ").map_or(&*text, |(what, _)| what))
}

/// Returns the first bytes of a text, cut between characters.
fn clip(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_ERROR)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nests an array this deep.
    fn nested(levels: usize) -> String {
        "[".repeat(levels) + &"]".repeat(levels)
    }

    fn config_map(metadata: &str, rest: &str) -> String {
        format!(r#"{{"metadata": {{"name": "a", "uid": "u", "resourceVersion": "7"{metadata}}}{rest}}}"#)
    }

    #[test]
    fn an_object_of_any_depth_has_its_metadata() {
        for levels in [200, 10_000] {
            let deep = nested(levels);
            for json in [
                config_map("", &format!(r#", "data": {deep}"#)),
                config_map(&format!(r#", "managedFields": [{{"fieldsV1": {deep}}}]"#), ""),
                config_map(&format!(r#", "annotations": {{"a": {deep}}}"#), ""),
            ] {
                let Decoded { object, error } = decode::<DeserializeGuard<ConfigMap>>(&json);
                let object = object.unwrap();
                assert_eq!(object.meta().resource_version.as_deref(), Some("7"));
                assert_eq!(object.0.unwrap_err().error, error.unwrap());
                assert_eq!(decode::<ConfigMap>(&json).object.unwrap().metadata.uid.as_deref(), Some("u"));
            }
        }
    }

    #[test]
    fn a_depth_that_nobody_reads_makes_an_object_no_less_readable() {
        let json = config_map("", &format!(r#", "unknown": {}, "data": {{"k": "v"}}"#, nested(10_000)));
        let Decoded { object, error } = decode::<ConfigMap>(&json);
        assert_eq!((object.unwrap().data.unwrap()["k"].as_str(), error), ("v", None));
    }

    #[test]
    fn an_error_is_short_whatever_it_quotes() {
        let json = config_map("", &format!(r#", "data": "{}é""#, "x".repeat(MAX_ERROR * 100)));
        let error = decode::<ConfigMap>(&json).error.unwrap();
        assert!(error.len() <= MAX_ERROR && error.contains("invalid type: string"), "{error}");
        let error = decode::<ConfigMap>(&config_map("", r#", "data": 7"#)).error.unwrap();
        assert_eq!(error, "invalid type: integer `7`, expected a map", "the place moves with every write");
        assert!(clip(&"é".repeat(MAX_ERROR)).len() <= MAX_ERROR);
    }

    #[test]
    fn what_has_no_metadata_is_nothing() {
        for json in ["[]", "7", r#"{"metadata": 7}"#, "{", &nested(10_000)] {
            assert!(decode::<DeserializeGuard<ConfigMap>>(json).object.is_none());
        }
    }

    #[test]
    fn each_unreadable_version_is_logged_once() {
        let mut decoder = Decoder::default();
        let version = |version: usize| config_map("", r#", "data": 7"#).replace(r#""7""#, &format!("\"{version}\""));
        for _ in 0..3 {
            assert!(decoder.decode::<ConfigMap>(&version(1)).is_some());
            assert!(decoder.decode::<ConfigMap>("[]").is_none());
            assert!(decoder.decode::<ConfigMap>(&config_map("", "")).is_some(), "it can be read");
        }
        assert_eq!(decoder.logged.len(), 2);
        (0..MAX_REMEMBERED).for_each(|n| drop(decoder.decode::<ConfigMap>(&version(n))));
        assert!(decoder.logged.len() <= MAX_REMEMBERED);
    }
}
