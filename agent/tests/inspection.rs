//! The controller's answers to whoever asks: at once, and without any effect on what it does.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sockeye_agent::{
    control::{
        Controller,
        event::{Effect, Event},
        inspection::{Inquiry, InspectedObject, Inspection, MapName, Missing},
    },
    model::assignment::Assignment,
};
use sockeye_crds::{BpfRevision, names::digest, node::RefusedConnections};
use sockeye_ebpf::programs::fixtures::LISTS;
use sockeye_fake::{FakeNode, settings};

/// The template of a BpfProgram whose object the agent has at hand.
fn template() -> Value {
    let hash = json!({"name": "hash", "type": "Hash", "keySizeBytes": 4, "valueSizeBytes": 4, "maxEntries": 16,
        "definition": "BTF"});
    json!({
        "digest": digest(LISTS), "programs": [{"name": "ask", "attach": [{"type": "Node"}]}],
        "object": {
            "programs": [{"name": "ask", "section": "cgroup_skb/egress", "type": "CgroupSkb"}], "maps": [hash],
        },
    })
}

fn revision(program: &str, sequence: u32, template: &Value) -> Arc<BpfRevision> {
    let spec = json!({
        "state": "Active", "programRef": {"name": program, "uid": "u"}, "programGeneration": sequence,
        "sequence": sequence, "template": template,
    });
    Arc::new(BpfRevision::of(serde_json::from_value(spec).unwrap()))
}

/// A node with so many BpfPrograms, `p0` and so on.
fn assignment(programs: usize) -> Assignment {
    let names = (0..programs).map(|n| format!("p{n}"));
    Assignment {
        revisions: names.map(|name| (name.clone(), revision(&name, 1, &template()))).collect(),
        objects: [(digest(LISTS), LISTS.into())].into(),
        complete: true,
        ..Assignment::default()
    }
}

struct Agent {
    controller: Controller<FakeNode>,
    now: Instant,
}

impl Agent {
    fn new() -> Self {
        let now = Instant::now();
        Self { controller: Controller::new(FakeNode::default(), settings(), now), now }
    }

    /// Lets the controller work until nothing is due.
    fn work(&mut self, events: Vec<Event>) {
        let mut events = Some(events);
        for _ in 0..10 {
            while self.controller.step(self.now, events.take().unwrap_or_default()).wake <= self.now {}
            self.now += Duration::from_secs(1);
        }
    }

    /// Asks, and asserts that nothing but the answer follows.
    fn ask(&mut self, inquiry: Inquiry) -> Inspection {
        let mut effects = self.controller.step(self.now, [Event::Asked(7, inquiry)]).effects;
        assert!(!self.controller.is_working() && effects.len() == 1, "{effects:?}");
        let Some(Effect::AnswerInquiry(7, inspection)) = effects.pop() else { panic!() };
        inspection
    }
}

fn name(program: &str, map: &str) -> MapName {
    MapName { program: program.to_owned(), map: map.to_owned() }
}

#[test]
fn nothing_is_known_before_the_first_pass() {
    let mut agent = Agent::new();
    for inquiry in [Inquiry::Node, Inquiry::Programs(vec!["p0".to_owned()]), Inquiry::Map(name("p0", "hash"))] {
        assert!(matches!(agent.ask(inquiry), Inspection::Missing(Missing::Node)));
    }
}

#[test]
fn an_inquiry_is_answered_at_once_and_changes_nothing() {
    let mut agent = Agent::new();
    agent.work(vec![Event::AssignmentChanged(Arc::new(assignment(3)))]);
    let before = agent.controller.report();
    let Inspection::Node(node) = agent.ask(Inquiry::Node) else { panic!() };
    assert_eq!(node.lists.programs, ["p0", "p1", "p2"]);
    let names = ["p2", "absent", "p0"].map(str::to_owned).to_vec();
    let Inspection::Programs(programs) = agent.ask(Inquiry::Programs(names)) else { panic!() };
    assert_eq!(programs.iter().map(|program| program.status.name.as_str()).collect::<Vec<_>>(), ["p2", "p0"]);
    let reported = before.detail.programs.iter().find(|program| program.name == "p2").unwrap();
    assert_eq!(&programs[0].detail, reported);
    assert_eq!(agent.controller.report().status, before.status);
}

