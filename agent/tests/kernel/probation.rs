//! An agent that finds a program on trial, and no API server: what may keep it from that is taken back, and all else is left as
//! it is.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    thread::{sleep, spawn},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
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
        node.run("ln", &["-s", "open.shut-1", &trial(&node)]);
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
        Self { node, kubeconfig, server, counter }
    }

    fn start(&mut self) {
        self.node.start_in_cluster(&self.kubeconfig, "node");
    }

    fn start_faulty(&mut self, fault: &str) {
        self.node.start_in_cluster_faulty(&self.kubeconfig, "node", fault);
    }

    fn note(&self) -> String {
        fs::read_link(self.node.seen(&trial(&self.node))).unwrap().display().to_string()
    }

    fn until_noted(&self, note: &str) {
        self.node.until(note, |_| self.note() == note);
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

/// An API server that is there, and has nothing of what it is asked for: no list is ever complete.
fn serve(server: SocketAddr) {
    let listener = TcpListener::bind(server).unwrap();
    spawn(move || listener.incoming().for_each(|stream| drop(spawn(|| answer(stream.unwrap())))));
}

fn answer(mut stream: TcpStream) {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404})
        .to_string();
    let head = "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nConnection: close\r\n";
    let _asked = stream.read(&mut [0; 8192]);
    let _gone = write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len());
}

#[test]
fn an_agent_that_finds_a_trial_and_no_api_server_takes_it_back() {
    let mut left = Left::new("cut-off");
    let start = Instant::now();
    left.start();
    left.until_noted("suspected.shut-1");
    println!("taken back after {:?}", start.elapsed());
    assert!(start.elapsed() < patience() / 2, "{:?}", start.elapsed());
    left.only_the_counter_is_left();

    // It stays so as long as the server is away, whoever is killed.
    left.node.stop("KILL");
    left.start();
    sleep(Duration::from_secs(7));
    assert_eq!(left.note(), "suspected.shut-1");
    // That one does not know when that was: too late to tell. Nothing is attached before it is known what is wanted.
    serve(left.server);
    left.until_noted("reprieved.shut-1");
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
        assert_eq!(left.note(), "open.shut-1");
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
    left.until_noted("suspected.shut-1");
    serve(left.server);
    left.until_noted("reverted.shut-1");
    left.only_the_counter_is_left();
}

/// Nor is it taken back where the server is there and does not tell what is wanted.
#[test]
fn where_the_api_server_is_there_a_trial_goes_on() {
    let mut left = Left::new("on-trial");
    serve(left.server);
    left.start();
    sleep(Duration::from_secs(10));
    assert_eq!((left.note().as_str(), left.node.attached().len()), ("open.shut-1", 2));
}
