//! sockeye-agent: one node's agent, in a cluster or alone.

use std::{fs, path::PathBuf, process::ExitCode, sync::Arc, time::Instant};

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use k8s_openapi::jiff::Timestamp;
use prometheus_client::registry::Registry;
use sockeye_agent::{
    admission::Admission,
    cluster::Cluster,
    commands::{audit, detach, remove_older_pins},
    control::{Controller, controller::Settings},
    kernel::{facts, heap, memlock},
    metrics,
    node::{
        KernelNode,
        open::{NodePaths, Opened},
    },
    plan::quota::MapQuota,
    read_api::{ReadApi, listener::ListenAddress},
    standalone::{self, folder::Folder, pod_list::PodList},
};
use sockeye_client::{LogArgs, Readiness, probes};
use sockeye_metrics::{AgentMetrics, serve::MetricsArgs};
use sockeye_provenance::Verifier;
use tokio::signal::unix::{SignalKind, signal};

/// Loads and attaches the BpfPrograms of one node. Ending it detaches nothing.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(flatten)]
    log: LogArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the BpfRevisions that the Kubernetes API has for this node.
    Run(Run),
    /// Run the manifests in a folder, without a cluster; status is written beside them.
    Standalone(Standalone),
    /// Detach everything that sockeye attached on this node, and keep it so: an agent that runs here attaches nothing
    /// until `attach --all`, or until the node boots. Programs stay loaded, and maps keep their content. Needs no
    /// cluster.
    Detach(Detach),
    /// Undo `detach --all`: the agent that runs here attaches again what nothing else suspends.
    Attach(Attach),
    /// Detach and remove the pins that another version of sockeye, with another layout, left on this node: an agent
    /// leaves them alone, reports them in the BpfNode's condition PinsCurrent, and runs nothing until they are gone.
    /// Maps and their content go too. Prints what it removes. Needs no cluster.
    RemoveOlderPins(PathArgs),
    /// Print the events of the builtin connect-audit on this node, one line of JSON each, until ended. Each event is
    /// read once: two readers see a part of them each.
    Audit(Audit),
}

#[derive(Args)]
struct Detach {
    #[command(flatten)]
    paths: PathArgs,
    /// Everything; there is no other choice yet.
    #[arg(long, required = true)]
    all: bool,
    /// The reason; every BpfProgram's status shows it.
    #[arg(long, default_value = "no reason given")]
    reason: String,
}

#[derive(Args)]
struct Attach {
    #[command(flatten)]
    paths: PathArgs,
    /// Everything; there is no other choice yet.
    #[arg(long, required = true)]
    all: bool,
}

#[derive(Args)]
struct Audit {
    /// The mount point of bpffs.
    #[arg(long, default_value = "/sys/fs/bpf")]
    bpffs: PathBuf,
    /// The name of the BpfProgram.
    #[arg(default_value = "connect-audit")]
    program: String,
}

#[derive(Args)]
struct Run {
    #[command(flatten)]
    paths: PathArgs,
    #[command(flatten)]
    quota: QuotaArgs,
    #[command(flatten)]
    memlock: MemlockArgs,
    /// This node's name.
    #[arg(long, env = "NODE_NAME")]
    node_name: String,
    /// The namespace that sockeye is installed in: the ELF objects are there.
    #[arg(long, env = "POD_NAMESPACE")]
    namespace: String,
    /// The port that answers /healthz and /readyz.
    #[arg(long, default_value_t = 8081)]
    health_port: u16,
    #[command(flatten)]
    kernel: KernelArgs,
    /// The container runtime's NRI socket: the runtime then asks the agent before it starts a container. Absent means
    /// that it does not ask.
    #[arg(long)]
    nri_socket: Option<PathBuf>,
    /// The port of 127.0.0.1 that serves the read API, which everyone who gets there may ask: the API server's
    /// port-forward, and what runs in the agent's network namespace. Absent means that it is not served.
    #[arg(long, value_name = "PORT")]
    read_api_port: Option<u16>,
    #[command(flatten)]
    metrics: MetricsArgs,
    #[command(flatten)]
    policy: PolicyArgs,
}

#[derive(Args)]
struct PolicyArgs {
    /// A file with the policy for signatures, as JSON: the agent verifies who signed an object before it loads it, and
    /// trusts the operator with nothing. Absent means that it does not.
    #[arg(long, value_name = "FILE")]
    signature_policy: Option<PathBuf>,
    /// A file with the trust root for signatures by identity: a trusted_root.json.
    #[arg(long, value_name = "FILE", requires = "signature_policy")]
    trusted_root: Option<PathBuf>,
}

