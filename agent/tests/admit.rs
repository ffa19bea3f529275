//! What may start: nothing that a strict target selects, before the BpfProgram is attached to it; everything else at
//! once.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "admit/kept.rs"]
mod kept;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sockeye_agent::{
    control::{
        Controller,
        controller::Settings,
        event::{Effect, Event},
        fetches::Refused,
    },
    model::{
        assignment::{Assignment, UnreadableRevision},
        pods::Pod,
        start::{Decision, Start, StartId},
    },
    node::watch::Change,
};
use sockeye_crds::{BpfRevision, Reason, Refusal, names::digest};
use sockeye_crds_testing::provoked;
use sockeye_fake::{FakeNode, settings, settle};

const OBJECT: &[u8] = b"object";
const RELEASE_NAMESPACE: &str = "sockeye-system";

fn revision(name: &str, target: &Value) -> Arc<BpfRevision> {
    revision_of(name, OBJECT, target)
}

/// A revision of a BpfProgram whose one program is attached to this target.
fn revision_of(name: &str, object: &[u8], target: &Value) -> Arc<BpfRevision> {
    let template = json!({
        "digest": digest(object), "programs": [{"name": "my_prog", "attach": [target]}],
        "object": {"programs": [{"name": "my_prog", "section": "sockops", "type": "SockOps"}]},
    });
    let spec = json!({
        "state": "Active", "programRef": {"name": name, "uid": "0b8a1b7e-6a3c-4b0f-9d7c-7f3a5f0d1c2e"},
        "programGeneration": 1, "sequence": 1, "template": template,
    });
    Arc::new(BpfRevision::of(serde_json::from_value(spec).unwrap()))
}

fn assignment(target: &Value) -> Assignment {
    let revisions = [("guard".to_owned(), revision("guard", target))].into();
    Assignment { revisions, complete: true, pods: Some(Arc::default()), ..Assignment::default() }
}

fn at_hand(assignment: Assignment) -> Assignment {
    Assignment { objects: [(digest(OBJECT), OBJECT.into())].into(), ..assignment }
}

fn unreadable(why: &str) -> BTreeMap<String, UnreadableRevision> {
    let why = Refusal { reason: Reason::AgentTooOld, message: why.to_owned() };
    [("guard".to_owned(), UnreadableRevision { name: Some("guard-2".to_owned()), uid: None, why })].into()
}

fn strict_pods(selectors: &Value) -> Value {
    let mut pods = json!({"podSelector": {}, "startPolicy": "WaitForAttachment"});
    pods.as_object_mut().unwrap().extend(selectors.as_object().unwrap().clone());
    json!({"type": "Pods", "pods": pods})
}

fn all_pods() -> Value {
    strict_pods(&json!({}))
}

fn web_pods() -> Value {
    strict_pods(&json!({"podSelector": {"matchLabels": {"app": "web"}}}))
}

fn pod() -> Pod {
    Pod {
        uid: "7c9e6679-7425-40de-944b-e07fc1f90ae7".into(),
        namespace: "shop".into(),
        name: "web".into(),
        labels: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
        ..Pod::default()
    }
}

/// A node on which the kubelet has made the pod's cgroup.
fn node() -> FakeNode {
    let node = FakeNode::default();
    node.make_pod(&pod().uid);
    node
}

fn controller(node: FakeNode) -> Controller<FakeNode> {
    let settings = Settings { release_namespace: Some(RELEASE_NAMESPACE.to_owned()), ..settings() };
    Controller::new(node, settings, Instant::now())
}

fn assigned(assignment: Assignment) -> Event {
    Event::AssignmentChanged(Arc::new(assignment))
}

fn requested(id: u64, pod: Pod) -> Event {
    Event::StartRequested(StartId(id), Start { pod, container: None })
}

fn arrived(bytes: Result<Arc<[u8]>, Refused>) -> Event {
    Event::BytesArrived { digest: digest(OBJECT), bytes }
}

fn refused() -> Event {
    arrived(Err(Refused { why: "gone".into(), retry_after: Duration::from_secs(20) }))
}

fn decisions(effects: &[Effect]) -> Vec<(u64, Decision)> {
    let decision = |effect: &Effect| match effect {
        Effect::AnswerStart(StartId(id), decision) => Some((*id, decision.clone())),
        _ => None,
    };
    effects.iter().filter_map(decision).collect()
}

