//! `Kubelet`: stands in for a node's kubelet and API server as far as an agent sees them of pods: the pods' cgroups, named
//! as the cgroupfs driver names them, and a list of the pods. A pod may be listed before its cgroup is there.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// One node's pods, all with the same label.
pub struct Kubelet {
    /// Where the pods' cgroups come and go.
    class: PathBuf,
    list: PathBuf,
}

impl Kubelet {
    /// Starts with no pod, and with a list of so many in a folder. `root` is made: the node's cgroup root.
    pub fn start(root: &Path, folder: &Path, listed: usize) -> Result<Self> {
        let (class, list) = (root.join("kubepods/burstable"), folder.join("pods.json"));
        fs::create_dir_all(&class)?;
        let items: Vec<Value> = (0..listed).map(pod).collect();
        fs::write(&list, json!({"items": items}).to_string())?;
        Ok(Self { class, list })
    }

    /// The list.
    pub fn list(&self) -> &Path {
        &self.list
    }

    /// The target that picks all of them, each by itself.
    pub fn target() -> Value {
        json!({"scope": "Pods", "podSelector": {"matchLabels": {"app": "web"}}})
    }

    /// A pod's cgroup.
    pub fn directory(&self, n: usize) -> PathBuf {
        self.class.join(format!("pod{}", uid(n)))
    }

    /// Makes a pod's cgroup.
    pub fn make(&self, n: usize) -> Result<File> {
        let directory = self.directory(n);
        fs::create_dir(&directory).with_context(|| directory.display().to_string())?;
        Ok(File::open(directory)?)
    }
}

fn uid(n: usize) -> String {
    format!("{n:08x}-0000-4000-8000-000000000000")
}

/// As much of a pod as targets are worked out with.
fn pod(n: usize) -> Value {
    json!({
        "kind": "Pod",
        "metadata": {"name": format!("pod-{n}"), "namespace": "shop", "uid": uid(n), "labels": {"app": "web"}},
    })
}