impl PolicyArgs {
    fn verifier(&self) -> Result<Option<Arc<Verifier>>> {
        let Some(path) = &self.signature_policy else { return Ok(None) };
        let read = |path: &PathBuf| fs::read_to_string(path).with_context(|| path.display().to_string());
        let (policy, trusted_root) = (read(path)?, self.trusted_root.as_ref().map(read).transpose()?);
        let verifier = Verifier::read(&policy, trusted_root.as_deref()).with_context(|| path.display().to_string())?;
        Ok(Some(Arc::new(verifier)))
    }
}

#[derive(Args)]
struct Standalone {
    #[command(flatten)]
    paths: PathArgs,
    #[command(flatten)]
    quota: QuotaArgs,
    #[command(flatten)]
    kernel: KernelArgs,
    #[command(flatten)]
    memlock: MemlockArgs,
    /// The folder: X.yaml holds a BpfProgram, and its status is written to X.status.yaml; that of the node
    /// to node.status.yaml and node.detail.status.yaml.
    #[arg(long)]
    manifests: PathBuf,
    /// A file that lists this node's pods and namespaces, as `kubectl get pods,namespaces -A -o yaml` or the kubelet's
    /// /pods prints them: targets that select pods need it. It is read again whenever it changes.
    #[arg(long)]
    pods: Option<PathBuf>,
    /// Reconcile once and exit: with 0 if everything is as the manifests say.
    #[arg(long)]
    once: bool,
    /// The name under which this node is reported.
    #[arg(long, env = "NODE_NAME", default_value = "localhost")]
    node_name: String,
    /// The path of a Unix socket that serves the read API, to root alone. Absent means that it is not served.
    #[arg(long, value_name = "PATH")]
    read_api_socket: Option<PathBuf>,
}

#[derive(Args)]
struct PathArgs {
    /// The mount point of bpffs.
    #[arg(long, default_value = "/sys/fs/bpf")]
    bpffs: PathBuf,
    /// The host's mount point of bpffs, for the paths in statuses; absent means the same.
    #[arg(long)]
    host_bpffs: Option<PathBuf>,
    /// The node's cgroup root; absent means the cgroup2 mount with the outermost root.
    #[arg(long)]
    cgroup_root: Option<PathBuf>,
    /// The kubelet's own cgroup root (its --cgroup-root), as a path below the node's.
    #[arg(long, default_value = "/")]
    kubelet_cgroup_root: String,
}

impl From<PathArgs> for NodePaths {
    fn from(PathArgs { bpffs, host_bpffs, cgroup_root, kubelet_cgroup_root: kubelet_root }: PathArgs) -> Self {
        let host_bpffs = host_bpffs.unwrap_or_else(|| bpffs.clone());
        Self { host_bpffs, bpffs, cgroup_root, kubelet_root, has_api: false }
    }
}

#[derive(Args)]
struct KernelArgs {
    /// A file with the kernel's configuration, packed with gzip or not, or a folder with one that is named
    /// config-RELEASE, such as /boot: programs that read it (`__kconfig`) need one where the kernel has no
    /// /proc/config.gz.
    #[arg(long)]
    kernel_config: Option<PathBuf>,
}

#[derive(Args)]
struct QuotaArgs {
    /// The bytes that the maps of one BpfProgram may hold, e.g. 256Mi; absent means no limit.
    #[arg(long, value_parser = parse_quantity)]
    map_bytes_per_program: Option<u64>,
    /// The bytes that the maps of all BpfPrograms on this node may hold; absent means no limit.
    #[arg(long, value_parser = parse_quantity)]
    map_bytes_per_node: Option<u64>,
}

#[derive(Args)]
struct MemlockArgs {
    /// The real user ID to take on kernels that charge maps and programs to users (Linux before 5.11), so that those of
    /// other processes do not count. Needs CAP_SETUID, and gives it up at once, on every kernel, with CAP_SYS_RESOURCE.
    #[arg(long, value_name = "UID")]
    memlock_uid: Option<u32>,
}

impl From<QuotaArgs> for MapQuota {
    fn from(QuotaArgs { map_bytes_per_program, map_bytes_per_node }: QuotaArgs) -> Self {
        Self { map_bytes_per_program, map_bytes_per_node }
    }
}

fn main() -> ExitCode {
    let Cli { log, command } = Cli::parse();
    log.init();
    match start(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(command: Command) -> Result<()> {
    heap::share();
    // A descriptor of each program, map and link stays open.
    if let Err(error) = facts::raise_open_files() {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    let memlock_uid = match &command {
        Command::Run(run) => run.memlock.memlock_uid,
        Command::Standalone(standalone) => standalone.memlock.memlock_uid,
        _ => None,
    };
    // Before there is a second thread.
    memlock::prepare(memlock_uid).map_err(|error| anyhow::anyhow!("{error}"))?;
    // Two workers, so that container starts and probes are answered while one decodes a long list.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        match command {
            Command::Run(run) => in_cluster(run).await,
            Command::Standalone(standalone) => until_signal(alone(standalone)).await,
            Command::Detach(Detach { paths, all: _, reason }) => {
                until_signal(async { detach::detach_all(paths.into(), &reason) }).await
            }
            Command::Attach(Attach { paths, all: _ }) => detach::attach_all(&paths.into()),
            Command::RemoveOlderPins(paths) => until_signal(async { remove_older_pins::run(paths.into()) }).await,
            Command::Audit(Audit { bpffs, program }) => until_signal(audit::follow(&bpffs, &program)).await,
        }
    })
}

