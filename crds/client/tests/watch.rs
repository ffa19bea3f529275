//! `watch` against an API server whose answers each test scripts.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use std::{
    collections::VecDeque,
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::join_all;
use http::{Request, Response};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Resource as _,
    api::{ListParams, Patch, PatchParams},
    client::Body,
    core::DeserializeGuard,
    runtime::watcher::Event,
};
use sockeye_client::{
    Backoff, Selection,
    objects::{get, list, write},
    watch,
};
use sockeye_metrics::OperatorMetrics;
use tokio::time::timeout;
use tower::util::service_fn;

const MINUTE: Duration = Duration::from_secs(60);
const EMPTY_LIST: &str = r#"{"metadata": {"resourceVersion": "7"}, "items": []}"#;
const EXPIRED: &str =
    r#"{"kind": "Status", "status": "Failure", "message": "too old", "reason": "Expired", "code": 410}"#;

/// Runs a watch for a minute against an API server that gives `answers`, then none. Returns requests and events.
async fn run_for_a_minute(answers: impl IntoIterator<Item = (u16, String)>) -> (Vec<String>, Vec<String>) {
    let requests = Arc::new(Mutex::new(Vec::new()));
    let mut answers: VecDeque<_> = answers.into_iter().collect();
    let service = service_fn({
        let requests = Arc::clone(&requests);
        move |request: Request<Body>| {
            requests.lock().unwrap().push(if is_watch(&request) { "watch" } else { "list" }.to_owned());
            let answer = answers.pop_front();
            async move {
                let Some((code, body)) = answer else { return pending().await };
                Response::builder().status(code).body(Body::from(body.into_bytes()))
            }
        }
    });
    let api = Api::<ConfigMap>::all(Client::new(service, "default"));
    let mut events = Vec::new();
    let on_event = |event: Event<ConfigMap>| {
        events.push(match event {
            Event::Init => "begin".to_owned(),
            Event::InitDone => "complete".to_owned(),
            Event::Apply(object) | Event::InitApply(object) | Event::Delete(object) => {
                object.metadata.name.unwrap_or_default()
            }
        });
    };
    let (selection, backoff) = (Selection::default(), Backoff::default());
    let _ = timeout(MINUTE, watch(api, &selection, &backoff, on_event, |_| ())).await;
    let requests = requests.lock().unwrap().clone();
    (requests, events)
}

fn is_watch(request: &Request<Body>) -> bool {
    request.uri().query().is_some_and(|query| query.contains("watch=true"))
}

