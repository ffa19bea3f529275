//! sockeye-agent: one node's agent, in a cluster or alone.

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand};
use k8s_openapi::jiff::Timestamp;
use sockeye_agent::{
    agent::{Agent, Places},
    fetch::{cluster::Cluster, folder::Folder},
    health::{self, Ready},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
    time::sleep,
};
use tracing_subscriber::EnvFilter;

/// Everything is looked at again so often, whether or not anything was said to have changed.
const SWEEP: Duration = Duration::from_secs(10);
/// A write that the API refused is tried again so soon.
const WRITE_AGAIN: Duration = Duration::from_secs(5);
/// A folder is looked at so often.
const SCAN: Duration = Duration::from_millis(250);

/// Loads and attaches the BpfPrograms of one node. Ending it detaches nothing.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the BpfRevisions that the Kubernetes API has for this node.
    Run(Run),
    /// Run the manifests in a folder, without a cluster; status is written beside them.
    Standalone(Standalone),
}

#[derive(Args)]
struct Run {
    #[command(flatten)]
    places: PlaceArgs,
    /// This node's name.
    #[arg(long, env = "NODE_NAME")]
    node_name: String,
    /// The namespace that sockeye is installed in: objects' bytes are there.
    #[arg(long, env = "POD_NAMESPACE")]
    namespace: String,
    /// Where to answer /healthz and /readyz.
    #[arg(long, default_value_t = 8081)]
    health_port: u16,
}

#[derive(Args)]
struct Standalone {
    #[command(flatten)]
    places: PlaceArgs,
    /// The folder: X.yaml holds a BpfProgram, X.status.yaml gets its status.
    #[arg(long)]
    manifests: PathBuf,
    /// The name under which this node is reported.
    #[arg(long, env = "NODE_NAME", default_value = "localhost")]
    node_name: String,
}

#[derive(Args)]
struct PlaceArgs {
    /// Where bpffs is mounted.
    #[arg(long, default_value = "/sys/fs/bpf")]
    bpffs: PathBuf,
    /// Where the host has it mounted, for the paths in reports; absent means the same place.
    #[arg(long)]
    host_bpffs: Option<PathBuf>,
    /// The node's cgroup root; absent means the cgroup2 mount with the outermost root.
    #[arg(long)]
    cgroup_root: Option<PathBuf>,
}

impl From<PlaceArgs> for Places {
    fn from(PlaceArgs { bpffs, host_bpffs, cgroup_root }: PlaceArgs) -> Self {
        Self { host_bpffs: host_bpffs.unwrap_or_else(|| bpffs.clone()), bpffs, cgroup_root }
    }
}

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    match start(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(command: Command) -> Result<()> {
    // Two workers: a pass blocks one in system calls, and the probes and watches go on on the other.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let work = async {
            match command {
                Command::Run(run) => in_cluster(run).await,
                Command::Standalone(standalone) => alone(standalone).await,
            }
        };
        tokio::select! {
            ended = work => ended,
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    })
}

async fn in_cluster(run: Run) -> Result<()> {
    let Run { places, node_name, namespace, health_port } = run;
    let ready = Ready::default();
    let mut tasks = JoinSet::new();
    tasks.spawn(health::serve(health_port, ready.clone()));
    let client = kube::Client::try_default().await.context("no way to the Kubernetes API")?;
    let cluster = Cluster::watch(client, &node_name, &namespace, &mut tasks);
    let agent = Agent::start(&places.into())?;
    tokio::select! {
        ended = follow_cluster(agent, cluster, ready) => ended,
        Some(ended) = tasks.join_next() => match ended? {
            Ok(()) => bail!("a task ended that should run as long as the process"),
            Err(error) => Err(error),
        },
    }
}

async fn follow_cluster(mut agent: Agent, mut cluster: Cluster, ready: Ready) -> Result<()> {
    cluster.ready().await?;
    let mut next_sweep = Instant::now();
    loop {
        let sweep = next_sweep <= Instant::now();
        if sweep {
            next_sweep = Instant::now() + SWEEP;
        }
        let mut wake = next_sweep;
        if let Some(wants) = cluster.wants() {
            agent.pass(&wants, &cluster, sweep).await;
            wake = agent.next_retry().map_or(wake, |retry| wake.min(retry));
            let written = cluster.write(agent.report()).await;
            ready.set(written.is_ok());
            if let Err(error) = written {
                tracing::warn!("{error:#}");
                wake = wake.min(Instant::now() + WRITE_AGAIN);
            }
        }
        tokio::select! {
            () = cluster.changed() => {}
            () = tokio::time::sleep_until(wake.into()) => {}
        }
    }
}

async fn alone(standalone: Standalone) -> Result<()> {
    let Standalone { places, manifests, node_name } = standalone;
    let mut agent = Agent::start(&places.into())?;
    let mut folder = Folder::new(&manifests, &node_name);
    let mut next_sweep = Instant::now();
    loop {
        let changed = folder.scan().with_context(|| format!("can't read {}", manifests.display()))?;
        let now = Instant::now();
        let sweep = next_sweep <= now;
        if changed || sweep || agent.next_retry().is_some_and(|retry| retry <= now) {
            agent.pass(&folder.wants(), &folder, sweep).await;
            if let Some(table) = folder.write(&agent.report(), Timestamp::now())? {
                print!("{table}");
            }
        }
        if sweep {
            next_sweep = Instant::now() + SWEEP;
        }
        sleep(SCAN).await;
    }
}
