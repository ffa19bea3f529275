//! The rights of the chart's Jobs after a Job that failed.

use std::process::Command;

use anyhow::{Result, ensure};
use sockeye_tests::{chart, identity::RELEASE, repo, run};

use crate::chart::install;

/// Nothing runs here, so the Job that applies the definitions is never done, and Helm gives up.
#[tokio::test]
async fn a_job_that_failed_leaves_no_rights_behind() -> Result<()> {
    install()?;
    let left = || {
        let kinds = "clusterrolebindings,clusterroles,rolebindings,roles,serviceaccounts,networkpolicies,jobs";
        let of_the_job = "app.kubernetes.io/name=sockeye,app.kubernetes.io/component=crds";
        chart::kubectl(&["get", kinds, "-n", RELEASE, "-l", of_the_job, "-o", "name"], "")
    };
    let chart = repo().join("deploy/chart").display().to_string();
    for helm in ["helm", "helm3"] {
        // Everything is there already, but as nobody's.
        let release = ["install", "sockeye", &chart, "-n", RELEASE, "--take-ownership", "--timeout=3s"];
        let failed = run(Command::new(helm).args(release)).err().map(|error| error.to_string()).unwrap_or_default();
        let left = left()?;
        chart::kubectl(&["delete", "secrets", "-n", RELEASE, "-l", "owner=helm"], "")?;
        chart::install()?;
        ensure!(failed.contains("pre-install"), "{helm}: {failed}");
        ensure!(left.trim() == "job.batch/sockeye-crds", "{helm} left behind: {left}");
    }
    Ok(())
}