/// Runs something until it ends or the process is asked to end, which is no failure.
async fn until_signal(work: impl Future<Output = Result<()>>) -> Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        ended = work => ended,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

async fn in_cluster(run: Run) -> Result<()> {
    let Run { paths, quota, memlock: _, kernel, node_name, namespace, .. } = run;
    let Run { health_port, nri_socket, read_api_port, metrics: metrics_args, policy, .. } = run;
    let verifier = policy.verifier()?;
    let config = kube::Config::infer().await.context("no way to the Kubernetes API")?;
    let mut counters = Registry::default();
    let metrics = AgentMetrics::new(&mut counters);
    let counted = Some(metrics.client.clone());
    let client = sockeye_client::counting_client(config.clone(), counted).context("no way to the Kubernetes API")?;
    let paths = NodePaths { has_api: true, ..paths.into() };
    let controller = controller(paths, quota.into(), kernel, Some(namespace.clone()))?.counting(metrics.clone());
    let readiness = Readiness::default();
    let mut admission = Admission::new(nri_socket);
    let mut read_api = match ReadApi::open(read_api_port.map(ListenAddress::Loopback).as_ref()) {
        Ok(read_api) => read_api,
        // The node is to be looked after all the same.
        Err(error) => {
            tracing::error!(%error, read_api_port, "the read API is not served: its port can't be opened");
            ReadApi::default()
        }
    };
    let scraping = metrics::run(client.clone(), metrics_args.into(), (counters, metrics), read_api.inquirer());
    let cluster =
        Cluster { client, config: Some(config), node_name, namespace, verifier, readiness: readiness.clone() };
    let ended = until_signal(async {
        tokio::select! {
            ended = cluster.run(controller, &mut admission, &mut read_api) => match ended? {},
            ended = probes::serve(health_port, readiness) => match ended? {},
            ended = scraping => match ended? {},
        }
    })
    .await;
    admission.stop().await;
    ended
}

async fn alone(standalone: Standalone) -> Result<()> {
    let Standalone { paths, quota, kernel, memlock: _, manifests, pods, once, node_name, read_api_socket } = standalone;
    let named = || manifests.display().to_string();
    // Before anything else: until the agent has observed the node, nobody knows which statuses of an earlier boot are
    // true.
    let folder = Folder::open(&manifests, &node_name, &facts::boot_id()?).with_context(named)?;
    let folder = folder.with_pods(pods.map(PodList::new));
    let controller = controller(paths.into(), quota.into(), kernel, None)?;
    let socket = read_api_socket.map(ListenAddress::Socket);
    let mut read_api = ReadApi::open(socket.as_ref()).with_context(|| format!("the read API at {socket:?}"))?;
    standalone::run(controller, folder, once, &mut read_api).await.with_context(named)
}

/// Returns the controller of this very node.
fn controller(
    paths: NodePaths,
    quota: MapQuota,
    KernelArgs { kernel_config }: KernelArgs,
    release_namespace: Option<String>,
) -> Result<Controller<KernelNode>> {
    let Opened { node, layout, facts } = paths.open()?;
    let settings = Settings { layout, quota, facts, kernel_config, release_namespace, time_of_day: Timestamp::now };
    Ok(Controller::new(node, settings, Instant::now()))
}

/// Parses a number of bytes in the form of a Kubernetes quantity: "1048576", "1024Ki", "1Mi", "1Gi".
fn parse_quantity(quantity: &str) -> Result<u64, String> {
    let (digits, unit) = quantity.split_at(quantity.find(|c: char| !c.is_ascii_digit()).unwrap_or(quantity.len()));
    let shift = match unit {
        "" => 0,
        "Ki" => 10,
        "Mi" => 20,
        "Gi" => 30,
        "Ti" => 40,
        _ => {
            return Err(format!(
                "{quantity:?} is not a number of bytes: give a number, then Ki, Mi, Gi, Ti or nothing"
            ));
        }
    };
    let number: u64 = digits.parse().map_err(|error| format!("{quantity:?}: {error}"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("{quantity:?} is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_parse_and_others_are_refused() {
        assert_eq!(parse_quantity("10"), Ok(10));
        assert_eq!(parse_quantity("2Ki"), Ok(2048));
        assert_eq!(parse_quantity("1Gi"), Ok(1 << 30));
        for bad in ["", "Mi", "1M", "-1", "1.5Gi", "99999999Ti"] {
            assert!(parse_quantity(bad).is_err(), "{bad}");
        }
    }
}
