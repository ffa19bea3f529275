//! The chart as a release on the local cluster, installed by a real Helm.

use std::{fs, path::Path, time::Duration};

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::{helper, json, kubectl, repo, wait_until};

/// The release's namespace.
pub const NAMESPACE: &str = "sockeye-system";

/// The time within which Helm has to succeed.
const TIMEOUT: &str = "--timeout=180s";

/// One major version of Helm, by its helper's name.
pub struct Helm(pub &'static str);

/// Helm 4.
pub const HELM: Helm = Helm("helm");

impl Helm {
    fn on_release(&self, verb: &[&str], more: &[&str]) -> Result<String> {
        helper(self.0, &[verb, &["--namespace", NAMESPACE, "--wait", TIMEOUT], more].concat())
    }

    /// Installs the chart, or upgrades the release to it, with the cluster's values and more.
    pub fn install(&self, more: &[&str]) -> Result<String> {
        self.install_chart(&repo().join("deploy/chart").display().to_string(), more)
    }

    /// Does the same with another chart.
    pub fn install_chart(&self, chart: &str, more: &[&str]) -> Result<String> {
        let values = repo().join("tests/cluster/values.yaml").display().to_string();
        let verb = ["upgrade", "--install", "sockeye", chart, "--create-namespace", "--values", &values];
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

/// Installs the cluster's chart with the cluster's values when it is dropped, as other tests expect it.
pub struct RestoredChart;

impl RestoredChart {
    /// Installs the chart with the cluster's values and these, until the guard is dropped.
    pub fn install_with(values: &Value) -> Result<Self> {
        let restored = Self;
        let file = repo().join("target/cluster/temporary-values.json");
        fs::write(&file, values.to_string())?;
        HELM.install(&["--values", &file.display().to_string()])?;
        Ok(restored)
    }
}

impl Drop for RestoredChart {
    fn drop(&mut self) {
        if let Err(error) = HELM.install(&[]) {
            eprintln!("the cluster's chart could not be installed again: {error:#}");
        }
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
    Ok(fs::metadata(Path::new(&archive))?.len())
}
