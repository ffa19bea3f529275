//! The cost of programs: runs and time between two looks, links and memory.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use sockeye_read_api::node::{Node, Program, Runs};

use super::placement::memory;
use crate::output::{Table, quantity};

/// What the rows are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum By {
    /// Functions on nodes.
    #[default]
    Function,
    /// BpfPrograms on all nodes.
    Program,
    /// Nodes.
    Node,
}

/// A row.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// The node, if the row is of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The BpfProgram, if the row is of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// The function, if the row is of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// The runs between the two looks. Absent where they are not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runs: Option<u64>,
    /// Their nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nanoseconds: Option<u64>,
    /// The runs in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runs_per_second: Option<f64>,
    /// The share of one processor's time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_share: Option<f64>,
    /// The links in effect.
    pub links: u64,
    /// The memory that the kernel charges: of a function its code, of all else the maps too.
    pub memory_bytes: u64,
}

/// Returns the rows, the dearest first. Of a node without an earlier look nothing is known of the time between.
pub fn rows(before: &[Node], after: &[Node], by: By) -> Vec<Row> {
    let earlier: BTreeMap<&str, &Node> = before.iter().map(|node| (node.name.as_str(), node)).collect();
    let mut rows: BTreeMap<[Option<String>; 3], Row> = BTreeMap::new();
    for node in after {
        let seconds = earlier.get(node.name.as_str()).and_then(|before| seconds_between(before, node));
        for program in &node.programs {
            let old =
                earlier.get(node.name.as_str()).and_then(|node| node.programs.iter().find(|p| p.name == program.name));
            for (function, mut cost) in costs(node, old, program, seconds, by) {
                let key = match by {
                    By::Function => [Some(node.name.clone()), Some(program.name.clone()), Some(function)],
                    By::Program => [None, Some(program.name.clone()), None],
                    By::Node => [Some(node.name.clone()), None, None],
                };
                [cost.node, cost.program, cost.function] = key.clone();
                let slot = rows.entry(key);
                slot.and_modify(|row| add(row, &cost)).or_insert(cost);
            }
        }
    }
    let mut rows: Vec<Row> = rows.into_values().collect();
    let share = |row: &Row| row.cpu_share.unwrap_or_default();
    rows.sort_by(|a, b| share(b).total_cmp(&share(a)).then(b.memory_bytes.cmp(&a.memory_bytes)));
    rows
}

fn seconds_between(before: &Node, after: &Node) -> Option<f64> {
    let (before, after): (Timestamp, Timestamp) = (before.time.parse().ok()?, after.time.parse().ok()?);
    let seconds = after.duration_since(before).as_secs_f64();
    (seconds > 0.0).then_some(seconds)
}

/// Returns the cost of each function of a BpfProgram on a node. Its maps are no function's, and are a row of their own
/// that the others swallow.
fn costs(node: &Node, old: Option<&Program>, program: &Program, seconds: Option<f64>, by: By) -> Vec<(String, Row)> {
    let mut costs: Vec<(String, Row)> = Vec::new();
    for loaded in &program.detail.programs {
        let now = program.runs.iter().find(|runs| i64::from(runs.id) == loaded.id);
        let then = old.and_then(|old| old.runs.iter().find(|runs| i64::from(runs.id) == loaded.id));
        let between = now.filter(|_| node.counts_runs != Some(false)).map(|now| between(then, now, old.is_some()));
        let rate = between.flatten().zip(seconds);
        costs.push((
            loaded.name.clone(),
            Row {
                runs: between.flatten().map(|(runs, _)| runs),
                nanoseconds: between.flatten().map(|(_, nanoseconds)| nanoseconds),
                runs_per_second: rate.map(|((runs, _), seconds)| runs as f64 / seconds),
                cpu_share: rate.map(|((_, nanoseconds), seconds)| nanoseconds as f64 / 1e9 / seconds),
                links: u64::try_from(loaded.links).unwrap_or_default(),
                memory_bytes: u64::try_from(loaded.memlock_bytes).unwrap_or_default(),
                ..Row::default()
            },
        ));
    }
    if by != By::Function {
        let code: u64 = costs.iter().map(|(_, row)| row.memory_bytes).sum();
        let maps = memory(&program.detail).saturating_sub(code);
        costs.push((String::new(), Row { memory_bytes: maps, ..Row::default() }));
    }
    costs
}

/// Returns the runs and nanoseconds since the look before. A program that was loaded since has all of its own.
fn between(then: Option<&Runs>, now: &Runs, was_there: bool) -> Option<(u64, u64)> {
    match then {
        Some(then) => Some((now.count.checked_sub(then.count)?, now.nanoseconds.checked_sub(then.nanoseconds)?)),
        None => was_there.then_some((now.count, now.nanoseconds)),
    }
}

fn add(row: &mut Row, other: &Row) {
    let sum = |a: Option<u64>, b: Option<u64>| if a.is_none() { b } else { Some(a? + b.unwrap_or_default()) };
    let sum_f = |a: Option<f64>, b: Option<f64>| if a.is_none() { b } else { Some(a? + b.unwrap_or_default()) };
    row.runs = sum(row.runs, other.runs);
    row.nanoseconds = sum(row.nanoseconds, other.nanoseconds);
    row.runs_per_second = sum_f(row.runs_per_second, other.runs_per_second);
    row.cpu_share = sum_f(row.cpu_share, other.cpu_share);
    row.links += other.links;
    row.memory_bytes += other.memory_bytes;
}

