//! [`Api`]: a model of the API server: objects with UIDs and versions, conflicts, finalizers, garbage collection, and
//! the log of changes that watches read.
//!
//! | file | noun |
//! |---|---|
//! | [`kind`] | the kinds of objects |
//! | [`answer`] | HTTP requests and their answers |
//! | [`link`] | a process's connection, which delays, loses and cuts; a kube client over it |
//! | [`feed`] | a watch of one kind into a store, which lags and lists anew |
//! | [`checks`] | the promises that each write is checked against |

pub mod answer;
pub mod checks;
pub mod feed;
pub mod kind;
pub mod link;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use self::{kind::Kind, link::LinkState};
use crate::fault::Fault;

/// The release namespace.
pub const NAMESPACE: &str = "sockeye";

/// A refused request: its code, and its reason in one word.
pub type Refused = (u16, &'static str);

/// A change of an object.
pub struct Change {
    pub at: Instant,
    pub kind: Kind,
    pub name: String,
    pub object: Value,
    pub is_deletion: bool,
}

/// The state of the API server, and what is known of the processes around it.
pub struct Api {
    pub fault: Option<Fault>,
    objects: BTreeMap<(Kind, String), Value>,
    log: Vec<Change>,
    uids: u64,
    changes: watch::Sender<u64>,
    /// The connections of the processes, by their names.
    pub links: BTreeMap<String, LinkState>,
    /// The nodes whose agents are ready.
    pub ready_agents: BTreeSet<String>,
    /// The broken promises.
    pub violations: Vec<String>,
    /// The UIDs of BpfPrograms that some node may have to remove: they were deleted, or do not select every node.
    removable: BTreeSet<String>,
    /// The time since when a node and its agent's pod are Ready, by node.
    live_since: BTreeMap<String, Instant>,
}

/// The API server, shared by all processes of a world.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<Api>>);

impl Shared {
    /// Returns an API server without objects.
    pub fn new(fault: Option<Fault>) -> Self {
        Self(Arc::new(Mutex::new(Api {
            fault,
            objects: BTreeMap::new(),
            log: Vec::new(),
            uids: 0,
            changes: watch::Sender::new(0),
            links: BTreeMap::new(),
            ready_agents: BTreeSet::new(),
            violations: Vec::new(),
            removable: BTreeSet::new(),
            live_since: BTreeMap::new(),
        })))
    }

    /// Locks it.
    pub fn lock(&self) -> MutexGuard<'_, Api> {
        self.0.lock().unwrap()
    }

    /// Returns what tells that something has changed.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.lock().changes.subscribe()
    }
}

impl Api {
    /// Returns the version of the last change.
    pub fn version(&self) -> u64 {
        self.log.len() as u64
    }

    /// Returns all changes so far.
    pub fn log(&self) -> &[Change] {
        &self.log
    }

    /// Returns an object.
    pub fn get(&self, kind: Kind, name: &str) -> Option<&Value> {
        self.objects.get(&(kind, name.to_owned()))
    }

    /// Lists the objects of a kind by their names.
    pub fn list(&self, kind: Kind) -> impl Iterator<Item = (&String, &Value)> {
        let of_kind = self.objects.iter().filter(move |((other, _), _)| *other == kind);
        of_kind.map(|((_, name), object)| (name, object))
    }

