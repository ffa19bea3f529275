//! A fake API server that a test can make unreachable, or that lacks what an agent requests. It answers lists and
//! watches, one request per connection.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{sleep, spawn},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustix::net;
use serde_json::{Value, json};
use sockeye_agent::{kernel::facts, standalone::folder::Folder};
use sockeye_crds::names::{OBJECT_KEY, digest, object_config_map};

use crate::node::Node;

/// An API server that can become unreachable and reachable again.
pub struct Server {
    is_reachable: AtomicBool,
    /// The objects, by kind. Lists of other kinds get 404.
    objects: BTreeMap<&'static str, Vec<Value>>,
    /// The revisions that watches deliver.
    pub new_revisions: Mutex<Vec<Value>>,
    /// The ConfigMaps with the bytes of objects.
    stored: BTreeMap<String, Value>,
    /// The last status of the BpfNode that was written.
    pub last_status: Mutex<String>,
}

impl Server {
    /// Returns a server without any kind: no list ever succeeds.
    pub fn empty(at: SocketAddr) -> Arc<Self> {
        Self::with(at, BTreeMap::new(), &[])
    }

    /// Returns a server with everything that the node's agent requests: these revisions, and these objects' bytes.
    pub fn of_node(at: SocketAddr, revisions: Vec<Value>, stored: &[&[u8]]) -> Arc<Self> {
        Self::with(at, Self::objects_of_node(revisions), stored)
    }

    /// Returns the objects that the node's agent requests, by kind.
    pub fn objects_of_node(revisions: Vec<Value>) -> BTreeMap<&'static str, Vec<Value>> {
        let node = json!({"metadata": {"name": "node", "uid": "n", "resourceVersion": "1"}});
        let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "node", "uid": "n"});
        let of_node = |kind: &str| {
            let metadata = json!({"name": "node", "uid": kind, "resourceVersion": "1", "ownerReferences": [owner]});
            vec![json!({"apiVersion": "sockeye.dev/v1alpha1", "kind": kind, "spec": {}, "metadata": metadata})]
        };
        let objects = [
            ("pods", vec![]),
            ("bpfrevisions", revisions),
            ("nodes", vec![node]),
            ("bpfnodes", of_node("BpfNode")),
            ("bpfnodedetails", of_node("BpfNodeDetail")),
            ("configmaps", vec![]),
        ];
        objects.into()
    }

    /// Returns a server with these objects, by kind. Lists of other kinds never succeed.
    pub fn with(at: SocketAddr, objects: BTreeMap<&'static str, Vec<Value>>, stored: &[&[u8]]) -> Arc<Self> {
        let config_map = |bytes: &&[u8]| {
            let name = object_config_map(&digest(bytes));
            let object = json!({"metadata": {"name": name}, "binaryData": {OBJECT_KEY: STANDARD.encode(bytes)}});
            (name, object)
        };
        let stored = stored.iter().map(config_map).collect();
        let (is_reachable, new_revisions, last_status) = (AtomicBool::new(true), Mutex::default(), Mutex::default());
        let server = Arc::new(Self { is_reachable, objects, new_revisions, stored, last_status });
        let (listener, all) = (listen(at), Arc::clone(&server));
        spawn(move || {
            for stream in listener.incoming().flatten() {
                let one = Arc::clone(&all);
                // The client may close the connection before the answer.
                spawn(move || drop(one.answer(&stream)));
            }
        });
        server
    }

    fn is_reachable(&self) -> bool {
        self.is_reachable.load(Ordering::Relaxed)
    }

    /// Makes the server reachable or unreachable.
    pub fn set_reachable(&self, is_reachable: bool) {
        self.is_reachable.store(is_reachable, Ordering::Relaxed);
    }

    /// Answers one request, or none while the server is unreachable.
    fn answer(&self, mut stream: &TcpStream) -> io::Result<()> {
        let mut reader = BufReader::new(stream);
        let mut lines = reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty());
        let request = lines.next().unwrap_or_default();
        let length = lines.filter_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok()).last();
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body)?;
        if !self.is_reachable() {
            return Ok(());
        }
        let target = request.split(' ').nth(1).unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut segments = path.trim_end_matches("/status").rsplit('/');
        let what = segments.next().unwrap_or_default();
        // One object of a kind, or its status.
        let named = self.objects.get(segments.next().unwrap_or_default()).into_iter().flatten();
        let named = named.filter(|object| object["metadata"]["name"] == what).collect::<Vec<_>>();
        let (status, value) = match self.objects.get(what) {
            Some(_) if query.contains("watch=true") => {
                write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
                )?;
                let mut seen = 0;
                while self.is_reachable() {
                    let new_revisions =
                        if what == "bpfrevisions" { self.new_revisions.lock().unwrap().clone() } else { Vec::new() };
                    for object in &new_revisions[seen..] {
                        // The type comes first, as an API server has it.
                        let event = format!("{{\"type\":\"ADDED\",\"object\":{object}}}\n");
                        write!(stream, "{:x}\r\n{event}\r\n", event.len())?;
                    }
                    seen = new_revisions.len();
                    sleep(Duration::from_millis(50));
                }
                return Ok(());
            }
            Some(items) => {
                let is_selected = |item: &&Value| !query.contains("spec.state") || item["spec"]["state"] == "Active";
                let items: Vec<&Value> = items.iter().filter(is_selected).collect();
                let metadata = json!({"resourceVersion": "1"});
                ("200 OK", json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items}))
            }
            None if self.stored.contains_key(what) => ("200 OK", self.stored[what].clone()),
            None if !named.is_empty() => {
                if request.starts_with("PATCH") && path.contains("/bpfnodes/") {
                    *self.last_status.lock().unwrap() = String::from_utf8_lossy(&body).into_owned();
                }
                ("200 OK", named[0].clone())
            }
            None => {
                let status = json!({
                    "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404,
                });
                ("404 Not Found", status)
            }
        };
        let value = value.to_string();
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close");
        write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{value}", value.len())
    }
}

