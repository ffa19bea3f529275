//! `Events`: publishes announcements. The same again counts up on the Event there is; anything new to say is a new Event,
//! which kube's recorder alone does not see: it tells Events apart by their reason, not by their words. IO: writes Events.

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
use tracing::warn;

use crate::step::Announcement;

/// What was said last is remembered of at most so many; beyond, all of it is forgotten.
const MAX_REMEMBERED: usize = 1024;

/// Publishes announcements.
#[derive(Clone)]
pub struct Events {
    client: Client,
    reporter: Reporter,
    said: Arc<Mutex<HashMap<Said, Recorder>>>,
}

/// What makes Events one with a count.
#[derive(PartialEq, Eq, Hash)]
struct Said {
    uid: String,
    reason: String,
    note: String,
}

impl Events {
    /// Events in the name of that reporter.
    pub fn new(client: Client, reporter: Reporter) -> Self {
        Self { client, reporter, said: Arc::default() }
    }

    /// Publishes an announcement about a BpfProgram. One that cannot be published holds nothing up.
    pub async fn publish(&self, program: &ProgramRef, announcement: Announcement) {
        let Announcement { warning, reason, action, note } = announcement;
        let about = ObjectReference {
            api_version: Some(BpfProgram::api_version(&()).into_owned()),
            kind: Some(BpfProgram::kind(&()).into_owned()),
            name: Some(program.name.clone()),
            uid: Some(program.uid.clone()),
            ..ObjectReference::default()
        };
        let note = names::clip(&note, 1024);
        let recorder = self.recorder(Said { uid: program.uid.clone(), reason: reason.clone(), note: note.clone() });
        let type_ = if warning { EventType::Warning } else { EventType::Normal };
        let event = Event { type_, reason, note: Some(note), action: action.to_owned(), secondary: None };
        if let Err(error) = recorder.publish(&event, &about).await {
            warn!(program = program.name, %error, "publishing an Event");
        }
    }

    /// The recorder that said the same before, or a new one, which knows of no Event to count up.
    fn recorder(&self, what: Said) -> Recorder {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() >= MAX_REMEMBERED && !said.contains_key(&what) {
            said.clear();
        }
        let anew = || Recorder::new(self.client.clone(), self.reporter.clone());
        said.entry(what).or_insert_with(anew).clone()
    }
}
