//! [`OperatorMetrics`]: the operator's metrics. IO: none.

use std::time::Duration;

use prometheus_client::registry::Registry;

use crate::{
    client::ClientMetrics,
    description::{Description, Measure},
    families::{Counters, Histograms, Scrape},
};

const RECONCILES: Description =
    Description::counter("sockeye_operator_reconciles", &["outcome"], "Reconciliations of BpfPrograms");
const RECONCILE_TIMES: Description = Description::times(
    "sockeye_operator_reconcile",
    &["outcome"],
    "The time that a reconciliation of a BpfProgram took",
);
const ERRORS: Description = Description::counter(
    "sockeye_operator_errors",
    &["reason"],
    "Reconciliations that failed, by the step that failed: gather, validate, apply, conflict, timeout or panic",
);
const EVENTS: Description = Description::counter(
    "sockeye_operator_events",
    &["result"],
    "Kubernetes Events: published, failed, or dropped because a budget was used up",
);
const PULLS: Description =
    Description::counter("sockeye_operator_registry_pulls", &["result"], "Pulls of images from registries");
const QUEUE_DEPTH: Description =
    Description::gauge("sockeye_operator_queue_depth", &[], "BpfPrograms that are due to be reconciled and wait");
const QUEUE_AGE: Description = Description::gauge(
    "sockeye_operator_queue_age",
    &[],
    "The time since the BpfProgram that waits longest was due to be reconciled; 0 if none waits",
)
.of(Measure::Seconds);
const RUNNING: Description =
    Description::gauge("sockeye_operator_running_reconciles", &[], "Reconciliations that are under way");
const LEADER: Description =
    Description::gauge("sockeye_operator_leader", &[], "1 if this operator writes, 0 if it stands by");
const OBJECTS: Description =
    Description::gauge("sockeye_operator_objects", &["resource"], "Objects that the watches hold");

/// The descriptions of all of them but the client's.
pub const DESCRIPTIONS: &[Description] =
    &[RECONCILES, RECONCILE_TIMES, ERRORS, EVENTS, PULLS, QUEUE_DEPTH, QUEUE_AGE, RUNNING, LEADER, OBJECTS];

/// The operator's counters. Clones count together.
#[derive(Clone, Debug)]
pub struct OperatorMetrics {
    /// What the client of the API server counts.
    pub client: ClientMetrics,
    reconciles: Counters,
    reconcile_times: Histograms,
    /// By the step that failed.
    pub errors: Counters,
    /// By `published`, `failed`, `dropped`.
    pub events: Counters,
    /// By `pulled`, `known`, `failed`.
    pub pulls: Counters,
}

/// What the operator is asked at a scrape.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OperatorState {
    /// BpfPrograms that are due and wait.
    pub queued: usize,
    /// How long the first of them has waited.
    pub oldest: Duration,
    /// Reconciliations that are under way.
    pub running: usize,
    /// This operator writes.
    pub leads: bool,
    /// The number of objects of each resource.
    pub objects: Vec<(&'static str, usize)>,
}

impl OperatorMetrics {
    /// Registers the metrics.
    pub fn new(registry: &mut Registry) -> Self {
        Self {
            client: ClientMetrics::new(registry),
            reconciles: Counters::new(registry, &RECONCILES),
            reconcile_times: Histograms::new(registry, &RECONCILE_TIMES),
            errors: Counters::new(registry, &ERRORS),
            events: Counters::new(registry, &EVENTS),
            pulls: Counters::new(registry, &PULLS),
        }
    }

    /// Counts a reconciliation.
    pub fn reconciled(&self, outcome: &str, took: Duration) {
        self.reconciles.inc(&[outcome]);
        self.reconcile_times.observe(&[outcome], took);
    }

    /// Returns the number of reconciliations with this outcome so far.
    pub fn reconciles(&self, outcome: &str) -> u64 {
        self.reconciles.get(&[outcome])
    }

    /// Returns what is known only now.
    pub fn scrape(&self, state: &OperatorState) -> Scrape {
        let mut scrape = Scrape::default();
        self.client.scrape(&mut scrape);
        scrape.value(&QUEUE_DEPTH, state.queued as f64);
        scrape.value(&QUEUE_AGE, state.oldest.as_secs_f64());
        scrape.value(&RUNNING, state.running as f64);
        scrape.value(&LEADER, f64::from(u8::from(state.leads)));
        let objects = state.objects.iter().map(|(resource, count)| (vec![(*resource).to_owned()], *count as f64));
        scrape.gauge(&OBJECTS, objects);
        scrape
    }
}

impl Default for OperatorMetrics {
    /// Creates counters that nobody scrapes.
    fn default() -> Self {
        Self::new(&mut Registry::default())
    }
}
