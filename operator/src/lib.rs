//! The operator: validates BpfPrograms, dispatches them as BpfRevisions, and folds the nodes' reports into one status.
//!
//! Start reading at [`reconcile`]. Data flows through the modules in this order:
//!
//! | module | noun | IO |
//! |---|---|---|
//! | [`watch`] | the API server's objects, and the changes that trigger a reconciliation | lists and watches |
//! | [`controller`] | the loop, its queue, and garbage collection | none |
//! | [`reconcile`] | gather, validate, plan, apply, update status: one BpfProgram | reads and writes |
//! | [`events`] | Kubernetes Events about status transitions and drift | writes |
//!
//! Beside them: [`config`] and [`health`], and [`commands`] that run once, as the chart's Jobs.
//!
//! Guarantees
//! - Nothing is written when nothing changed: an idle cluster causes no writes.
//! - Bytes are stored before the revision that names them, and a revision is created before a status claims it.
//! - A rejected edit changes no revision. A BpfProgram has one active revision.
//! - A write that is based on an old version of its object changes nothing. So an operator that is late, because another
//!   one took its place, undoes nothing.
//! - A deleted BpfProgram goes when no live node reports it, after its last status. Other nodes delay nothing.
//! - All state is in the API, so the operator may be killed at any time. An object that cannot be read, or whose
//!   reconciliation panics, affects no other.
//!
//! Assumption: there is one operator per cluster (one replica, strategy `Recreate`; there is no leader election yet).
//!
//! # Permissions
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
//! The command `crds` needs get, create and patch of the CustomResourceDefinitions. The command `uninstall` needs list
//! and delete of BpfPrograms, list of BpfNodes, deletecollection of ConfigMaps, and with `--crds` delete of the
//! definitions.
//!
//! It reads no BpfNodeDetail: what it needs of a node is in the BpfNode.
//!
//! # Settings
//!
//! - Environment: `POD_NAMESPACE` (the release namespace; required), `POD_NAME` (the reporting instance of Events;
//!   optional), `RUST_LOG`.
//! - Arguments: `--namespace`, `--agent-selector`, `--health-port`, `--log-format`, each also by environment; see
//!   `--help`.
//! - It listens on `--health-port` (8080) alone, for `/healthz` and `/readyz`.
//! - Agents' pods are those in the release namespace with the labels of [`Config::AGENT_SELECTOR`].

pub mod commands;
pub mod config;
pub mod controller;
pub mod events;
pub mod health;
pub mod reconcile;
pub mod watch;

use std::{convert::Infallible, env, sync::Arc};

use kube::{
    Client,
    runtime::{events::Reporter, reflector::store::WriterDropped},
};
use sockeye_client::probes;
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
};

pub use config::Config;
use controller::{Controller, WatchesEnded};
use events::publisher::Publisher;
pub use health::Health;
use reconcile::{Context, apply::Writer, gather::Reader, stored_object::StoredObjects};

/// The operator ended, which it never should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The control loop ended.
    #[error(transparent)]
    Controller(#[from] WatchesEnded),
    /// The probes' port cannot be opened.
    #[error(transparent)]
    Probes(#[from] probes::Error),
    /// A task panicked.
    #[error("a task panicked: {0}")]
    Panic(#[from] JoinError),
    /// A watch ended before it listed anything.
    #[error("a watch ended before it listed anything")]
    NeverListed(#[from] WriterDropped),
}

/// Runs the operator until one of its tasks ends, which is an error. The future may be dropped at any time.
pub async fn run(client: Client, config: Config) -> Result<Infallible, Error> {
    let health = Health::default();
    let mut tasks = JoinSet::new();
    if config.health_port != 0 {
        let (health, port) = (health.clone(), config.health_port);
        tasks.spawn(async move { Ok(probes::serve(port, health).await?) });
    }
    let (triggers, triggered) = mpsc::unbounded_channel();
    let stores = watch::start(&client, &config, &triggers, &mut tasks);
    // The watches have the only senders, so the loop notices when they end.
    drop(triggers);
    let reporter = Reporter { controller: config::MANAGER.to_owned(), instance: env::var("POD_NAME").ok() };
    let publisher = Publisher::new(client.clone(), reporter);
    let namespace = config.namespace.clone();
    let stored = StoredObjects::new(client.clone(), &namespace);
    let writer = Writer::new(client.clone(), namespace.clone(), stored.clone(), publisher, health.clone());
    let reader = Reader { client, namespace, stores: stores.clone(), stored };
    let context = Context { reader, writer, drift_budget: Arc::default() };
    tasks.spawn(async move {
        stores.wait_until_ready().await?;
        health.set_listed();
        Ok(Controller::new(context, config, health).run(triggered).await?)
    });
    match tasks.join_next().await {
        Some(ended) => ended?,
        None => Err(WatchesEnded.into()),
    }
}
