//! A node of a cluster: the API server says what the node is to run, and is told what it holds.
//!
//! | file | noun |
//! |---|---|
//! | this one | the tasks around a [`Controller`], which read the API server and write to it |
//! | [`watches`] | the objects that are watched, in stores |
//! | [`view`] | the [`Assignment`](crate::model::assignment::Assignment) that follows from the stores |
//! | `context` | what the tasks share |
//! | [`pods`] | the watches of pods and namespaces |
//! | [`bytecode`] | objects, fetched by digest |
//! | `verify_task` | runs `control::verify`, one object at a time |
//! | `known_good` | retired revisions that were in effect, read by name |
//! | [`probe`] | whether the API server can be reached, and when the kubelet renewed the node's Lease last |
//! | [`status_writer`] | the node's status, written to its BpfNode; [`throttle`] says what of it waits |
//! | [`detail_writer`] | the node's detail, written to its BpfNodeDetail |
//! | [`object_writer`] | what both share: one object of the node's own |
//!
//! Guarantees:
//! - nothing is assigned before every list is complete; a watch that fails, a 403 or a missing CRD leaves the last
//!   assignment;
//! - a revision that this agent can't read freezes its BpfProgram; a BpfNode that it can't read is written anew;
//! - bytes are fetched only when a load needs them.

pub mod bytecode;
mod context;
pub mod detail_writer;
mod known_good;
pub mod object_writer;
pub mod pods;
pub mod probe;
pub mod status_writer;
#[cfg(test)]
mod tests;
pub mod throttle;
mod verify_task;
pub mod view;
pub mod watches;

use std::{convert::Infallible, sync::Arc};

use anyhow::Result;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client, Config};
use sockeye_client::Readiness;
use sockeye_metrics::AgentMetrics;
use sockeye_provenance::Verifier;
use tokio::sync::{mpsc, watch};

use self::{
    bytecode::StoredObjects,
    context::{Tasks, WatchContext},
    detail_writer::DetailWriter,
    pods::{PodWatches, Requirement},
    probe::Prober,
    status_writer::StatusWriter,
    view::View,
    watches::Watches,
};
use crate::{
    admission::{Admission, gate::Answers},
    control::{
        Controller,
        event::{Effect, Event, Report},
        newest::Newest,
        run::{self, Events},
        verify::Verification,
    },
    node::Node,
    read_api::{ReadApi, Sources, inquirer::Inquirer},
};

/// The cluster that a node belongs to.
#[derive(Clone)]
pub struct Cluster {
    /// Makes all requests but probes.
    pub client: Client,
    /// Makes connections of their own, for probes; absent means that the client probes too.
    pub config: Option<Config>,
    /// The node's name.
    pub node_name: String,
    /// The namespace that sockeye is installed in: objects and the suspension are there.
    pub namespace: String,
    /// The policy by which this node verifies who signed objects, and what it trusts, if it does.
    pub verifier: Option<Arc<Verifier>>,
    /// Ready once the lists are complete and the status is written.
    pub readiness: Readiness,
}

