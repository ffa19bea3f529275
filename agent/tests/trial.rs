//! Connectivity trials of a whole controller: what it attaches, reverts and reports, given the outcomes of its probes.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use sockeye_agent::{
    control::{
        Controller,
        connectivity::{LeaseReading, ProbeResult, Renewal},
        event::{Effect, Event},
    },
    model::assignment::Assignment,
    node::Node as _,
};
use sockeye_crds::{BpfRevision, Reason, names::digest};
use sockeye_crds_testing::provoked;
use sockeye_fake::{FakeNode, settings};

const OBJECT: &[u8] = b"object";

/// A node of a cluster, and the controller of its agent. Time is the test's own.
struct Agent {
    node: FakeNode,
    controller: Controller<FakeNode>,
    start: Instant,
    now: Instant,
    events: Vec<Event>,
}

impl Agent {
    /// Starts the agent of a node that is to run a program of this section.
    fn start(node: FakeNode, section: &str, program_type: &str, now: Instant) -> Self {
        node.join_cluster();
        let template = json!({
            "digest": digest(OBJECT), "programs": [{"name": "my_prog", "attach": [{"type": "Node"}]}],
            "object": {"programs": [{"name": "my_prog", "section": section, "type": program_type}]},
        });
        let spec = json!({
            "state": "Active", "programRef": {"name": "guard", "uid": "0b8a1b7e-6a3c-4b0f-9d7c-7f3a5f0d1c2e"},
            "programGeneration": 1, "sequence": 1, "template": template,
        });
        let revision = Arc::new(BpfRevision::of(serde_json::from_value(spec).unwrap()));
        let assignment = Assignment {
            revisions: [("guard".to_owned(), revision)].into(),
            objects: [(digest(OBJECT), OBJECT.into())].into(),
            complete: true,
            ..Assignment::default()
        };
        let controller = Controller::new(node.clone(), settings(), now);
        Self { node, controller, start: now, now, events: vec![Event::AssignmentChanged(Arc::new(assignment))] }
    }

    fn egress() -> Self {
        Self::start(FakeNode::default(), "cgroup_skb/egress", "CgroupSkb", Instant::now())
    }

    /// Takes all steps of some seconds. Probes are answered at once; returns how many there were.
    fn run(&mut self, seconds: u64, probe: impl Fn(u64) -> ProbeResult) -> usize {
        let (until, mut probes) = (self.now + Duration::from_secs(seconds), 0);
        while self.now < until {
            let result = self.controller.step(self.now, std::mem::take(&mut self.events));
            let second = self.now.duration_since(self.start).as_secs();
            let asked = result.effects.iter().filter(|effect| matches!(effect, Effect::ProbeApiServer));
            self.events.extend(asked.map(|_| Event::ProbeAnswered(probe(second))));
            probes += self.events.len();
            if self.events.is_empty() {
                self.now = result.wake.max(self.now);
            }
        }
        probes
    }

    /// Returns whether the program is attached, and the note of its trial.
    fn state(&mut self) -> (bool, String) {
        let trial = self.node.trials().unwrap().remove("guard").map(|trial| trial.note());
        (!self.node.observe("guard").unwrap().links.is_empty(), trial.unwrap_or_default())
    }

    /// Asserts that a program is reported as not in effect for this reason, and that the message contains this.
    fn assert_reports(&self, reason: &Reason, part: &str) {
        let program = &self.controller.status().programs[0];
        let message = program.message.as_deref().unwrap_or_default();
        assert!(program.reason.as_ref() == Some(reason) && message.contains(part), "{program:?}");
        provoked(reason, message);
    }
}

/// The API server is reached, and the kubelet renewed the Lease in this second.
fn renewed(second: u64) -> ProbeResult {
    let time = Timestamp::from_second(1_800_000_000 + second.cast_signed()).unwrap();
    ProbeResult::Reached(LeaseReading::Renewed(Renewal { time, duration: Duration::from_secs(40) }))
}

fn well(second: u64) -> ProbeResult {
    renewed(second / 10 * 10)
}

#[test]
fn a_program_that_harms_nobody_passes_and_nothing_is_probed_any_more() {
    let mut agent = Agent::egress();
    assert!(agent.run(29, well) > 10);
    assert_eq!(agent.state(), (true, "open.guard-1".to_owned()));
    agent.run(5, well);
    assert_eq!(agent.state(), (true, "passed.guard-1".to_owned()));
    assert_eq!(agent.run(600, well), 0);
    let metrics = agent.controller.metrics();
    assert_eq!((metrics.loads(), metrics.rollbacks.get(&[])), ((1, 0), 0));
}

#[test]
fn a_program_without_which_the_kubelet_renews_its_lease_again_is_not_attached_again() {
    let mut agent = Agent::egress();
    agent.run(30, |_| renewed(0));
    assert_eq!(agent.state(), (true, "open.guard-1".to_owned()));
    agent.run(5, |_| renewed(0));
    assert_eq!(agent.state(), (false, "suspected-by-lease.guard-1".to_owned()));
    agent.assert_reports(&Reason::NotInEffect, "kubelet was then not renewed, and the revision was reverted");
    agent.run(600, well);
    assert_eq!(agent.state(), (false, "reverted-by-lease.guard-1".to_owned()));
    agent.assert_reports(&Reason::ConnectivityLost, "the Lease of this node's kubelet was then not renewed until");
    assert_eq!(agent.controller.metrics().rollbacks.get(&[]), 1, "once, whatever the trial finds out later");
}

#[test]
fn an_agent_that_starts_during_a_trial_continues_it() {
    let mut first = Agent::egress();
    first.run(20, |_| renewed(0));
    let mut next = Agent::start(first.node, "cgroup_skb/egress", "CgroupSkb", first.now);
    next.run(30, |_| renewed(0));
    assert_eq!(next.state(), (true, "open.guard-1".to_owned()));
    next.run(5, |_| renewed(0));
    assert_eq!(next.state(), (false, "suspected-by-lease.guard-1".to_owned()));
    let mut last = Agent::start(next.node, "cgroup_skb/egress", "CgroupSkb", next.now);
    last.run(30, well);
    // It can't know how soon that was, and tries once more.
    assert_eq!(last.state(), (true, "reopened.guard-1".to_owned()));
    last.run(40, |_| renewed(100));
    assert_eq!(last.state(), (false, "reverted-by-lease.guard-1".to_owned()));
}

#[test]
fn a_program_that_nobody_renews_the_lease_without_either_is_attached_again() {
    let mut agent = Agent::egress();
    agent.run(340, |_| renewed(0));
    assert_eq!(agent.state(), (true, "reopened.guard-1".to_owned()));
    agent.run(30, |_| renewed(0));
    assert_eq!(agent.state(), (true, "passed-without-lease.guard-1".to_owned()));
    assert_eq!(agent.run(600, |_| renewed(0)), 0);
}

#[test]
fn a_program_is_on_trial_if_it_can_deny_something() {
    for (section, program_type, is_on_trial) in [
        ("cgroup/setsockopt", "CgroupSockopt", true),
        ("cgroup/sysctl", "CgroupSysctl", true),
        ("cgroup/dev", "CgroupDevice", true),
        ("cgroup/sock_release", "CgroupSock", false),
        ("sockops", "SockOps", false),
    ] {
        let mut agent = Agent::start(FakeNode::default(), section, program_type, Instant::now());
        let probes = agent.run(10, well);
        let (is_attached, trial) = agent.state();
        assert!(is_attached && trial.is_empty() != is_on_trial && (probes == 0) != is_on_trial, "{section}: {trial}");
    }
}
