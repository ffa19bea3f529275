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

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sockeye_agent::{fetch::folder::Folder, kernel::facts};
use sockeye_crds::names::{LABEL_LIVE, OBJECT_KEY, digest, object_config_map};
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
        let kubeconfig = kubeconfig(&node, server);
        Self { node, kubeconfig, server, counter, revisions }
    }

    fn start(&mut self) {
        self.node.start_in_cluster(&self.kubeconfig, "node");
    }

    fn start_faulty(&mut self, fault: &str) {
        self.node.start_in_cluster_faulty(&self.kubeconfig, "node", fault);
    }

    fn is_noted(&self, verdict: &str) -> bool {
        is_noted(&self.node, &trial(&self.node), &format!("{verdict}.{}", name_of(&self.revisions["shut"])))
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

/// How an API server there is asked.
fn kubeconfig(node: &Node, server: SocketAddr) -> PathBuf {
    let path = node.folder().join("kubeconfig");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": format!("http://{server}")}}],
        "users": [{"name": "c", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
    });
    fs::write(&path, text.to_string()).unwrap();
    path
}

fn is_noted(node: &Node, trial: &str, what: &str) -> bool {
    fs::read_link(node.seen(trial)).is_ok_and(|note| note.as_os_str() == what)
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
    /// The revisions that came since.
    news: Mutex<Vec<Value>>,
    /// The bytes of objects, as ConfigMaps.
    stored: BTreeMap<String, Value>,
    /// The last status that was written.
    told: Mutex<String>,
}

impl Server {
    /// One that has nothing of what it is asked for: no list is ever complete.
    fn empty(at: SocketAddr) -> Arc<Self> {
        Self::with(at, BTreeMap::new(), &[])
    }

    /// One that has all that the node's agent asks for.
    fn of(Left { server, revisions, .. }: &Left) -> Arc<Self> {
        Self::of_node(*server, revisions.values().cloned().collect(), &[])
    }

    /// One that has these revisions, and these objects' bytes.
    fn of_node(at: SocketAddr, revisions: Vec<Value>, stored: &[&[u8]]) -> Arc<Self> {
        let node = json!({"metadata": {"name": "node", "uid": "n", "resourceVersion": "1"}});
        let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "node", "uid": "n"});
        let bpf_node = json!({
            "apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfNode", "spec": {},
            "metadata": {"name": "node", "uid": "b", "resourceVersion": "1", "ownerReferences": [owner]},
        });
        let objects =
            [("bpfrevisions", revisions), ("nodes", vec![node]), ("bpfnodes", vec![bpf_node]), ("configmaps", vec![])];
        Self::with(at, objects.into(), stored)
    }

    fn with(at: SocketAddr, objects: BTreeMap<&'static str, Vec<Value>>, stored: &[&[u8]]) -> Arc<Self> {
        let config_map = |bytes: &&[u8]| {
            let name = object_config_map(&digest(bytes));
            let object = json!({"metadata": {"name": name}, "binaryData": {OBJECT_KEY: STANDARD.encode(bytes)}});
            (name, object)
        };
        let stored = stored.iter().map(config_map).collect();
        let (is_there, news, told) = (AtomicBool::new(true), Mutex::default(), Mutex::default());
        let server = Arc::new(Self { is_there, objects, news, stored, told });
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
        let target = asked.split(' ').nth(1).unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let what = path.rsplit('/').next().unwrap_or_default();
        let (status, value) = match self.objects.get(what) {
            Some(_) if query.contains("watch=true") => {
                write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
                )?;
                let mut seen = 0;
                while self.is_there() {
                    let news = if what == "bpfrevisions" { self.news.lock().unwrap().clone() } else { Vec::new() };
                    for object in &news[seen..] {
                        let event = format!("{}\n", json!({"type": "ADDED", "object": object}));
                        write!(stream, "{:x}\r\n{event}\r\n", event.len())?;
                    }
                    seen = news.len();
                    sleep(Duration::from_millis(50));
                }
                return Ok(());
            }
            Some(items) => (
                "200 OK",
                json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items}),
            ),
            None if self.stored.contains_key(what) => ("200 OK", self.stored[what].clone()),
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

/// Two revisions follow on one that has stood its trial, the second before the first has: it is gone back to what is known to be
/// well, and what that did not have is detached.
#[test]
fn what_is_gone_back_to_has_stood_its_own_trial() {
    let mut node = Node::new("go-back");
    let attach = json!([{"cgroup": {"scope": "Node"}}]);
    let (connect, create) =
        (json!({"name": "on_connect", "attach": attach}), json!({"name": "on_create", "attach": attach}));
    let both = json!([connect, create]);
    // The last of them stays in the folder, which is what runs first.
    let wanted = [
        (3, json!({"programs": both, "globals": {"step": 2}})),
        (2, json!({"programs": both})),
        (1, json!({"programs": [connect]})),
    ];
    let [third, second, first] = wanted.map(|(sequence, spec)| {
        node.apply_spec("guard", fixtures::GLOBALS, spec);
        let mut revision = revisions(&node).remove("guard").unwrap();
        revision["spec"]["sequence"] = json!(sequence);
        revision["metadata"]["resourceVersion"] = json!(sequence.to_string());
        revision
    });
    node.start();
    node.ready("guard");
    node.stop("KILL");
    let trial = format!("{}/_meta/trial", node.home("guard"));
    node.run("ln", &["-s", &format!("passed.{}", name_of(&first)), &trial]);
    let well = node.attached();
    assert_eq!(well.len(), 1);

    let at = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Server::of_node(at, vec![first.clone()], &[fixtures::GLOBALS]);
    node.start_in_cluster(&kubeconfig(&node, at), "node");
    for (revision, noted) in [(&second, "open"), (&third, "open")] {
        server.news.lock().unwrap().push(revision.clone());
        let noted = format!("{noted}.{}", name_of(revision));
        node.until(&noted, |node| is_noted(node, &trial, &noted) && node.attached().len() == 2);
    }
    assert!(!node.attached().contains(&well[0]), "another load");
    server.set(false);
    let noted = format!("suspected.{}", name_of(&third));
    node.until(&noted, |node| is_noted(node, &trial, &noted));
    assert_eq!(node.attached(), well, "the very program that ran before both");
    node.stop("KILL");
    node.start();
    node.remove("guard");
    node.nothing_left();
}
