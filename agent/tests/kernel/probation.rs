//! An agent that finds a program on trial, and no API server: what may keep it from that is taken back, and all else is left as
//! it is.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{sleep, spawn},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sockeye_agent::{fetch::folder::Folder, kernel::facts};
use sockeye_crds::names::LABEL_LIVE;
use sockeye_ebpf::programs::{TCP_EVENTS_BTF, fixtures};

use crate::{
    node::{Node, patience},
    seed,
};

/// A node with a program that lets nothing connect, on trial since a moment ago, another that counts, and nobody who runs them.
struct Left {
    node: Node,
    kubeconfig: PathBuf,
    /// Where the API server would be.
    server: SocketAddr,
    counter: [Value; 2],
    /// As the API server would have them, by BpfProgram.
    revisions: BTreeMap<String, Value>,
}

impl Left {
    fn new(name: &str) -> Self {
        let mut node = Node::new(name);
        node.start();
        for (name, object) in [("counter", TCP_EVENTS_BTF), ("shut", fixtures::SHUT)] {
            seed(&node, name, object);
            node.ready(name);
        }
        let counter = ["programs", "links"].map(|kind| node.agrees("counter")[kind][0].clone());
        node.stop("KILL");
        let revisions = revisions(&node);
        node.run("ln", &["-s", &format!("open.{}", name_of(&revisions["shut"])), &trial(&node)]);
        // Free again: whoever asks is refused.
        let server = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let kubeconfig = node.folder().join("kubeconfig");
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{server}")}}],
            "users": [{"name": "c", "user": {}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        });
        fs::write(&kubeconfig, text.to_string()).unwrap();
        Self { node, kubeconfig, server, counter, revisions }
    }

    fn start(&mut self) {
        self.node.start_in_cluster(&self.kubeconfig, "node");
    }

    fn start_faulty(&mut self, fault: &str) {
        self.node.start_in_cluster_faulty(&self.kubeconfig, "node", fault);
    }

    fn is_noted(&self, verdict: &str) -> bool {
        let note = fs::read_link(self.node.seen(&trial(&self.node))).unwrap();
        note.display().to_string() == format!("{verdict}.{}", name_of(&self.revisions["shut"]))
    }

    fn until_noted(&self, verdict: &str) {
        self.node.until(verdict, |_| self.is_noted(verdict));
    }

    /// What of everything else is there, and what of it is attached.
    fn only_the_counter_is_left(&self) {
        let Self { node, counter: [program, link], .. } = self;
        assert_eq!(node.attached(), [program["id"].clone()]);
        assert_eq!(node.bpftool(&["link", "show", "pinned", &node.pin(link)])["id"], link["id"]);
        assert_eq!(node.pins("shut"), ["programs/my_prog"], "loaded, and attached nowhere");
        let before = node.events("counter")[4];
        node.connect(3);
        assert_eq!(node.events("counter")[4], before + 3);
    }
}

fn trial(node: &Node) -> String {
    format!("{}/_meta/trial", node.home("shut"))
}

fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

/// What the manifests come to, as the operator would have dispatched it.
fn revisions(node: &Node) -> BTreeMap<String, Value> {
    let mut folder = Folder::open(node.folder(), "test", &facts::boot_id().unwrap()).unwrap();
    folder.scan().unwrap();
    let revision = |(program, revision): (String, Arc<_>)| {
        let mut revision = serde_json::to_value(&*revision).unwrap();
        let metadata = revision["metadata"].as_object_mut().unwrap();
        metadata.extend([
            ("uid".to_owned(), json!(program)),
            ("resourceVersion".to_owned(), json!("1")),
            ("labels".to_owned(), json!({LABEL_LIVE: "true"})),
        ]);
        (program, revision)
    };
    folder.wants().run.into_iter().map(revision).collect()
}

/// An API server that can go away and come back.
struct Server {
    is_there: AtomicBool,
    /// What there is, by kind; of other kinds it knows nothing.
    objects: BTreeMap<&'static str, Vec<Value>>,
    /// The last status that was written.
    told: Mutex<String>,
}

impl Server {
    /// One that has nothing of what it is asked for: no list is ever complete.
    fn empty(at: SocketAddr) -> Arc<Self> {
        Self::with(at, BTreeMap::new())
    }

