//! Objects, fetched by digest from the ConfigMaps in which the operator stores them. Does IO: requests.
//!
//! They are fetched one after the other, and tried again with the process's [`Backoff`] while the API server is away.
//! One that fails again and again does not hold up the others: it is given back after each attempt.

use std::{convert::Infallible, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use sockeye_client::{Backoff, backoff::with_jitter, is_transient};
use sockeye_crds::names::{OBJECT_KEY, object_config_map};
use tokio::{runtime::Handle, sync::mpsc, time::timeout};

use crate::{control::fetches::Refused, read_api::objects::Objects};

/// An object that can't be had is asked for again after this long, or a tenth of it: all nodes are refused the same at
/// the same time, so jitter spreads when they ask again.
const REFUSED: Duration = Duration::from_secs(20);

/// The longest time for an object that somebody asks for.
const ANSWER: Duration = Duration::from_secs(5);

/// Fetches every digest that comes, and calls `fetched` with each outcome.
pub(super) async fn fetch(
    api: Api<ConfigMap>,
    backoff: Arc<Backoff>,
    mut digests: mpsc::UnboundedReceiver<String>,
    fetched: impl Fn(String, Result<Arc<[u8]>, Refused>) + Send + 'static,
) -> Result<Infallible> {
    let mut failing = None;
    loop {
        let digest = digests.recv().await.context("nobody asks for objects any more")?;
        let name = object_config_map(&digest);
        let outcome = match api.get(&name).await {
            Ok(map) => object(map, &name).map_err(refused),
            Err(error) if is_transient(&error) => {
                tracing::debug!(name, %error, "trying again");
                failing = Some(backoff.wait().await);
                let why = format!("ConfigMap {name}: {error}");
                fetched(digest, Err(Refused { why, retry_after: Duration::ZERO }));
                continue;
            }
            Err(error) => Err(refused(format!("ConfigMap {name}: {error}"))),
        };
        failing.take().into_iter().for_each(|retry| backoff.answered(retry));
        fetched(digest, outcome);
    }
}

/// Returns the object in a ConfigMap.
fn object(map: ConfigMap, name: &str) -> Result<Arc<[u8]>, String> {
    let bytes = map.binary_data.and_then(|mut data| data.remove(OBJECT_KEY));
    bytes.map(|bytes| bytes.0.into()).ok_or_else(|| format!("ConfigMap {name} has no binaryData.{OBJECT_KEY}"))
}

/// The stored objects, for whoever asks what the bytes in maps mean. None is asked for again by itself.
pub(super) struct StoredObjects {
    api: Api<ConfigMap>,
    runtime: Handle,
}

impl StoredObjects {
    /// Needs a tokio runtime: the client's own.
    pub(super) fn new(api: Api<ConfigMap>) -> Self {
        Self { api, runtime: Handle::current() }
    }
}

impl Objects for StoredObjects {
    fn get(&self, digest: String) -> BoxFuture<'static, Result<Arc<[u8]>, String>> {
        let api = self.api.clone();
        let got = self.runtime.spawn(async move {
            let name = object_config_map(&digest);
            let got = timeout(ANSWER, api.get(&name)).await.map_err(|_| "the API server does not answer".to_owned())?;
            object(got.map_err(|error| format!("ConfigMap {name}: {error}"))?, &name)
        });
        Box::pin(async move { got.await.map_err(|error| error.to_string())? })
    }
}

fn refused(why: String) -> Refused {
    Refused { why, retry_after: with_jitter(REFUSED) }
}
