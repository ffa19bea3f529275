//! `PodList`: the node's pods without an API server: from a file that holds a list of them, and of their namespaces, as
//! `kubectl get pods,namespaces -A -o yaml` prints it, or the kubelet's own `/pods`. Does IO.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use k8s_openapi::api::core::v1 as core;
use kube::core::ObjectMeta;
use serde::Deserialize;
use serde_json::Value;

use crate::model::pods::{Labels, Pod};

/// The file, and what it says.
#[derive(Debug)]
pub struct PodList {
    path: PathBuf,
    stamp: Option<(SystemTime, u64)>,
    /// The pods; absent as long as the file can't be read.
    pub pods: Option<Arc<Vec<Pod>>>,
    /// Their namespaces' labels.
    pub namespaces: Option<Arc<BTreeMap<String, Labels>>>,
}

#[derive(Deserialize)]
struct List {
    items: Vec<Value>,
}

impl PodList {
    /// A file that has not been read yet.
    pub const fn new(path: PathBuf) -> Self {
        Self { path, stamp: None, pods: None, namespaces: None }
    }

    /// The directory that it is in.
    pub fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    /// Reads it, where it changed; tells whether it did. What can't be read leaves what it said before.
    pub fn scan(&mut self) -> bool {
        let stamp = fs::metadata(&self.path).and_then(|meta| Ok((meta.modified()?, meta.len()))).ok();
        if stamp == self.stamp {
            return false;
        }
        self.stamp = stamp;
        match read(&self.path) {
            Ok((pods, namespaces)) => {
                (self.pods, self.namespaces) = (Some(Arc::new(pods)), Some(Arc::new(namespaces)));
            }
            Err(error) => tracing::warn!(pods = %self.path.display(), %error, "can't be read"),
        }
        true
    }
}

/// An item of a list whose kind is not said is a pod: the kubelet's are so.
fn read(path: &Path) -> io::Result<(Vec<Pod>, BTreeMap<String, Labels>)> {
    let list: List = serde_saphyr::from_str(&fs::read_to_string(path)?).map_err(io::Error::other)?;
    let (mut pods, mut namespaces) = (Vec::new(), BTreeMap::new());
    for mut item in list.items {
        match item["kind"].as_str() {
            Some("Namespace") => {
                let meta: ObjectMeta = serde_json::from_value(item["metadata"].take())?;
                namespaces.insert(meta.name.unwrap_or_default(), meta.labels.unwrap_or_default());
            }
            Some("Pod") | None => pods.push(Pod::read(&serde_json::from_value::<core::Pod>(item)?)),
            Some(_) => {}
        }
    }
    pods.sort_by(|a, b| a.uid.cmp(&b.uid));
    Ok((pods, namespaces))
}