#[test]
fn a_map_comes_with_the_object_that_says_what_it_means() {
    let mut agent = Agent::new();
    agent.work(vec![Event::AssignmentChanged(Arc::new(assignment(2)))]);
    let Inspection::Map(map) = agent.ask(Inquiry::Map(name("p1", "hash"))) else { panic!() };
    assert_eq!(map.name, "hash");
    assert!(matches!(&map.object, InspectedObject::Bytes(of, bytes) if *of == digest(LISTS) && **bytes == *LISTS));
    for (inquiry, missing) in [
        (Inquiry::Map(name("p1", "other")), Missing::Map),
        (Inquiry::Map(name("other", "hash")), Missing::Program),
        (Inquiry::References(name("p1", "other")), Missing::Map),
        (Inquiry::VerifierLog("p1".to_owned()), Missing::VerifierLog),
        (Inquiry::VerifierLog("other".to_owned()), Missing::Program),
    ] {
        let Inspection::Missing(found) = agent.ask(inquiry) else { panic!() };
        assert_eq!(found, missing);
    }
    // Others' maps are theirs: the reference is by the kernel's ID.
    let Inspection::References(by) = agent.ask(Inquiry::References(name("p1", "hash"))) else { panic!() };
    assert_eq!(by.pins.iter().map(|(_, program)| program.as_str()).collect::<Vec<_>>(), ["p1"]);
    assert!(by.users.iter().all(|user| user.program == "p1"), "{:?}", by.users);
}

#[test]
fn a_bpf_program_that_was_removed_is_not_here_from_then_on() {
    let mut agent = Agent::new();
    agent.work(vec![Event::AssignmentChanged(Arc::new(assignment(1)))]);
    let nothing = Assignment { complete: true, ..Assignment::default() };
    agent.controller.step(agent.now, [Event::AssignmentChanged(Arc::new(nothing))]);
    // The next inquiry comes before the controller forgets the BpfProgram.
    let inquiry = Inquiry::Stream(name("p0", "hash"));
    let effects = agent.controller.step(agent.now, [Event::Asked(7, inquiry)]).effects;
    assert!(matches!(effects[0], Effect::AnswerInquiry(7, Inspection::Missing(Missing::Program))), "{effects:?}");
}

#[test]
fn a_stream_is_that_of_the_revision_in_effect() {
    let mut agent = Agent::new();
    let with_stream = |digest: String, type_name: &str| {
        let mut template = template();
        template["digest"] = json!(digest);
        template["maps"] = json!([{"name": "hash", "stream": {"reader": "Agent", "typeName": type_name}}]);
        template
    };
    let mut assignment = assignment(0);
    assignment.revisions.insert("p0".to_owned(), revision("p0", 1, &with_stream(digest(LISTS), "first")));
    agent.work(vec![Event::AssignmentChanged(Arc::new(assignment.clone()))]);
    // The next revision's object does not arrive.
    assignment.revisions.insert("p0".to_owned(), revision("p0", 2, &with_stream(digest(b"other"), "second")));
    agent.work(vec![Event::AssignmentChanged(Arc::new(assignment))]);
    let Inspection::Stream(found) = agent.ask(Inquiry::Stream(name("p0", "hash"))) else { panic!() };
    assert_eq!(found.stream.as_ref().and_then(|stream| stream.type_name.as_deref()), Some("first"));
    assert!(matches!(&found.map.object, InspectedObject::Bytes(of, _) if *of == digest(LISTS)));
}

#[test]
fn what_guards_refused_is_asked_for_and_reported_until_the_next_count() {
    let mut agent = Agent::new();
    agent.work(vec![Event::AssignmentChanged(Arc::new(assignment(2)))]);
    let Inspection::Refused(found) = agent.ask(Inquiry::Refused) else { panic!() };
    assert!(found.maps.is_empty(), "no map has the name: {:?}", found.maps);
    let pod = RefusedConnections { name: "web-0".to_owned(), count: 3, ..RefusedConnections::default() };
    agent.work(vec![Event::RefusedCounted([("p1".to_owned(), vec![pod.clone()])].into())]);
    let reported = |agent: &Agent| {
        let programs = agent.controller.report().status.programs.into_iter();
        programs.map(|program| program.refused_connections).collect::<Vec<_>>()
    };
    assert_eq!(reported(&agent), [vec![], vec![pod]]);
    agent.work(vec![Event::RefusedCounted([].into())]);
    assert_eq!(reported(&agent), [vec![], vec![]]);
}