fn event(kind: &str, name: &str, version: &str) -> String {
    let object = format!(r#"{{"metadata": {{"name": "{name}", "resourceVersion": "{version}"}}}}"#);
    format!("{{\"type\": \"{kind}\", \"object\": {object}}}\n")
}

#[tokio::test(start_paused = true)]
async fn a_rejection_is_reported_once_and_an_api_server_that_is_away_rejects_nothing() {
    let mut answers: VecDeque<_> = [500, 403, 403, 503, 404].into();
    let service = service_fn(move |_: Request<Body>| {
        let answer = answers.pop_front();
        async move {
            let Some(code) = answer else { return pending().await };
            Response::builder().status(code).body(Body::empty())
        }
    });
    let api = Api::<ConfigMap>::all(Client::new(service, "default"));
    let (selection, backoff, mut reports) = (Selection::default(), Backoff::default(), Vec::new());
    let watching = watch(api, &selection, &backoff, |_| {}, |is_rejected| reports.push(is_rejected));
    let _ = timeout(MINUTE, watching).await;
    assert_eq!(reports, [true, false, true]);
}

#[tokio::test(start_paused = true)]
async fn a_410_answer_or_event_leads_to_a_new_list() {
    let in_the_stream = format!("{{\"type\": \"ERROR\", \"object\": {EXPIRED}}}\n");
    let (requests, events) = run_for_a_minute([
        (200, EMPTY_LIST.to_owned()),
        (200, event("ADDED", "a", "8")),
        (410, EXPIRED.to_owned()),
        (200, EMPTY_LIST.to_owned()),
        (200, event("ADDED", "b", "9")),
        (200, in_the_stream),
        (200, EMPTY_LIST.to_owned()),
    ])
    .await;
    assert_eq!(requests, ["list", "watch", "watch", "list", "watch", "watch", "list", "watch"]);
    assert_eq!(events, ["begin", "complete", "a", "begin", "complete", "b", "begin", "complete"]);
}

#[tokio::test(start_paused = true)]
async fn streams_that_begin_and_failures_are_counted() {
    let mut answers: VecDeque<_> =
        [(500, ""), (200, EMPTY_LIST), (403, ""), (200, "")].map(|(code, body)| (code, body.to_owned())).into();
    let service = service_fn(move |_: Request<Body>| {
        let answer = answers.pop_front();
        async move {
            let Some((code, body)) = answer else { return pending().await };
            Response::builder().status(code).body(Body::from(body.into_bytes()))
        }
    });
    let metrics = OperatorMetrics::default().client;
    let selection = Selection { metrics: Some(metrics.clone()), ..Selection::default() };
    let api = Api::<ConfigMap>::all(Client::new(service, "default"));
    let _ = timeout(MINUTE, watch(api, &selection, &Backoff::default(), |_| {}, |_| ())).await;
    // A list failed, a stream was refused, and one ended as soon as it began.
    assert_eq!(metrics.watch_counts("configmaps"), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn requests_that_keep_failing_are_backed_off() {
    let status = |code| (code, String::new());
    for (failing, answers) in [
        ("lists", vec![status(503); 1000]),
        ("watches", [vec![(200, EMPTY_LIST.to_owned())], vec![status(500); 1000]].concat()),
        ("streams that end at once", [vec![(200, EMPTY_LIST.to_owned())], vec![(200, String::new()); 1000]].concat()),
        (
            "versions that expired at once",
            vec![[(200, EMPTY_LIST.to_owned()), (410, EXPIRED.to_owned())]; 1000].concat(),
        ),
    ] {
        let (requests, _) = run_for_a_minute(answers).await;
        // The average delay is 2.2 s, and twice one delay leads to two requests.
        assert!((12..=90).contains(&requests.len()), "{failing}: {} requests in a minute", requests.len());
    }
}

#[tokio::test(start_paused = true)]
async fn one_of_many_expired_watches_retries_at_a_time() {
    let count = Arc::new(Mutex::new(0));
    let service = service_fn({
        let count = Arc::clone(&count);
        move |request: Request<Body>| {
            *count.lock().unwrap() += 1;
            let answer = if is_watch(&request) {
                format!("{{\"type\": \"ERROR\", \"object\": {EXPIRED}}}\n")
            } else {
                EMPTY_LIST.to_owned()
            };
            async move { Response::builder().body(Body::from(answer.into_bytes())) }
        }
    });
    let (selection, backoff) = (Selection::default(), Backoff::default());
    let watches = (0..10).map(|_| {
        let api = Api::<ConfigMap>::all(Client::new(service.clone(), "default"));
        watch(api, &selection, &backoff, |_| {}, |_| ())
    });
    let _ = timeout(MINUTE, join_all(watches)).await;
    let count = *count.lock().unwrap();
    // The average delay is 2.2 s, and one delay leads to two requests.
    assert!((20 + 12..=20 + 90).contains(&count), "{count} requests in a minute");
}

#[tokio::test(start_paused = true)]
async fn a_list_that_fails_between_pages_is_not_complete() {
    let page = r#"{"metadata": {"resourceVersion": "7", "continue": "more"}, "items": [{"metadata": {"name": "a"}}]}"#;
    let (requests, events) = run_for_a_minute([(200, page.to_owned()), (500, String::new())]).await;
    assert_eq!(requests, ["list", "list", "list"]);
    assert_eq!(events, ["begin", "a", "begin"]);
}

/// Returns a ConfigMap that is nested this deep where nothing is expected, where data is, or in what mirrors its depth.
fn deep_config_map(place: &str, levels: usize) -> String {
    let nested = "[".repeat(levels) + &"]".repeat(levels);
    let (fields, metadata) = match place {
        "managedFields" => (String::new(), format!(r#", "managedFields": [{{"fieldsV1": {nested}}}]"#)),
        field => (format!(r#", "{field}": {nested}"#), String::new()),
    };
    format!(r#"{{"metadata": {{"name": "{place}", "resourceVersion": "9"{metadata}}}{fields}}}"#)
}

#[tokio::test(start_paused = true)]
async fn an_object_of_any_depth_is_reported_and_stops_no_other() {
    for levels in [200, 10_000] {
        for place in ["unknown", "data", "managedFields"] {
            let deep = deep_config_map(place, levels);
            let list = format!(
                r#"{{"metadata": {{"resourceVersion": "7"}}, "items": [{{"metadata": {{"name": "a"}}}}, {deep}, 7,
                {{"metadata": {{"name": "b"}}}}]}}"#
            );
            let stream = format!("{{\"type\": \"MODIFIED\", \"object\": {deep}}}\n{}", event("ADDED", "c", "10"));
            let (requests, events) = run_for_a_minute([(200, list), (200, stream)]).await;
            assert_eq!(requests, ["list", "watch", "watch"], "{place}");
            assert_eq!(events, ["begin", "a", place, "b", "complete", place, "c"]);
        }
    }
}

#[tokio::test]
async fn lists_gets_and_writes_take_objects_of_any_depth() {
    for levels in [200, 10_000] {
        let deep = deep_config_map("data", levels);
        let service = service_fn(move |request: Request<Body>| {
            let is_list = request.uri().path().ends_with("configmaps");
            let list = format!(r#"{{"metadata": {{"continue": "more"}}, "items": [{deep}, {deep}]}}"#);
            let answer = if is_list { list } else { deep.clone() };
            async move { Response::builder().body(Body::from(answer.into_bytes())) }
        });
        let client = Client::new(service, "default");
        let api = Api::<DeserializeGuard<ConfigMap>>::namespaced(client.clone(), "n");
        let page = list(&api, &ListParams::default()).await.unwrap();
        assert_eq!((page.items.len(), page.continue_token.as_deref()), (2, Some("more")));
        assert!(page.items[0].0.is_err());
        assert_eq!(get(&api, "data").await.unwrap().unwrap().meta().resource_version.as_deref(), Some("9"));
        let patch =
            kube::api::Request::new(api.resource_url()).patch("data", &PatchParams::default(), &Patch::Merge(()));
        assert_eq!(write(&client, patch).await.unwrap().resource_version.as_deref(), Some("9"));
    }
}

#[tokio::test]
async fn a_missing_object_is_none_and_an_answer_without_items_an_empty_list() {
    let service = service_fn(|request: Request<Body>| async move {
        let is_list = request.uri().path().ends_with("configmaps");
        let missing = r#"{"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}"#;
        let (code, body) = if is_list { (200, r#"{"metadata": {}, "items": null}"#) } else { (404, missing) };
        Response::builder().status(code).body(Body::from(body.as_bytes().to_vec()))
    });
    let api = Api::<ConfigMap>::namespaced(Client::new(service, "default"), "n");
    assert!(get(&api, "a").await.unwrap().is_none());
    let page = list(&api, &ListParams::default()).await.unwrap();
    assert!(page.items.is_empty() && page.continue_token.is_none());
}
