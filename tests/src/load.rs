//! A server, and pods that connect to it.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::{TIMEOUT, json, kubectl, repo, wait_until};

/// A server outside the nodes' cgroups, so that only the clients' ends of connections are counted.
pub struct Server(std::process::Child);

impl Server {
    /// Listens on port 8099 of the cluster's gateway, 198.18.0.1.
    pub fn start() -> Result<Self> {
        let run = repo().join("target/cluster/run");
        let child = std::process::Command::new(run)
            .args(["setpriv", "--pdeathsig", "KILL", "busybox", "nc", "-ll", "-p", "8099", "-e", "true"])
            .stdin(std::process::Stdio::null())
            .spawn()?;
        Ok(Self(child))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A pod that is deleted when the test ends.
pub struct Pod(&'static str);

impl Pod {
    /// Runs a command in the toolbox image on a node.
    pub fn run(name: &'static str, node: &str, command: &str) -> Result<Self> {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"nodeName": node, "restartPolicy": "Never", "automountServiceAccountToken": false,
                "enableServiceLinks": false, "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "main", "image": "localhost/sockeye-toolbox:dev", "imagePullPolicy": "Never",
                    "command": ["/bin/sh", "-c", command]}]},
        });
        let file = repo().join(format!("target/cluster/{name}.json"));
        std::fs::write(&file, pod.to_string())?;
        wait_until(TIMEOUT, "the default service account", || {
            Ok(kubectl(&["get", "serviceaccount", "default"]).is_ok())
        })?;
        kubectl(&["delete", "pod", name, "--ignore-not-found", "--wait"])?;
        kubectl(&["apply", "-f", &file.display().to_string()])?;
        Ok(Self(name))
    }

    /// Waits until the pod runs, and returns its UID.
    pub fn uid(&self) -> Result<String> {
        let mut uid = None;
        wait_until(TIMEOUT, "a running pod", || {
            let pod = json(&["get", "pod", self.0])?;
            uid = pod["metadata"]["uid"].as_str().map(str::to_owned);
            Ok(pod["status"]["phase"] == "Running")
        })?;
        uid.context("no UID")
    }

    /// Runs a command in the pod.
    pub fn exec(&self, command: &[&str]) -> Result<String> {
        kubectl(&[&["exec", self.0, "--"], command].concat())
    }

    /// Returns the log of the pod.
    pub fn log(&self) -> Result<String> {
        kubectl(&["logs", self.0])
    }

    /// Waits until the pod has succeeded.
    pub fn succeeded(&self) -> Result<()> {
        wait_until(TIMEOUT, "the pod's end", || {
            let pod = json(&["get", "pod", self.0])?;
            ensure!(pod["status"]["phase"] != "Failed", "the pod failed: {}", self.log()?);
            Ok(pod["status"]["phase"] == "Succeeded")
        })?;
        Ok(())
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ =
            kubectl(&["delete", "pod", self.0, "--ignore-not-found", "--wait=false", "--grace-period=0", "--force"]);
    }
}