#[test]
fn all_pods_wait_for_a_program_that_is_attached_to_all_of_them() {
    // While its object is being fetched, starts wait.
    let mut controller = controller(node());
    let effects = settle(&mut controller, [assigned(assignment(&all_pods())), requested(1, pod())]);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::FetchBytes(_))), "{effects:?}");
    assert_eq!(decisions(&effects), []);
    // Once it can't be had, they are refused with the reason.
    let effects = settle(&mut controller, [refused()]);
    let [(1, Err(why))] = &decisions(&effects)[..] else { panic!("{effects:?}") };
    assert!(why.contains("BpfProgram guard") && why.contains("gone"), "{why}");
    // Where it is attached, they are allowed.
    let mut controller = self::controller(node());
    let effects = settle(&mut controller, [assigned(at_hand(assignment(&all_pods()))), requested(2, pod())]);
    assert_eq!(decisions(&effects), [(2, Ok(()))]);
}

#[test]
fn a_start_waits_while_its_pods_are_unknown_and_is_refused_once_its_program_fails() {
    let mut controller = controller(node());
    // Which pods there are is not known yet.
    let unknown = Assignment { pods: None, ..assignment(&web_pods()) };
    let effects = settle(&mut controller, [assigned(unknown), requested(1, pod())]);
    assert_eq!(decisions(&effects), []);
    // Now it is, and the object does not come at all.
    assert_eq!(decisions(&settle(&mut controller, [assigned(assignment(&web_pods()))])), []);
    let effects = settle(&mut controller, [refused()]);
    assert!(matches!(decisions(&effects)[..], [(1, Err(_))]), "{effects:?}");
}

#[test]
fn a_pod_whose_cgroup_is_not_found_does_not_start() {
    let mut controller = controller(FakeNode::default());
    let effects = settle(&mut controller, [assigned(at_hand(assignment(&web_pods()))), requested(1, pod())]);
    let [(1, Err(why))] = &decisions(&effects)[..] else { panic!("{effects:?}") };
    assert!(why.contains("its cgroup is not where the kubelet puts it"), "{why}");
    let other = Pod { labels: BTreeMap::new(), ..pod() };
    assert_eq!(decisions(&settle(&mut controller, [requested(2, other)])), [(2, Ok(()))]);
}

#[test]
fn while_the_assignment_is_unknown_only_exempt_pods_start() {
    let mut controller = controller(FakeNode::default());
    let static_pod = Pod { uid: "6f1d0b6a3c2e4a55".into(), ..pod() };
    let of = |namespace: &str| Pod { namespace: namespace.into(), ..pod() };
    let all = || {
        let (of_the_cluster, of_sockeye) = (of("kube-system"), of(RELEASE_NAMESPACE));
        let exempt = [static_pod.clone(), of_the_cluster, of_sockeye];
        [0, 1, 2].map(|n| requested(n, exempt[n as usize].clone())).into_iter().chain([requested(3, pod())])
    };
    let exempt = [0, 1, 2].map(|n| (n, Ok(())));
    assert_eq!(decisions(&settle(&mut controller, all())), exempt);
    // With nothing assigned all of them may start.
    let empty = || Assignment { complete: true, ..Assignment::default() };
    assert_eq!(decisions(&settle(&mut controller, [assigned(empty())])), [(3, Ok(()))]);
    // The same again once the Node object is gone.
    assert_eq!(decisions(&settle(&mut controller, [Event::AssignmentLost])), []);
    assert_eq!(decisions(&settle(&mut controller, all())), exempt);
    // A start for whose decision nobody waits any more gets none.
    let withdrawn = [Event::StartWithdrawn(StartId(3)), assigned(empty())];
    assert_eq!(decisions(&settle(&mut controller, withdrawn)), []);
}

/// A step loads one program, then takes events: starts that need not wait are answered in the midst of a pass over a
/// thousand.
#[test]
fn a_start_that_needs_no_wait_is_answered_during_a_pass_over_a_thousand_programs() {
    let mut controller = controller(node());
    let guard = at_hand(assignment(&all_pods()));
    settle(&mut controller, [assigned(guard.clone()), requested(0, pod())]);
    let everywhere = json!({"type": "Node"});
    let many = (0..1000).map(|n| format!("p-{n}")).map(|name| (name.clone(), revision(&name, &everywhere)));
    let revisions = guard.revisions.clone().into_iter().chain(many).collect();
    let mut result = controller.step(Instant::now(), [assigned(Assignment { revisions, ..guard })]);
    let (mut steps, mut answered) = (0, Vec::new());
    while result.wake <= Instant::now() {
        let request = (steps == 10).then(|| requested(1, pod()));
        result = controller.step(Instant::now(), request);
        if !decisions(&result.effects).is_empty() {
            answered.push((steps, controller.is_working()));
        }
        steps += 1;
    }
    assert_eq!(answered, [(10, true)], "in the very step that took the request, with work left");
    assert!(steps >= 1000, "one load a step: {steps} steps");
}

