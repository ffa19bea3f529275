//! Events on pods: only on those that the API server has on the node that reports them, with the UID that it reports.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use sockeye_crds::{node::RefusedConnections, revision::ProgramRef};
use sockeye_operator::events::refused::RefusedPod;

use crate::api::{Answer, Api};

fn refused(uid: &str, name: &str) -> RefusedPod {
    let pod = RefusedConnections {
        namespace: "shop".into(),
        name: name.into(),
        uid: uid.into(),
        count: 3,
        since_time: "2026-01-01T12:00:00Z".into(),
        last_time: "2026-01-01T12:00:01Z".into(),
    };
    RefusedPod { node: "node-1".into(), pod }
}

fn pod(node: &str, metadata: &Value) -> Answer {
    Answer::ok(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"nodeName": node}}))
}

/// Publishes once, against an API server with this answer; returns the requests and the Events.
async fn publish(answer: Answer, refused: &RefusedPod) -> (Vec<String>, Vec<Value>) {
    let api = Api::new([answer]);
    let program = ProgramRef { name: "guard".into(), uid: "g".into() };
    let now: Timestamp = "2026-01-01T12:00:02Z".parse().unwrap();
    api.pod_events.publish(&program, std::slice::from_ref(refused), now).await;
    (api.requests(), api.event_bodies())
}

#[tokio::test]
async fn a_pod_that_is_on_the_node_gets_an_event() {
    let metadata = json!({"name": "web", "namespace": "shop", "uid": "u"});
    let (requests, events) = publish(pod("node-1", &metadata), &refused("u", "web")).await;
    assert_eq!(requests, ["GET /api/v1/namespaces/shop/pods/web"]);
    let [event] = &events[..] else { panic!("{events:?}") };
    assert_eq!((&event["type"], &event["reason"]), (&json!("Warning"), &json!("ConnectionsRefused")));
    let regarding = json!({"apiVersion": "v1", "kind": "Pod", "namespace": "shop", "name": "web", "uid": "u"});
    assert_eq!(event["regarding"], regarding);
    assert_eq!(event["metadata"]["namespace"], "shop");
    let note = event["note"].as_str().unwrap();
    assert!(note.contains("BpfProgram guard refused 3 connections of this pod on node node-1 since 2026-"), "{note}");
}

#[tokio::test]
async fn a_mirror_pod_is_known_by_the_uid_of_its_static_pod() {
    let mirror = |hash: &str| {
        let annotations = json!({"kubernetes.io/config.mirror": hash});
        json!({"name": "web", "namespace": "shop", "uid": "u", "annotations": annotations})
    };
    let (_, events) = publish(pod("node-1", &mirror("0a1b")), &refused("0a1b", "web")).await;
    assert_eq!(events[0]["regarding"]["uid"], "u");
    let forged = "0b5c1f9e-5d7a-4a44-9f0e-0e1d2c3b4a59";
    let (_, events) = publish(pod("node-1", &mirror(forged)), &refused(forged, "web")).await;
    assert!(events.is_empty());
}

#[tokio::test]
async fn a_nodes_word_alone_makes_no_event() {
    let metadata = json!({"name": "web", "namespace": "shop", "uid": "u"});
    for (answer, uid) in [
        (pod("node-2", &metadata), "u"),
        (pod("node-1", &metadata), "another"),
        (pod("node-1", &metadata), ""),
        (Answer::failure(404, "NotFound"), "u"),
        (Answer::failure(403, "Forbidden"), "u"),
    ] {
        let (requests, events) = publish(answer, &refused(uid, "web")).await;
        assert_eq!((requests.len(), events), (1, vec![]), "{uid}");
    }
    for name in ["", "../../secrets/s", "web/log", "web?x"] {
        let (requests, events) = publish(pod("node-1", &metadata), &refused("u", name)).await;
        assert!(requests.is_empty() && events.is_empty(), "{name}: {requests:?}");
    }
}
