//! An agent that finds a program on trial, and no API server: what may keep it from that is taken back, and all else is left as
//! it is.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sockeye_ebpf::programs::{TCP_EVENTS_BTF, fixtures};

use crate::{
    node::{Node, timeout},
    seed,
    api_server::{Server, free, kubeconfig, name_of, revisions},
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
        let server = free();
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

fn is_noted(node: &Node, trial: &str, what: &str) -> bool {
    fs::read_link(node.seen(trial)).is_ok_and(|note| note.as_os_str() == what)
}

fn trial(node: &Node) -> String {
    format!("{}/_meta/trial", node.home("shut"))
}

#[test]
fn an_agent_without_api_server_reverts_a_revision_on_trial() {
    let mut left = Left::new("cut-off");
    let start = Instant::now();
    left.start();
    left.until_noted("suspected");
    println!("taken back after {:?}", start.elapsed());
    assert!(start.elapsed() < timeout() / 2, "{:?}", start.elapsed());
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
fn a_revert_of_a_killed_agent_is_completed_by_the_next_agent() {
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
fn a_revert_that_restores_the_connection_is_final() {
    let mut left = Left::new("to-blame");
    left.start();
    left.until_noted("suspected");
    let _server = Server::empty(left.server);
    left.until_noted("reverted");
    left.only_the_counter_is_left();
}

/// The API server comes back long after it, for whatever reason, and goes away again once the program is attached again.
#[test]
fn a_reverted_revision_is_tried_once_more_if_the_api_server_returns_late() {
    let mut left = Left::new("once-more");
    left.start();
    left.until_noted("suspected");
    sleep(Duration::from_secs(16));
    left.only_the_counter_is_left();
    let server = Server::of_node(left.server, left.revisions.values().cloned().collect(), &[]);
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
fn a_trial_continues_while_the_api_server_answers() {
    let mut left = Left::new("on-trial");
    let _server = Server::empty(left.server);
    left.start();
    sleep(Duration::from_secs(10));
    assert!(left.is_noted("open"));
    assert_eq!(left.node.attached().len(), 2);
}

/// Cgroups below the node's.
const PLACES: [&str; 2] = ["a", "b"];

/// A node with a BpfProgram that is to follow an API server, and three revisions of it: the first, which runs and has come to that
/// in its trial, has one function, the others two.
struct Guarded {
    node: Node,
    server: Arc<Server>,
    revisions: [Value; 3],
    /// What of the first is attached.
    well: Vec<Value>,
}

impl Guarded {
    fn new(name: &str, verdict: &str) -> Self {
        let attach = json!([{"cgroup": {"scope": "Node"}}]);
        let connect = json!({"name": "on_connect", "attach": attach});
        let both = json!([connect, {"name": "on_create", "attach": attach}]);
        let specs = [
            json!({"programs": [connect]}),
            json!({"programs": both}),
            json!({"programs": both, "globals": {"step": 2}}),
        ];
        Self::of(name, verdict, specs)
    }

    fn of(name: &str, verdict: &str, specs: [Value; 3]) -> Self {
        let mut node = Node::new(name);
        PLACES.into_iter().for_each(|place| node.make_cgroup(place));
        let mut wanted = [1, 2, 3].into_iter().zip(specs).collect::<Vec<_>>();
        // The last of them stays in the folder, which is what runs first.
        wanted.reverse();
        let mut revisions = <[_; 3]>::try_from(wanted).unwrap().map(|(sequence, spec)| {
            node.apply_spec("guard", fixtures::GLOBALS, spec);
            let mut revision = revisions(&node).remove("guard").unwrap();
            revision["spec"]["sequence"] = json!(sequence);
            revision["metadata"]["resourceVersion"] = json!(sequence.to_string());
            revision
        });
        revisions.reverse();
        node.start();
        node.ready("guard");
        node.stop("KILL");
        let noted = format!("{verdict}.{}", name_of(&revisions[0]));
        node.run("ln", &["-s", &noted, &format!("{}/_meta/trial", node.home("guard"))]);
        if verdict != "passed" {
            node.run("rm", &["-r", &format!("{}/links/on_connect", node.home("guard"))]);
            node.until("the end of the link", |node| node.attached().is_empty());
        }
        let well = node.attached();
        let at = free();
        let server = Server::of_node(at, vec![revisions[0].clone()], &[fixtures::GLOBALS]);
        node.start_in_cluster(&kubeconfig(&node, at), "node");
        Self { node, server, revisions, well }
    }

    fn until_noted(&self, verdict: &str, which: usize) {
        let trial = format!("{}/_meta/trial", self.node.home("guard"));
        let noted = format!("{verdict}.{}", name_of(&self.revisions[which]));
        self.node.until(&noted, |node| is_noted(node, &trial, &noted));
    }

    fn dispatch(&self, which: usize) {
        self.server.news.lock().unwrap().push(self.revisions[which].clone());
        self.until_noted("open", which);
    }

    fn both(&self) {
        self.node.until("both", |node| node.attached().len() == 2);
    }

    /// What runs at each of the places.
    fn attached(&self) -> [Vec<Value>; 2] {
        PLACES.map(|place| self.node.attached_below(place))
    }

    /// The revision that is noted to be in effect.
    fn is_in_effect(&self, which: usize) -> bool {
        let note = self.node.seen(&format!("{}/_meta/revision", self.node.home("guard")));
        fs::read_link(note).unwrap().to_str() == Some(name_of(&self.revisions[which]))
    }

    /// The API server goes away: what is on trial is taken back, and this is left attached.
    fn goes_back(&self, which: usize, left: &[Value]) {
        self.server.set(false);
        self.until_noted("suspected", which);
        assert_eq!(self.node.attached(), left);
    }

    fn end(mut self) {
        self.node.stop("KILL");
        self.node.start();
        self.node.remove("guard");
        self.node.nothing_left();
    }
}

/// Two revisions follow on one that has stood its trial, the second before the first has: it is gone back to what is known to be
/// well, and what that did not have is detached.
#[test]
fn a_revert_restores_the_last_revision_that_passed_its_trial() {
    let guarded = Guarded::new("go-back", "passed");
    assert_eq!(guarded.well.len(), 1);
    for which in [1, 2] {
        guarded.dispatch(which);
        guarded.both();
    }
    assert!(!guarded.node.attached().contains(&guarded.well[0]), "another load");
    guarded.goes_back(2, &guarded.well);
    assert!(guarded.is_in_effect(0));
    guarded.end();
}

/// A spec of one program at some places, and a variable's value, which makes another load of it.
fn spec(paths: &[&str], step: u32) -> Value {
    let at = |path: &&str| match *path {
        "/" => json!({"cgroup": {"scope": "Node"}}),
        path => json!({"cgroup": {"scope": "Path", "path": path}}),
    };
    let attach: Vec<Value> = paths.iter().map(at).collect();
    json!({"programs": [{"name": "on_connect", "attach": attach}], "globals": {"step": step}})
}

/// Places that came with what is taken back have nothing to go back to, and those that went with it are not made up for: what
/// stood its trial elsewhere has not stood it there.
#[test]
fn a_revert_restores_only_the_links_of_the_predecessor() {
    let specs = || [spec(&["/a"], 1), spec(&["/a", "/b"], 1), spec(&["/"], 2)];
    let guarded = Guarded::of("places", "passed", specs());
    let well = guarded.attached();
    guarded.dispatch(1);
    guarded.node.until("both places", |_| guarded.attached().iter().all(|at| at.len() == 1));
    guarded.goes_back(1, &[]);
    assert_eq!(guarded.attached(), well, "the place that it had before, and no other");
    assert!(guarded.is_in_effect(0));
    guarded.end();

    let guarded = Guarded::of("elsewhere", "passed", specs());
    guarded.dispatch(2);
    guarded.node.until("the node", |node| node.attached().len() == 1 && guarded.attached().concat().is_empty());
    guarded.goes_back(2, &[]);
    assert_eq!(guarded.attached().concat(), Vec::<Value>::new());
    assert!(!guarded.is_in_effect(0), "it is in effect nowhere");
    guarded.end();
}

/// A revision on trial goes on while a newer one fails; taken back, it is attached again on trial only.
#[test]
fn a_revision_kept_while_a_newer_one_fails_is_on_trial_too() {
    let specs = [spec(&["/a"], 1), spec(&["/b"], 1), spec(&["/nowhere"], 1)];
    let guarded = Guarded::of("goes-on-trial", "reverted", specs);
    guarded.dispatch(1);
    guarded.node.until("it is attached", |_| guarded.attached()[1].len() == 1);
    guarded.server.news.lock().unwrap().push(guarded.revisions[2].clone());
    guarded.node.until("the newer one fails", |_| guarded.server.told.lock().unwrap().contains("CgroupNotFound"));
    guarded.goes_back(1, &[]);
    assert_eq!(guarded.attached().concat(), Vec::<Value>::new());
    sleep(Duration::from_secs(16));
    guarded.server.set(true);
    guarded.until_noted("reopened", 1);
    guarded.node.until("it is attached again", |_| guarded.attached()[1].len() == 1);
    guarded.server.set(false);
    guarded.until_noted("reverted", 1);
    assert_eq!(guarded.attached().concat(), Vec::<Value>::new());
    guarded.end();
}

/// One that was to blame itself, and is still pinned.
#[test]
fn a_reverted_revision_is_not_restored_itself() {
    let guarded = Guarded::new("no-way-back", "reverted");
    guarded.dispatch(1);
    guarded.both();
    guarded.goes_back(1, &[]);
    guarded.end();
}
