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
    said: Arc<Mutex<HashMap<(String, String), Said>>>,
}

struct Said {
    note: String,
    recorder: Recorder,
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
        let recorder = self.recorder((program.uid.clone(), reason.clone()), &note);
        let type_ = if warning { EventType::Warning } else { EventType::Normal };
        let event = Event { type_, reason, note: Some(note), action: action.to_owned(), secondary: None };
        if let Err(error) = recorder.publish(&event, &about).await {
            warn!(program = program.name, %error, "publishing an Event");
        }
    }

    /// The recorder that said the same last, or a new one, which knows of no Event to count up.
    fn recorder(&self, about: (String, String), note: &str) -> Recorder {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = said.get(&about).filter(|before| before.note == note) {
            return before.recorder.clone();
        }
        if said.len() >= MAX_REMEMBERED {
            said.clear();
        }
        let recorder = Recorder::new(self.client.clone(), self.reporter.clone());
        said.insert(about, Said { note: note.to_owned(), recorder: recorder.clone() });
        recorder
    }
}
