//! The operator's process: arguments, logs, signals, exit code.

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use sockeye_operator::Config;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;
use tracing_subscriber::EnvFilter;

/// Validates BpfPrograms, dispatches them as BpfRevisions, and folds what the nodes say into one status.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The namespace sockeye is installed in.
    #[arg(long, env = "POD_NAMESPACE")]
    namespace: String,
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
    let Args { namespace, agent_selector, health_port, log_format: _ } = args;
    let client = kube::Client::try_default().await.context("finding out how to reach the API server")?;
    let config = Config { agent_selector, health_port, ..Config::new(namespace) };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    info!(version = env!("CARGO_PKG_VERSION"), namespace = config.namespace, "starting");
    tokio::select! {
        ended = sockeye_operator::run(client, config) => match ended? {},
        _ = terminate.recv() => info!("told to stop"),
        _ = interrupt.recv() => info!("interrupted"),
    }
    Ok(())
}

fn log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().init(),
    }
}
