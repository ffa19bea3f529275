//! Tests of the writers of the node's objects, against an API server of values.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use http::{Method, Request, Response};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Client,
    client::Body,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::{
        reflector::{self, store::Writer},
        watcher::Event,
    },
};
use serde_json::{Value, json};
use sockeye_client::{Backoff, Readiness, probes::Health as _};
use sockeye_crds::{
    BpfNode, BpfNodeDetailStatus, BpfNodeStatus, Reason,
    node::{NodeProgram, ProgramDetail, State},
};
use sockeye_metrics::AgentMetrics;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tower::util::service_fn;

use super::{detail_writer::DetailWriter, status_writer::StatusWriter};
use crate::control::{event::Report, newest::Newest, report::counts::counts};

const NODES: &str = "bpfnodes";
const DETAILS: &str = "bpfnodedetails";
const NODE_UID: &str = "node-uid";

/// An API server that has a node's two objects.
#[derive(Clone)]
struct Server(Arc<Mutex<Objects>>);

struct Objects {
    /// By their plurals.
    objects: BTreeMap<String, Value>,
    version: u64,
    start: Instant,
    /// What was written, by plural, and in which second.
    writes: Vec<(u64, String)>,
    /// The plural whose writes fail.
    failing: Option<&'static str>,
}

impl Server {
    fn new() -> Self {
        let start = Instant::now();
        let objects = BTreeMap::new();
        Self(Arc::new(Mutex::new(Objects { objects, version: 1, start, writes: Vec::new(), failing: None })))
    }

    fn lock(&self) -> MutexGuard<'_, Objects> {
        self.0.lock().unwrap()
    }

    /// The seconds in which the objects of a plural were written.
    fn writes(&self, plural: &str) -> Vec<u64> {
        self.lock().writes.iter().filter(|(_, written)| written == plural).map(|(second, _)| *second).collect()
    }

    fn object(&self, plural: &str) -> Value {
        self.lock().objects[plural].clone()
    }

    fn client(&self) -> Client {
        let server = self.clone();
        let service = service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                let plural = parts.uri.path().split('/').nth(4).unwrap().to_owned();
                let (code, answer) = server.lock().answer(&parts.method, &plural, &body);
                Response::builder().status(code).body(Body::from(answer.to_string().into_bytes()))
            }
        });
        Client::new(service, "default")
    }
}

impl Objects {
    fn answer(&mut self, method: &Method, plural: &str, body: &[u8]) -> (u16, Value) {
        let failure = |code: u16| {
            let reason = if code == 404 { "NotFound" } else { "Other" };
            (code, json!({"kind": "Status", "status": "Failure", "message": "no", "reason": reason, "code": code}))
        };
        let found = self.objects.get_mut(plural);
        if *method == Method::GET {
            return found.map_or(failure(404), |object| (200, object.clone()));
        }
        if self.failing == Some(plural) {
            return failure(500);
        }
        self.version += 1;
        let version = json!(self.version.to_string());
        let object = match (method, found) {
            (&Method::POST, None) => {
                let mut object: Value = serde_json::from_slice(body).unwrap();
                object["metadata"]["uid"] = json!(format!("uid-{}", self.version));
                self.objects.entry(plural.to_owned()).insert_entry(object).into_mut()
            }
            (&Method::POST, Some(_)) => return failure(409),
            (_, None) => return failure(404),
            (&Method::DELETE, Some(_)) => return (200, self.objects.remove(plural).unwrap()),
            (_, Some(object)) => {
                let patch: Value = serde_json::from_slice(body).unwrap();
                object["status"] = patch[0]["value"].clone();
                self.writes.push((self.start.elapsed().as_secs(), plural.to_owned()));
                object
            }
        };
        object["metadata"]["resourceVersion"] = version;
        (200, object.clone())
    }
}

/// An agent's writers, with what they see of their Node and their BpfNode.
struct Agent {
    reports: Arc<Newest<Box<Report>>>,
    bpf_node: Writer<DeserializeGuard<BpfNode>>,
    node: Writer<PartialObjectMeta<Node>>,
    readiness: Readiness,
    metrics: AgentMetrics,
    _tasks: JoinSet<()>,
}

