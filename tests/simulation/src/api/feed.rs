//! [`Feed`]: a watch of one kind, into the store that the operator or an agent reads. It lags, now and then by seconds;
//! and it lists anew after it was broken.

use std::{collections::BTreeSet, mem, time::Duration};

use kube::runtime::{
    reflector::{self, Store, store::Writer},
    watcher::Event,
};
use serde_json::Value;
use sockeye_client::Decode;
use tokio::time::Instant;

use super::{Api, Change, kind::Kind, link::LinkState};
use crate::random::Random;

/// A watch of one kind.
pub struct Feed<K: Decode + Sync> {
    process: String,
    kind: Kind,
    selects: Box<dyn Fn(&Value) -> bool + Send>,
    writer: Writer<K>,
    /// The names of the objects that it has shown.
    known: BTreeSet<String>,
    /// The number of changes that it has come past.
    position: usize,
    /// The changes of before this time have been shown.
    shown_until: Instant,
    /// The time at which it lists, if it has to.
    list_at: Option<Instant>,
    breaks: u64,
    is_listed: bool,
    random: Random,
}

impl<K: Decode + Sync> Feed<K> {
    /// Returns a watch that a process begins now.
    pub fn new(
        process: &str,
        kind: Kind,
        selects: impl Fn(&Value) -> bool + Send + 'static,
        mut random: Random,
    ) -> Self {
        let (_, writer) = reflector::store();
        let now = Instant::now();
        Self {
            process: process.to_owned(),
            kind,
            selects: Box::new(selects),
            writer,
            known: BTreeSet::new(),
            position: 0,
            shown_until: now,
            list_at: Some(now + random.millis(1, 200)),
            breaks: 0,
            is_listed: false,
            random,
        }
    }

    /// Returns the store.
    pub fn store(&self) -> Store<K> {
        self.writer.as_reader()
    }

    /// Returns whether it was listed.
    pub fn is_listed(&self) -> bool {
        self.is_listed
    }

    /// Shows what is due. `on_event` is called with each event and the store of before, and returns the event to store.
    /// Returns whether there was any.
    pub fn pull(&mut self, api: &Api, mut on_event: impl FnMut(&Store<K>, Event<K>) -> Event<K>) -> bool {
        let mut events = Vec::new();
        while self.next_due(api).is_some_and(|due| due <= Instant::now()) {
            if self.list_at.is_some() {
                self.list(api, &mut events);
            } else if let Some(change) = api.log().get(self.position) {
                self.position += 1;
                events.extend(self.event(change));
            }
        }
        let has_events = !events.is_empty();
        let store = self.store();
        for event in events {
            let event = on_event(&store, event);
            self.writer.apply_watcher_event(&event);
        }
        has_events
    }

    /// Returns when it shows something next, if anything is known of that yet.
    pub fn next_due(&mut self, api: &Api) -> Option<Instant> {
        let now = Instant::now();
        let link = api.links.get(&self.process).cloned().unwrap_or_default();
        let LinkState { cut_since: None, held, breaks, .. } = link else { return None };
        if mem::replace(&mut self.breaks, breaks) != breaks {
            self.list_at = Some(now + self.random.millis(1, 500));
        }
        let held_until = held.get(&self.kind).copied().unwrap_or(now);
        if let Some(list_at) = self.list_at {
            return Some(list_at.max(held_until));
        }
        while api.log().get(self.position).is_some_and(|change| change.kind != self.kind) {
            self.position += 1;
        }
        let change = api.log().get(self.position)?;
        Some((change.at + self.lag()).max(self.shown_until).max(held_until))
    }

    /// Returns by how much it lags at this position.
    fn lag(&self) -> Duration {
        let mut random = self.random.fork(self.position as u64);
        if random.percent(4) { random.millis(100, 3_000) } else { random.millis(1, 60) }
    }

    fn list(&mut self, api: &Api, events: &mut Vec<Event<K>>) {
        (self.list_at, self.is_listed, self.position) = (None, true, api.log().len());
        let selected: Vec<(&String, &Value)> = api.list(self.kind).filter(|(_, it)| (self.selects)(it)).collect();
        self.known = selected.iter().map(|(name, _)| (*name).clone()).collect();
        events.push(Event::Init);
        events.extend(selected.into_iter().map(|(_, object)| Event::InitApply(decode(object))));
        events.push(Event::InitDone);
    }

    /// Returns what a change is to those who watch the selected objects.
    fn event(&mut self, change: &Change) -> Option<Event<K>> {
        self.shown_until = Instant::now();
        if !change.is_deletion && (self.selects)(&change.object) {
            self.known.insert(change.name.clone());
            return Some(Event::Apply(decode(&change.object)));
        }
        self.known.remove(&change.name).then(|| Event::Delete(decode(&change.object)))
    }
}

fn decode<K: Decode>(object: &Value) -> K {
    K::decode(&object.to_string()).unwrap_or_else(|error| panic!("{error}: {object}"))
}