/// Once the node is no longer suspended, starts wait until strict programs are attached again.
#[test]
fn a_start_after_a_suspension_waits_until_all_is_attached_again() {
    let mut controller = controller(node());
    let many = (0..1000).map(|n| format!("p-{n}")).map(|name| (name.clone(), revision(&name, &all_pods())));
    let guards = at_hand(Assignment { revisions: many.collect(), ..assignment(&all_pods()) });
    settle(&mut controller, [assigned(guards), Event::SuspendChanged(Some("drill".into()))]);
    assert_eq!(decisions(&settle(&mut controller, [requested(1, pod())])), [(1, Ok(()))], "suspended");
    let result = controller.step(Instant::now(), [Event::SuspendChanged(None), requested(2, pod())]);
    assert!(controller.is_working());
    assert_eq!(decisions(&result.effects), []);
    assert_eq!(decisions(&settle(&mut controller, [])), [(2, Ok(()))]);
}

/// Nothing is attached there, and nothing can be.
#[test]
fn no_start_waits_for_what_is_suspended_on_a_node_without_bpffs() {
    let node = node();
    node.unmount_bpffs();
    let mut controller = controller(node);
    let effects = settle(&mut controller, [assigned(at_hand(assignment(&all_pods()))), requested(1, pod())]);
    assert!(matches!(decisions(&effects)[..], [(1, Err(_))]), "{effects:?}");
    let suspend = |why: Option<&str>| Event::SuspendChanged(why.map(str::to_owned));
    assert_eq!(decisions(&settle(&mut controller, [suspend(Some("drill")), requested(2, pod())])), [(2, Ok(()))]);
    let effects = settle(&mut controller, [suspend(None), requested(3, pod())]);
    assert!(matches!(decisions(&effects)[..], [(3, Err(_))]), "{effects:?}");
}

/// A newer revision of it can't be read, and the agent has just started: what the older one selects is not let through.
#[test]
fn a_strict_program_that_can_no_longer_be_read_still_holds_starts() {
    let mut controller = controller(node());
    let unreadable = unreadable("BpfRevision guard-2 can't be read");
    let assignment = Assignment { unreadable, ..at_hand(assignment(&all_pods())) };
    let effects = settle(&mut controller, [assigned(assignment), requested(1, pod())]);
    assert!(matches!(&decisions(&effects)[..], [(1, Err(why))] if why.contains("can't be read")), "{effects:?}");
}

#[test]
fn a_pin_that_is_removed_while_pods_are_followed_is_made_anew() {
    let node = FakeNode::default();
    let mut controller = controller(node.clone());
    let many = (0..1000).map(|n| format!("p-{n}")).map(|name| (name.clone(), revision(&name, &web_pods())));
    let assignment = Assignment { revisions: many.collect(), ..at_hand(assignment(&web_pods())) };
    settle(&mut controller, [assigned(assignment)]);
    // A pod comes, which they don't select; while that is worked out, someone removes the pin of the last one.
    node.make_pod(&pod().uid);
    controller.step(Instant::now(), [requested(1, Pod { labels: BTreeMap::new(), ..pod() })]);
    assert!(controller.is_working());
    node.unpin("p-999");
    settle(&mut controller, [Event::HomesChanged(Change::Homes(["p-999".to_owned()].into()))]);
    assert!(node.is_pinned("p-999"));
}

/// Nothing is tried of what is frozen, however long ago a retry was due.
#[test]
fn a_program_that_failed_and_can_no_longer_be_read_keeps_no_agent_busy() {
    let mut controller = controller(FakeNode::default());
    let failing = assignment(&all_pods());
    settle(&mut controller, [assigned(failing.clone()), refused()]);
    let later = Instant::now() + Duration::from_secs(100);
    let assignment = Assignment { unreadable: unreadable("why"), ..failing };
    let mut result = controller.step(later, [assigned(assignment)]);
    for _ in 0..10 {
        result = controller.step(later, []);
    }
    assert!(result.wake > later);
}

