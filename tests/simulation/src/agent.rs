//! [`Agent`]: an agent's process: its own controller, throttle and writer of statuses, and around them what its tasks
//! do.

use std::{collections::BTreeMap, mem, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::watcher::Event as Shown,
};
use serde_json::Value;
use sockeye_agent::{
    cluster::{
        object_writer::{Existing, ObjectWriter},
        throttle::{Passed, Throttle},
    },
    control::{
        Controller,
        connectivity::ProbeResult,
        event::{Effect, Event},
        fetches::Refused,
    },
    model::{
        architecture::on_this_architecture,
        assignment::{Assignment, ReportedRevision},
    },
};
use sockeye_client::is_transient;
use sockeye_crds::{
    BpfNode, BpfNodeStatus, BpfRevision,
    names::{OBJECT_KEY, object_config_map},
    revision::assigned,
};
use sockeye_fake::settings;
use tokio::{
    select,
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    api::{NAMESPACE, Shared, feed::Feed, kind::Kind},
    fault::Fault,
    node::SimNode,
    random::Random,
};

/// The process of one node's agent.
pub struct Agent {
    node_name: String,
    shared: Shared,
    changes: watch::Receiver<u64>,
    client: Client,
    random: Random,
    controller: Controller<SimNode>,
    /// The time of the controller's next step, if nothing happens before.
    wake: Instant,
    events: Vec<Event>,
    revisions: Feed<DeserializeGuard<BpfRevision>>,
    node: Feed<PartialObjectMeta<Node>>,
    report: Feed<DeserializeGuard<BpfNode>>,
    assigned: BTreeMap<String, Arc<BpfRevision>>,
    /// The revisions in effect according to the BpfNode, once it was listed.
    reported: Option<Arc<BTreeMap<String, ReportedRevision>>>,
    was_assigned: bool,
    tasks: JoinSet<Done>,
    throttle: Throttle,
    newest: Option<Passed>,
    /// Is absent while it writes.
    writer: Option<Box<ObjectWriter<BpfNode>>>,
    /// The time at which the newest status is to be written, if it is.
    write_at: Option<Instant>,
    has_written: bool,
}

/// The end of a task.
enum Done {
    Happened(Event),
    Wrote(Box<ObjectWriter<BpfNode>>, bool),
}

impl Agent {
    /// Returns the process of an agent that has just started.
    pub fn new(node: SimNode, node_name: &str, shared: Shared, (client, random): (Client, Random)) -> Self {
        let process = process(node_name);
        let named = |name: &str| {
            let name = name.to_owned();
            move |object: &Value| object["metadata"]["name"] == name.as_str()
        };
        let is_active = |object: &Value| object["spec"]["state"] == "Active";
        let misses_deletions = shared.lock().fault == Some(Fault::DeletionsAreMissed);
        let is_shown = move |object: &Value| misses_deletions || is_active(object);
        let now = Instant::now();
        Self {
            node_name: node_name.to_owned(),
            changes: shared.subscribe(),
            controller: Controller::new(node, settings(), now.into_std()),
            wake: now,
            events: Vec::new(),
            revisions: Feed::new(&process, Kind::Revision, is_shown, random.fork(1)),
            node: Feed::new(&process, Kind::Node, named(node_name), random.fork(2)),
            report: Feed::new(&process, Kind::Report, named(node_name), random.fork(3)),
            assigned: BTreeMap::new(),
            reported: None,
            was_assigned: false,
            tasks: JoinSet::new(),
            throttle: Throttle::default(),
            newest: None,
            writer: Some(Box::new(ObjectWriter::new(client.clone(), node_name.to_owned()))),
            write_at: None,
            has_written: false,
            shared,
            client,
            random,
        }
    }