impl Cluster {
    /// Runs a controller for the node, and lets it answer the container runtime and whoever asks, until a task ends,
    /// which none does well.
    ///
    /// # Errors
    /// Always: what ended, and why.
    pub async fn run<N>(
        self,
        controller: Controller<N>,
        admission: &mut Admission,
        read_api: &mut ReadApi,
    ) -> Result<Infallible>
    where
        N: Node + Send + 'static,
    {
        let Self { client, node_name, .. } = &self;
        let controller = controller.verifying(self.verifier.is_some());
        let mut tasks = Tasks::new();
        let metrics = controller.metrics();
        let context = WatchContext {
            readiness: self.readiness.clone(),
            metrics: Some(metrics.client.clone()),
            ..WatchContext::default()
        };
        let watches = Watches::start(client, node_name, &self.namespace, &context, &mut tasks);
        let pods = PodWatches::start(client, node_name, &context, &mut tasks);
        let (on_effect, inboxes) = channels(admission.answers(), read_api.inquirer());
        let (events, mut controlling) = run::run(controller, on_effect)?;
        read_api.serve(Sources {
            node_name: self.node_name.clone(),
            events: events.clone(),
            objects: Arc::new(StoredObjects::new(self.config_maps())),
        })?;
        self.spawn_tasks(inboxes, &events, (&watches, pods.requirement(), &context, &metrics), &mut tasks);
        // Before anything is assigned, so that no program seems to be in effect that the runtime does not ask about.
        admission.connect(events.clone());
        let view = View::new(watches, pods, self.namespace);
        tasks.spawn(view.follow(Arc::clone(&context.changed), events));

        tokio::select! {
            ended = controlling.ended() => ended,
            ended = admission.ended() => ended,
            Some(ended) = tasks.join_next() => ended?,
        }
    }
    /// Starts the tasks that carry out the controller's effects.
    fn spawn_tasks(
        &self,
        inboxes: Inboxes,
        events: &Events,
        (watches, requirement, context, metrics): (&Watches, Requirement, &WatchContext, &AgentMetrics),
        tasks: &mut Tasks,
    ) {
        let Self { client, config, node_name, namespace: _, verifier, readiness: _ } = self;
        let Inboxes { reports, fetches, revisions, verifications, probes } = inboxes;
        let backoff = || Arc::clone(&context.backoff);
        let answer = events.clone();
        let fetched = move |digest, bytes| answer.send(Event::BytesArrived { digest, bytes });
        tasks.spawn(bytecode::fetch(self.config_maps(), backoff(), fetches, fetched));
        if let Some(verifier) = verifier.clone() {
            let answer = events.clone();
            let verified = move |claim, verdict| answer.send(Event::ObjectVerified { claim, verdict });
            tasks.spawn(verify_task::judge(verifier, verifications, verified));
        }
        let answer_revision = events.clone();
        let fetched = move |known_good::Request { program, name }, answer| {
            answer_revision.send(Event::RevisionArrived { program, name, answer });
        };
        tasks.spawn(known_good::fetch(Api::all(client.clone()), backoff(), revisions, requirement, fetched));
        let prober = Prober::new(client.clone(), config.clone(), node_name.clone());
        tasks.spawn(prober.run(probes, events.clone()));
        let (detail, details) = watch::channel(None);
        let (client, node_name, node) = (client.clone(), node_name.clone(), watches.node.clone());
        tasks.spawn(DetailWriter::new(client.clone(), node_name.clone(), node.clone()).run(details));
        let writer =
            StatusWriter::new(client, node_name, node, watches.bpf_node.clone(), detail).counting(metrics.clone());
        tasks.spawn(writer.run(reports, context.readiness.clone(), backoff()));
    }

    fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

/// What the controller's effects become for the tasks.
struct Inboxes {
    reports: Arc<Newest<Box<Report>>>,
    fetches: mpsc::UnboundedReceiver<String>,
    revisions: mpsc::UnboundedReceiver<known_good::Request>,
    verifications: mpsc::UnboundedReceiver<Verification>,
    probes: mpsc::UnboundedReceiver<()>,
}

/// Returns what takes the controller's effects, and where the tasks receive them.
fn channels(answers: Answers, inquirer: Inquirer) -> (impl FnMut(Effect) + Send + 'static, Inboxes) {
    let reports = Arc::new(Newest::default());
    let (fetch, fetches) = mpsc::unbounded_channel();
    let (fetch_revision, revisions) = mpsc::unbounded_channel();
    let (verify, verifications) = mpsc::unbounded_channel();
    let (probe, probes) = mpsc::unbounded_channel();
    let inboxes = Inboxes { reports: Arc::clone(&reports), fetches, revisions, verifications, probes };
    let on_effect = move |effect| match effect {
        Effect::WriteStatus(report) => drop(reports.put(report)),
        Effect::AnswerStart(id, decision) => answers.answer(id, decision),
        Effect::AnswerInquiry(id, inspection) => inquirer.answer(id, inspection),
        Effect::FetchBytes(digest) => drop(fetch.send(digest)),
        Effect::VerifyObject(verification) => drop(verify.send(*verification)),
        Effect::FetchRevision { program, name } => {
            drop(fetch_revision.send(known_good::Request { program, name }));
        }
        Effect::ProbeApiServer => drop(probe.send(())),
        // Carried out by the controller's thread.
        Effect::WatchHomes { .. } | Effect::WatchPods(_) => {}
    };
    (on_effect, inboxes)
}
