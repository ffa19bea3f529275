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
//! | `verification` | objects, judged by the node's own policy |
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
mod verification;
pub mod view;
pub mod watches;

use std::{convert::Infallible, sync::Arc};

use anyhow::Result;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client, Config};
use sockeye_client::Readiness;
use sockeye_provenance::Verifier;
use tokio::sync::{mpsc, watch};

use self::{
    bytecode::StoredObjects,
    context::{Tasks, WatchContext},
    detail_writer::DetailWriter,
    status_writer::StatusWriter,
    view::View,
    watches::Watches,
};
use crate::{
    admission::Admission,
    control::{
        Controller,
        event::{Effect, Event},
        newest::Newest,
        run,
    },
    node::Node,
    read_api::{ReadApi, Sources},
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
        let Self { client, config, node_name, namespace, verifier, readiness } = self;
        let controller = controller.verifying(verifier.is_some());
        let mut tasks = Tasks::new();
        let context = WatchContext { readiness, ..WatchContext::default() };
        let watches = Watches::start(&client, &node_name, &namespace, &context, &mut tasks);
        let pods = pods::PodWatches::start(&client, &node_name, &context, &mut tasks);

        let reports = Arc::new(Newest::default());
        let newest_report = Arc::clone(&reports);
        let (fetch, fetches) = mpsc::unbounded_channel();
        let (fetch_revision, revisions) = mpsc::unbounded_channel();
        let (verify, verifications) = mpsc::unbounded_channel();
        let (probe, probes) = mpsc::unbounded_channel();
        let (answers, inquirer) = (admission.answers(), read_api.inquirer());
        let (events, mut controlling) = run::run(controller, move |effect| match effect {
            Effect::WriteStatus(report) => drop(newest_report.put(report)),
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
        })?;

        let config_maps = Api::<ConfigMap>::namespaced(client.clone(), &namespace);
        read_api.serve(Sources {
            node_name: node_name.clone(),
            events: events.clone(),
            objects: Arc::new(StoredObjects::new(config_maps.clone())),
        })?;
        let answer_fetch = events.clone();
        let fetched = move |digest, bytes| answer_fetch.send(Event::BytesArrived { digest, bytes });
        tasks.spawn(bytecode::fetch(config_maps, Arc::clone(&context.backoff), fetches, fetched));
        if let Some(verifier) = verifier {
            let answer_verification = events.clone();
            let verified = move |claim, verdict| answer_verification.send(Event::ObjectVerified { claim, verdict });
            tasks.spawn(verification::judge(verifier, verifications, verified));
        }
        let answer_revision = events.clone();
        let fetched = move |known_good::Request { program, name }, answer| {
            answer_revision.send(Event::RevisionArrived { program, name, answer });
        };
        let backoff = Arc::clone(&context.backoff);
        let api = Api::all(client.clone());
        tasks.spawn(known_good::fetch(api, backoff, revisions, pods.requirement(), fetched));
        let prober = probe::Prober::new(client.clone(), config, node_name.clone());
        tasks.spawn(prober.run(probes, events.clone()));
        let (detail, details) = watch::channel(None);
        let detail_writer = DetailWriter::new(client.clone(), node_name.clone(), watches.node.clone());
        tasks.spawn(detail_writer.run(details));
        let writer = StatusWriter::new(client, node_name, watches.node.clone(), watches.bpf_node.clone(), detail);
        tasks.spawn(writer.run(reports, context.readiness.clone(), Arc::clone(&context.backoff)));
        // Before anything is assigned, so that no program seems to be in effect that the runtime does not ask about.
        admission.connect(events.clone());
        let view = View::new(watches, pods, namespace);
        tasks.spawn(view.follow(Arc::clone(&context.changed), events));

        tokio::select! {
            ended = controlling.ended() => ended,
            ended = admission.ended() => ended,
            Some(ended) = tasks.join_next() => ended?,
        }
    }
}
