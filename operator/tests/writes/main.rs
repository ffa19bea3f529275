//! `Writer` against an API server whose answers each test scripts.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod api;

use serde_json::json;
use sockeye_client::probes::Health as _;
use sockeye_crds::{BpfRevision, Reason, names, revision::RevisionState};
use sockeye_crds_testing::provoked;
use sockeye_operator::{
    events::ProgramEvent,
    reconcile::step::{ObjectVersion, Step},
};

use crate::api::{Answer, Api, config_map, revision, stored};

fn program() -> ObjectVersion {
    ObjectVersion { name: "p".into(), uid: "u".into(), resource_version: "7".into() }
}

fn publish() -> Vec<Step> {
    let event = ProgramEvent { is_warning: false, reason: "R".into(), action: "A", note: "n".into(), quoted: vec![] };
    vec![Step::PublishEvent(event)]
}

fn store() -> Vec<Step> {
    vec![Step::StoreBytes { digest: names::digest(b"elf"), bytes: b"elf".to_vec() }]
}

#[tokio::test]
async fn an_event_does_not_make_an_operator_ready_whose_last_write_was_rejected() {
    let api = Api::new([Answer::failure(403, "Forbidden")]);
    api.health.set_listed();
    assert!(api.writer.delete_bytes(&program()).await.unwrap_err().rejection().is_some());
    assert!(api.health.ready().is_err());
    api.writer.apply(&mut program(), publish()).await.unwrap();
    assert!(api.health.ready().is_err(), "nothing but an Event was written");
}

/// Otherwise one BpfProgram would keep `helm upgrade --wait` waiting.
#[tokio::test]
async fn an_operator_one_of_whose_objects_is_refused_is_ready_and_one_that_lacks_a_right_is_not() {
    let quota = "configmaps \"sockeye-object-1\" is forbidden: exceeded quota: objects, requested: count/configmaps=1";
    let webhook = "admission webhook \"guard.example\" denied the request: no";
    let right = "configmaps is forbidden: User \"system:serviceaccount:n:sockeye-operator\" cannot create resource \
                 \"configmaps\" in API group \"\" in the namespace \"n\"";
    let status = || vec![Step::WriteStatus(Box::default())];
    for (steps, code, message, is_ready) in [
        (store(), 403, quota, true),
        (store(), 403, webhook, true),
        (store(), 400, webhook, true),
        (store(), 413, "too large", true),
        (vec![Step::Dispatch(Box::new(revision()))], 403, webhook, true),
        (store(), 403, right, false),
        (store(), 401, "Unauthorized", false),
        (store(), 500, "failed calling webhook", false),
        (status(), 403, webhook, false),
    ] {
        let api = Api::new([Answer::refusal(code, "Refused", message)]);
        api.health.set_listed();
        assert!(api.writer.apply(&mut program(), steps).await.is_err());
        assert_eq!(api.health.ready().is_ok(), is_ready, "{code}: {message}");
    }
}

#[tokio::test]
async fn an_event_that_cannot_be_published_fails_no_write() {
    let api = Api::without_events([]);
    api.health.set_listed();
    api.writer.apply(&mut program(), publish()).await.unwrap();
    assert_eq!(api.health.ready(), Ok(()));
}

#[tokio::test]
async fn events_are_counted_by_what_became_of_them() {
    for (api, published, failed) in [(Api::new([]), 1, 0), (Api::without_events([]), 0, 1)] {
        api.writer.apply(&mut program(), publish()).await.unwrap();
        let events = &api.metrics.events;
        assert_eq!((events.get(&["published"]), events.get(&["failed"])), (published, failed));
    }
}

#[tokio::test]
async fn a_deletion_of_a_missing_object_succeeds() {
    let api = Api::new([Answer::failure(404, "NotFound")]);
    api.writer.delete_bytes(&program()).await.unwrap();
}

#[tokio::test]
async fn a_conflict_is_transient_and_nothing_to_tell_the_user_or_the_kubelet() {
    for step in [
        Step::AddFinalizer { present: vec![] },
        Step::RemoveFinalizer { others: vec![] },
        Step::WriteStatus(Box::default()),
        Step::Retire(program()),
        Step::DeleteRevision(program()),
    ] {
        let api = Api::new([Answer::failure(409, "Conflict")]);
        api.health.set_listed();
        let error = api.writer.apply(&mut program(), vec![step]).await.unwrap_err();
        assert!(error.is_conflict() && error.is_transient(), "{error}");
        assert_eq!((error.rejection(), api.health.ready()), (None, Ok(())));
    }
}

