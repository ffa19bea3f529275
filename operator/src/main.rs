//! The operator's process: arguments, logs, signals, exit code.

use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use k8s_openapi::jiff::SignedDuration;
use kube::Client;
use sockeye_operator::{Config, definitions, uninstall};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

/// Validates BpfPrograms, dispatches them as BpfRevisions, and folds what the nodes say into one status.
#[derive(Debug, Parser)]
#[command(version, subcommand_negates_reqs = true)]
struct Args {
    /// Without one, it is the operator and runs until it is told to stop.
    #[command(subcommand)]
    errand: Option<Errand>,
    /// The namespace sockeye is installed in.
    #[arg(long, env = "POD_NAMESPACE", required = true)]
    namespace: Option<String>,
    /// The label selector of the agents' pods.
    #[arg(long, env = "SOCKEYE_AGENT_SELECTOR", default_value = Config::AGENT_SELECTOR)]
    agent_selector: String,
    /// The port of /healthz and /readyz; 0 for none.
    #[arg(long, env = "SOCKEYE_HEALTH_PORT", default_value_t = 8080)]
    health_port: u16,
    /// How to log.
    #[arg(long, env = "SOCKEYE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

/// What comes to an end by itself.
#[derive(Debug, Subcommand)]
enum Errand {
    /// Create or upgrade the CustomResourceDefinitions, but never put an older one over a newer.
    Crds {
        /// How long to wait until they are served.
        #[arg(long, default_value = "60s", value_parser = duration)]
        timeout: Duration,
    },
    /// Delete all BpfPrograms and wait until they are gone. Operator and agents must still run.
    Uninstall {
        /// How long to wait.
        #[arg(long, default_value = "120s", value_parser = duration)]
        timeout: Duration,
        /// Delete the CustomResourceDefinitions afterwards.
        #[arg(long)]
        crds: bool,
    },
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration: SignedDuration = text.parse().map_err(|error| format!("{error}; write it as 120s or 2m"))?;
    duration.try_into().map_err(|_| "it is negative".to_owned())
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    log(args.log_format);
    // One thread for everything that waits, and a few at most for what computes.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build()?;
    let outcome = runtime.block_on(run(args));
    // A check of some object's bytes is nothing to wait for.
    runtime.shutdown_background();
    outcome
}

async fn run(args: Args) -> anyhow::Result<()> {
    let Args { errand, namespace, agent_selector, health_port, log_format: _ } = args;
    let way = kube::Config::infer().await.context("finding out how to reach the API server")?;
    let is_errand = errand.is_some();
    let work = async {
        match errand {
            Some(errand) => run_errand(Client::try_from(way)?, errand, namespace).await,
            None => {
                let namespace = namespace.context("--namespace is missing")?;
                let config = Config { agent_selector, health_port, ..Config::new(namespace) };
                info!(version = env!("CARGO_PKG_VERSION"), namespace = config.namespace, "starting");
                match sockeye_operator::run(sockeye_client::client(way)?, config).await? {}
            }
        }
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        ended = work => ended,
        _ = terminate.recv() => stopped(is_errand, "told to stop"),
        _ = interrupt.recv() => stopped(is_errand, "interrupted"),
    }
}

/// An operator that is stopped has done its work; an errand that is stopped has not.
fn stopped(is_errand: bool, why: &'static str) -> anyhow::Result<()> {
    if is_errand {
        anyhow::bail!(why);
    }
    info!("{why}");
    Ok(())
}

async fn run_errand(client: Client, errand: Errand, namespace: Option<String>) -> anyhow::Result<()> {
    match errand {
        Errand::Crds { timeout } => definitions::install(client, timeout).await?,
        Errand::Uninstall { timeout, crds } => {
            uninstall::programs(client.clone(), timeout).await?;
            if let Some(namespace) = namespace {
                uninstall::bytes(client.clone(), &namespace).await.context("deleting the bytes that are stored")?;
            }
            info!("no BpfProgram is left");
            tell_left(uninstall::left(client.clone()).await);
            if crds {
                definitions::remove(client, timeout).await?;
            }
        }
    }
    Ok(())
}

/// Names the nodes whose programs nobody will remove. What can't be told is no reason to keep the release.
fn tell_left(left: Result<Vec<uninstall::Left>, kube::Error>) {
    match left {
        Ok(left) if left.is_empty() => {}
        Ok(left) => {
            for uninstall::Left { node, programs } in &left {
                warn!(node, programs = programs.join(","), "was not live, and by its last word still runs programs");
            }
            let nodes = left.len();
            warn!(
                nodes,
                "rm -r /sys/fs/bpf/sockeye there, or a reboot, removes them; so do the agents of another installation"
            );
        }
        Err(error) => warn!(%error, "listing BpfNodes: nodes that are not live may still run programs"),
    }
}

fn log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    match format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().init(),
    }
}