impl Agent {
    fn start(server: &Server) -> Self {
        let (nodes, node) = reflector::store();
        let (bpf_nodes, bpf_node) = reflector::store();
        let reports = Arc::new(Newest::default());
        let (detail, details) = watch::channel(None);
        let readiness = Readiness::default();
        let metrics = AgentMetrics::default();
        let status_writer = StatusWriter::new(server.client(), "n".to_owned(), nodes.clone(), bpf_nodes, detail)
            .counting(metrics.clone());
        let detail_writer = DetailWriter::new(server.client(), "n".to_owned(), nodes);
        let mut tasks = JoinSet::new();
        let status_writing = status_writer.run(Arc::clone(&reports), readiness.clone(), Arc::<Backoff>::default());
        tasks.spawn(async move { drop(status_writing.await) });
        tasks.spawn(async move { drop(detail_writer.run(details).await) });
        let mut agent = Self { reports, bpf_node, node, readiness, metrics, _tasks: tasks };
        agent.watch_node(NODE_UID);
        agent.watch(server);
        agent
    }

    /// Has the watch show a Node.
    fn watch_node(&mut self, uid: &str) {
        fill(&mut self.node, serde_json::from_value(json!({"metadata": {"name": "n", "uid": uid}})).ok());
    }

    /// Has the watch of the BpfNode catch up with the server.
    fn watch(&mut self, server: &Server) {
        let object = server.lock().objects.get(NODES).map(|object| serde_json::from_value(object.clone()).unwrap());
        fill(&mut self.bpf_node, object.map(|object| DeserializeGuard(Ok(object))));
    }

    /// Reports a BpfProgram with this message, and a detail with this note; then waits until a second of the test.
    async fn report(&self, server: &Server, (message, note): (&str, &str), until: u64) {
        let program = NodeProgram {
            name: "p".to_owned(),
            state: State::Failed,
            reason: Some(Reason::LoadFailed),
            message: Some(message.to_owned()),
            ..NodeProgram::default()
        };
        let detail = ProgramDetail { name: "p".to_owned(), notes: vec![note.to_owned()], ..ProgramDetail::default() };
        let report = Report {
            status: status(vec![program]),
            detail: BpfNodeDetailStatus { programs: vec![detail], ..BpfNodeDetailStatus::default() },
            ..Report::default()
        };
        self.reports.put(Box::new(report));
        let start = server.lock().start;
        sleep_until(start + Duration::from_secs(until)).await;
    }
}

fn status(programs: Vec<NodeProgram>) -> BpfNodeStatus {
    BpfNodeStatus { counts: counts(&programs, 0), programs, ..BpfNodeStatus::default() }
}

fn fill<K>(writer: &mut Writer<K>, object: Option<K>)
where
    K: kube::Resource<DynamicType = ()> + Clone + 'static,
{
    writer.apply_watcher_event(&Event::Init);
    object.into_iter().for_each(|object| writer.apply_watcher_event(&Event::InitApply(object)));
    writer.apply_watcher_event(&Event::InitDone);
}

fn note(server: &Server) -> Value {
    server.object(DETAILS)["status"]["programs"][0]["notes"][0].clone()
}

#[tokio::test(start_paused = true)]
async fn a_detail_is_written_on_change_and_at_most_every_ten_seconds() {
    let server = Server::new();
    let mut agent = Agent::start(&server);
    agent.report(&server, ("m", "a"), 1).await;
    assert_eq!((server.writes(NODES), server.writes(DETAILS)), (vec![0], vec![0]), "the first at once");
    for object in [server.object(NODES), server.object(DETAILS)] {
        let owner = &object["metadata"]["ownerReferences"][0];
        assert_eq!((&owner["kind"], &owner["uid"]), (&json!("Node"), &json!(NODE_UID)));
    }
    agent.watch(&server);
    agent.report(&server, ("m", "b"), 2).await;
    agent.report(&server, ("m", "c"), 25).await;
    agent.report(&server, ("m", "c"), 30).await;
    assert_eq!((server.writes(DETAILS), note(&server)), (vec![0, 10], json!("c")), "the newest of those that waited");
    agent.report(&server, ("m", "d"), 40).await;
    assert_eq!((server.writes(NODES), server.writes(DETAILS)), (vec![0], vec![0, 10, 30]));
}

