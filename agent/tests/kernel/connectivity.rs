//! Connectivity trials: an agent that loses the API server reverts the revision on trial, and changes nothing else.

mod entries;

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
use sockeye_crds::names::revision_name;
use sockeye_ebpf::programs::{TCP_EVENTS_BTF, fixtures};

use crate::{
    api_server::{Server, free_address, kubeconfig, name_of, revisions},
    node::{Node, timeout},
    seed,
};

/// A node without a running agent: one BpfProgram, on trial for a moment, lets nothing connect; another one counts.
struct CutOffNode {
    node: Node,
    kubeconfig: PathBuf,
    /// The address of the API server.
    server: SocketAddr,
    counter: [Value; 2],
    /// The revisions that the API server has, by BpfProgram.
    revisions: BTreeMap<String, Value>,
}

impl CutOffNode {
    fn new(name: &str) -> Self {
        let mut node = Node::new(name);
        node.start();
        for (name, object) in [("counter", TCP_EVENTS_BTF), ("shut", fixtures::SHUT)] {
            seed(&node, name, object);
            node.ready(name);
        }
        let counter = ["programs", "links"].map(|kind| node.verified_details("counter")[kind][0].clone());
        node.stop("KILL");
        let revisions = revisions(&node);
        node.run("ln", &["-s", &format!("open.{}", name_of(&revisions["shut"])), &trial(&node)]);
        let server = free_address();
        let kubeconfig = kubeconfig(&node, server);
        Self { node, kubeconfig, server, counter, revisions }
    }

    fn start(&mut self) {
        self.node.start_in_cluster(&self.kubeconfig, "node");
    }

    fn start_faulty(&mut self, fault: &str) {
        self.node.start_in_cluster_faulty(&self.kubeconfig, "node", fault);
    }

    fn is_noted(&self, state: &str) -> bool {
        is_noted(&self.node, &trial(&self.node), &format!("{state}.{}", name_of(&self.revisions["shut"])))
    }

    fn until_noted(&self, state: &str) {
        self.node.until(state, |_| self.is_noted(state));
    }

