//! A node that verifies who signed objects, under an operator that dispatches others than the signed ones.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::{BTreeMap, VecDeque},
    fs, mem,
    sync::Arc,
    time::{Instant, SystemTime},
};

use serde_json::{Value, json};
use sockeye_agent::{
    control::{
        Controller,
        event::{Effect, Event},
        verify::{Verification, verify},
    },
    model::{
        assignment::Assignment,
        pods::Pod,
        start::{Start, StartId},
    },
};
use sockeye_crds::{BpfRevision, Builtin, Reason, names::digest, node::NodeProgram};
use sockeye_crds_testing::provoked;
use sockeye_fake::{FakeNode, settings, settle};
use sockeye_provenance::{
    Archive, Verifier,
    fixtures::{Image, Key, index, packed_image, policy},
};

const REPOSITORY: &str = "registry.example/team/guard";

/// An operator: the bytes that it has stored, by digest, and the revisions that it dispatches.
#[derive(Default)]
struct Operator {
    stored: BTreeMap<String, Vec<u8>>,
    sequence: i64,
}

impl Operator {
    fn store(&mut self, bytes: &[u8]) -> String {
        self.stored.insert(digest(bytes), bytes.to_vec());
        digest(bytes)
    }

    fn store_archive(&mut self, archive: &Archive) -> Vec<String> {
        archive.encode().unwrap().iter().map(|part| self.store(part)).collect()
    }

    /// Dispatches an object with whatever it says of its origin.
    fn dispatch(&mut self, object: &[u8], origin: &Value) -> BpfRevision {
        self.dispatch_to(object, origin, &json!({"type": "Node"}))
    }

    fn dispatch_to(&mut self, object: &[u8], origin: &Value, target: &Value) -> BpfRevision {
        self.sequence += 1;
        let info = json!({"programs": [{"name": "my_prog", "section": "sockops", "type": "SockOps"}], "maps": [],
            "license": "GPL", "btf": true});
        let mut template = json!({"digest": self.store(object), "object": info,
            "programs": [{"name": "my_prog", "type": "SockOps", "attach": [target]}]});
        template.as_object_mut().unwrap().extend(origin.as_object().unwrap().clone());
        let spec = json!({"state": "Active", "programRef": {"name": "guard", "uid": "u"}, "programGeneration": 1,
            "sequence": self.sequence, "template": template});
        BpfRevision::of(serde_json::from_value(spec).unwrap())
    }

    fn dispatch_image(&mut self, object: &[u8], image: &Image) -> BpfRevision {
        let origin = self.origin(image);
        self.dispatch(object, &origin)
    }

    /// Stores an image's proof, and returns what a revision says of it.
    fn origin(&mut self, image: &Image) -> Value {
        json!({
            "image": {"reference": format!("{REPOSITORY}:v1"), "digest": image.digest},
            "proof": {"source": "Image", "digests": self.store_archive(&image.archive)},
        })
    }
}

struct Node {
    controller: Controller<FakeNode>,
    verifier: Option<Verifier>,
    fetched: Vec<String>,
    judged: usize,
}

impl Node {
    fn new(mode: &str) -> Self {
        let verifier = Verifier::read(&policy(mode, REPOSITORY, &Key::new(1)), None).unwrap();
        let controller = Controller::new(FakeNode::default(), settings(), Instant::now());
        Self { controller: controller.verifying(true), verifier: Some(verifier), fetched: Vec::new(), judged: 0 }
    }

    /// Has the node run a revision, and returns what it reports.
    fn run(&mut self, operator: &Operator, revision: BpfRevision) -> NodeProgram {
        let mut event = assigned(revision);
        while let Some(verification) = self.until_to_judge(operator, mem::replace(&mut event, Event::PodsChanged)) {
            event = self.judge(verification);
        }
        self.controller.status().programs.into_iter().find(|program| program.name == "guard").unwrap()
    }

    /// Goes on until an object is to be judged, if there is one.
    fn until_to_judge(&mut self, operator: &Operator, mut event: Event) -> Option<Verification> {
        let (mut wanted, mut to_judge, before) = (VecDeque::new(), Vec::new(), self.fetched.len());
        // The bytes come one by one, as they do from the API server.
        loop {
            for effect in settle(&mut self.controller, [event]) {
                match effect {
                    Effect::FetchBytes(digest) => wanted.push_back(digest),
                    Effect::VerifyObject(verification) => to_judge.push(*verification),
                    _ => {}
                }
            }
            let Some(digest) = wanted.pop_front() else { break };
            event = Event::BytesArrived { digest: digest.clone(), bytes: Ok(operator.stored[&digest].clone().into()) };
            self.fetched.push(digest);
            assert!(self.fetched.len() - before < 20, "the same is fetched again and again: {:?}", self.fetched);
        }
        assert!(to_judge.len() < 2, "the same is judged again and again: {to_judge:?}");
        to_judge.pop()
    }

