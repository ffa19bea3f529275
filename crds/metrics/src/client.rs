//! [`ClientMetrics`]: the metrics of a client of the API server, which both binaries have. IO: none; a monotonic clock.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use prometheus_client::registry::Registry;

use crate::{
    description::{Description, Measure},
    families::{Counters, Scrape},
};

const REQUESTS: Description = Description::counter(
    "sockeye_api_requests",
    &["verb", "code"],
    "Answers of the API server; code none is no answer",
);
const WATCH_STARTS: Description =
    Description::counter("sockeye_watch_starts", &["resource"], "Streams of watch events that began");
const WATCH_FAILURES: Description =
    Description::counter("sockeye_watch_failures", &["resource"], "Lists and streams of watch events that failed");
const WATCH_LAG: Description = Description::gauge(
    "sockeye_watch_lag",
    &["resource"],
    "The time since the API server sent anything on the watch; it sends a bookmark about every minute",
)
.of(Measure::Seconds);
const BUILD_INFO: Description =
    Description::gauge("sockeye_build_info", &["version"], "Always 1; the label is the version of the binary");

/// The descriptions of all of them.
pub const DESCRIPTIONS: &[Description] = &[BUILD_INFO, REQUESTS, WATCH_STARTS, WATCH_FAILURES, WATCH_LAG];

/// The metrics of a client. Clones count together.
#[derive(Clone, Debug)]
pub struct ClientMetrics {
    requests: Counters,
    watch_starts: Counters,
    watch_failures: Counters,
    /// When the API server sent something last, by resource.
    heard: Arc<Mutex<BTreeMap<String, Instant>>>,
}

impl ClientMetrics {
    /// Registers the metrics.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        Self {
            requests: Counters::new(registry, &REQUESTS),
            watch_starts: Counters::new(registry, &WATCH_STARTS),
            watch_failures: Counters::new(registry, &WATCH_FAILURES),
            heard: Arc::default(),
        }
    }

    /// Counts an answer, or that there was none.
    pub fn answered(&self, verb: &str, code: Option<u16>) {
        self.requests.inc(&[verb, &code.map_or_else(|| "none".to_owned(), |code| code.to_string())]);
    }

    /// Counts a stream of watch events that begins.
    pub fn watch_began(&self, resource: &str) {
        self.watch_starts.inc(&[resource]);
        self.watch_heard(resource);
    }

    /// Counts a list or a stream that failed.
    pub fn watch_failed(&self, resource: &str) {
        self.watch_failures.inc(&[resource]);
    }

    /// Records that the API server sent something.
    pub fn watch_heard(&self, resource: &str) {
        let now = Instant::now();
        let mut heard = self.heard();
        match heard.get_mut(resource) {
            Some(last) => *last = now,
            None => drop(heard.insert(resource.to_owned(), now)),
        }
    }

    /// Returns the number of answers so far.
    pub fn answers(&self, verb: &str, code: u16) -> u64 {
        self.requests.get(&[verb, &code.to_string()])
    }

    /// Returns the number of streams that began, and of failures, so far.
    pub fn watch_counts(&self, resource: &str) -> (u64, u64) {
        (self.watch_starts.get(&[resource]), self.watch_failures.get(&[resource]))
    }

    /// Adds what is known only now.
    pub fn scrape(&self, scrape: &mut Scrape) {
        let now = Instant::now();
        let lag = |(resource, heard): (&String, &Instant)| {
            (vec![resource.clone()], now.saturating_duration_since(*heard).as_secs_f64())
        };
        scrape.gauge(&WATCH_LAG, self.heard().iter().map(lag).collect::<Vec<_>>());
        scrape.gauge(&BUILD_INFO, [(vec![env!("CARGO_PKG_VERSION").to_owned()], 1.0)]);
    }

    fn heard(&self) -> MutexGuard<'_, BTreeMap<String, Instant>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