#[tokio::test(start_paused = true)]
async fn a_detail_that_can_not_be_written_delays_no_status_and_is_written_later() {
    let server = Server::new();
    server.lock().failing = Some(DETAILS);
    let mut agent = Agent::start(&server);
    agent.report(&server, ("1", "a"), 1).await;
    agent.watch(&server);
    agent.report(&server, ("2", "b"), 2).await;
    agent.report(&server, ("3", "c"), 5).await;
    assert_eq!((server.writes(NODES), server.writes(DETAILS)), (vec![0, 1, 2], vec![]));
    let count = |result: &str| agent.metrics.status_writes.get(&[result]);
    assert_eq!((count("written"), count("failed"), count("throttled")), (3, 0, 0));
    assert_eq!(agent.readiness.ready(), Ok(()), "only the BpfNode counts");
    server.lock().failing = None;
    agent.report(&server, ("3", "c"), 30).await;
    assert_eq!((server.writes(NODES), server.writes(DETAILS).len(), note(&server)), (vec![0, 1, 2], 1, json!("c")));
}

#[tokio::test(start_paused = true)]
async fn the_next_agent_writes_only_what_changed_and_keeps_the_times_of_transitions() {
    let server = Server::new();
    Agent::start(&server).report(&server, ("1", "a"), 1).await;
    let ready = |server: &Server| server.object(NODES)["status"]["conditions"][0].clone();
    assert_eq!((&ready(&server)["type"], &ready(&server)["status"]), (&json!("Ready"), &json!("False")));
    let long_ago = json!("2020-01-01T00:00:00Z");
    server.lock().objects.get_mut(NODES).unwrap()["status"]["conditions"][0]["lastTransitionTime"] = long_ago.clone();
    server.lock().writes.clear();
    let next = Agent::start(&server);
    next.report(&server, ("1", "a"), 20).await;
    assert_eq!((server.writes(NODES), server.writes(DETAILS)), (vec![], vec![]));
    next.report(&server, ("2", "a"), 40).await;
    assert_eq!((server.writes(NODES), server.writes(DETAILS)), (vec![20], vec![]));
    assert!(ready(&server)["message"].as_str().unwrap().contains("p: 2"));
    assert_eq!(ready(&server)["lastTransitionTime"], long_ago);
    assert_eq!(ready(&server).get("observedGeneration"), None);
}

#[tokio::test(start_paused = true)]
async fn the_next_agent_writes_nothing_while_it_fetches_what_the_one_before_could_not_have() {
    let server = Server::new();
    let runs = NodeProgram { name: "runs".to_owned(), state: State::Attached, ..NodeProgram::default() };
    let failed = |message: &str| NodeProgram {
        name: "lost".to_owned(),
        reason: Some(Reason::BytecodeUnavailable),
        message: Some(message.to_owned()),
        ..NodeProgram::default()
    };
    let report = |message: &str, awaiting: &[&str]| Report {
        status: status(vec![failed(message), runs.clone()]),
        awaiting: awaiting.iter().map(|name| (*name).to_owned()).collect(),
        ..Report::default()
    };
    let until = |second| sleep_until(server.lock().start + Duration::from_secs(second));
    let first = Agent::start(&server);
    first.reports.put(Box::new(report("it is not there", &[])));
    until(1).await;
    assert_eq!(server.object(NODES)["status"]["conditions"][0]["reason"], "BytecodeUnavailable");
    server.lock().writes.clear();
    let next = Agent::start(&server);
    next.reports.put(Box::new(report("it is being fetched", &["lost"])));
    until(20).await;
    assert_eq!(next.readiness.ready(), Ok(()));
    next.reports.put(Box::new(report("it is not there", &[])));
    until(40).await;
    assert_eq!(server.writes(NODES), Vec::<u64>::new());
}

