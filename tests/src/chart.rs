//! The chart on an API server alone: its definitions, identities and policies, as Helm renders them. Nothing runs there.

use std::process::Command;

use anyhow::Result;
use serde_json::json;

use crate::{feed, identity::RELEASE, repo, run};

/// Installs it. KUBECONFIG says where.
pub fn install() -> Result<()> {
    let chart = repo().join("deploy/chart").display().to_string();
    let rendered = run(Command::new("helm").args(["template", "sockeye", &chart, "--namespace", RELEASE]))?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": RELEASE}}).to_string();
    for objects in [namespace, rendered] {
        feed(Command::new("kubectl").args(["apply", "--server-side", "--force-conflicts", "-f", "-"]), &objects)?;
    }
    run(Command::new("kubectl").args(["wait", "--for=condition=Established", "--timeout=30s", "crd", "--all"]))?;
    Ok(())
}
