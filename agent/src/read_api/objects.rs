//! `Objects`: where the objects come from that say what the bytes in maps mean. Those that were asked for last are
//! kept.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use futures::future::BoxFuture;
use sockeye_crds::names;

use crate::control::inspection::InspectedObject;

/// Objects that are kept. Each has at most a mebibyte.
const MAX_KEPT: usize = 4;

/// Gets objects by their digests.
pub trait Objects: Send + Sync {
    /// Gets the object of a digest, which the caller checks; or says why it can't be had.
    fn get(&self, digest: String) -> BoxFuture<'static, Result<Arc<[u8]>, String>>;
}

/// No objects but those that the controller has at hand.
pub struct NoObjects;

impl Objects for NoObjects {
    fn get(&self, digest: String) -> BoxFuture<'static, Result<Arc<[u8]>, String>> {
        Box::pin(async move { Err(format!("no manifest holds the object {digest} any more")) })
    }
}

/// Objects, the last of which are kept.
pub(super) struct KnownObjects {
    source: Arc<dyn Objects>,
    kept: Mutex<VecDeque<(String, Arc<[u8]>)>>,
}

impl KnownObjects {
    pub(super) fn new(source: Arc<dyn Objects>) -> Self {
        Self { source, kept: Mutex::default() }
    }

    /// Returns the bytes of an object, or why they can't be had.
    pub(super) async fn bytes(&self, object: InspectedObject) -> Result<Arc<[u8]>, String> {
        let (digest, bytes) = match object {
            InspectedObject::Unknown(why) => return Err(why),
            InspectedObject::Bytes(digest, bytes) => (digest, Ok(bytes)),
            InspectedObject::Digest(digest) => match self.kept(&digest) {
                Some(bytes) => return Ok(bytes),
                None => (digest.clone(), self.source.get(digest).await),
            },
        };
        let bytes = bytes.map_err(|why| format!("the object can't be had: {why}"))?;
        if names::digest(&bytes) != digest {
            return Err(format!("what is stored as object {digest} is another one"));
        }
        self.keep(digest, &bytes);
        Ok(bytes)
    }

    fn kept(&self, digest: &str) -> Option<Arc<[u8]>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|(one, _)| one == digest).map(|(_, bytes)| Arc::clone(bytes))
    }

    fn keep(&self, digest: String, bytes: &Arc<[u8]>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(one, _)| *one != digest);
        kept.push_back((digest, Arc::clone(bytes)));
        let excess = kept.len().saturating_sub(MAX_KEPT);
        kept.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Source;

    impl Objects for Source {
        fn get(&self, digest: String) -> BoxFuture<'static, Result<Arc<[u8]>, String>> {
            let object = ["one", "two"].into_iter().find(|object| names::digest(object.as_bytes()) == digest);
            Box::pin(async move { object.map(|object| object.as_bytes().into()).ok_or_else(|| "away".to_owned()) })
        }
    }

    #[tokio::test]
    async fn an_object_is_the_one_of_its_digest() {
        let objects = KnownObjects::new(Arc::new(Source));
        let digest = names::digest(b"one");
        for _ in 0..2 {
            assert_eq!(*objects.bytes(InspectedObject::Digest(digest.clone())).await.unwrap(), *b"one");
        }
        let wrong = InspectedObject::Bytes(digest.clone(), b"two".as_slice().into());
        assert!(objects.bytes(wrong).await.unwrap_err().contains("another one"));
        let absent = objects.bytes(InspectedObject::Digest(names::digest(b"three"))).await;
        assert!(absent.unwrap_err().contains("away"));
        assert_eq!(objects.bytes(InspectedObject::Unknown("why".to_owned())).await, Err("why".to_owned()));
    }
}
