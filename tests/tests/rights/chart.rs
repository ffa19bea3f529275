//! The chart's identities and bindings.

use std::{collections::BTreeSet, process::Command, sync::Once};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sockeye_tests::{identity::RELEASE, run};

use crate::needs::NEEDS;

/// Installs the chart as Helm renders it, once.
pub fn install() -> Result<()> {
    static INSTALLED: Once = Once::new();
    let mut outcome = Ok(());
    INSTALLED.call_once(|| outcome = sockeye_tests::chart::install());
    outcome
}

#[tokio::test]
async fn the_chart_has_no_identity_or_binding_outside_the_table() -> Result<()> {
    install()?;
    let ours = |kind: &str| -> Result<Vec<Value>> {
        let selector = "app.kubernetes.io/part-of=sockeye";
        let text = run(Command::new("kubectl").args(["get", kind, "--all-namespaces", "-l", selector, "-o", "json"]))?;
        Ok(serde_json::from_str::<Value>(&text)?["items"].as_array().cloned().unwrap_or_default())
    };
    let known: BTreeSet<String> = NEEDS.iter().map(|(identity, _)| (*identity).to_owned()).collect();
    let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let accounts: BTreeSet<String> = ours("serviceaccounts")?.iter().map(name).collect();
    ensure!(accounts == known, "{accounts:?}");
    for kind in ["clusterrolebindings", "rolebindings"] {
        for binding in ours(kind)? {
            for subject in binding["subjects"].as_array().context("no subjects")? {
                let expected = json!({"kind": "ServiceAccount", "name": subject["name"], "namespace": RELEASE});
                ensure!(*subject == expected && known.contains(&name(&json!({"metadata": subject}))), "{subject}");
            }
        }
    }
    for kind in ["clusterroles", "roles"] {
        for role in ours(kind)? {
            let text = role["rules"].to_string();
            ensure!(!text.contains("\"*\"") && !text.contains("secrets"), "{kind} {}: {text}", name(&role));
            ensure!(role.get("aggregationRule").is_none(), "{kind} {} takes others' rules", name(&role));
        }
    }
    Ok(())
}
