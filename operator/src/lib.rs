//! The operator: validates BpfPrograms, dispatches them as BpfRevisions, and folds the nodes' reports into one status.
//!
//! Start reading at [`reconcile`]. Data flows through the modules in this order:
//!
//! | module | noun | IO |
//! |---|---|---|
//! | [`watch`] | the API server's objects, and the changes that trigger a reconciliation | lists and watches |
//! | [`controller`] | the loop, its queue, and garbage collection | none |
//! | [`images`] | the images that BpfPrograms want, pulled while no reconciliation waits | registries |
//! | [`reconcile`] | gather, validate, plan, apply, update status: one BpfProgram | reads and writes |
//! | [`events`] | Kubernetes Events about status transitions and drift | writes |
//! | [`leader`] | the election of the one operator that writes | requests about one Lease |
//!
//! Beside them: [`config`], [`health`], [`metrics`] and [`signing`], and [`commands`] that run once, as the chart's
//! Jobs.
//!
//! Guarantees
//! - Nothing is written when nothing changed, but for the leader's Lease every two seconds.
//! - One operator of a cluster writes. Another writes within 15 s of its death, and within 2 s of its orderly stop.
//! - Bytes are stored before the revision that names them, and a revision is created before a status claims it.
//! - A rejected edit changes no revision. A BpfProgram has one active revision.
//! - A write that is based on an old version of its object changes nothing. So an operator that is late, because
//!   another one took its place, undoes nothing.
//! - A deleted BpfProgram goes when no live node reports it, after its last status. Other nodes delay nothing.
//! - All state is in the API, so the operator may be killed at any time. An object that cannot be read, or whose
//!   reconciliation panics, affects no other.
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
//! | release namespace | coordination.k8s.io | leases | create; and of its own, get, list, watch, update |
//! | cluster | authentication.k8s.io | tokenreviews | create (metrics that are secure) |
//! | cluster | authorization.k8s.io | subjectaccessreviews | create (metrics that are secure) |
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
//! - Environment: `POD_NAMESPACE` (the release namespace; required), `POD_NAME` (the reporting instance of Events),
//!   `POD_NAME` and `POD_UID` (the identity in the Lease; all optional), `RUST_LOG` (the log's level).
//! - Arguments: `--namespace`, `--agent-selector`, `--health-port`, `--log-format`, each also by environment;
//!   `--metrics-port`; see `--help`.
//! - It listens on `--health-port` (8080) for `/healthz` and `/readyz`, and on `--metrics-port`, if it is given, for
//!   `/metrics`.
//! - Agents' pods are those in the release namespace with the labels of [`Config::AGENT_SELECTOR`].

pub mod commands;
pub mod config;
pub mod controller;
pub mod events;
pub mod health;
pub mod images;
pub mod leader;
pub mod metrics;
pub mod reconcile;
pub mod signing;
pub mod watch;

use std::{convert::Infallible, env, future::Future, pin::pin, sync::Arc};

use kube::{
    Api,
    runtime::{events::Reporter, reflector::store::WriterDropped},
};
use prometheus_client::registry::Registry;
use sockeye_client::{counting_client, probes, urgent_client};
use sockeye_metrics::OperatorMetrics;
use tokio::{
    select,
    sync::{mpsc, watch::channel},
    task::{JoinError, JoinSet},
};

pub use config::Config;
use controller::{Controller, WatchesEnded};
use events::publisher::Publisher;
pub use health::Health;
use images::{Images, puller::Puller};
use leader::{
    Candidate, Lost, Phase,
    gate::Gate,
    identity::identity,
    requests::{REQUEST_TIMEOUT, Requests},
};
use reconcile::{Context, apply::Writer, gather::Reader, stored_object::StoredObjects};
use signing::Signing;
use sockeye_registry::Client as RegistryClient;

