//! Pods that run elsewhere than their cgroups' names say: when they are searched for, and what is reported.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sockeye_agent::{
    control::{Controller, event::Event},
    model::{assignment::Assignment, pods::Pod},
};
use sockeye_crds::{
    BpfRevision, Reason,
    names::digest,
    node::{NodeProgram, State},
};
use sockeye_crds_testing::provoked;
use sockeye_fake::{FakeNode, settings};

const OBJECT: &[u8] = b"object";

/// An agent whose one BpfProgram is attached to all pods, under a clock of its own.
struct Agent {
    node: FakeNode,
    controller: Controller<FakeNode>,
    now: Instant,
    pods: Vec<Pod>,
    target: Value,
}

impl Agent {
    fn new() -> Self {
        Self::at(json!({"type": "Pods", "pods": {"podSelector": {}}}))
    }

    fn at(target: Value) -> Self {
        let (node, now) = (FakeNode::default(), Instant::now());
        Self { controller: Controller::new(node.clone(), settings(), now), node, now, pods: Vec::new(), target }
    }

    /// Adds a pod of which a container runs, by the kubelet's word.
    fn run_pod(&mut self, uid: &str) {
        let container = format!("{uid}-main");
        self.pods.push(Pod {
            uid: uid.to_owned(),
            namespace: "shop".to_owned(),
            name: uid.to_owned(),
            containers: [(container.clone(), "main".to_owned())].into(),
            running: [container].into(),
            ..Pod::default()
        });
        self.assign();
    }

    fn assign(&mut self) {
        let template = json!({
            "digest": digest(OBJECT), "programs": [{"name": "my_prog", "attach": [self.target]}],
            "object": {"programs": [{"name": "my_prog", "section": "sockops", "type": "SockOps"}]},
        });
        let spec = json!({
            "state": "Active", "programRef": {"name": "p", "uid": "u"}, "programGeneration": 1, "sequence": 1,
            "template": template,
        });
        let revision = Arc::new(BpfRevision::of(serde_json::from_value(spec).unwrap()));
        let assignment = Assignment {
            revisions: [("p".to_owned(), revision)].into(),
            objects: [(digest(OBJECT), OBJECT.into())].into(),
            complete: true,
            pods: Some(Arc::new(self.pods.clone())),
            ..Assignment::default()
        };
        self.step([Event::AssignmentChanged(Arc::new(assignment))]);
    }

    fn step(&mut self, events: impl IntoIterator<Item = Event>) {
        let mut wake = self.controller.step(self.now, events).wake;
        while wake <= self.now {
            wake = self.controller.step(self.now, []).wake;
        }
    }

    /// Lets seconds pass.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            self.step([]);
        }
    }

    fn reported(&self) -> NodeProgram {
        self.controller.status().programs[0].clone()
    }
}

#[test]
fn a_pod_in_its_place_is_never_searched_for() {
    let mut agent = Agent::new();
    agent.node.make_pod("a");
    agent.run_pod("a");
    agent.pass(600);
    assert_eq!(agent.node.searches(), 0);
    assert_eq!((agent.reported().state, agent.reported().pods), (State::Attached, 1));
}

#[test]
fn a_pod_that_ends_is_neither_searched_for_nor_reported_within_the_first_second() {
    let mut agent = Agent::new();
    agent.node.make_pod("a");
    agent.run_pod("a");
    // Its cgroup is never there.
    agent.run_pod("b");
    assert_eq!(agent.node.searches(), 0);
    agent.pods.pop();
    agent.assign();
    agent.pass(60);
    assert_eq!((agent.node.searches(), agent.reported().state), (0, State::Attached));
}

#[test]
fn a_pod_that_is_nowhere_is_searched_for_less_and_less_and_reported_until_it_ends() {
    let mut agent = Agent::new();
    agent.node.make_pod("a");
    agent.run_pod("a");
    agent.run_pod("b");
    agent.pass(8);
    assert_eq!(agent.reported().state, State::Attached, "the kubelet's word may be late");
    agent.pass(5);
    let NodeProgram { state, reason, message, links, .. } = agent.reported();
    assert_eq!((state, reason, links), (State::Failed, Some(Reason::PodCgroupNotFound), 1));
    let message = message.unwrap();
    assert!(message.contains("shop/b"), "{message}");
    provoked(Reason::PodCgroupNotFound, &message);
    agent.pass(600);
    let searches = agent.node.searches();
    assert!((10..20).contains(&searches), "{searches} searches in ten minutes");
    agent.pods.pop();
    agent.assign();
    agent.pass(1);
    assert_eq!(agent.reported().state, State::Attached);
}

#[test]
fn what_a_search_finds_is_attached_to() {
    let mut agent = Agent::new();
    agent.node.make_elsewhere("a", "/kubelet/kubepods/poda");
    agent.run_pod("a");
    assert_eq!((agent.node.searches(), agent.reported().links), (1, 1), "at once, where nothing is in its place");
    // The runtime has another driver: the pod's own cgroup is empty.
    agent.node.make_pod("b");
    agent.node.empty_pod("b");
    agent.node.make_elsewhere("b-main", "/system.slice/containerd.service/b-main");
    agent.run_pod("b");
    agent.pass(3);
    assert_eq!((agent.reported().links, agent.reported().pods), (3, 2));
    agent.pass(60);
    assert_eq!(agent.reported().state, State::Attached);
}

/// The agent knows no pod by its UID: nothing but this target asks for pods.
#[test]
fn an_empty_cgroup_of_all_pods_is_reported_where_pods_run_elsewhere() {
    let mut agent = Agent::at(json!({"type": "AllPods"}));
    agent.assign();
    agent.pass(600);
    assert_eq!((agent.node.searches(), agent.reported().state), (0, State::Attached));
    // No pod runs on the node at all.
    agent.node.set_all_pods_empty(true);
    agent.pass(900);
    let searches = agent.node.searches();
    assert!((5..20).contains(&searches), "{searches} searches in a quarter of an hour");
    assert_eq!(agent.reported().state, State::Attached);
    agent.node.make_elsewhere("a", "/kubelet/kubepods/poda");
    agent.pass(120);
    let NodeProgram { state, reason, message, links, .. } = agent.reported();
    assert_eq!((state, reason, links), (State::Failed, Some(Reason::PodCgroupNotFound), 1));
    let message = message.unwrap();
    assert!(message.contains("/kubelet/kubepods/poda") && message.contains("cgroup.kubeletRoot"), "{message}");
    provoked(Reason::PodCgroupNotFound, &message);
    agent.node.set_all_pods_empty(false);
    agent.pass(120);
    assert_eq!(agent.reported().state, State::Attached);
}
