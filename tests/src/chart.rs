//! The chart on an API server alone: its definitions, identities and policies. Nothing runs there. KUBECONFIG says where.

use std::{process::Command, time::Duration};

use anyhow::Result;
use serde_json::json;

use crate::{feed, identity::RELEASE, repo, run, until};

/// `kubectl` on the API server that KUBECONFIG names.
pub fn kubectl(args: &[&str], input: &str) -> Result<String> {
    feed(Command::new("kubectl").args(args), input)
}

/// Brings the CustomResourceDefinitions, which in a cluster a Job of the chart's does, and waits until they are served.
pub fn definitions() -> Result<()> {
    let file = repo().join("deploy/chart/files/crds.yaml").display().to_string();
    kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &file], "")?;
    until(Duration::from_secs(30), "discovery", || Ok(kubectl(&["get", "sbpf,sbpfr,sbpfn"], "").is_ok()))?;
    Ok(())
}

/// Installs all that Helm renders.
pub fn install() -> Result<()> {
    definitions()?;
    let chart = repo().join("deploy/chart").display().to_string();
    let rendered = run(Command::new("helm").args(["template", "sockeye", &chart, "--namespace", RELEASE]))?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": RELEASE}}).to_string();
    for objects in [namespace, rendered] {
        kubectl(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &objects)?;
    }
    Ok(())
}