/// The sockets of addresses at which no server has started yet. They are bound, so that nobody else gets the address,
/// and do not listen.
static RESERVED: Mutex<BTreeMap<SocketAddr, OwnedFd>> = Mutex::new(BTreeMap::new());

/// Returns an address without a listener, where connections are refused until a server starts.
pub fn free_address() -> SocketAddr {
    let flags = net::SocketFlags::CLOEXEC;
    let socket = net::socket_with(net::AddressFamily::INET, net::SocketType::STREAM, flags, None).unwrap();
    net::bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let at = net::getsockname(&socket).unwrap().try_into().unwrap();
    RESERVED.lock().unwrap().insert(at, socket);
    at
}

/// Listens at an address that [`free_address`] returned.
fn listen(at: SocketAddr) -> TcpListener {
    let socket = RESERVED.lock().unwrap().remove(&at).unwrap();
    net::listen(&socket, 128).unwrap();
    socket.into()
}

/// Writes a kubeconfig for the API server at an address.
pub fn kubeconfig(node: &Node, server: SocketAddr) -> PathBuf {
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

/// Returns an object's name.
pub fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

/// Returns the revisions of the manifests, by BpfProgram, as the operator would dispatch them.
pub fn revisions(node: &Node) -> BTreeMap<String, Value> {
    let mut folder = Folder::open(node.folder(), "test", &facts::boot_id().unwrap()).unwrap();
    folder.scan().unwrap();
    let revision = |(program, revision): (String, Arc<_>)| {
        let mut revision = serde_json::to_value(&*revision).unwrap();
        let metadata = revision["metadata"].as_object_mut().unwrap();
        metadata.extend([("uid".to_owned(), json!(program)), ("resourceVersion".to_owned(), json!("1"))]);
        (program, revision)
    };
    folder.assignment().revisions.into_iter().map(revision).collect()
}