    fn judge(&mut self, verification: Verification) -> Event {
        self.judged += 1;
        let verdict = verify(self.verifier.as_ref().unwrap(), &verification, SystemTime::now());
        Event::ObjectVerified { claim: verification.claim, verdict }
    }

    /// Asks whether a pod's containers may start, and returns the starts that are answered at once.
    fn allowed(&mut self, id: u64, pod: Pod) -> Vec<u64> {
        allowed(&settle(&mut self.controller, [Event::StartRequested(StartId(id), Start { pod, container: None })]))
    }
}

fn assigned(revision: BpfRevision) -> Event {
    let revisions = BTreeMap::from([("guard".to_owned(), Arc::new(revision))]);
    let pods = Some(Arc::default());
    Event::AssignmentChanged(Arc::new(Assignment { revisions, pods, complete: true, ..Assignment::default() }))
}

fn allowed(effects: &[Effect]) -> Vec<u64> {
    let allowed = |effect: &Effect| match effect {
        Effect::AnswerStart(StartId(id), Ok(())) => Some(*id),
        _ => None,
    };
    effects.iter().filter_map(allowed).collect()
}

fn pod(uid: &str, app: &str) -> Pod {
    let labels = BTreeMap::from([("app".to_owned(), app.to_owned())]);
    Pod { uid: uid.into(), namespace: "shop".into(), name: app.into(), labels, ..Pod::default() }
}

/// The processor time that this thread has used, in nanoseconds: others on the machine do not count.
fn thread_time() -> u64 {
    fs::read_to_string("/proc/thread-self/schedstat").unwrap().split(' ').next().unwrap().parse().unwrap()
}

fn object(last: u8) -> Vec<u8> {
    let mut object = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x01\0\xf7\0\x01\0\0\0".to_vec();
    object.resize(1500, 7);
    object.push(last);
    object
}

/// Returns an index with an object for each architecture, signed, and the archive for amd64.
fn signed(object: &[u8], key: &Key) -> Image {
    let mut image = index(&[("amd64", &packed_image(object)), ("arm64", &packed_image(b"\x7fELFother"))], 0);
    image.archive.evidence = vec![key.sign_image(&image.digest)];
    image
}

#[track_caller]
fn assert_refused(program: &NodeProgram) {
    assert_eq!(program.reason, Some(Reason::VerificationFailed), "{program:?}");
    provoked(program.reason, program.message.as_deref().unwrap());
}

#[test]
fn a_signed_image_is_loaded_and_others_leave_it_in_effect() {
    let (mut operator, mut node) = (Operator::default(), Node::new("Enforce"));
    let (good, other) = (object(1), object(2));
    let image = signed(&good, &Key::new(1));
    let revision = operator.dispatch_image(&good, &image);
    let program = node.run(&operator, revision);
    assert_eq!((program.revision.as_deref(), program.reason), (Some("guard-1"), None), "{program:?}");

    let evil = signed(&other, &Key::new(2));
    // Other bytes under the good image's proof; another image under the good signature; unsigned; signed by another.
    let mut borrowed = signed(&other, &Key::new(2));
    borrowed.archive.evidence.clone_from(&image.archive.evidence);
    let mut unsigned = signed(&other, &Key::new(1));
    unsigned.archive.evidence.clear();
    for image in [&image, &borrowed, &unsigned, &evil] {
        let revision = operator.dispatch_image(&other, image);
        let program = node.run(&operator, revision);
        assert_refused(&program);
        assert_eq!(program.revision.as_deref(), Some("guard-1"), "what ran goes on: {program:?}");
        assert!(program.message.unwrap().contains("is not loaded"));
    }
    let revision = operator.dispatch(&other, &json!({}));
    let program = node.run(&operator, revision);
    assert_refused(&program);
    // The next signed one is loaded again.
    let newer = signed(&other, &Key::new(1));
    let revision = operator.dispatch_image(&other, &newer);
    let program = node.run(&operator, revision);
    assert_eq!((program.revision.as_deref(), program.reason), (Some("guard-7"), None), "{program:?}");
}

#[test]
fn bytes_that_are_only_said_to_be_a_builtin_are_refused() {
    let (mut operator, mut node) = (Operator::default(), Node::new("Enforce"));
    let origin = json!({"proof": {"source": "Builtin", "builtin": "tcp-rtt"}});
    let revision = operator.dispatch(&object(1), &origin);
    let program = node.run(&operator, revision);
    assert_refused(&program);
    assert!(program.message.unwrap().contains("builtin tcp-rtt"));
    let shipped = sockeye_ebpf::programs::builtin(Builtin::TcpRtt);
    let revision = operator.dispatch(shipped, &origin);
    let program = node.run(&operator, revision);
    assert_eq!((program.revision.as_deref(), program.reason), (Some("guard-2"), None), "{program:?}");
}

#[test]
fn another_source_than_the_signed_one_helps_nobody() {
    let (mut operator, mut node) = (Operator::default(), Node::new("Enforce"));
    for source in ["Inline", "ConfigMap", "Image"] {
        let revision = operator.dispatch(&object(1), &json!({"proof": {"source": source}}));
        let program = node.run(&operator, revision);
        assert_refused(&program);
    }
}

