//! [`Api`]: an API server that gives one answer after another, takes Events, and remembers what it was asked.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use http::{Request, Response};
use k8s_openapi::{ByteString, api::core::v1::ConfigMap};
use kube::{Client, client::Body, runtime::events::Reporter};
use serde_json::{Value, json};
use sockeye_crds::{BpfRevision, names};
use sockeye_metrics::OperatorMetrics;
use sockeye_operator::{
    Health,
    events::publisher::Publisher,
    reconcile::{apply::Writer, stored_object::StoredObjects},
};
use tower::util::service_fn;

pub struct Answer(u16, Value);

impl Answer {
    pub fn ok(body: Value) -> Self {
        Self(200, body)
    }

    pub fn failure(code: u16, reason: &str) -> Self {
        Self::refusal(code, reason, "no")
    }

    pub fn refusal(code: u16, reason: &str, message: &str) -> Self {
        Self(code, json!({"kind": "Status", "status": "Failure", "message": message, "reason": reason, "code": code}))
    }
}

/// A request: its method, its path, and its body if it has one.
type Asked = (String, String, Option<Value>);

pub struct Api {
    pub writer: Writer,
    pub health: Health,
    pub metrics: OperatorMetrics,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Api {
    pub fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self::with(answers, || Answer(201, json!({"metadata": {}})))
    }

    /// Creates an API server that refuses Events.
    pub fn without_events(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self::with(answers, || Answer::failure(403, "Forbidden"))
    }

    fn with(answers: impl IntoIterator<Item = Answer>, event_answer: fn() -> Answer) -> Self {
        let answers = Arc::new(Mutex::new(VecDeque::from_iter(answers)));
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let service = service_fn({
            let asked = Arc::clone(&asked);
            move |request: Request<Body>| {
                let (answers, asked) = (Arc::clone(&answers), Arc::clone(&asked));
                async move {
                    let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
                    let body = request.into_body().collect_bytes().await.unwrap();
                    let is_event = path.starts_with("/apis/events.k8s.io/");
                    asked.lock().unwrap().push((method, path, serde_json::from_slice(&body).ok()));
                    let Answer(code, body) =
                        if is_event { event_answer() } else { answers.lock().unwrap().pop_front().unwrap() };
                    Response::builder().status(code).body(Body::from(body.to_string().into_bytes()))
                }
            }
        });
        let (client, health) = (Client::new(service, "default"), Health::default());
        let reporter = Reporter { controller: "sockeye-operator".to_owned(), instance: None };
        let publisher = Publisher::new(client.clone(), reporter);
        let stored = StoredObjects::new(client.clone(), "n");
        let metrics = OperatorMetrics::default();
        let writer = Writer::new(client, "n".to_owned(), stored, publisher, health.clone()).counting(metrics.clone());
        Self { writer, health, metrics, asked }
    }

    fn asked(&self, of_events: bool) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(_, path, _)| path.contains("/events") == of_events).cloned().collect()
    }

    /// Lists the requests but those of Events.
    pub fn requests(&self) -> Vec<String> {
        self.asked(false).into_iter().map(|(method, path, _)| format!("{method} {path}")).collect()
    }

    pub fn methods(&self) -> Vec<String> {
        self.asked(false).into_iter().map(|(method, ..)| method).collect()
    }

    /// Lists the bodies of the requests that have one.
    pub fn bodies(&self) -> Vec<Value> {
        self.asked(false).into_iter().filter_map(|(.., body)| body).collect()
    }

    /// Lists the types and reasons of the Events.
    pub fn events(&self) -> Vec<String> {
        let word = |body: &Value, field: &str| body[field].as_str().unwrap_or_default().to_owned();
        let events = self.asked(true).into_iter().filter_map(|(.., body)| body);
        events.map(|body| format!("{} {}", word(&body, "type"), word(&body, "reason"))).collect()
    }
}

/// Returns the ConfigMap that holds `bytes` under the digest of `elf`.
pub fn config_map(bytes: &[u8]) -> ConfigMap {
    let metadata = json!({"name": names::object_config_map(&names::digest(b"elf")), "uid": "stored",
        "resourceVersion": "5", "labels": {names::LABEL_OBJECT: "true"}});
    ConfigMap {
        metadata: serde_json::from_value(metadata).unwrap(),
        binary_data: Some([(names::OBJECT_KEY.to_owned(), ByteString(bytes.to_vec()))].into()),
        immutable: Some(true),
        data: None,
    }
}

pub fn stored(bytes: &[u8]) -> Value {
    serde_json::to_value(config_map(bytes)).unwrap()
}

/// Returns the first revision of the BpfProgram.
pub fn revision() -> BpfRevision {
    let owners = json!([{"apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfProgram", "name": "p", "uid": "u"}]);
    let template = json!({"digest": names::digest(b"elf"), "programs": [],
        "object": {"programs": [], "maps": [], "license": "GPL", "btf": true}});
    let revision = json!({"apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfRevision",
        "metadata": {"name": "p-1", "ownerReferences": owners, "labels": {names::LABEL_PROGRAM: "p"}},
        "spec": {"state": "Active", "programRef": {"name": "p", "uid": "u"}, "programGeneration": 1, "sequence": 1,
            "template": template}});
    serde_json::from_value(revision).unwrap()
}
