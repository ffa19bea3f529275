//! Pods and Jobs on the local cluster, and waiting for them.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use sockeye_tests::{TIMEOUT, json, kubectl, repo, wait_until};

/// Connects to the tests' server once.
pub const CONNECT: [&str; 5] = ["/bin/nc", "-w", "5", "198.18.0.1", "8099"];

/// Objects that are deleted when the test ends.
pub struct Objects(&'static str);

impl Objects {
    /// Applies objects. Those with the label `test: <name>` are deleted when the test ends.
    pub fn apply(name: &'static str, items: Vec<Value>) -> Result<Self> {
        let file = repo().join(format!("target/cluster/{name}.json"));
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        std::fs::write(&file, list.to_string())?;
        let objects = Self(name);
        kubectl(&["apply", "-f", &file.display().to_string()])?;
        Ok(objects)
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        let selector = format!("test={}", self.0);
        let _ = kubectl(&[
            "delete",
            "jobs,pods",
            "-A",
            "-l",
            &selector,
            "--wait",
            "--grace-period=0",
            "--force",
            "--timeout=60s",
        ]);
        let _ = kubectl(&["delete", "namespaces", "-l", &selector, "--wait", "--timeout=60s"]);
    }
}

pub fn container(name: &str, command: &[&str]) -> Value {
    json!({"name": name, "image": "localhost/sockeye-toolbox:dev", "imagePullPolicy": "Never", "command": command})
}

/// Returns a pod that sleeps, named `namespace/name`.
pub fn pod(test: &str, name: &str, node: &str, app: &str, more: Value) -> Value {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    let mut spec = json!({
        "nodeName": node, "restartPolicy": "Never", "automountServiceAccountToken": false, "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 0,
        "containers": [container("main", &["/bin/sleep", "1000"]), container("proxy", &["/bin/sleep", "1000"])],
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    let meta = json!({"name": name, "namespace": namespace, "labels": {"test": test, "app": app}});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
}

/// Returns a Job of so many pods that connect at once: no shell runs before.
pub fn connecting(test: &str, app: &str, pods: usize) -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": format!("{test}-{app}"), "namespace": "default", "labels": {"test": test}},
        "spec": {
            "completions": pods, "parallelism": 15, "backoffLimit": 0,
            "template": {
                "metadata": {"labels": {"test": test, "app": app}},
                "spec": {
                    "restartPolicy": "Never", "automountServiceAccountToken": false, "enableServiceLinks": false,
                    "terminationGracePeriodSeconds": 0,
                    "containers": [container("main", &CONNECT)],
                },
            },
        },
    })
}

/// Waits until a Job has completed.
pub fn completed(name: &str, pods: usize) -> Result<()> {
    wait_until(TIMEOUT * 6 * (1 + pods as u32 / 100), "the job's end", || {
        let job = json(&["get", "job", name])?;
        let failed = job["status"]["failed"].as_i64().unwrap_or_default();
        ensure!(failed == 0, "{failed} pods failed: {:#}", job["status"]);
        Ok(job["status"]["succeeded"].as_u64() == Some(pods as u64))
    })
    .map(drop)
}

/// Waits until a pod is Ready.
pub fn running(namespace: &str, name: &str) -> Result<()> {
    kubectl(&["wait", "-n", namespace, "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]).map(drop)
}

/// The manifest of a static pod on a node, removed when the test ends.
pub struct Static(pub PathBuf);

impl Drop for Static {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
