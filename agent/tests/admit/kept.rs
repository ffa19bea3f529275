//! Starts in pods that a strict target goes on selecting after they were relabelled.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sockeye_agent::{
    control::{event::Event, fetches::Refused},
    model::{
        assignment::Assignment,
        pods::Pod,
        start::{Container, Start, StartId},
    },
    node::Node as _,
};
use sockeye_crds::names::digest;
use sockeye_fake::{FakeNode, settle};

use super::{
    assigned, assignment, at_hand, controller, decisions, node, pod, requested, revision, revision_of, web_pods,
};

/// A strict target that goes on selecting its pods: a container of them, or whole pods.
fn keeper(containers: &Value) -> Value {
    let mut target = web_pods();
    target["pods"]["whenUnselected"] = json!("KeepUntilPodEnds");
    if !containers.is_null() {
        target["pods"]["containers"] = containers.clone();
    }
    target
}

/// The pods as the API server has them once somebody relabelled one.
fn relabelled(assignment: Assignment) -> Assignment {
    let pod = Pod { labels: [("app".to_owned(), "other".to_owned())].into(), ..pod() };
    Assignment { pods: Some(Arc::new(vec![pod])), ..assignment }
}

/// The start of the pod's container `app` with this ID.
fn container(id: u64, container: &str) -> Event {
    let container = Some(Container { id: container.to_owned(), name: "app".to_owned() });
    Event::StartRequested(StartId(id), Start { pod: pod(), container })
}

/// Returns the number of programs that are attached to a cgroup.
fn attached(node: &FakeNode, path: &str) -> usize {
    const SOCK_OPS: u32 = 3;
    node.attached(path, SOCK_OPS).unwrap().unwrap().programs.len()
}

#[test]
fn a_restarted_container_of_a_relabelled_pod_waits_for_the_program_that_keeps_the_pod() {
    let node = node();
    let first = node.make_container(&pod().uid, "1");
    let mut controller = controller(node.clone());
    let kept = at_hand(assignment(&keeper(&json!(["app"]))));
    let effects = settle(&mut controller, [assigned(kept.clone()), container(1, "1")]);
    assert_eq!((decisions(&effects), attached(&node, &first)), (vec![(1, Ok(()))], 1));
    settle(&mut controller, [assigned(relabelled(kept))]);
    let restarted = node.make_container(&pod().uid, "2");
    assert_eq!(decisions(&settle(&mut controller, [container(2, "2")])), [(2, Ok(()))]);
    assert_eq!(attached(&node, &restarted), 1);

    // Another agent, and a revision that does not load: what keeps the pod refuses its containers, and no others.
    let mut controller = self::controller(node.clone());
    let failing = revision_of("guard", b"another", &keeper(&json!(["app"])));
    let revisions = [("guard".to_owned(), failing)].into();
    node.make_container(&pod().uid, "3");
    let another = Pod { uid: "7c9e6679-7425-40de-944b-000000000001".to_owned(), labels: BTreeMap::new(), ..pod() };
    node.make_pod(&another.uid);
    let failing = relabelled(Assignment { revisions, ..assignment(&web_pods()) });
    settle(&mut controller, [assigned(failing)]);
    let refused = Err(Refused { why: "gone".into(), retry_after: Duration::from_secs(20) });
    let refused = Event::BytesArrived { digest: digest(b"another"), bytes: refused };
    let effects = settle(&mut controller, [container(3, "3"), requested(4, another), refused]);
    let mut decisions = decisions(&effects);
    decisions.sort_by_key(|(id, _)| *id);
    assert!(matches!(&decisions[..], [(3, Err(why)), (4, Ok(()))] if why.contains("gone")), "{decisions:?}");
}

/// An agent that has just started knows which pods are kept once it has looked at each BpfProgram.
#[test]
fn a_start_waits_until_it_is_known_which_programs_keep_its_pod() {
    let node = node();
    node.make_container(&pod().uid, "1");
    let target = keeper(&json!(["app"]));
    let many = (0..1000).map(|n| format!("p-{n}")).map(|name| (name.clone(), revision(&name, &target)));
    let kept = at_hand(Assignment { revisions: many.collect(), ..assignment(&target) });
    settle(&mut controller(node.clone()), [assigned(kept.clone()), container(1, "1")]);
    let mut controller = controller(node.clone());
    let restarted = node.make_container(&pod().uid, "2");
    let events = [assigned(relabelled(kept)), container(2, "2")];
    let mut result = controller.step(Instant::now(), events);
    while decisions(&result.effects).is_empty() {
        assert!(controller.is_working());
        result = controller.step(Instant::now(), []);
    }
    assert_eq!(decisions(&result.effects), [(2, Ok(()))]);
    assert_eq!(attached(&node, &restarted), 1000);
}

#[test]
fn a_relabelled_pod_is_attached_to_again_after_a_suspension() {
    let node = node();
    let path = format!("/kubepods/pod{}", pod().uid);
    let kept = relabelled(at_hand(assignment(&keeper(&Value::Null))));
    let selected = Assignment { pods: Some(Arc::new(vec![pod()])), ..kept.clone() };
    let mut controller = controller(node.clone());
    settle(&mut controller, [assigned(selected)]);
    settle(&mut controller, [assigned(kept)]);
    assert_eq!((attached(&node, &path), controller.status().programs[0].pods), (1, 1), "counted too");
    settle(&mut controller, [Event::SuspendChanged(Some("drill".into()))]);
    assert_eq!(attached(&node, &path), 0);
    settle(&mut controller, [Event::SuspendChanged(None)]);
    assert_eq!(attached(&node, &path), 1);
}