    /// Tells all processes that something has changed.
    pub fn notify(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Creates an object.
    pub fn create(&mut self, kind: Kind, mut object: Value) -> Result<Value, Refused> {
        let name = text(&object["metadata"]["name"]).to_owned();
        if kind == Kind::Event {
            return Ok(object);
        }
        if self.objects.contains_key(&(kind, name.clone())) {
            return Err((409, "AlreadyExists"));
        }
        self.uids += 1;
        let meta = &mut object["metadata"];
        meta["uid"] = json!(format!("uid-{}", self.uids));
        meta["generation"] = json!(1);
        meta["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        if kind.has_status() {
            object.as_object_mut().unwrap().remove("status");
        }
        let stored = self.store(kind, &name, object);
        // The garbage collector takes what belongs to nobody.
        if owners(&stored).next().is_some() && !owners(&stored).any(|uid| self.has_uid(uid)) {
            self.remove(kind, &name);
        }
        Ok(stored)
    }

    /// Changes an object. A change of the spec of a BpfProgram is another generation; what changes nothing is no write.
    pub fn update(&mut self, kind: Kind, name: &str, change: impl FnOnce(&mut Value)) -> Result<Value, Refused> {
        let before = self.get(kind, name).ok_or((404, "NotFound"))?.clone();
        let mut after = before.clone();
        change(&mut after);
        if after == before {
            return Ok(before);
        }
        if kind == Kind::Program && after["spec"] != before["spec"] {
            after["metadata"]["generation"] = json!(before["metadata"]["generation"].as_u64().unwrap_or_default() + 1);
        }
        let stored = self.store(kind, name, after);
        let is_deleted = stored["metadata"].get("deletionTimestamp").is_some();
        if is_deleted && !has_finalizers(&stored) {
            self.remove(kind, name);
        }
        Ok(stored)
    }

    /// Deletes an object, at once or once its finalizers are gone.
    pub fn delete(&mut self, kind: Kind, name: &str) -> Result<Value, Refused> {
        let object = self.get(kind, name).ok_or((404, "NotFound"))?.clone();
        if kind == Kind::Program {
            self.removable.insert(text(&object["metadata"]["uid"]).to_owned());
        }
        if !has_finalizers(&object) {
            self.remove(kind, name);
            return Ok(object);
        }
        self.update(kind, name, |object| {
            let meta = &mut object["metadata"];
            if meta.get("deletionTimestamp").is_none() {
                meta["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
                meta["generation"] = json!(meta["generation"].as_u64().unwrap_or_default() + 1);
            }
        })
    }

    fn store(&mut self, kind: Kind, name: &str, mut object: Value) -> Value {
        object["metadata"]["resourceVersion"] = json!((self.version() + 1).to_string());
        if kind == Kind::Program && object["spec"].get("nodeSelector").is_some() {
            self.removable.insert(text(&object["metadata"]["uid"]).to_owned());
        }
        self.objects.insert((kind, name.to_owned()), object.clone());
        self.record(kind, name, object.clone(), false);
        object
    }

    /// Removes an object, and what belongs to it.
    fn remove(&mut self, kind: Kind, name: &str) {
        let Some(mut object) = self.objects.remove(&(kind, name.to_owned())) else { return };
        let uid = text(&object["metadata"]["uid"]).to_owned();
        object["metadata"]["resourceVersion"] = json!((self.version() + 1).to_string());
        self.record(kind, name, object, true);
        let owned = self.objects.iter().filter(|(_, other)| owners(other).any(|owner| owner == uid));
        let owned: Vec<(Kind, String)> = owned.map(|(key, _)| key.clone()).collect();
        for (kind, name) in owned {
            self.remove(kind, &name);
        }
    }

    fn record(&mut self, kind: Kind, name: &str, object: Value, is_deletion: bool) {
        self.log.push(Change { at: Instant::now(), kind, name: name.to_owned(), object, is_deletion });
        if matches!(kind, Kind::Node | Kind::Pod) {
            self.note_liveness();
        }
        self.notify();
    }

    fn has_uid(&self, uid: &str) -> bool {
        self.objects.values().any(|object| object["metadata"]["uid"] == uid)
    }

    fn note_liveness(&mut self) {
        let pods = self.list(Kind::Pod).filter(|(_, pod)| is_ready(pod));
        let with_agent: BTreeSet<&str> = pods.map(|(_, pod)| text(&pod["spec"]["nodeName"])).collect();
        let nodes = self.list(Kind::Node).filter(|(name, node)| is_ready(node) && with_agent.contains(name.as_str()));
        let live: BTreeSet<String> = nodes.map(|(name, _)| name.clone()).collect();
        self.live_since.retain(|name, _| live.contains(name));
        for name in live {
            self.live_since.entry(name).or_insert_with(Instant::now);
        }
    }
}

/// Returns a text; empty where there is none.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Returns whether a Node or a Pod is Ready.
pub fn is_ready(object: &Value) -> bool {
    let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn has_finalizers(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty())
}

fn owners(object: &Value) -> impl Iterator<Item = &str> {
    object["metadata"]["ownerReferences"].as_array().into_iter().flatten().map(|owner| text(&owner["uid"]))
}
