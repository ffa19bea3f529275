//! The bench `scale` with few nodes, on a real API server: counts keep their bounds. Times are left to `make bench`.
//!
//! KUBECONFIG names the API server; helm and kubectl are on PATH (tests/run.sh api).
#![allow(missing_docs)]

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

const BENCH: &str = env!("CARGO_BIN_EXE_sockeye-bench");

#[test]
fn api_server_requests_of_many_nodes_are_bounded() -> Result<()> {
    let operator = Path::new(BENCH).with_file_name("sockeye-operator");
    ensure!(operator.exists(), "no {}: cargo build -p sockeye-operator", operator.display());
    let work = tempfile::tempdir()?;
    let json = work.path().join("scale.json");
    let mut bench = Command::new(BENCH);
    bench.arg("--json").arg(&json).args(["scale", "--nodes", "30", "--programs", "5", "--processes", "2"]);
    // It exits with 1 if any bound is missed, bounds of times included.
    let status = bench.arg("--operator").arg(&operator).arg("--work").arg(work.path()).status()?;
    ensure!(matches!(status.code(), Some(0 | 1)), "{status}");
    let figures: Vec<Value> = serde_json::from_slice(&std::fs::read(&json)?)?;
    let counts: Vec<&Value> = figures.iter().filter(|f| f["unit"] == "" && !f["bound"].is_null()).collect();
    ensure!(counts.len() >= 8, "{figures:#?}");
    for figure in counts {
        ensure!(figure["verdict"] == "kept", "{figure}");
        figure["value"].as_f64().context("no value")?;
    }
    Ok(())
}