    /// Asserts that the counter is undisturbed and the other program is detached.
    fn assert_only_the_counter_is_attached(&self) {
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
    fs::read_link(node.outer_path(trial)).is_ok_and(|note| note.as_os_str() == what)
}

fn trial(node: &Node) -> String {
    format!("{}/_meta/trial", node.home("shut"))
}

#[test]
fn an_agent_without_api_server_reverts_a_revision_on_trial() {
    let mut cut_off = CutOffNode::new("cut-off");
    let start = Instant::now();
    cut_off.start();
    cut_off.until_noted("suspected");
    println!("reverted after {:?}", start.elapsed());
    assert!(start.elapsed() < timeout() / 2, "{:?}", start.elapsed());
    cut_off.assert_only_the_counter_is_attached();

    // Nothing changes while the server is unreachable, even with another agent.
    cut_off.node.stop("KILL");
    cut_off.start();
    sleep(Duration::from_secs(7));
    assert!(cut_off.is_noted("suspected"));
    // The other agent does not know when the revert was, so the server's return proves nothing. Nothing is attached
    // before the desired state is known.
    let _server = Server::empty(cut_off.server);
    cut_off.until_noted("reprieved");
    cut_off.assert_only_the_counter_is_attached();
}

/// The kill comes before the detachment, before its note, or during the note.
#[test]
fn a_revert_of_a_killed_agent_is_completed_by_the_next_agent() {
    let faults = ["kill@BPF_LINK_DETACH", "kill@symlink", "kill@rename"];
    let mut all = faults.map(|fault| (CutOffNode::new(&fault.replace('@', "-")), fault));
    for (cut_off, fault) in &mut all {
        cut_off.start_faulty(fault);
    }
    for (cut_off, fault) in &mut all {
        cut_off.node.until(fault, |node| node.has_ended());
        cut_off.node.stop("KILL");
        assert!(cut_off.is_noted("open"), "{fault}");
        cut_off.start();
    }
    for (cut_off, fault) in &all {
        cut_off.node.until(fault, |node| node.attached().len() == 1);
        cut_off.assert_only_the_counter_is_attached();
    }
}

#[test]
fn a_revert_that_restores_the_connection_is_final() {
    let mut cut_off = CutOffNode::new("to-blame");
    cut_off.start();
    cut_off.until_noted("suspected");
    let _server = Server::empty(cut_off.server);
    cut_off.until_noted("reverted");
    cut_off.assert_only_the_counter_is_attached();
}

/// The API server becomes reachable long after the revert, and unreachable once the program is attached again.
#[test]
fn a_reverted_revision_is_tried_once_more_if_the_api_server_returns_late() {
    let mut cut_off = CutOffNode::new("once-more");
    cut_off.start();
    cut_off.until_noted("suspected");
    sleep(Duration::from_secs(16));
    cut_off.assert_only_the_counter_is_attached();
    let server = Server::of_node(cut_off.server, cut_off.revisions.values().cloned().collect(), &[]);
    cut_off.until_noted("reopened");
    cut_off.node.until("it is attached", |node| node.attached().len() == 2);
    server.set_reachable(false);
    cut_off.until_noted("reverted");
    cut_off.assert_only_the_counter_is_attached();
    server.set_reachable(true);
    cut_off.node.until("the report", |_| {
        let last_status = server.last_status.lock().unwrap();
        last_status.contains(r#""reason":"ConnectivityLost""#)
            && last_status.contains("this node then lost the API server")
    });
    cut_off.assert_only_the_counter_is_attached();
}

/// The server is reachable, and does not answer lists.
#[test]
fn a_trial_continues_while_the_api_server_answers() {
    let mut cut_off = CutOffNode::new("on-trial");
    let _server = Server::empty(cut_off.server);
    cut_off.start();
    sleep(Duration::from_secs(10));
    assert!(cut_off.is_noted("open"));
    assert_eq!(cut_off.node.attached().len(), 2);
}

/// The server is reachable, and the kubelet renews the node's Lease no more.
#[test]
fn a_revision_is_reverted_if_the_kubelet_does_not_renew_its_lease() {
    let mut cut_off = CutOffNode::new("silent-kubelet");
    let spec = json!({"renewTime": "2026-01-01T00:00:00.000000Z", "leaseDurationSeconds": 40});
    let lease = json!({"metadata": {"name": "node"}, "spec": spec});
    let _server = Server::with(cut_off.server, [("leases", vec![lease])].into(), &[]);
    cut_off.start();
    sleep(Duration::from_secs(30));
    assert!(cut_off.is_noted("open"));
    cut_off.until_noted("suspected-by-lease");
    cut_off.assert_only_the_counter_is_attached();
}

/// Cgroups below the node's.
const CGROUPS: [&str; 2] = ["a", "b"];

/// A node with an API server and three revisions of one BpfProgram. The first one runs, on a trial in a given
/// state; it has one function, the others have two.
struct Guarded {
    node: Node,
    server: Arc<Server>,
    kubeconfig: PathBuf,
    revisions: [Value; 3],
    /// The attached programs of the first revision.
    good: Vec<Value>,
}

impl Guarded {
    fn new(name: &str, state: &str) -> Self {
        let attach = json!([{"type": "Node"}]);
        let connect = json!({"name": "on_connect", "attach": attach});
        let both = json!([connect, {"name": "on_create", "attach": attach}]);
        let specs = [
            json!({"programs": [connect]}),
            json!({"programs": both}),
            json!({"programs": both, "globals": {"step": 2}}),
        ];
        Self::of(name, state, specs)
    }

    fn of(name: &str, state: &str, specs: [Value; 3]) -> Self {
        Self::of_object(name, state, fixtures::GLOBALS, specs)
    }

    fn of_object(name: &str, state: &str, object: &[u8], specs: [Value; 3]) -> Self {
        let mut node = Node::new(name);
        CGROUPS.into_iter().for_each(|cgroup| node.make_cgroup(cgroup));
        let mut desired = [1, 2, 3].into_iter().zip(specs).collect::<Vec<_>>();
        // The last one applied stays in the folder, and runs first.
        desired.reverse();
        let mut revisions = <[_; 3]>::try_from(desired).unwrap().map(|(sequence, spec)| {
            node.apply_spec("guard", object, spec);
            let mut revision = revisions(&node).remove("guard").unwrap();
            revision["spec"]["sequence"] = json!(sequence);
            revision["metadata"]["name"] = json!(revision_name("guard", sequence));
            revision["metadata"]["resourceVersion"] = json!(sequence.to_string());
            revision
        });
        revisions.reverse();
        node.start();
        node.ready("guard");
        node.stop("KILL");
        // A folder's revisions have other sequences than an operator's.
        node.run("ln", &["-sfn", name_of(&revisions[0]), &format!("{}/_meta/revision", node.home("guard"))]);
        let noted = format!("{state}.{}", name_of(&revisions[0]));
        node.run("ln", &["-s", &noted, &format!("{}/_meta/trial", node.home("guard"))]);
        if state != "passed" {
            node.run("rm", &["-r", &format!("{}/links/on_connect", node.home("guard"))]);
            node.until("that the link is detached", |node| node.attached().is_empty());
        }
        let good = node.attached();
        let at = free_address();
        let server = Server::of_node(at, vec![revisions[0].clone()], &[object]);
        let kubeconfig = kubeconfig(&node, at);
        node.start_in_cluster(&kubeconfig, "node");
        Self { node, server, kubeconfig, revisions, good }
    }

    fn until_noted(&self, state: &str, which: usize) {
        let trial = format!("{}/_meta/trial", self.node.home("guard"));
        let noted = format!("{state}.{}", name_of(&self.revisions[which]));
        self.node.until(&noted, |node| is_noted(node, &trial, &noted));
    }

    fn dispatch(&self, which: usize) {
        self.server.new_revisions.lock().unwrap().push(self.revisions[which].clone());
        self.until_noted("open", which);
    }

    fn wait_for_both(&self) {
        self.node.until("both", |node| node.attached().len() == 2);
    }

    /// Returns the programs attached to each of the cgroups.
    fn attached(&self) -> [Vec<Value>; 2] {
        CGROUPS.map(|cgroup| self.node.attached_below(cgroup))
    }

    /// Returns whether the note names this revision as the one in effect.
    fn is_in_effect(&self, which: usize) -> bool {
        let note = self.node.outer_path(&format!("{}/_meta/revision", self.node.home("guard")));
        fs::read_link(note).unwrap().to_str() == Some(name_of(&self.revisions[which]))
    }

    /// Makes the API server unreachable, and asserts that the revision on trial is reverted and which programs stay
    /// attached.
    fn assert_reverts(&self, which: usize, attached: &[Value]) {
        self.server.set_reachable(false);
        self.until_noted("suspected", which);
        assert_eq!(self.node.attached(), attached, "{}", self.node.log());
    }

    /// Replaces the agent by another one.
    fn restart(&mut self) {
        self.node.stop("KILL");
        let kubeconfig = self.kubeconfig.clone();
        self.node.start_in_cluster(&kubeconfig, "node");
    }

    fn end(mut self) {
        self.node.stop("KILL");
        self.node.start();
        self.node.remove("guard");
        self.node.nothing_left();
    }
}

/// Two revisions follow on one that passed its trial, the second before the trial of the first ends. Links that the
/// revision which passed did not have are detached.
#[test]
fn a_revert_restores_the_last_revision_that_passed_its_trial() {
    let guarded = Guarded::new("go-back", "passed");
    assert_eq!(guarded.good.len(), 1);
    for which in [1, 2] {
        guarded.dispatch(which);
        guarded.wait_for_both();
    }
    assert!(!guarded.node.attached().contains(&guarded.good[0]), "another load");
    guarded.assert_reverts(2, &guarded.good);
    assert!(guarded.is_in_effect(0));
    guarded.end();
}

/// Returns a spec of one program at some cgroups. Another value of `step` makes another load.
fn spec(paths: &[&str], step: u32) -> Value {
    let at = |path: &&str| match *path {
        "/" => json!({"type": "Node"}),
        path => json!({"type": "CgroupPath", "cgroupPath": path}),
    };
    let attach: Vec<Value> = paths.iter().map(at).collect();
    json!({"programs": [{"name": "on_connect", "attach": attach}], "globals": {"step": step}})
}

/// Links that the reverted revision added are detached, and links that it removed are not attached again: the
/// predecessor passed its trial at its own cgroups only.
#[test]
fn a_revert_restores_only_the_links_of_the_predecessor() {
    let specs = || [spec(&["/a"], 1), spec(&["/a", "/b"], 1), spec(&["/"], 2)];
    let guarded = Guarded::of("cgroups", "passed", specs());
    let good = guarded.attached();
    guarded.dispatch(1);
    guarded.node.until("links at both cgroups", |_| guarded.attached().iter().all(|at| at.len() == 1));
    guarded.assert_reverts(1, &[]);
    assert_eq!(guarded.attached(), good, "the cgroup that it had before, and no other");
    assert!(guarded.is_in_effect(0));
    guarded.end();

    let guarded = Guarded::of("elsewhere", "passed", specs());
    guarded.dispatch(2);
    guarded.node.until("a link at the node's cgroup", |node| {
        node.attached().len() == 1 && guarded.attached().concat().is_empty()
    });
    guarded.assert_reverts(2, &[]);
    assert_eq!(guarded.attached().concat(), Vec::<Value>::new());
    assert!(!guarded.is_in_effect(0), "it is in effect nowhere");
    guarded.end();
}

/// A revision on trial keeps running while a newer one fails. After a revert it is attached again on trial only.
#[test]
fn a_revision_kept_while_a_newer_one_fails_is_on_trial_too() {
    let specs = [spec(&["/a"], 1), spec(&["/b"], 1), spec(&["/nowhere"], 1)];
    let guarded = Guarded::of("goes-on-trial", "reverted", specs);
    guarded.dispatch(1);
    guarded.node.until("it is attached", |_| guarded.attached()[1].len() == 1);
    guarded.server.new_revisions.lock().unwrap().push(guarded.revisions[2].clone());
    guarded
        .node
        .until("the newer one fails", |_| guarded.server.last_status.lock().unwrap().contains("CgroupNotFound"));
    guarded.assert_reverts(1, &[]);
    assert_eq!(guarded.attached().concat(), Vec::<Value>::new());
    sleep(Duration::from_secs(16));
    guarded.server.set_reachable(true);
    guarded.until_noted("reopened", 1);
    guarded.node.until("it is attached again", |_| guarded.attached()[1].len() == 1);
    guarded.server.set_reachable(false);
    guarded.until_noted("reverted", 1);
    assert_eq!(guarded.attached().concat(), Vec::<Value>::new());
    guarded.end();
}

/// The predecessor was reverted itself, and is still pinned.
#[test]
fn a_reverted_revision_is_not_restored_itself() {
    let guarded = Guarded::new("no-way-back", "reverted");
    guarded.dispatch(1);
    guarded.wait_for_both();
    guarded.assert_reverts(1, &[]);
    guarded.end();
}
