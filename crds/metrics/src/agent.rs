//! [`AgentMetrics`]: the agent's metrics. IO: none.

use std::time::Duration;

use prometheus_client::registry::Registry;

use crate::{
    client::ClientMetrics,
    description::{Description, Measure},
    families::{Counters, Histograms, Sample, Scrape},
};

const LOADS: Description =
    Description::counter("sockeye_agent_loads", &["result"], "Objects that were to be loaded: loaded or failed");
const LOAD_TIMES: Description =
    Description::times("sockeye_agent_load", &[], "The time that the kernel took for an object that was loaded");
const ERRORS: Description =
    Description::counter("sockeye_agent_errors", &["reason"], "Attempts at a BpfProgram that failed");
const DRIFT: Description =
    Description::counter("sockeye_agent_drift", &["kind"], "Changes that others made to pins and attachments");
const ROLLBACKS: Description = Description::counter(
    "sockeye_agent_rollbacks",
    &[],
    "Revisions that were taken back because they may have cut the node off",
);
const STATUS_WRITES: Description = Description::counter(
    "sockeye_agent_status_writes",
    &["result"],
    "Reports of the node: written, failed, or throttled until more is known",
);
const PROGRAMS: Description = Description::gauge("sockeye_agent_programs", &["state"], "BpfPrograms on the node");
const LINKS: Description = Description::gauge("sockeye_agent_links", &[], "Links that are in effect");
const PODS: Description = Description::gauge(
    "sockeye_agent_selected_pods",
    &["program"],
    "Selected pods to which a program of the BpfProgram is attached",
);
const MAPS: Description = Description::gauge(
    "sockeye_agent_map",
    &["program"],
    "Kernel memory of the maps of a BpfProgram; a shared map counts where it was made",
)
.of(Measure::Bytes);
const ENTRIES_DESIRED: Description =
    Description::gauge("sockeye_agent_entries_desired", &["program"], "Entries that a spec lists for its maps");
const ENTRIES_IN_SYNC: Description =
    Description::gauge("sockeye_agent_entries_in_sync", &["program"], "Listed entries that are in place");
const RUNS: Description = Description::counter(
    "sockeye_agent_program_runs",
    &["program", "function"],
    "Runs of a program that the kernel counted; it counts only while run statistics are on",
);
const RUN_TIME: Description = Description::counter(
    "sockeye_agent_program_run",
    &["program", "function"],
    "The time of the runs that the kernel counted",
)
.of(Measure::Seconds);
const STATISTICS: Description = Description::gauge(
    "sockeye_agent_run_statistics",
    &[],
    "1 if the kernel counts runs now, 0 if not, absent if it can't be found out",
);

/// The descriptions of all of them but the client's.
pub const DESCRIPTIONS: &[Description] = &[
    LOADS,
    LOAD_TIMES,
    ERRORS,
    DRIFT,
    ROLLBACKS,
    STATUS_WRITES,
    PROGRAMS,
    LINKS,
    PODS,
    MAPS,
    ENTRIES_DESIRED,
    ENTRIES_IN_SYNC,
    RUNS,
    RUN_TIME,
    STATISTICS,
];

/// The agent's counters. Clones count together.
#[derive(Clone, Debug)]
pub struct AgentMetrics {
    /// What the client of the API server counts.
    pub client: ClientMetrics,
    loads: Counters,
    load_times: Histograms,
    /// By reason.
    pub errors: Counters,
    /// By kind.
    pub drift: Counters,
    /// Without labels.
    pub rollbacks: Counters,
    /// By `written`, `failed`, `throttled`.
    pub status_writes: Counters,
}

/// What an agent is asked at a scrape.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AgentState {
    /// Whether the kernel counts runs, as far as that is known.
    pub counts_runs: Option<bool>,
    /// The BpfPrograms.
    pub programs: Vec<ProgramMetrics>,
}

