//! [`StoredObjects`]: the ConfigMaps that hold objects' bytes under their digests. IO: reads.
//!
//! Somebody else may have created such a ConfigMap, with other bytes. One that is immutable keeps its bytes for as long
//! as it lives. So each is read once, and known by its UID then.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client, api::ObjectMeta};
use sockeye_client::objects::get;
use sockeye_crds::names;

/// At most this many ConfigMaps are remembered, then all of them are forgotten.
const MAX_REMEMBERED: usize = 8192;

/// Reads stored bytes. Clones remember the same.
#[derive(Clone)]
pub struct StoredObjects {
    api: Api<ConfigMap>,
    /// True for the UIDs of intact ConfigMaps, false for those of others.
    verified: Arc<Mutex<HashMap<String, bool>>>,
}

impl StoredObjects {
    /// Creates a reader of the bytes that are stored in a namespace.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), verified: Arc::default() }
    }

    /// Returns whether a ConfigMap, of which the watch brought the metadata, holds the bytes of a digest. It is read if
    /// it was not before.
    pub async fn holds(&self, watched: &ObjectMeta, digest: &str) -> Result<bool, kube::Error> {
        let Some(uid) = watched.uid.as_deref().filter(|_| is_marked(watched) && watched.deletion_timestamp.is_none())
        else {
            return Ok(false);
        };
        if let Some(is_intact) = self.verified().get(uid) {
            return Ok(*is_intact);
        }
        let found = get(&self.api, &names::object_config_map(digest)).await?;
        Ok(found.is_some_and(|config_map| {
            self.record(&config_map, digest) && config_map.metadata.uid.as_deref() == Some(uid)
        }))
    }

    /// Returns whether a ConfigMap that was read is intact, and remembers that.
    pub fn record(&self, config_map: &ConfigMap, digest: &str) -> bool {
        let is_intact = is_intact(config_map, digest);
        if let Some(uid) = &config_map.metadata.uid {
            let mut verified = self.verified();
            if verified.len() >= MAX_REMEMBERED {
                verified.clear();
            }
            verified.insert(uid.clone(), is_intact);
        }
        is_intact
    }

    fn verified(&self) -> std::sync::MutexGuard<'_, HashMap<String, bool>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether a ConfigMap holds the bytes of a digest for good, and is marked as the operator's.
pub fn is_intact(config_map: &ConfigMap, digest: &str) -> bool {
    let bytes = config_map.binary_data.as_ref().and_then(|data| data.get(names::OBJECT_KEY));
    is_marked(&config_map.metadata)
        && config_map.immutable == Some(true)
        && bytes.is_some_and(|bytes| names::digest(&bytes.0) == digest)
}

/// Returns the digest of the bytes that a ConfigMap of this name stores; none if its name is none of the operator's.
pub fn digest_in(config_map: &str) -> Option<String> {
    let digits = config_map.strip_prefix(&names::object_config_map(""))?;
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (digits.len() == 64 && digits.bytes().all(is_digit)).then(|| format!("{}{digits}", names::DIGEST_PREFIX))
}

fn is_marked(metadata: &ObjectMeta) -> bool {
    metadata.labels.as_ref().and_then(|labels| labels.get(names::LABEL_OBJECT)).is_some_and(|label| label == "true")
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use k8s_openapi::ByteString;
    use kube::client::Body;
    use serde_json::json;
    use tower::util::service_fn;

    use super::*;

    fn config_map(bytes: &[u8]) -> ConfigMap {
        let metadata = json!({"name": "a", "uid": "u", "labels": {names::LABEL_OBJECT: "true"}});
        ConfigMap {
            metadata: serde_json::from_value(metadata).unwrap(),
            binary_data: Some([(names::OBJECT_KEY.to_owned(), ByteString(bytes.to_vec()))].into()),
            immutable: Some(true),
            data: None,
        }
    }

    #[test]
    fn intact_is_what_has_the_bytes_for_good() {
        let digest = names::digest(b"elf");
        assert!(is_intact(&config_map(b"elf"), &digest));
        assert!(!is_intact(&config_map(b"other"), &digest));
        let mut mutable = config_map(b"elf");
        mutable.immutable = None;
        let mut unmarked = config_map(b"elf");
        unmarked.metadata.labels = None;
        let mut empty = config_map(b"elf");
        empty.binary_data = None;
        assert!([mutable, unmarked, empty].iter().all(|other| !is_intact(other, &digest)));
    }

    #[test]
    fn only_a_whole_digest_makes_a_name() {
        let digest = names::digest(b"elf");
        assert_eq!(digest_in(&names::object_config_map(&digest)), Some(digest));
        let hex = "a".repeat(63);
        for other in [names::SUSPENSION, "sockeye-object-", &format!("sockeye-object-{hex}"), &hex] {
            assert_eq!(digest_in(other), None, "{other}");
        }
        assert_eq!(digest_in(&format!("sockeye-object-{hex}A")), None);
    }

    #[tokio::test]
    async fn a_config_map_is_read_once() {
        let requests = Arc::new(Mutex::new(0));
        let service = service_fn({
            let requests = Arc::clone(&requests);
            move |_: Request<Body>| {
                *requests.lock().unwrap() += 1;
                let body = serde_json::to_vec(&config_map(b"elf")).unwrap();
                async move { Response::builder().body(Body::from(body)) }
            }
        });
        let stored = StoredObjects::new(Client::new(service, "default"), "n");
        let (metadata, digest) = (config_map(b"").metadata, names::digest(b"elf"));
        for _ in 0..3 {
            assert!(stored.holds(&metadata, &digest).await.unwrap());
        }
        assert_eq!(*requests.lock().unwrap(), 1);
        let recreated = ObjectMeta { uid: Some("v".into()), ..metadata.clone() };
        assert!(!stored.holds(&recreated, &digest).await.unwrap(), "the watch and the answer are not of one ConfigMap");
        let unmarked = ObjectMeta { labels: None, ..metadata };
        assert!(!stored.holds(&unmarked, &digest).await.unwrap());
    }
}
