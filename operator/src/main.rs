//! The operator's process: arguments, logs, signals, exit code.

use std::{future::Future, io, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use k8s_openapi::jiff::SignedDuration;
use kube::Client;
use sockeye_client::LogArgs;
use sockeye_metrics::serve::MetricsArgs;
use sockeye_operator::{
    Config,
    commands::{builtins, crds, uninstall},
    images::args::ImageArgs,
    signing::PolicyFiles,
};
use tokio::{
    select,
    signal::unix::{SignalKind, signal},
};
use tracing::info;

/// Validates BpfPrograms, dispatches them as BpfRevisions, and folds the nodes' reports into one status.
#[derive(Debug, Parser)]
#[command(version, subcommand_negates_reqs = true)]
struct Args {
    /// Without a command, it is the operator and runs until it is told to stop.
    #[command(subcommand)]
    command: Option<Command>,
    /// The namespace sockeye is installed in.
    #[arg(long, env = "POD_NAMESPACE", required = true)]
    namespace: Option<String>,
    /// The label selector of the agents' pods.
    #[arg(long, env = "SOCKEYE_AGENT_SELECTOR", default_value = Config::AGENT_SELECTOR)]
    agent_selector: String,
    /// The port of /healthz and /readyz; 0 for none.
    #[arg(long, env = "SOCKEYE_HEALTH_PORT", default_value_t = 8080)]
    health_port: u16,
    #[command(flatten)]
    metrics: MetricsArgs,
    #[command(flatten)]
    images: ImageArgs,
    /// A file with the policy for signatures, as JSON. Without one, nothing needs a signature.
    #[arg(long, value_name = "FILE")]
    signature_policy: Option<PathBuf>,
    /// A file with the trust root for signatures by identity: a trusted_root.json.
    #[arg(long, value_name = "FILE")]
    trusted_root: Option<PathBuf>,
    /// Nodes verify signatures too: what they could not verify is refused.
    #[arg(long)]
    nodes_verify: bool,
    #[command(flatten)]
    log: LogArgs,
}

/// A command that runs once.
#[derive(Debug, Subcommand)]
enum Command {
    /// Create or upgrade the CustomResourceDefinitions, but never replace a newer one.
    Crds {
        /// The time to wait until they are served.
        #[arg(long, default_value = "60s", value_parser = duration)]
        timeout: Duration,
    },
    /// Delete all BpfPrograms and wait until they are gone. Operator and agents must still run.
    Uninstall {
        /// The time to wait.
        #[arg(long, default_value = "120s", value_parser = duration)]
        timeout: Duration,
        /// Delete the CustomResourceDefinitions afterwards.
        #[arg(long)]
        crds: bool,
    },
    /// Write the programs that ship with sockeye as ELF objects, NAME.o. Needs no cluster.
    Builtins {
        /// The directory to write to.
        #[arg(long, default_value = ".")]
        output: PathBuf,
    },
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration: SignedDuration = text.parse().map_err(|error| format!("{error}; write it as 120s or 2m"))?;
    duration.try_into().map_err(|_| "it is negative".to_owned())
}

fn main() -> ExitCode {
    let args = Args::parse();
    args.log.init();
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: Args) -> anyhow::Result<()> {
    // One thread runs all tasks. Checks of objects run on blocking threads.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build()?;
    let result = runtime.block_on(run(args));
    // Do not wait for a check.
    runtime.shutdown_background();
    result
}

async fn run(args: Args) -> anyhow::Result<()> {
    let Args { command, namespace, agent_selector, health_port, metrics, images, .. } = args;
    let policy =
        PolicyFiles { policy: args.signature_policy, trust_root: args.trusted_root, nodes_verify: args.nodes_verify };
    match command {
        Some(Command::Builtins { output }) => Ok(builtins::write(&output)?),
        Some(Command::Crds { timeout }) => {
            let client = Client::try_from(kubeconfig().await?)?;
            until_told_to_stop(crds::install(client, timeout)).await
        }
        Some(Command::Uninstall { timeout, crds }) => {
            let client = Client::try_from(kubeconfig().await?)?;
            let options = uninstall::Options { namespace, timeout, deletes_crds: crds };
            until_told_to_stop(uninstall::run(client, options)).await
        }
        None => {
            let namespace = namespace.context("--namespace is missing")?;
            let kubeconfig = kubeconfig().await?;
            let config = Config {
                agent_selector,
                health_port,
                metrics: metrics.into(),
                images,
                policy,
                ..Config::new(namespace)
            };
            info!(version = env!("CARGO_PKG_VERSION"), namespace = config.namespace, "starting");
            let told = told_to_stop()?;
            let stop = async { info!("{}", told.await) };
            Ok(sockeye_operator::run(kubeconfig, config, stop).await?)
        }
    }
}

async fn kubeconfig() -> anyhow::Result<kube::Config> {
    kube::Config::infer().await.context("finding out how to reach the API server")
}

/// Runs a command. The signal to stop makes it fail.
async fn until_told_to_stop<E: Into<anyhow::Error>>(
    command: impl Future<Output = Result<(), E>>,
) -> anyhow::Result<()> {
    select! {
        ended = command => ended.map_err(Into::into),
        told = told_to_stop()? => bail!(told),
    }
}

/// Waits for the signal to stop, which is caught from now on.
fn told_to_stop() -> io::Result<impl Future<Output = &'static str>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        select! {
            _ = terminate.recv() => "told to stop",
            _ = interrupt.recv() => "interrupted",
        }
    })
}