/// One BpfProgram at a scrape.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProgramMetrics {
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: String,
    /// Its links in effect.
    pub links: i64,
    /// The selected pods to which it is attached.
    pub pods: i64,
    /// The memory of its maps.
    pub map_bytes: i64,
    /// Listed entries, and those in place, if it lists any.
    pub entries: Option<(i64, i64)>,
    /// The runs of its functions.
    pub runs: Vec<FunctionRuns>,
}

/// The runs of one function.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FunctionRuns {
    /// Its name.
    pub function: String,
    /// The number of its runs.
    pub count: u64,
    /// Their time.
    pub time: Duration,
}

impl AgentMetrics {
    /// Registers the metrics.
    pub fn new(registry: &mut Registry) -> Self {
        Self {
            client: ClientMetrics::new(registry),
            loads: Counters::new(registry, &LOADS),
            load_times: Histograms::new(registry, &LOAD_TIMES),
            errors: Counters::new(registry, &ERRORS),
            drift: Counters::new(registry, &DRIFT),
            rollbacks: Counters::new(registry, &ROLLBACKS),
            status_writes: Counters::new(registry, &STATUS_WRITES),
        }
    }

    /// Counts an object that was loaded.
    pub fn loaded(&self, took: Duration) {
        self.loads.inc(&["loaded"]);
        self.load_times.observe(&[], took);
    }

    /// Counts an object that could not be loaded.
    pub fn load_failed(&self) {
        self.loads.inc(&["failed"]);
    }

    /// Returns the number of objects that were loaded, and of those that could not be, so far.
    pub fn loads(&self) -> (u64, u64) {
        (self.loads.get(&["loaded"]), self.loads.get(&["failed"]))
    }

    /// Returns what is known only now. Without a state, as where the agent has not looked at its node yet,
    /// these are the client's metrics alone.
    pub fn scrape(&self, state: Option<&AgentState>) -> Scrape {
        let mut scrape = Scrape::default();
        self.client.scrape(&mut scrape);
        if let Some(AgentState { counts_runs, programs }) = state {
            let counts_runs = counts_runs.map(|counts| (Vec::new(), f64::from(u8::from(counts))));
            scrape.gauge(&STATISTICS, counts_runs);
            add_programs(&mut scrape, programs);
        }
        scrape
    }
}

impl Default for AgentMetrics {
    /// Creates counters that nobody scrapes.
    fn default() -> Self {
        Self::new(&mut Registry::default())
    }
}

fn add_programs(scrape: &mut Scrape, programs: &[ProgramMetrics]) {
    let by_name = |value: fn(&ProgramMetrics) -> i64| -> Vec<Sample> {
        programs.iter().map(|program| (vec![program.name.clone()], value(program) as f64)).collect()
    };
    let mut states: Vec<Sample> = Vec::new();
    for program in programs {
        match states.iter_mut().find(|(labels, _)| labels[0] == program.state) {
            Some((_, count)) => *count += 1.0,
            None => states.push((vec![program.state.clone()], 1.0)),
        }
    }
    scrape.gauge(&PROGRAMS, states);
    scrape.value(&LINKS, programs.iter().map(|program| program.links).sum::<i64>() as f64);
    scrape.gauge(&PODS, by_name(|program| program.pods));
    scrape.gauge(&MAPS, by_name(|program| program.map_bytes));
    let entries = |value: fn((i64, i64)) -> i64| -> Vec<Sample> {
        let one = |program: &ProgramMetrics| Some((vec![program.name.clone()], value(program.entries?) as f64));
        programs.iter().filter_map(one).collect()
    };
    scrape.gauge(&ENTRIES_DESIRED, entries(|(desired, _)| desired));
    scrape.gauge(&ENTRIES_IN_SYNC, entries(|(_, in_sync)| in_sync));
    let runs = |value: fn(&FunctionRuns) -> f64| -> Vec<Sample> {
        let all = programs.iter().flat_map(|program| program.runs.iter().map(move |runs| (&program.name, runs)));
        all.map(|(program, runs)| (vec![program.clone(), runs.function.clone()], value(runs))).collect()
    };
    scrape.counter(&RUNS, runs(|runs| runs.count as f64));
    scrape.counter(&RUN_TIME, runs(|runs| runs.time.as_secs_f64()));
}
