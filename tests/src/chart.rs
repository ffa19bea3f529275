//! Installs the chart on an API server alone, which KUBECONFIG names: CRDs, identities and policies. Nothing runs
//! there.

use std::{process::Command, time::Duration};

use anyhow::Result;
use serde_json::json;

use crate::{identity::RELEASE, repo, run, run_with_input, wait_until};

/// Runs `kubectl` on the API server that KUBECONFIG names.
pub fn kubectl(args: &[&str], input: &str) -> Result<String> {
    run_with_input(Command::new("kubectl").args(args), input)
}

/// Applies the CRDs, as a Job of the chart does in a cluster, and waits until they are served.
pub fn apply_crds() -> Result<()> {
    let file = repo().join("deploy/chart/files/crds.yaml").display().to_string();
    kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &file], "")?;
    wait_until(Duration::from_secs(30), "the CRDs in discovery", || {
        Ok(kubectl(&["get", "sbpf,sbpfr,sbpfn,sbpfnd"], "").is_ok())
    })?;
    Ok(())
}

/// Applies the CRDs and everything that Helm renders.
pub fn install() -> Result<()> {
    apply_crds()?;
    let chart = repo().join("deploy/chart").display().to_string();
    let rendered = run(Command::new("helm").args(["template", "sockeye", &chart, "--namespace", RELEASE]))?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": RELEASE}}).to_string();
    for objects in [namespace, rendered] {
        kubectl(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &objects)?;
    }
    Ok(())
}