#[tokio::test(start_paused = true)]
async fn what_someone_else_changed_is_written_again() {
    let server = Server::new();
    let mut agent = Agent::start(&server);
    agent.report(&server, ("1", "a"), 1).await;
    agent.watch(&server);
    // An earlier version, which a watch may show late, says nothing.
    agent.report(&server, ("2", "a"), 2).await;
    agent.report(&server, ("2", "a"), 3).await;
    assert_eq!(server.writes(NODES), [0, 1]);
    let spoil = |plural: &str| {
        let mut server = server.lock();
        server.version += 1;
        let version = server.version.to_string();
        let object = server.objects.get_mut(plural).unwrap();
        object["status"].as_object_mut().unwrap().remove("programs");
        object["metadata"]["resourceVersion"] = json!(version);
    };
    spoil(NODES);
    spoil(DETAILS);
    agent.watch(&server);
    agent.report(&server, ("2", "a"), 5).await;
    assert_eq!(server.writes(NODES), [0, 1, 3]);
    assert!(server.object(NODES)["status"]["programs"]["p"].is_string());
    // Nobody watches the detail.
    sleep(Duration::from_secs(300)).await;
    assert_eq!(note(&server), "a");
    server.lock().objects.remove(DETAILS);
    sleep(Duration::from_secs(300)).await;
    assert_eq!(note(&server), "a");
}

/// The watch goes on as if nothing had happened.
#[tokio::test(start_paused = true)]
async fn an_earlier_state_of_etcd_is_written_over() {
    let server = Server::new();
    let mut agent = Agent::start(&server);
    agent.report(&server, ("1", "a"), 1).await;
    let earlier = server.object(NODES);
    agent.report(&server, ("2", "a"), 2).await;
    agent.watch(&server);
    server.lock().objects.insert(NODES.to_owned(), earlier);
    agent.report(&server, ("2", "a"), 280).await;
    assert_eq!(server.writes(NODES), [0, 1], "it is not read again and again");
    agent.report(&server, ("2", "a"), 300).await;
    let program = |server: &Server| server.object(NODES)["status"]["programs"]["p"].to_string();
    agent.report(&server, ("2", "a"), 310).await;
    assert_eq!(server.writes(NODES), [0, 1, 300]);
    assert!(program(&server).contains('2'), "{}", program(&server));
    // And one from before the object was there.
    server.lock().objects.remove(NODES);
    agent.report(&server, ("2", "a"), 600).await;
    agent.report(&server, ("2", "a"), 610).await;
    assert!(program(&server).contains('2'), "{}", program(&server));
    agent.report(&server, ("2", "a"), 2000).await;
    assert_eq!(server.writes(NODES).len(), 4);
}

#[tokio::test(start_paused = true)]
async fn objects_of_a_node_that_is_gone_are_made_anew() {
    let server = Server::new();
    for plural in [NODES, DETAILS] {
        let object = json!({
            "apiVersion": "sockeye.dev/v1alpha1", "spec": {},
            "kind": if plural == NODES { "BpfNode" } else { "BpfNodeDetail" },
            "metadata": {"name": "n", "uid": "old", "resourceVersion": "1", "ownerReferences": [
                {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "another"},
            ]},
        });
        server.lock().objects.insert(plural.to_owned(), object);
    }
    let agent = Agent::start(&server);
    agent.report(&server, ("1", "a"), 5).await;
    for plural in [NODES, DETAILS] {
        let metadata = &server.object(plural)["metadata"];
        assert_ne!(metadata["uid"], "old", "{plural}");
        assert_eq!(metadata["ownerReferences"][0]["uid"], NODE_UID, "{plural}");
        assert!(server.object(plural)["status"]["programs"].to_string().contains(r#""p""#), "{plural}");
    }
}

#[tokio::test(start_paused = true)]
async fn objects_of_a_node_that_returns_under_its_name_are_made_anew() {
    let server = Server::new();
    let mut agent = Agent::start(&server);
    agent.report(&server, ("1", "a"), 1).await;
    agent.watch(&server);
    // The garbage collector has not come yet.
    agent.watch_node("again");
    agent.report(&server, ("1", "a"), 30).await;
    for plural in [NODES, DETAILS] {
        let object = server.object(plural);
        assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], "again", "{plural}");
        assert!(object["status"]["programs"].to_string().contains(r#""p""#), "{plural}");
    }
}
