//! sockeye-agent: one node's agent, in a cluster or alone.

use std::{convert::Infallible, future::pending, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use sockeye_agent::{
    agent::{Agent, Places},
    audit, drive,
    fetch::{folder::Folder, listed::Listed},
    gate::Gate,
    kernel::facts,
    nri::{self, Hooked},
    policy::{self, Policy},
    switch,
};
use sockeye_client::{Readiness, probes};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tracing_subscriber::EnvFilter;

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
    /// Detach everything that sockeye holds on this node, and keep it so: an agent that runs here attaches nothing until
    /// `attach --all`, or until the node boots. Programs stay loaded, and maps keep their content. Needs no cluster.
    Detach(Detach),
    /// Take `detach --all` back: the agent that runs here attaches again what is wanted.
    Attach(Attach),
    /// Print what the builtin connect-audit tells of this node, one line of JSON for each event, until ended. An event is
    /// told once: of two that read, each sees a part.
    Audit(Audit),
}

#[derive(Args)]
struct Detach {
    #[command(flatten)]
    places: PlaceArgs,
    /// Everything; there is no other choice yet.
    #[arg(long, required = true)]
    all: bool,
    /// Why; it is shown in the status of every BpfProgram.
    #[arg(long, default_value = "no reason given")]
    reason: String,
}

#[derive(Args)]
struct Attach {
    #[command(flatten)]
    places: PlaceArgs,
    /// Everything; there is no other choice yet.
    #[arg(long, required = true)]
    all: bool,
}

#[derive(Args)]
struct Audit {
    /// Where bpffs is mounted.
    #[arg(long, default_value = "/sys/fs/bpf")]
    bpffs: PathBuf,
    /// The name of the BpfProgram.
    #[arg(default_value = "connect-audit")]
    program: String,
}

#[derive(Args)]
struct Run {
    #[command(flatten)]
    places: PlaceArgs,
    #[command(flatten)]
    policy: PolicyArgs,
    /// This node's name.
    #[arg(long, env = "NODE_NAME")]
    node_name: String,
    /// The namespace that sockeye is installed in: objects' bytes are there.
    #[arg(long, env = "POD_NAMESPACE")]
    namespace: String,
    /// Where to answer /healthz and /readyz.
    #[arg(long, default_value_t = 8081)]
    health_port: u16,
    /// The container runtime's NRI socket: it then asks before it starts a container. Absent means it does not.
    #[arg(long)]
    nri_socket: Option<PathBuf>,
}

#[derive(Args)]
struct Standalone {
    #[command(flatten)]
    places: PlaceArgs,
    #[command(flatten)]
    policy: PolicyArgs,
    /// The folder: X.yaml holds a BpfProgram, X.status.yaml gets its status.
    #[arg(long)]
    manifests: PathBuf,
    /// A file with a list of this node's pods and of namespaces, as `kubectl get pods,namespaces -A -o yaml` prints it or the
    /// kubelet's /pods: targets that pick pods are worked out with it. It is read again whenever it changes.
    #[arg(long)]
    pods: Option<PathBuf>,
    /// Take one pass and end: well, where everything is as the manifests say.
    #[arg(long)]
    once: bool,
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
    /// The kubelet's own cgroup root (its --cgroup-root), as a path below the node's.
    #[arg(long, default_value = "/")]
    kubelet_cgroup_root: String,
}

impl From<PlaceArgs> for Places {
    fn from(PlaceArgs { bpffs, host_bpffs, cgroup_root, kubelet_cgroup_root: kubelet_root }: PlaceArgs) -> Self {
        let host_bpffs = host_bpffs.unwrap_or_else(|| bpffs.clone());
        Self { host_bpffs, bpffs, cgroup_root, kubelet_root, has_api: false }
    }
}

#[derive(Args)]
struct PolicyArgs {
    /// The bytes that the maps of one BpfProgram may hold, e.g. 256Mi; absent means no bound.
    #[arg(long, value_parser = policy::bytes)]
    map_bytes_per_program: Option<u64>,
    /// The bytes that the maps of all BpfPrograms on this node may hold; absent means no bound.
    #[arg(long, value_parser = policy::bytes)]
    map_bytes_per_node: Option<u64>,
}

impl From<PolicyArgs> for Policy {
    fn from(PolicyArgs { map_bytes_per_program, map_bytes_per_node }: PolicyArgs) -> Self {
        Self { map_bytes_per_program, map_bytes_per_node }
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
    // A descriptor of each program, map and link stays open.
    if let Err(error) = facts::raise_open_files() {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    // Two workers: a pass blocks one in system calls, and the probes and watches go on on the other.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let work = async {
            match command {
                Command::Run(run) => in_cluster(run).await,
                Command::Standalone(standalone) => alone(standalone).await,
                Command::Detach(Detach { places, all: _, reason }) => switch::detach_all(places.into(), &reason),
                Command::Attach(Attach { places, all: _ }) => switch::attach_all(&places.into()),
                Command::Audit(Audit { bpffs, program }) => audit::follow(&bpffs, &program).await,
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
    let Run { places, policy, node_name, namespace, health_port, nri_socket } = run;
    let ready = Readiness::default();
    let config = kube::Config::infer().await.context("no way to the Kubernetes API")?;
    let client = sockeye_client::client(config.clone()).context("no way to the Kubernetes API")?;
    let agent = Agent::start(Places { has_api: true, ..places.into() }, policy.into())?;
    // A task of its own, so that probes are answered while a pass blocks.
    let mut health = tokio::spawn(probes::serve(health_port, ready.clone()));
    let (gate, mut hook) = hook(nri_socket);
    tokio::select! {
        ended = drive::cluster(agent, client, Some(config), &node_name, &namespace, ready, gate) => ended,
        ended = &mut health => match ended?? {},
        ended = &mut hook => match ended? {},
    }
}

/// The gate at which the runtime at that socket waits, and a task of its own, so that the runtime is answered in time.
fn hook(socket: Option<PathBuf>) -> (Gate, JoinHandle<Infallible>) {
    let Some(socket) = socket else {
        let none = "the agent was given no socket of the container runtime's (the chart's agent.nri.enabled)";
        return (Gate::none(none), tokio::spawn(pending()));
    };
    let (starting, starts) = mpsc::channel(16);
    let (status, hooked) = watch::channel(Hooked::No { why: "the runtime has not been reached yet".to_owned() });
    let served = tokio::spawn(async move { nri::serve(&socket, starting, status).await });
    (Gate::new(starts, hooked), served)
}

async fn alone(standalone: Standalone) -> Result<()> {
    let Standalone { places, policy, manifests, pods, once, node_name } = standalone;
    let named = || manifests.display().to_string();
    // Before anything else: until the agent has looked, nobody knows what of an earlier boot's statuses holds.
    let folder = Folder::open(&manifests, &node_name, &facts::boot_id()?).with_context(named)?;
    let folder = folder.with_pods(pods.map(Listed::new));
    let agent = Agent::start(places.into(), policy.into())?;
    drive::folder(agent, folder, once).await.with_context(named)
}
