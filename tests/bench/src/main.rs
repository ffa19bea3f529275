//! What sockeye costs, each figure beside what it is measured by, of the same run: tests/bench/run.sh starts it.
//!
//! | module | noun |
//! |---|---|
//! | [`table`] | a figure, its bound and its verdict; all of them as a table and as JSON |
//! | [`programs`] | the BpfPrograms that are run, and the cgroups for them |
//! | [`libbpf`] | the measure: a C program that does the same |
//! | [`own`] | the agent's own path, in this process |
//! | [`process`] | the agent as a process of its own |
//! | [`node`] | the figures that need no cluster |

mod libbpf;
mod node;
mod own;
mod process;
mod programs;
mod table;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::Parser;
use tracing_subscriber::EnvFilter;

/// Measures one node's agent against libbpf.
#[derive(Parser)]
struct Cli {
    /// The agent's binary, as the image has it.
    #[arg(long)]
    agent: PathBuf,
    /// libbpf.c, built.
    #[arg(long)]
    libbpf: PathBuf,
    /// Where a bpffs is mounted that nothing else uses.
    #[arg(long)]
    bpffs: PathBuf,
    /// A cgroup v2 directory that nothing else uses.
    #[arg(long)]
    cgroup: PathBuf,
    /// The folder of the images' archives.
    #[arg(long)]
    images: PathBuf,
    /// Where the JSON goes.
    #[arg(long)]
    json: PathBuf,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether every bound is kept.
fn run(cli: Cli) -> Result<bool> {
    let Cli { agent, libbpf, bpffs, cgroup, images, json } = cli;
    let work = tempfile::tempdir()?;
    // The agent says a line for each BpfProgram that it brings into effect, which is part of what it costs.
    let log = std::fs::File::create(work.path().join("agent.log"))?;
    tracing_subscriber::fmt().with_env_filter(EnvFilter::new("info")).with_writer(log).with_ansi(false).init();

    let bench = node::Bench { agent, libbpf, bpffs, cgroup, images, work: work.path().to_owned() };
    let figures = bench.run()?;
    std::fs::write(&json, table::json(&figures)?).with_context(|| json.display().to_string())?;
    print!("\n{}", table::render(&figures));
    Ok(figures.iter().all(|figure| figure.verdict() != table::Verdict::Missed))
}
