//! [`Publisher`]: writes Events. IO: requests.
//!
//! An Event that repeats increases the count of the first one. kube's recorder alone tells Events apart by reason, not
//! by note, so it would drop a new note.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client, Resource as _,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use sockeye_crds::{BpfProgram, names, revision::ProgramRef};

use crate::events::ProgramEvent;

/// The publisher remembers at most this many Events, then forgets all of them.
const MAX_REMEMBERED: usize = 1024;

/// The API server rejects a longer note.
const MAX_NOTE_BYTES: usize = 1024;

/// Writes Events.
#[derive(Clone)]
pub struct Publisher {
    client: Client,
    reporter: Reporter,
    recorders: Arc<Mutex<HashMap<EventKey, Recorder>>>,
}

/// Events of the same key are one Event with a count.
#[derive(PartialEq, Eq, Hash)]
struct EventKey {
    uid: String,
    reason: String,
    note: String,
}

impl Publisher {
    /// Creates a publisher of Events whose reporting controller is `reporter`.
    pub fn new(client: Client, reporter: Reporter) -> Self {
        Self { client, reporter, recorders: Arc::default() }
    }

    /// Publishes an Event about a BpfProgram.
    pub async fn publish(&self, program: &ProgramRef, event: ProgramEvent) -> Result<(), kube::Error> {
        let regarding = ObjectReference {
            api_version: Some(BpfProgram::api_version(&()).into_owned()),
            kind: Some(BpfProgram::kind(&()).into_owned()),
            name: Some(program.name.clone()),
            uid: Some(program.uid.clone()),
            ..ObjectReference::default()
        };
        self.publish_about(regarding, event).await
    }

    /// Publishes an Event about another object. It is written into that object's namespace.
    pub async fn publish_about(&self, regarding: ObjectReference, event: ProgramEvent) -> Result<(), kube::Error> {
        let ProgramEvent { is_warning, reason, action, note, quoted: _ } = event;
        let note = names::clip(&note, MAX_NOTE_BYTES);
        let uid = regarding.uid.clone().unwrap_or_default();
        let key = EventKey { uid, reason: reason.clone(), note: note.clone() };
        let type_ = if is_warning { EventType::Warning } else { EventType::Normal };
        let event = Event { type_, reason, note: Some(note), action: action.to_owned(), secondary: None };
        self.recorder(key).publish(&event, &regarding).await
    }

    /// Returns the recorder that published the same Event before, or a new one.
    fn recorder(&self, key: EventKey) -> Recorder {
        let mut recorders = self.recorders.lock().unwrap_or_else(PoisonError::into_inner);
        if recorders.len() >= MAX_REMEMBERED && !recorders.contains_key(&key) {
            recorders.clear();
        }
        let new = || Recorder::new(self.client.clone(), self.reporter.clone());
        recorders.entry(key).or_insert_with(new).clone()
    }
}
