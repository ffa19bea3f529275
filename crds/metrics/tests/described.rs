//! Every metric, in both formats: it has a help and a unit, and its labels are the described ones. The tables in the
//! docs are those that the descriptions make.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use std::{collections::BTreeSet, time::Duration};

use prometheus_client::registry::Registry;
use sockeye_metrics::{
    AgentMetrics, OperatorMetrics, Scrape,
    agent::{self, AgentState, FunctionRuns, ProgramMetrics},
    client::{self, ClientMetrics},
    description::{Description, Kind, Measure},
    exposition::Format,
    operator::{self, OperatorState},
    table,
};

fn count_requests(client: &ClientMetrics) {
    client.answered("get", Some(200));
    client.answered("watch", None);
    client.watch_began("nodes");
    client.watch_failed("nodes");
}

fn of_operator() -> (Registry, Scrape) {
    let mut counters = Registry::default();
    let metrics = OperatorMetrics::new(&mut counters);
    count_requests(&metrics.client);
    metrics.reconciled("done", Duration::from_millis(3));
    metrics.errors.inc(&["apply"]);
    metrics.events.inc(&["dropped"]);
    metrics.pulls.inc(&["pulled"]);
    let state = OperatorState {
        queued: 2,
        oldest: Duration::from_millis(1500),
        running: 1,
        leads: true,
        objects: vec![("nodes", 3)],
    };
    let scrape = metrics.scrape(&state);
    (counters, scrape)
}

fn of_agent() -> (Registry, Scrape) {
    let mut counters = Registry::default();
    let metrics = AgentMetrics::new(&mut counters);
    count_requests(&metrics.client);
    metrics.loaded(Duration::from_millis(20));
    metrics.load_failed();
    metrics.errors.inc(&["LoadFailed"]);
    metrics.drift.inc(&["PinRemoved"]);
    metrics.rollbacks.inc(&[]);
    metrics.status_writes.inc(&["written"]);
    let runs = vec![FunctionRuns { function: "f".into(), count: 7, time: Duration::from_micros(3) }];
    let program = ProgramMetrics {
        name: "p".into(),
        state: "Attached".into(),
        links: 2,
        pods: 1,
        map_bytes: 4096,
        entries: Some((3, 2)),
        runs,
    };
    let state = AgentState { counts_runs: Some(true), programs: vec![program] };
    let scrape = metrics.scrape(Some(&state));
    (counters, scrape)
}

/// The lines of one metric.
struct Parsed<'a> {
    name: &'a str,
    help: &'a str,
    kind: &'a str,
    unit: Option<&'a str>,
    samples: Vec<(&'a str, BTreeSet<&'a str>, f64)>,
}

/// Reads an exposition strictly: HELP, TYPE, perhaps UNIT, then samples whose names begin with the metric's.
fn parse(text: &str) -> Vec<Parsed<'_>> {
    let mut metrics: Vec<Parsed<'_>> = Vec::new();
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            metrics.push(Parsed { name, help, kind: "", unit: None, samples: Vec::new() });
            continue;
        }
        let metric = metrics.last_mut().unwrap_or_else(|| panic!("{line} comes before any HELP"));
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, metric.name);
            metric.kind = kind;
        } else if let Some(unit) = line.strip_prefix("# UNIT ") {
            let (name, unit) = unit.split_once(' ').unwrap();
            assert_eq!(name, metric.name);
            metric.unit = Some(unit);
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            assert!(name.starts_with(metric.name), "{line} is no sample of {}", metric.name);
            let labels = labels.strip_suffix('}').unwrap();
            let names = labels.split(',').filter(|label| !label.is_empty());
            let names = names.map(|label| label.split_once('=').unwrap().0).collect();
            metric.samples.push((name, names, value.parse().unwrap()));
        }
    }
    metrics
}

fn kind_of(description: &Description) -> &'static str {
    match description.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    }
}

fn all_are_there(descriptions: &[&[Description]], (counters, scrape): &(Registry, Scrape)) {
    let prometheus = Format::Prometheus.write(counters, scrape).unwrap();
    let open_metrics = Format::OpenMetrics.write(counters, scrape).unwrap();
    assert!(open_metrics.ends_with("# EOF\n") && !prometheus.contains("# EOF"));
    let (plain, open) = (parse(&prometheus), parse(&open_metrics));
    let described: Vec<_> = descriptions.iter().flat_map(|some| some.iter()).collect();
    assert_eq!((plain.len(), open.len()), (described.len(), described.len()), "{prometheus}");
    for description in described {
        let name = description.full_name();
        let found =
            plain.iter().find(|metric| metric.name == name).unwrap_or_else(|| panic!("no {name}: {prometheus}"));
        assert!(found.help.len() > 10, "{name}: {}", found.help);
        assert_eq!(found.kind, kind_of(description), "{name}");
        assert!(!found.samples.is_empty(), "{name} has no sample");
        for (_, labels, _) in &found.samples {
            let mut labels = labels.clone();
            labels.remove("le");
            assert_eq!(labels, description.labels.iter().copied().collect(), "{name}");
        }
        let base = name.strip_suffix("_total").filter(|_| description.kind == Kind::Counter).unwrap_or(&name);
        let found =
            open.iter().find(|metric| metric.name == base).unwrap_or_else(|| panic!("no {base}: {open_metrics}"));
        let unit = match description.measure {
            Measure::Number => None,
            Measure::Seconds => Some("seconds"),
            Measure::Bytes => Some("bytes"),
        };
        assert_eq!(found.unit, unit, "{name}");
    }
}

#[test]
fn the_operators_metrics_are_all_described_and_in_both_formats() {
    all_are_there(&[client::DESCRIPTIONS, operator::DESCRIPTIONS], &of_operator());
}

#[test]
fn the_agents_metrics_are_all_described_and_in_both_formats() {
    all_are_there(&[client::DESCRIPTIONS, agent::DESCRIPTIONS], &of_agent());
}

#[test]
fn the_values_are_those_that_were_counted_and_asked() {
    let (counters, scrape) = of_agent();
    let text = Format::Prometheus.write(&counters, &scrape).unwrap();
    for (name, value) in [
        ("sockeye_agent_program_runs_total", 7.0),
        ("sockeye_agent_program_run_seconds_total", 0.000_003),
        ("sockeye_agent_map_bytes", 4096.0),
        ("sockeye_agent_entries_desired", 3.0),
        ("sockeye_agent_entries_in_sync", 2.0),
        ("sockeye_agent_run_statistics", 1.0),
    ] {
        let metrics = parse(&text);
        let metric = metrics.iter().find(|metric| metric.name == name).unwrap();
        assert_eq!(metric.samples.iter().map(|(_, _, value)| *value).collect::<Vec<_>>(), [value], "{name}");
    }
}

#[test]
fn labels_are_of_a_known_few() {
    const BOUNDED: [&str; 10] =
        ["verb", "code", "resource", "version", "outcome", "reason", "result", "state", "kind", "program"];
    for description in [client::DESCRIPTIONS, operator::DESCRIPTIONS, agent::DESCRIPTIONS].concat() {
        for label in description.labels {
            assert!(BOUNDED.contains(label) || *label == "function", "{}: {label}", description.full_name());
        }
    }
}

#[test]
fn the_docs_have_the_tables_that_the_descriptions_make() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md")).unwrap();
    let tables = table::tables();
    assert!(page.contains(tables.trim_end()), "write into docs/metrics.md:\n\n{tables}");
}
