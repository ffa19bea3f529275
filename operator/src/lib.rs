//! The operator: validates BpfPrograms, dispatches them as BpfRevisions, and folds what the nodes say into one status.
//!
//! Where to start reading: [`reconcile`], one look at one BpfProgram:
//!
//! | step | noun | IO |
//! |---|---|---|
//! | [`gather`] | everything that a look needs to know | reads |
//! | [`validate`] | what becomes of the latest spec | none |
//! | [`plan`] | the writes that dispatch it | none |
//! | [`apply`] | the one interpreter of [`step`]s | writes |
//! | [`summarize`] | the writes that make the status say what the nodes say | none |
//!
//! Around it: [`watch`] keeps the [`stores`] and says by [`trigger`] what changed; [`driver`] is the loop, [`queue`] its
//! timetable, [`told`] how often what is seen is told, [`memory`] what it may forget; [`cluster`] joins nodes, agents and reports; [`sweep`] finds bytes to remove;
//! [`announce`] and [`drifted`] find what is worth an Event and [`events`] publishes it; [`health`] serves the two pages.
//!
//! Two short runs of the same binary stand beside it, which the chart starts as Jobs: [`definitions`] brings the
//! CustomResourceDefinitions before an installation, [`uninstall`] removes the BpfPrograms before an uninstallation.
//!
//! Guarantees
//! - Nothing is written when nothing changed, and an idle cluster causes no write at all.
//! - Bytes are stored before the revision that names them, and the revision before the status that claims it.
//! - A refused edit changes no revision. Exactly one revision of a BpfProgram is live.
//! - A deleted BpfProgram goes when no live node reports it, its last status written; nodes that are not live do not count.
//! - All state is in the API: it may be killed at any time. One object that cannot be read or panics stops no other.
//!
//! Assumptions: one operator per cluster (one replica, `Recreate`; there is no leader election yet).
//!
//! # What it needs
//!
//! | where | group | resource | verbs |
//! |---|---|---|---|
//! | cluster | sockeye.dev | bpfprograms | list, watch, patch (the finalizer) |
//! | cluster | sockeye.dev | bpfprograms/status | patch |
//! | cluster | sockeye.dev | bpfrevisions | list, watch, create, patch, delete |
//! | cluster | sockeye.dev | bpfnodes | list, watch |
//! | cluster | | nodes | list, watch |
//! | release namespace | | configmaps | get, list, watch, create, delete |
//! | release namespace | | pods | list, watch |
//! | namespace `default` | events.k8s.io | events | create, patch |
//!
//! Environment: `POD_NAMESPACE` (the release namespace, by the downward API; required in a pod), `POD_NAME` (optional, the
//! reporting instance of Events), `RUST_LOG`. Arguments: `--namespace`, `--agent-selector`, `--health-port`, `--log-format`,
//! each also by environment; see `--help`. It listens on one port only, `--health-port` (8080), for `/healthz` and
//! `/readyz`. Agents' pods are those in the release namespace with the labels of [`Config::AGENT_SELECTOR`].
//!
//! The short runs are the subcommands `crds`, which needs the definitions' get, create and patch, and `uninstall`, which
//! needs the BpfPrograms' list and delete, the BpfNodes' list and the ConfigMaps' deletecollection, and with `--crds` the
//! definitions' delete.

pub mod announce;
pub mod apply;
pub mod cluster;
pub mod config;
pub mod definitions;
pub mod drifted;
pub mod driver;
pub mod events;
pub mod gather;
pub mod health;
pub mod memory;
pub mod plan;
pub mod queue;
pub mod reconcile;
pub mod step;
pub mod stores;
pub mod summarize;
pub mod sweep;
pub mod told;
pub mod trigger;
pub mod uninstall;
pub mod validate;
pub mod watch;

use std::convert::Infallible;

use kube::{Client, runtime::events::Reporter};
use sockeye_client::probes;
use tokio::{sync::mpsc, task::JoinSet};

pub use config::Config;
pub use health::Health;

/// Why the operator ended. It never should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The loop ended.
    #[error(transparent)]
    Driver(#[from] driver::Deaf),
    /// The probes' port cannot be opened.
    #[error(transparent)]
    Probes(#[from] probes::Error),
    /// A task panicked.
    #[error("a task panicked: {0}")]
    Panic(#[from] tokio::task::JoinError),
    /// A watch ended before it had listed anything.
    #[error("a watch ended before it had listed anything")]
    NeverListed(#[from] kube::runtime::reflector::store::WriterDropped),
}

/// What the operator's tasks return.
pub type Result<T> = std::result::Result<T, Error>;

/// Runs the operator until one of its tasks ends, which is an error. Dropping the future stops it cleanly at any point.
pub async fn run(client: Client, config: Config) -> Result<Infallible> {
    let health = Health::default();
    let mut tasks = JoinSet::new();
    if config.health_port != 0 {
        let (health, port) = (health.clone(), config.health_port);
        tasks.spawn(async move { Ok(probes::serve(port, health).await?) });
    }
    let (triggers, triggered) = mpsc::unbounded_channel();
    let stores = watch::start(&client, &config, &triggers, &mut tasks);
    drop(triggers);
    let reporter = Reporter { controller: config::MANAGER.to_owned(), instance: std::env::var("POD_NAME").ok() };
    let events = events::Events::new(client.clone(), reporter);
    let namespace = config.namespace.clone();
    let writer = apply::Writer::new(client.clone(), namespace.clone(), events, health.clone());
    let context = reconcile::Context { client, namespace, stores: stores.clone(), writer };
    tasks.spawn(async move {
        stores.ready().await?;
        health.set_listed();
        Ok(driver::Driver::new(context, config, health).run(triggered).await?)
    });
    match tasks.join_next().await {
        Some(ended) => ended?,
        None => Err(driver::Deaf.into()),
    }
}
