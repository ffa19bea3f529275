//! `Kubelet`: stands in for a node's kubelet and API server. It makes pods' cgroups, named as the cgroupfs driver names
//! them, and a list of the pods. A pod may be listed before its cgroup exists.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// One node's pods, all with the same label.
pub struct Kubelet {
    /// The parent of the pods' cgroups.
    class: PathBuf,
    list: PathBuf,
}

impl Kubelet {
    /// Creates the node's cgroup root `root` without pods, and writes a list of so many pods into a folder.
    pub fn start(root: &Path, folder: &Path, listed: usize) -> Result<Self> {
        let (class, list) = (root.join("kubepods/burstable"), folder.join("pods.json"));
        fs::create_dir_all(&class)?;
        let items: Vec<Value> = (0..listed).map(pod).collect();
        fs::write(&list, json!({"items": items}).to_string())?;
        Ok(Self { class, list })
    }

    /// Returns the path of the list.
    pub fn list(&self) -> &Path {
        &self.list
    }

    /// Returns a target that selects every pod by itself.
    pub fn target() -> Value {
        json!({"type": "Pods", "pods": {"podSelector": {"matchLabels": {"app": "web"}}}})
    }

    /// Returns the path of a pod's cgroup.
    pub fn directory(&self, n: usize) -> PathBuf {
        self.class.join(format!("pod{}", uid(n)))
    }

    /// Creates a pod's cgroup.
    pub fn make(&self, n: usize) -> Result<File> {
        let directory = self.directory(n);
        fs::create_dir(&directory).with_context(|| directory.display().to_string())?;
        Ok(File::open(directory)?)
    }
}

fn uid(n: usize) -> String {
    format!("{n:08x}-0000-4000-8000-000000000000")
}

/// Returns as much of a pod as the agent reads.
fn pod(n: usize) -> Value {
    json!({
        "kind": "Pod",
        "metadata": {"name": format!("pod-{n}"), "namespace": "shop", "uid": uid(n), "labels": {"app": "web"}},
    })
}