#[tokio::test]
async fn each_write_is_based_on_the_version_that_the_last_one_left() {
    let left = |version: &str| Answer::ok(json!({"metadata": {"resourceVersion": version}}));
    let api = Api::new([left("8"), left("30"), left("9"), Answer::failure(409, "Conflict")]);
    let mut version = program();
    let steps = vec![
        Step::AddFinalizer { present: vec!["other".into()] },
        Step::Retire(ObjectVersion { name: "p-1".into(), uid: "r".into(), resource_version: "3".into() }),
        Step::WriteStatus(Box::default()),
        Step::RemoveFinalizer { others: vec!["other".into()] },
    ];
    assert!(api.writer.apply(&mut version, steps).await.unwrap_err().is_conflict());
    let based_on = |body: &serde_json::Value| body["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    assert_eq!(api.bodies().iter().map(based_on).collect::<Vec<_>>(), ["7", "3", "8", "9"]);
    assert_eq!(api.bodies()[0]["metadata"]["finalizers"], json!(["other", names::FINALIZER]));
    assert_eq!(api.bodies()[3]["metadata"]["finalizers"], json!(["other"]));
    assert_eq!(version.resource_version, "9", "what failed left no version");
}

/// Dispatches a revision of whose name there is one already.
async fn dispatch_beside(existing: &BpfRevision) -> Result<(), sockeye_operator::reconcile::apply::Error> {
    let items = json!({"metadata": {}, "items": [existing]});
    let api = Api::new([Answer::failure(409, "AlreadyExists"), Answer::ok(items)]);
    let result = api.writer.apply(&mut program(), vec![Step::Dispatch(Box::new(revision()))]).await;
    let requests = ["POST /apis/sockeye.dev/v1alpha1/bpfrevisions", "GET /apis/sockeye.dev/v1alpha1/bpfrevisions"];
    assert_eq!(api.requests(), requests, "nothing is overwritten");
    result
}

#[tokio::test]
async fn a_revision_that_is_there_counts_as_dispatched_only_if_it_is_the_same() {
    let same = BpfRevision { metadata: revision().metadata, ..revision() };
    dispatch_beside(&same).await.unwrap();
    let mut later = same.clone();
    later.spec.program_generation += 1;
    dispatch_beside(&later).await.unwrap();
    let mut others: [BpfRevision; 5] = std::array::from_fn(|_| same.clone());
    others[0].spec.template.suspend = true;
    others[1].spec.state = RevisionState::Retired;
    others[2].spec.program_ref.uid = "another".into();
    others[3].metadata.owner_references = None;
    others[4].metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    for other in others {
        assert!(dispatch_beside(&other).await.unwrap_err().is_conflict(), "{other:?}");
    }
}

#[tokio::test]
async fn stored_bytes_that_are_intact_are_kept() {
    let api = Api::new([Answer::failure(409, "AlreadyExists"), Answer::ok(stored(b"elf"))]);
    api.writer.apply(&mut program(), store()).await.unwrap();
    assert_eq!(api.methods(), ["POST", "GET"]);
    assert!(api.events().is_empty());
}

#[tokio::test]
async fn a_config_map_with_other_bytes_is_replaced_and_an_event_says_so() {
    let mut mutable = config_map(b"elf");
    mutable.immutable = None;
    let mut unmarked = config_map(b"elf");
    unmarked.metadata.labels = None;
    for other in [config_map(b"other"), mutable, unmarked] {
        let other = serde_json::to_value(other).unwrap();
        let exists = Answer::failure(409, "AlreadyExists");
        let api = Api::new([exists, Answer::ok(other), Answer::ok(json!({})), Answer::ok(stored(b"elf"))]);
        api.writer.apply(&mut program(), store()).await.unwrap();
        assert_eq!(api.methods(), ["POST", "GET", "DELETE", "POST"]);
        let preconditions = &api.bodies()[1]["preconditions"];
        assert_eq!(preconditions, &json!({"uid": "stored", "resourceVersion": "5"}));
        assert_eq!(api.events(), ["Warning BytesReplaced"]);
    }
}

#[tokio::test]
async fn bytes_that_are_gone_are_stored_again_once_they_are_to_be_kept() {
    let keep = || vec![Step::KeepBytes { digest: names::digest(b"elf"), bytes: b"elf".to_vec() }];
    let api = Api::new([Answer::ok(stored(b"elf"))]);
    api.writer.apply(&mut program(), keep()).await.unwrap();
    assert_eq!(api.methods(), ["GET"]);
    let api = Api::new([Answer::failure(404, "NotFound"), Answer::ok(stored(b"elf"))]);
    api.writer.apply(&mut program(), keep()).await.unwrap();
    assert_eq!(api.methods(), ["GET", "POST"]);
}

#[tokio::test]
async fn bytes_that_somebody_else_stores_first_are_a_conflict() {
    let exists = || Answer::failure(409, "AlreadyExists");
    let api = Api::new([exists(), Answer::ok(stored(b"other")), Answer::ok(json!({})), exists()]);
    assert!(api.writer.apply(&mut program(), store()).await.unwrap_err().is_conflict());
}

#[tokio::test]
async fn bytes_that_are_altered_as_they_are_stored_are_no_success() {
    let api = Api::new([Answer::ok(stored(b"altered"))]);
    let error = api.writer.apply(&mut program(), store()).await.unwrap_err();
    assert!(!error.is_transient() && !error.is_conflict());
    let message = error.rejection().unwrap();
    assert!(message.contains("does an admission webhook do that?"), "{message}");
    provoked(Reason::DispatchFailed, &message);
}

#[tokio::test]
async fn what_the_api_server_rejects_is_told_with_the_write_and_its_answer() {
    let api = Api::new([Answer::failure(403, "Forbidden")]);
    let error = api.writer.apply(&mut program(), store()).await.unwrap_err();
    let message = error.rejection().unwrap();
    assert!(
        message.starts_with("storing 3 bytes as sha256:") && message.contains(": no: the operator tries"),
        "{message}"
    );
    provoked(Reason::DispatchFailed, &message);
}