/// The columns of a kind of rows.
pub fn columns(by: By) -> Vec<&'static str> {
    let names: &[&str] = match by {
        By::Function => &["node", "program", "function"],
        By::Program => &["program"],
        By::Node => &["node"],
    };
    names.iter().chain(&["runs/s", "time/run", "cpu", "links", "memory"]).copied().collect()
}

/// Returns the cells of a row.
pub fn cells(row: &Row, by: By) -> Vec<String> {
    let names = match by {
        By::Function => vec![&row.node, &row.program, &row.function],
        By::Program => vec![&row.program],
        By::Node => vec![&row.node],
    };
    let unknown = || "-".to_owned();
    let each = row.nanoseconds.zip(row.runs).filter(|(_, runs)| *runs > 0).map(|(all, runs)| all / runs);
    let numbers = [
        row.runs_per_second.map_or_else(unknown, per_second),
        each.map_or_else(unknown, quantity::nanoseconds),
        row.cpu_share.map_or_else(unknown, quantity::percent),
        row.links.to_string(),
        quantity::format_bytes(row.memory_bytes),
    ];
    names.into_iter().map(|name| name.clone().unwrap_or_default()).chain(numbers).collect()
}

fn per_second(rate: f64) -> String {
    if rate < 1000.0 { format!("{rate:.1}") } else { quantity::count(rate as u64) }
}

/// Returns the table.
pub fn table(rows: &[Row], by: By) -> Table {
    let mut table = Table::new(&columns(by), &[]);
    rows.iter().for_each(|row| table.row(cells(row, by)));
    table
}

/// Says of which nodes the kernels count no runs, and how to switch that on.
pub fn notes(nodes: &[Node]) -> Vec<String> {
    let off: Vec<&str> = nodes.iter().filter(|node| node.counts_runs == Some(false)).map(|node| &*node.name).collect();
    if off.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "the kernels of {} count no runs: switch that on by sysctl -w kernel.bpf_stats_enabled=1 on the node, which \
         costs some tens of nanoseconds a run",
        sockeye_crds::names::list(&off, 5)
    )]
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(name: &str, time: &str, runs: &Value, counts: bool) -> Node {
        let loaded = |name: &str, id: i64| {
            json!({
                "name": name, "kernelName": name, "id": id, "type": "SockOps", "tag": "0", "gplCompatible": true,
                "loadTime": "2026-01-01T00:00:00Z", "userID": 0, "xlatedBytes": 8, "jitedBytes": 8,
                "memlockBytes": 4096, "links": 2, "pinPath": "/x",
            })
        };
        let map = json!({
            "name": "m", "kernelName": "m", "id": 5, "type": "Hash", "flags": 0, "keySizeBytes": 4,
            "valueSizeBytes": 4, "maxEntries": 7, "memlockBytes": 1024, "used": true,
        });
        let detail = json!({"name": "p", "programs": [loaded("f", 7), loaded("g", 8)], "maps": [map]});
        let status = json!({"uid": "u", "state": "Attached"});
        let program = json!({"name": "p", "status": status, "detail": detail, "runs": runs});
        serde_json::from_value(json!({
            "name": name, "time": time, "facts": {}, "cpus": 2, "countsRuns": counts, "programs": [program],
        }))
        .unwrap()
    }

    fn runs(f: (u64, u64), g: (u64, u64)) -> Value {
        json!([
            {"name": "f", "id": 7, "count": f.0, "nanoseconds": f.1},
            {"name": "g", "id": 8, "count": g.0, "nanoseconds": g.1},
        ])
    }

    #[test]
    fn rates_are_those_between_two_looks_by_the_nodes_own_clock() {
        let before = [node("a", "2026-01-01T00:00:00Z", &runs((10, 1000), (0, 0)), true)];
        let after = [node("a", "2026-01-01T00:00:02Z", &runs((210, 21_000), (2000, 400_000_000)), true)];
        let rows_by = |by| table(&rows(&before, &after, by), by).render(false, false);
        let functions = "\
NODE   PROGRAM   FUNCTION   RUNS/S   TIME/RUN   CPU      LINKS   MEMORY
a      p         g          1.0k     200.0us    20.00%   2       4.0Ki
a      p         f          100.0    100ns      0.00%    2       4.0Ki
";
        assert_eq!(rows_by(By::Function), functions);
        let programs = "\
PROGRAM   RUNS/S   TIME/RUN   CPU      LINKS   MEMORY
p         1.1k     181.8us    20.00%   4       9.0Ki
";
        assert_eq!(rows_by(By::Program), programs);
        assert!(rows_by(By::Node).starts_with("NODE   RUNS/S"));
    }

    #[test]
    fn what_is_not_counted_is_unknown_and_not_zero() {
        let before = [node("a", "2026-01-01T00:00:00Z", &runs((0, 0), (0, 0)), false)];
        let after = [node("a", "2026-01-01T00:00:01Z", &runs((0, 0), (0, 0)), false)];
        let text = table(&rows(&before, &after, By::Program), By::Program).render(false, true);
        assert_eq!(text, "p     -     -     -     4     9.0Ki\n");
        assert!(notes(&after)[0].contains("kernels of a count no runs"));
    }

    #[test]
    fn a_program_that_was_loaded_again_is_not_compared_with_the_one_before() {
        let mut old = runs((500, 500), (500, 500));
        old[0]["id"] = json!(70);
        let before = [node("a", "2026-01-01T00:00:00Z", &old, true)];
        let after = [node("a", "2026-01-01T00:00:01Z", &runs((5, 500), (400, 1)), true)];
        let found = rows(&before, &after, By::Function);
        let by_name = |name: &str| found.iter().find(|row| row.function.as_deref() == Some(name)).unwrap().runs;
        assert_eq!((by_name("f"), by_name("g")), (Some(5), None));
    }
}