/// What is held back for one program does not wait for a thousand others.
#[test]
fn a_strict_program_is_loaded_before_those_that_nobody_waits_for() {
    let mut controller = controller(node());
    let everywhere = json!({"type": "Node"});
    let many = (0..1000).map(|n| format!("a-{n}")).map(|name| (name.clone(), revision(&name, &everywhere)));
    let guard = at_hand(assignment(&all_pods()));
    let revisions = guard.revisions.clone().into_iter().chain(many).collect();
    let events = [assigned(Assignment { revisions, ..guard }), requested(1, pod())];
    let mut effects = controller.step(Instant::now(), events).effects;
    for _ in 0..3 {
        effects.extend(controller.step(Instant::now(), []).effects);
    }
    assert_eq!(decisions(&effects), [(1, Ok(()))]);
    assert!(controller.is_working());
}

/// A node without bpffs can attach nothing, but starts that wait for nothing go on.
#[test]
fn without_bpffs_only_starts_that_a_strict_target_selects_are_refused() {
    let node = node();
    node.unmount_bpffs();
    let mut controller = controller(node);
    let empty = Assignment { complete: true, ..Assignment::default() };
    assert_eq!(decisions(&settle(&mut controller, [assigned(empty), requested(1, pod())])), [(1, Ok(()))]);
    let effects = settle(&mut controller, [assigned(at_hand(assignment(&all_pods()))), requested(2, pod())]);
    let [(2, Err(why))] = &decisions(&effects)[..] else { panic!("{effects:?}") };
    assert!(why.contains("bpffs"), "{why}");
}

#[test]
fn a_start_that_needs_no_wait_is_answered_during_a_fetch() {
    let mut controller = controller(node());
    let guard = at_hand(assignment(&all_pods()));
    settle(&mut controller, [assigned(guard.clone()), requested(0, pod())]);
    // Another program's object is on its way, and stays so.
    let other = revision_of("other", b"another", &json!({"type": "Node"}));
    let revisions = guard.revisions.clone().into_iter().chain([("other".to_owned(), other)]).collect();
    let effects = settle(&mut controller, [assigned(Assignment { revisions, ..guard })]);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::FetchBytes(_))), "{effects:?}");
    assert_eq!(decisions(&settle(&mut controller, [requested(1, pod())])), [(1, Ok(()))]);
}

/// A strict target that says nothing of namespaces: what the cluster and sockeye itself need is attached to as soon as
/// possible, and starts whether or not that works.
#[test]
fn a_strict_target_without_namespaces_holds_no_pod_of_the_system() {
    let start = |n: u64, namespace: &str| {
        let uid = format!("7c9e6679-7425-40de-944b-00000000000{n}");
        (uid.clone(), requested(n, Pod { uid, namespace: namespace.to_owned(), ..pod() }))
    };
    let starts = || [start(1, "kube-system"), start(2, RELEASE_NAMESPACE), start(3, "shop"), start(4, "sockeye")];
    let node = FakeNode::default();
    starts().iter().for_each(|(uid, _)| node.make_pod(uid));
    let allowed = |target: &Value, of: fn(Assignment) -> Assignment| {
        let mut controller = controller(node.clone());
        let events = [assigned(of(assignment(target)))].into_iter().chain(starts().map(|(_, request)| request));
        let mut effects = settle(&mut controller, events);
        effects.extend(settle(&mut controller, [refused()]));
        let decisions = decisions(&effects).into_iter().map(|(n, decision)| (n, decision.is_ok())).collect::<Vec<_>>();
        (decisions, controller.status().programs[0].pods)
    };
    let anywhere = strict_pods(&json!({"namespaceSelector": {}}));
    assert_eq!(allowed(&all_pods(), |unfetched| unfetched), (vec![(1, true), (2, true), (3, false), (4, false)], 0));
    assert_eq!(allowed(&anywhere, |unfetched| unfetched), ((1..5).map(|n| (n, false)).collect(), 0));
    assert_eq!(allowed(&all_pods(), at_hand), ((1..5).map(|n| (n, true)).collect(), 4), "attached to all of them");
}

#[test]
fn a_strict_program_is_reported_where_the_runtime_asks_nobody() {
    let mut controller = controller(node());
    for (gap, is_kept) in [(Some("the runtime closed the connection".to_owned()), false), (None, true)] {
        let pods = Some(Arc::new(vec![pod()]));
        let assigned = assigned(at_hand(Assignment { pods, ..assignment(&all_pods()) }));
        settle(&mut controller, [Event::RuntimeChanged(gap), assigned]);
        let program = controller.status().programs[0].clone();
        assert_eq!(program.reason, (!is_kept).then_some(Reason::NRINotConnected), "{program:?}");
        assert_eq!(program.links, 1, "it is attached all the same");
        if let Some(message) = program.message {
            assert!(message.contains("the runtime closed the connection") && message.contains("docs/strict.md"));
            provoked(program.reason, &message);
        }
    }
}