    /// Runs for ever.
    pub async fn run(mut self) {
        loop {
            self.pull();
            self.step();
            self.write_if_due();
            let wake = self.next_wake();
            select! {
                biased;
                Some(done) = self.tasks.join_next() => {
                    if let Ok(done) = done {
                        self.finish(done);
                    }
                }
                _ = self.changes.changed() => {}
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Takes what the watches show, and tells the controller what the node is to run.
    fn pull(&mut self) {
        let shared = self.shared.clone();
        let api = shared.lock();
        let misses_deletions = api.fault == Some(Fault::DeletionsAreMissed);
        let revisions = self.revisions.pull(&api, |_, event| match event {
            Shown::Delete(object) if misses_deletions => Shown::Apply(object),
            event => event,
        });
        let node = self.node.pull(&api, |_, event| event);
        let report = self.report.pull(&api, |_, event| event);
        let is_careless = api.fault == Some(Fault::AssignsBeforeListing);
        drop(api);
        let is_listed = self.revisions.is_listed() && self.node.is_listed() && self.report.is_listed();
        if !(revisions || node || report) || !(is_listed || is_careless && self.node.is_listed()) {
            return;
        }
        let assignment = self.assignment();
        let is_assigned = assignment.is_some();
        match assignment {
            Some(assignment) => self.events.push(Event::AssignmentChanged(Arc::new(assignment))),
            None if self.was_assigned => self.events.push(Event::AssignmentLost),
            None => {}
        }
        self.was_assigned = is_assigned;
    }

    /// Returns what the node is to run; nothing while its Node object is gone.
    fn assignment(&mut self) -> Option<Assignment> {
        let node = self.node.store().state().into_iter().next()?;
        let revisions = self.revisions.store().state();
        let readable = revisions.iter().filter_map(|guard| guard.0.as_ref().ok());
        let version = |revision: &BpfRevision| (revision.metadata.uid.clone(), revision.resource_version());
        let known = mem::take(&mut self.assigned);
        let of = |(name, revision): (&str, &BpfRevision)| match known.get(name) {
            Some(known) if version(known) == version(revision) => (name.to_owned(), Arc::clone(known)),
            _ => (name.to_owned(), Arc::new(on_this_architecture(revision.clone()))),
        };
        self.assigned = assigned(readable, node.labels()).into_iter().map(of).collect();
        let report = self.report.store();
        let reported = self.reported.get_or_insert_with(|| Arc::new(stored_revisions(report.state().first())));
        let (revisions, reported) = (self.assigned.clone(), Arc::clone(reported));
        Some(Assignment { revisions, complete: true, reported, ..Assignment::default() })
    }

    /// Has the controller take its steps, and carries out their effects.
    fn step(&mut self) {
        while !self.events.is_empty() || self.wake <= Instant::now() {
            let events = mem::take(&mut self.events);
            let result = self.controller.step(Instant::now().into_std(), events);
            self.wake = Instant::from_std(result.wake);
            for effect in result.effects {
                self.carry_out(effect);
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::WriteStatus(report) => {
                let stored = self.stored_status();
                let last = self.newest.as_ref().unwrap_or(&stored);
                if let Some(passed) = self.throttle.pass(*report, last, Instant::now().into_std()) {
                    self.newest = Some(passed);
                    self.write_at = Some(self.write_at.unwrap_or_else(Instant::now));
                }
            }
            Effect::FetchBytes(digest) => {
                let (client, delay) = (self.client.clone(), self.random.millis(500, 4_000));
                self.tasks.spawn(async move { Done::Happened(fetch_bytes(client, digest, delay).await) });
            }
            Effect::FetchRevision { program, name } => {
                let client = self.client.clone();
                self.tasks.spawn(async move { Done::Happened(fetch_revision(client, program, name).await) });
            }
            // Nothing is on trial on a fake node.
            Effect::ProbeApiServer => self.events.push(Event::ProbeAnswered(ProbeResult::Unreached)),
            Effect::AnswerStart(..)
            | Effect::AnswerInquiry(..)
            | Effect::VerifyObject(_)
            | Effect::WatchHomes { .. }
            | Effect::WatchPods(_) => {}
        }
    }

    /// Returns what the BpfNode says of BpfPrograms, as an agent before this one wrote it.
    fn stored_status(&self) -> Passed {
        let stored = self.report.store().state().into_iter().next();
        let status = stored.as_ref().and_then(|stored| stored.0.as_ref().ok()?.status.as_ref());
        let programs = status.map(|status| status.programs.clone()).unwrap_or_default();
        Passed { status: BpfNodeStatus { programs, ..BpfNodeStatus::default() }, ..Passed::default() }
    }

    fn write_if_due(&mut self) {
        if self.write_at.is_none_or(|at| at > Instant::now()) {
            return;
        }
        let reports_once = self.shared.lock().fault == Some(Fault::ReportsOnce);
        let node = self.node.store().state().into_iter().next();
        let (Some(node), Some(newest)) = (node, &self.newest) else {
            self.write_at = None;
            return;
        };
        if self.has_written && reports_once {
            self.write_at = None;
            return;
        }
        let Some(mut writer) = self.writer.take() else { return };
        let (status, report) = (newest.status.clone(), self.report.store().state().into_iter().next());
        self.write_at = None;
        self.tasks.spawn(async move {
            let existing = report.as_ref().map(|report| Existing {
                metadata: report.meta(),
                status: report.0.as_ref().ok().and_then(|known| known.status.as_ref()),
            });
            let written = writer.write(&node, existing, &status).await;
            Done::Wrote(writer, written.is_ok())
        });
    }

    fn finish(&mut self, done: Done) {
        match done {
            Done::Happened(event) => self.events.push(event),
            Done::Wrote(writer, is_written) => {
                self.writer = Some(writer);
                if is_written {
                    self.has_written = true;
                    self.shared.lock().ready_agents.insert(self.node_name.clone());
                } else {
                    self.write_at = Some(Instant::now() + self.random.millis(200, 4_000));
                }
            }
        }
    }

    fn next_wake(&mut self) -> Instant {
        let shared = self.shared.clone();
        let api = shared.lock();
        let due = [self.revisions.next_due(&api), self.node.next_due(&api), self.report.next_due(&api)];
        let write_at = self.write_at.filter(|_| self.writer.is_some());
        due.into_iter().flatten().chain(write_at).fold(self.wake, Instant::min)
    }
}

/// Returns the name of an agent's process.
pub fn process(node_name: &str) -> String {
    format!("agent-{node_name}")
}

/// Returns the revisions in effect according to a BpfNode.
fn stored_revisions(report: Option<&Arc<DeserializeGuard<BpfNode>>>) -> BTreeMap<String, ReportedRevision> {
    let status = report.and_then(|report| report.0.as_ref().ok()?.status.as_ref());
    let programs = status.into_iter().flat_map(|status| &status.programs);
    let revisions = programs.filter_map(|program| {
        let revision = program.revision.clone().or_else(|| program.known_good_revision.clone())?;
        Some((program.name.clone(), ReportedRevision { uid: program.uid.clone(), revision }))
    });
    revisions.collect()
}

/// Fetches an object. One that can't be had is asked for again after the delay.
async fn fetch_bytes(client: Client, digest: String, delay: Duration) -> Event {
    let name = object_config_map(&digest);
    let found = Api::<ConfigMap>::namespaced(client, NAMESPACE).get(&name).await;
    let bytes = found.map_err(|error| error.to_string()).and_then(|map| {
        let bytes = map.binary_data.and_then(|mut data| data.remove(OBJECT_KEY));
        bytes.map(|bytes| Arc::<[u8]>::from(bytes.0)).ok_or_else(|| format!("{name} has no object"))
    });
    Event::BytesArrived { digest, bytes: bytes.map_err(|why| Refused { why, retry_after: delay }) }
}

async fn fetch_revision(client: Client, program: String, name: String) -> Event {
    let api = Api::<BpfRevision>::all(client);
    let answer = loop {
        match api.get(&name).await {
            Ok(revision) => break Ok(Arc::new(on_this_architecture(revision))),
            Err(error) if is_transient(&error) => sleep(Duration::from_secs(1)).await,
            Err(error) => break Err(error.to_string()),
        }
    };
    Event::RevisionArrived { program, name, answer }
}
