//! The chart as a release on the local cluster, installed by a real Helm.

use std::{path::Path, time::Duration};

use anyhow::{Result, ensure};

use crate::{helper, json, kubectl, repo, wait_until};

/// The release's namespace.
pub const NAMESPACE: &str = "sockeye-system";

/// The time within which Helm has to succeed.
const TIMEOUT: &str = "--timeout=180s";

/// One major version of Helm, by its helper's name.
pub struct Helm(pub &'static str);

impl Helm {
    fn on_release(&self, verb: &[&str], more: &[&str]) -> Result<String> {
        helper(self.0, &[verb, &["--namespace", NAMESPACE, "--wait", TIMEOUT], more].concat())
    }

    /// Installs the chart, or upgrades the release to it, with the cluster's values and more.
    pub fn install(&self, more: &[&str]) -> Result<String> {
        let path = |below: &str| repo().join(below).display().to_string();
        let (chart, values) = (path("deploy/chart"), path("tests/cluster/values.yaml"));
        let verb = ["upgrade", "--install", "sockeye", &chart, "--create-namespace", "--values", &values];
        self.on_release(&verb, more)
    }

    /// Rolls the release back to the revision before.
    pub fn rollback(&self) -> Result<String> {
        self.on_release(&["rollback", "sockeye"], &[])
    }

    /// Uninstalls the release.
    pub fn uninstall(&self, more: &[&str]) -> Result<String> {
        self.on_release(&["uninstall", "sockeye"], more)
    }
}

/// Returns the UIDs of a component's pods, but for those that are being deleted.
pub fn pods(component: &str) -> Result<Vec<String>> {
    let selector = format!("app.kubernetes.io/name=sockeye,app.kubernetes.io/component={component}");
    let pods = json(&["get", "pods", "-n", NAMESPACE, "-l", &selector])?;
    let stay = pods["items"].as_array().into_iter().flatten();
    let stay = stay.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    Ok(stay.filter_map(|pod| pod["metadata"]["uid"].as_str()).map(str::to_owned).collect())
}

/// Waits until nothing of a release is left: no object of the chart or its hooks, no Helm Secret, no stored bytes.
pub fn wait_until_gone() -> Result<()> {
    let kinds = "deployments,replicasets,daemonsets,jobs,pods,serviceaccounts,roles,rolebindings,clusterroles,\
                 clusterrolebindings";
    let looks =
        [(kinds, "app.kubernetes.io/name=sockeye"), ("secrets", "owner=helm"), ("configmaps", "sockeye.dev/object")];
    let mut left = String::new();
    let waited = wait_until(Duration::from_secs(30), "the end of the release", || {
        left.clear();
        for (kinds, selector) in looks {
            left += &kubectl(&["get", kinds, "-A", "-l", selector, "-o", "name"])?;
        }
        Ok(left.is_empty())
    });
    ensure!(waited.is_ok(), "left behind:\n{left}");
    Ok(())
}

/// Returns the size of an image's archive.
pub fn image_bytes(name: &str) -> Result<u64> {
    let archive = repo().join(format!("target/images/{name}.tar"));
    Ok(std::fs::metadata(Path::new(&archive))?.len())
}