#[test]
fn a_damaged_proof_is_refused_and_not_believed() {
    let (mut operator, mut node) = (Operator::default(), Node::new("Enforce"));
    let part = operator.store(b"no archive");
    let origin = json!({"proof": {"source": "Inline", "digests": [part]}});
    let revision = operator.dispatch(&object(1), &origin);
    let program = node.run(&operator, revision);
    assert_refused(&program);
    assert!(program.message.unwrap().contains("damaged"));
}

#[test]
fn a_policy_that_only_warns_keeps_nothing_from_being_loaded() {
    let (mut operator, mut node) = (Operator::default(), Node::new("Warn"));
    let revision = operator.dispatch(&object(1), &json!({"proof": {"source": "Inline"}}));
    let program = node.run(&operator, revision);
    assert_eq!((program.revision.as_deref(), program.reason), (Some("guard-1"), None), "{program:?}");
}

#[test]
fn a_node_that_does_not_verify_fetches_no_proof() {
    let mut operator = Operator::default();
    let mut node = Node::new("Enforce");
    node.controller = Controller::new(FakeNode::default(), settings(), Instant::now());
    node.verifier = None;
    let image = signed(&object(1), &Key::new(2));
    let revision = operator.dispatch_image(&object(1), &image);
    let program = node.run(&operator, revision);
    assert_eq!(program.reason, None);
    assert_eq!(node.fetched, [digest(&object(1))]);
}

#[test]
fn starts_are_answered_while_an_object_is_being_judged() {
    let (mut operator, mut node) = (Operator::default(), Node::new("Enforce"));
    let uids = ["7c9e6679-7425-40de-944b-e07fc1f90ae7", "9d6e6679-7425-40de-944b-e07fc1f90ae7"];
    let fake = FakeNode::default();
    uids.iter().for_each(|uid| fake.make_pod(uid));
    node.controller = Controller::new(fake, settings(), Instant::now()).verifying(true);
    let image = signed(&object(1), &Key::new(1));
    let origin = operator.origin(&image);
    let target = json!({"type": "Pods", "pods": {"startPolicy": "WaitForAttachment",
        "podSelector": {"matchLabels": {"app": "web"}}}});
    let revision = operator.dispatch_to(&object(1), &origin, &target);
    let verification = node.until_to_judge(&operator, assigned(revision)).unwrap();
    // Meanwhile one that nothing selects starts, and one that the program guards waits.
    assert_eq!(node.allowed(1, pod(uids[0], "other")), [1]);
    assert!(node.allowed(2, pod(uids[1], "web")).is_empty());
    let verdict = node.judge(verification);
    let effects = settle(&mut node.controller, [verdict]);
    let fetched = |effect: &Effect| matches!(effect, Effect::FetchBytes(_) | Effect::VerifyObject(_));
    assert!(!effects.iter().any(fetched), "the object is at hand: {effects:?}");
    assert_eq!(allowed(&effects), [2]);
}

#[test]
fn no_step_takes_as_long_as_a_verdict() {
    let (mut operator, mut node) = (Operator::default(), Node::new("Enforce"));
    // As many as are verified of one object.
    let mut image = signed(&object(1), &Key::new(2));
    image.archive.evidence = vec![image.archive.evidence[0].clone(); 32];
    let revision = operator.dispatch_image(&object(1), &image);
    let begin = thread_time();
    let verification = node.until_to_judge(&operator, assigned(revision)).unwrap();
    let before_verdict = thread_time();
    let verdict = node.judge(verification);
    let judged = thread_time();
    settle(&mut node.controller, [verdict]);
    let (steps, verdict) = ((before_verdict - begin) + (thread_time() - judged), judged - before_verdict);
    assert!(steps * 4 < verdict, "{steps} ns in steps, {verdict} ns for the verdict");
}

#[test]
fn a_verdict_is_remembered_for_the_same_object_and_proof_alone() {
    let (mut operator, mut node) = (Operator::default(), Node::new("Enforce"));
    let (one, two) = (signed(&object(1), &Key::new(1)), signed(&object(2), &Key::new(1)));
    // There and back, and then elsewhere: nothing of it needs another verdict but the other object.
    for (object, image, judged) in [(object(1), &one, 1), (object(2), &two, 2), (object(1), &one, 2)] {
        let revision = operator.dispatch_image(&object, image);
        let program = node.run(&operator, revision);
        assert_eq!((program.reason, node.judged), (None, judged), "{program:?}");
    }
    assert_eq!(node.fetched.last(), Some(&digest(&object(1))), "a proof that was judged is not fetched again");
    // An object that was judged, and is now said to be from elsewhere, is another claim.
    let revision = operator.dispatch(&object(2), &json!({"proof": {"source": "Inline"}}));
    let program = node.run(&operator, revision);
    assert_eq!((program.reason, node.judged), (Some(Reason::VerificationFailed), 3), "{program:?}");
}
