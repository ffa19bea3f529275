//! [`Request`] and its answer, as far as the operator and the agents make such requests.

use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Api, Change, Refused, checks::SETTLED, kind::Kind, text};
use crate::fault::Fault;

/// A request to the API server.
#[derive(Clone, Debug)]
pub struct Request {
    /// The name of the process that sends it.
    pub sender: String,
    pub method: Method,
    pub path: String,
    pub query: String,
    pub content_type: String,
    pub body: Value,
}

/// What a request is about.
pub struct Target<'a> {
    pub kind: Kind,
    pub name: Option<&'a str>,
    pub is_status: bool,
}

impl Request {
    /// Returns what it is about.
    pub fn target(&self) -> Option<Target<'_>> {
        let parts: Vec<&str> = self.path.split('/').filter(|part| !part.is_empty()).collect();
        let at = parts.iter().position(|part| Kind::of(part).is_some())?;
        let kind = Kind::of(parts[at])?;
        Some(Target { kind, name: parts.get(at + 1).copied(), is_status: parts.get(at + 2) == Some(&"status") })
    }

    /// Drops what a write is based on.
    pub fn forget_version(&mut self) {
        for part in ["metadata", "preconditions"] {
            if let Some(named) = self.body.get_mut(part).and_then(Value::as_object_mut) {
                named.remove("uid");
                named.remove("resourceVersion");
            }
        }
    }

    /// Returns a parameter of the query.
    fn parameter(&self, name: &str) -> Option<String> {
        let mut pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.find(|(key, _)| *key == name)?;
        Some(value.replace("%2F", "/").replace("%3D", "=").replace('+', " "))
    }
}

/// Answers a request with a code and a body.
pub fn answer(api: &mut Api, request: &Request) -> (u16, Value) {
    let answered = match request.target() {
        Some(target) => dispatch(api, request, &target),
        None => Err((404, "NotFound")),
    };
    match answered {
        Ok(body) if request.method == Method::POST => (201, body),
        Ok(body) => (200, body),
        Err((code, reason)) => (code, failure(code, reason)),
    }
}

fn failure(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": reason,
        "reason": reason, "code": code})
}

fn dispatch(api: &mut Api, request: &Request, target: &Target<'_>) -> Result<Value, Refused> {
    let Target { kind, name, is_status } = *target;
    match (&request.method, name) {
        (&Method::GET, None) => Ok(list(api, kind, request)),
        (&Method::GET, Some(name)) => api.get(kind, name).cloned().ok_or((404, "NotFound")),
        (&Method::POST, _) => {
            api.check_creation(request, kind);
            api.create(kind, request.body.clone())
        }
        (_, Some(_)) if kind == Kind::Event => Ok(request.body.clone()),
        (&Method::PUT, Some(name)) => {
            based_on(api, kind, name, &request.body["metadata"])?;
            let body = request.body.clone();
            api.update(kind, name, |object| object["spec"] = body["spec"].clone())
        }
        (&Method::PATCH, Some(name)) => {
            based_on(api, kind, name, &request.body["metadata"])?;
            api.check_patch(request, kind, name);
            api.update(kind, name, |object| patch(object, request, is_status))
        }
        (&Method::DELETE, Some(name)) => {
            based_on(api, kind, name, &request.body["preconditions"])?;
            api.delete(kind, name)
        }
        _ => Err((405, "MethodNotAllowed")),
    }
}

/// Compares an object with the UID and the version that a write is based on, as far as it names them.
fn based_on(api: &Api, kind: Kind, name: &str, named: &Value) -> Result<(), Refused> {
    let object = api.get(kind, name).ok_or((404, "NotFound"))?;
    let differs = |field: &str| {
        let expected = text(&named[field]);
        !expected.is_empty() && object["metadata"][field] != expected
    };
    if differs("uid") || differs("resourceVersion") { Err((409, "Conflict")) } else { Ok(()) }
}

fn patch(object: &mut Value, request: &Request, is_status: bool) {
    let body = &request.body;
    match request.content_type.as_str() {
        "application/json-patch+json" => {
            for step in body.as_array().into_iter().flatten() {
                assert_eq!((text(&step["op"]), text(&step["path"])), ("add", "/status"), "the model knows no other");
                object["status"] = step["value"].clone();
            }
        }
        // An applied status is the whole of what its one manager owns.
        _ if is_status => object["status"] = body["status"].clone(),
        _ => {
            let keep = (object["metadata"]["uid"].clone(), object["metadata"]["resourceVersion"].clone());
            merge(object, body);
            (object["metadata"]["uid"], object["metadata"]["resourceVersion"]) = keep;
        }
    }
}

fn merge(object: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (field, value) in fields {
        if value.is_null() {
            object.as_object_mut().unwrap().remove(field);
        } else {
            merge(&mut object[field.as_str()], value);
        }
    }
}

/// Lists the objects that the request selects, as they are now.
fn list(api: &Api, kind: Kind, request: &Request) -> Value {
    let (labels, fields) = (request.parameter("labelSelector"), request.parameter("fieldSelector"));
    let is_selected = |object: &Value| {
        let has_label = |selector: &String| {
            let (label, value) = selector.split_once('=').unwrap_or((selector.as_str(), ""));
            object["metadata"]["labels"][label] == value
        };
        let is_named = |selector: &String| {
            selector.strip_prefix("metadata.name=").is_some_and(|name| object["metadata"]["name"] == name)
        };
        labels.as_ref().is_none_or(has_label) && fields.as_ref().is_none_or(is_named)
    };
    let is_old = kind == Kind::Revision && api.fault == Some(Fault::ListsAreOld);
    let items = if is_old { old_objects(api.log(), kind) } else { api.list(kind).map(|(_, it)| it.clone()).collect() };
    let items: Vec<Value> = items.into_iter().filter(is_selected).collect();
    json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": api.version().to_string()},
        "items": items})
}

/// Returns the objects of a kind as they were some time ago.
fn old_objects(log: &[Change], kind: Kind) -> Vec<Value> {
    let is_old = |change: &&Change| change.kind == kind && Instant::now().duration_since(change.at) > SETTLED;
    let mut objects = std::collections::BTreeMap::new();
    for change in log.iter().filter(is_old) {
        match change.is_deletion {
            true => drop(objects.remove(&change.name)),
            false => drop(objects.insert(&change.name, change.object.clone())),
        }
    }
    objects.into_values().collect()
}