    /// One that has all that the node's agent asks for.
    fn of(Left { server, revisions, .. }: &Left) -> Arc<Self> {
        let node = json!({"metadata": {"name": "node", "uid": "n", "resourceVersion": "1"}});
        let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "node", "uid": "n"});
        let bpf_node = json!({
            "apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfNode", "spec": {},
            "metadata": {"name": "node", "uid": "b", "resourceVersion": "1", "ownerReferences": [owner]},
        });
        let revisions = revisions.values().cloned().collect();
        let objects =
            [("bpfrevisions", revisions), ("nodes", vec![node]), ("bpfnodes", vec![bpf_node]), ("configmaps", vec![])];
        Self::with(*server, objects.into())
    }

    fn with(at: SocketAddr, objects: BTreeMap<&'static str, Vec<Value>>) -> Arc<Self> {
        let server = Arc::new(Self { is_there: AtomicBool::new(true), objects, told: Mutex::default() });
        let (listener, all) = (TcpListener::bind(at).unwrap(), Arc::clone(&server));
        spawn(move || {
            for stream in listener.incoming().flatten() {
                let one = Arc::clone(&all);
                // Whoever asks may go away before the answer.
                spawn(move || drop(one.answer(&stream)));
            }
        });
        server
    }

    fn is_there(&self) -> bool {
        self.is_there.load(Ordering::Relaxed)
    }

    fn set(&self, is_there: bool) {
        self.is_there.store(is_there, Ordering::Relaxed);
    }

    /// One request a connection; none where it is away.
    fn answer(&self, mut stream: &TcpStream) -> io::Result<()> {
        let mut reader = BufReader::new(stream);
        let mut lines = reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty());
        let asked = lines.next().unwrap_or_default();
        let length = lines.filter_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok()).last();
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body)?;
        if !self.is_there() {
            return Ok(());
        }
        let (path, query) = asked.split(' ').nth(1).and_then(|target| target.split_once('?')).unwrap_or_default();
        let all = self.objects.get(path.rsplit('/').next().unwrap_or_default());
        let (status, value) = match all {
            Some(_) if query.contains("watch=true") => {
                write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
                )?;
                while self.is_there() {
                    sleep(Duration::from_millis(50));
                }
                return Ok(());
            }
            Some(items) => (
                "200 OK",
                json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items}),
            ),
            None if asked.starts_with("PATCH") && !self.objects.is_empty() => {
                *self.told.lock().unwrap() = String::from_utf8_lossy(&body).into_owned();
                ("200 OK", self.objects["bpfnodes"][0].clone())
            }
            None => {
                let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404});
                ("404 Not Found", status)
            }
        };
        let value = value.to_string();
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close");
        write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{value}", value.len())
    }
}

#[test]
fn an_agent_that_finds_a_trial_and_no_api_server_takes_it_back() {
    let mut left = Left::new("cut-off");
    let start = Instant::now();
    left.start();
    left.until_noted("suspected");
    println!("taken back after {:?}", start.elapsed());
    assert!(start.elapsed() < patience() / 2, "{:?}", start.elapsed());
    left.only_the_counter_is_left();

    // It stays so as long as the server is away, whoever is killed.
    left.node.stop("KILL");
    left.start();
    sleep(Duration::from_secs(7));
    assert!(left.is_noted("suspected"));
    // That one does not know when that was: too late to tell. Nothing is attached before it is known what is wanted.
    let _server = Server::empty(left.server);
    left.until_noted("reprieved");
    left.only_the_counter_is_left();
}

/// Killed before the program is detached, before that is noted, and in the middle of the note.
#[test]
fn an_agent_that_is_killed_as_it_takes_it_back_is_followed_by_one_that_does() {
    let faults = ["kill@BPF_LINK_DETACH", "kill@symlink", "kill@rename"];
    let mut all = faults.map(|fault| (Left::new(&fault.replace('@', "-")), fault));
    for (left, fault) in &mut all {
        left.start_faulty(fault);
    }
    for (left, fault) in &mut all {
        left.node.until(fault, |node| node.has_ended());
        left.node.stop("KILL");
        assert!(left.is_noted("open"), "{fault}");
        left.start();
    }
    for (left, fault) in &all {
        left.node.until(fault, |node| node.attached().len() == 1);
        left.only_the_counter_is_left();
    }
}

#[test]
fn where_that_brings_the_api_server_back_it_was_to_blame() {
    let mut left = Left::new("to-blame");
    left.start();
    left.until_noted("suspected");
    let _server = Server::empty(left.server);
    left.until_noted("reverted");
    left.only_the_counter_is_left();
}

/// The API server comes back long after it, for whatever reason, and goes away again once the program is attached again.
#[test]
fn what_was_taken_back_is_tried_once_more_if_the_server_comes_back_late() {
    let mut left = Left::new("once-more");
    left.start();
    left.until_noted("suspected");
    sleep(Duration::from_secs(16));
    left.only_the_counter_is_left();
    let server = Server::of(&left);
    left.until_noted("reopened");
    left.node.until("it is attached", |node| node.attached().len() == 2);
    server.set(false);
    left.until_noted("reverted");
    left.only_the_counter_is_left();
    server.set(true);
    left.node.until("that it is told", |_| {
        let told = server.told.lock().unwrap();
        told.contains(r#""reason":"Reverted""#) && told.contains("this node then lost the API server")
    });
    left.only_the_counter_is_left();
}

/// Nor is it taken back where the server is there and does not tell what is wanted.
#[test]
fn where_the_api_server_is_there_a_trial_goes_on() {
    let mut left = Left::new("on-trial");
    let _server = Server::empty(left.server);
    left.start();
    sleep(Duration::from_secs(10));
    assert!(left.is_noted("open"));
    assert_eq!(left.node.attached().len(), 2);
}
