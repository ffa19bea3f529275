//! Connectivity trials of edits that change entries of maps, and of programs nothing.

use serde_json::{Value, json};
use sockeye_ebpf::programs::fixtures;

use super::Guarded;
use crate::node::Node;

/// The entries of the guard's hash.
type Entries = Vec<(u64, u64)>;

/// Returns the spec of a guard whose hash has these entries, kept in sync or not.
fn listing(entries: &[(u64, u64)], policy: &str) -> Value {
    let entries: Vec<Value> = entries.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
    json!({
        "programs": [{"name": "ask", "attach": [{"type": "Node"}]}],
        "maps": [{"name": "hash", "entriesPolicy": policy, "entries": entries}],
    })
}

fn entries(node: &Node) -> Entries {
    let entries = node.entries("guard", "hash");
    let number = |value: &Value| value.as_u64().unwrap();
    let mut entries: Entries = entries.iter().map(|entry| (number(&entry["key"]), number(&entry["value"]))).collect();
    entries.sort_unstable();
    entries
}

fn guarded(name: &str, policy_before: &str) -> Guarded {
    let specs =
        [listing(&[(1, 1), (2, 1)], policy_before), listing(&[(1, 2), (4, 2)], "Sync"), listing(&[(1, 3)], "Sync")];
    Guarded::of_object(name, "passed", fixtures::LISTS, specs)
}

fn until_entries(guarded: &Guarded, wanted: &[(u64, u64)]) {
    guarded.node.until(&format!("{wanted:?}"), |node| entries(node) == wanted);
}

/// The entries of before come back, even after a second edit; the program stays attached, and what others added stays.
#[test]
fn entries_on_trial_are_reverted_to_those_of_before() {
    let guarded = guarded("entries-trial", "Sync");
    guarded.node.until("that this agent has compared the first list", |_| {
        guarded.server.last_status.lock().unwrap().contains(r#"applied\":2"#)
    });
    guarded.dispatch(1);
    until_entries(&guarded, &[(1, 2), (4, 2)]);
    let pin = format!("{}/maps/hash", guarded.node.home("guard"));
    let add = ["map", "update", "pinned", &pin, "key", "9", "0", "0", "0", "value", "9", "0", "0", "0"];
    guarded.node.run("bpftool", &add);
    guarded.dispatch(2);
    until_entries(&guarded, &[(1, 3), (9, 9)]);
    guarded.assert_reverts(2, &guarded.good);
    until_entries(&guarded, &[(1, 1), (2, 1), (9, 9)]);
    assert!(guarded.is_in_effect(0));
    assert_eq!(guarded.node.attached(), guarded.good, "never detached");
    guarded.server.set_reachable(true);
    guarded.until_noted("reverted", 2);
    guarded.node.until("the report", |_| {
        let last_status = guarded.server.last_status.lock().unwrap();
        last_status.contains("ConnectivityLost") && last_status.contains("guard-3")
    });
    assert_eq!(entries(&guarded.node), [(1, 1), (2, 1), (9, 9)]);
    guarded.end();
}

/// Nobody has noted what was listed before, so everything is detached: by an agent that did not begin the trial, and
/// where the list of before only filled the map.
#[test]
fn entries_that_cannot_be_restored_are_detached_with_the_program() {
    let mut restarted = guarded("entries-restart", "Sync");
    restarted.dispatch(1);
    until_entries(&restarted, &[(1, 2), (4, 2)]);
    restarted.restart();
    restarted.assert_reverts(1, &[]);
    restarted.end();

    let filled = guarded("entries-filled", "OnCreate");
    filled.dispatch(1);
    until_entries(&filled, &[(1, 2), (2, 1), (4, 2)]);
    filled.assert_reverts(1, &[]);
    filled.end();
}
