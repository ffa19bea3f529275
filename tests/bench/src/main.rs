//! Measures the cost of sockeye, each figure together with its reference in the same run. tests/bench/run.sh starts it.
//!
//! | module | noun |
//! |---|---|
//! | [`place`] | a bpffs, a cgroup and a folder of the bench's own |
//! | [`table`] | figures with their bounds, as a table and as JSON |
//! | [`programs`] | the BpfPrograms that are run, and the cgroups for them |
//! | [`reference`] | the references: programs that do the same with libbpf and with cilium/ebpf |
//! | [`own`] | the agent's own path, in this process |
//! | [`process`] | the agent as a process |
//! | [`kubelet`] | pods without a kubelet: their cgroups, and the list of them |
//! | [`linking`] | the user time of reading and linking an object |
//! | [`node`] | one node's agent |
//! | [`pods`] | links at many pods, and at a new one |
//! | [`connections`] | the cost of attached programs for processes that connect |
//! | [`cluster`] | the figures that need a cluster |
//! | [`scale`] | many nodes on one API server |
//! | [`status`] | the cost of a node's status for the API server |

mod cluster;
mod connections;
mod kubelet;
mod linking;
mod node;
mod own;
mod place;
mod pods;
mod process;
mod programs;
mod reference;
mod scale;
mod status;
mod table;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

/// Measures sockeye; exits with 1 where a bound is missed, and with 2 where something could not be measured.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    what: What,
    /// The file for the figures as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Subcommand)]
enum What {
    /// One node's agent, against libbpf and cilium/ebpf.
    Node(node::Bench),
    /// Many pods on one node, against libbpf and cilium/ebpf.
    Pods(pods::Bench),
    /// Connections through counters, against those that bpftool attached.
    Connections(connections::Bench),
    /// A cluster: how soon a BpfProgram is in effect and Ready, against bare calls.
    Cluster(cluster::Bench),
    /// Many nodes' agents and the operator, against the API server's own rate.
    Scale(scale::Bench),
    /// A node's status, against a bare status write.
    Status(status::Bench),
    /// A process of agents; `scale` starts these.
    #[command(hide = true)]
    Swarm(scale::swarm::Process),
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

/// Runs a bench, and tells whether every bound was kept.
fn run(cli: Cli) -> Result<bool> {
    let Cli { what, json } = cli;
    let figures = match what {
        What::Node(bench) => bench.run()?,
        What::Pods(bench) => bench.run()?,
        What::Connections(bench) => bench.run()?,
        What::Cluster(bench) => bench.run()?,
        What::Scale(bench) => bench.run()?,
        What::Status(bench) => bench.run()?,
        What::Swarm(process) => return process.run().map(|()| true),
    };
    if let Some(json) = json {
        std::fs::write(&json, table::json(&figures)?).with_context(|| json.display().to_string())?;
    }
    print!("\n{}", table::render(&figures));
    Ok(figures.iter().all(|figure| figure.verdict() != table::Verdict::Missed))
}