/// The operator ended without being told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The control loop ended.
    #[error(transparent)]
    Controller(#[from] WatchesEnded),
    /// Another operator leads, or may.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// There is no client of the API server.
    #[error("cannot make a client of the API server: {0}")]
    Client(#[from] kube::Error),
    /// The probes' port cannot be opened.
    #[error(transparent)]
    Probes(#[from] probes::Error),
    /// The metrics can't be served.
    #[error(transparent)]
    Metrics(#[from] sockeye_metrics::serve::Error),
    /// A task panicked.
    #[error("a task panicked: {0}")]
    Panic(#[from] JoinError),
    /// The registries' settings can't be used.
    #[error(transparent)]
    Images(#[from] images::args::Error),
    /// The policy for signatures can't be used.
    #[error(transparent)]
    Signing(#[from] signing::Error),
    /// A watch ended before it listed anything.
    #[error("a watch ended before it listed anything")]
    NeverListed(#[from] WriterDropped),
}

/// Runs the operator until `stop` ends, or with an error once one of its tasks ends or leadership is lost.
///
/// The future may be dropped at any time. Then another operator waits until the Lease ends.
pub async fn run(kubeconfig: kube::Config, config: Config, stop: impl Future<Output = ()>) -> Result<(), Error> {
    let (health, mut stop) = (Health::default(), pin!(stop));
    let mut tasks = JoinSet::<Result<Infallible, Error>>::new();
    if config.health_port != 0 {
        let (health, port) = (health.clone(), config.health_port);
        tasks.spawn(async move { Ok(probes::serve(port, health).await?) });
    }
    let mut counters = Registry::default();
    let metrics = OperatorMetrics::new(&mut counters);
    let client = counting_client(kubeconfig.clone(), Some(metrics.client.clone()))?;
    let questions = metrics::start(client.clone(), &config.metrics, (counters, &metrics), &mut tasks)?;
    let (triggers, triggered) = mpsc::unbounded_channel();
    let stores = watch::start(&client, (&config, &metrics.client), &triggers, &mut tasks);
    let signing = Signing::read(&config.policy)?;
    let images = start_images(&config, &signing, (&triggers, &metrics), &mut tasks)?;
    // The watches have the only senders that count, so the loop notices when they end.
    drop(triggers);
    let pod = env::var("POD_NAME").ok();
    let namespace = config.namespace.clone();
    let identity = identity(pod.as_deref(), env::var("POD_UID").ok().as_deref());
    let requests =
        Requests::new(urgent_client(kubeconfig, REQUEST_TIMEOUT)?, namespace.clone(), identity.clone(), health.clone());
    let (leases, gate) = (Api::namespaced(client.clone(), &namespace), Gate::default());
    let guarded = gate.guard(client);
    let candidate = Candidate { identity, requests, leases, gate };

    let publisher = Publisher::new(guarded.clone(), Reporter { controller: config::MANAGER.to_owned(), instance: pod });
    let stored = StoredObjects::new(guarded.clone(), &namespace);
    let writer = Writer::new(guarded.clone(), namespace.clone(), stored.clone(), publisher, health.clone());
    let writer = writer.counting(metrics.clone());
    let needs_proof = signing.has_policy();
    let reader = Reader { client: guarded, namespace, stores: stores.clone(), stored, images, needs_proof };
    let context = Context { reader, writer, event_budget: Arc::default(), signing, metrics };
    let (phases, phase) = channel(Phase::StandBy);
    let elected = async {
        // It stands for election once it could do the work.
        select! {
            ready = stores.wait_until_ready() => ready?,
            () = &mut stop => return Ok(()),
        }
        health.set_listed();
        let controller = Controller::new(context, config, health.clone(), questions);
        let work = async { Ok::<_, Error>(controller.run(triggered, phase).await?) };
        candidate.run(stop, phases, work).await
    };
    select! {
        ended = elected => ended,
        Some(ended) = tasks.join_next() => match ended?? {},
    }
}

/// Starts the task that pulls images. It pulls nothing before a reconciliation wants something, so only the leader's
/// does.
fn start_images(
    config: &Config,
    signing: &Signing,
    (triggers, metrics): (&watch::Triggers, &OperatorMetrics),
    tasks: &mut JoinSet<Result<Infallible, Error>>,
) -> Result<Images, Error> {
    let args = &config.images;
    let client = RegistryClient::new(args.settings()?).map_err(images::args::Error::from)?;
    let puller = Puller::new(client, args.image_pull_secrets.clone(), signing.has_policy());
    let images = Images::new(args.image_resolve_interval).counting(metrics.clone());
    let (shared, triggers) = (images.clone(), triggers.downgrade());
    tasks.spawn(async move { Ok(shared.run(triggers, move |job| puller.clone().pull(job)).await) });
    Ok(images)
}
