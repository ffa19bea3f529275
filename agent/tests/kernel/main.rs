//! The agent alone, on the real kernel: its statuses agree with bpftool, and it leaves nothing behind.
//!
//! Needs root. Each test has its own mount namespace with a bpffs, and its own cgroup. Both go with the test, even if
//! it is killed.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod api_server;
mod architectures;
mod attach_type;
mod bpffs;
mod builtins;
mod cases;
mod connectivity;
mod directory;
mod drift;
mod entries;
mod examples;
mod helpers;
mod hostile;
mod killed;
mod kinds;
mod link_update;
mod load;
mod lockdown;
mod map_attachment;
mod maps;
mod memlock;
mod node;
mod objects;
mod order;
mod pods;
mod probe;
mod program_types;
mod read_api;
mod reboot;
mod refusals;
mod shared;
mod soak;
mod sockets;
mod streams;
mod suspend;

use node::Node;
use serde_json::{Value, json};
use sockeye_ebpf::programs::{TCP_EVENTS, TCP_EVENTS_BTF, fixtures};

fn seed(node: &Node, name: &str, bytes: &[u8]) {
    node.apply(name, bytes, json!([{"name": "my_prog", "attach": [{"type": "Node"}]}]), json!([]));
}

#[test]
fn the_status_agrees_with_bpftool() {
    let mut node = Node::new("seed");
    node.start();
    seed(&node, "tcp-events", TCP_EVENTS);
    let program = node.ready("tcp-events");

    let details = node.details("tcp-events");
    let (prog, map, link) = (&details["programs"][0], &details["maps"][0], &details["links"][0]);
    let shown = node.bpftool(&["prog", "show", "pinned", &node.pin(prog)]);
    for (ours, theirs) in [
        ("id", "id"),
        ("kernelName", "name"),
        ("tag", "tag"),
        ("mapIDs", "map_ids"),
        ("userID", "uid"),
        ("xlatedBytes", "bytes_xlated"),
        ("jitedBytes", "bytes_jited"),
        ("memlockBytes", "bytes_memlock"),
        ("gplCompatible", "gpl_compatible"),
        ("btfID", "btf_id"),
    ] {
        assert_eq!(prog[ours], shown[theirs], "{ours}: {shown}");
    }
    let shown = node.bpftool(&["map", "show", "pinned", &node.pin(map)]);
    for (ours, theirs) in [
        ("id", "id"),
        ("kernelName", "name"),
        ("flags", "flags"),
        ("keySizeBytes", "bytes_key"),
        ("valueSizeBytes", "bytes_value"),
        ("maxEntries", "max_entries"),
        ("memlockBytes", "bytes_memlock"),
    ] {
        assert_eq!(map[ours], shown[theirs], "{ours}: {shown}");
    }
    assert_eq!((shown["type"].as_str(), map["type"].as_str()), (Some("array"), Some("Array")));
    let shown = node.bpftool(&["link", "show", "pinned", &node.pin(link)]);
    for (ours, theirs) in [
        ("id", "id"),
        ("type", "type"),
        ("programID", "prog_id"),
        ("cgroupID", "cgroup_id"),
        ("attachType", "attach_type"),
    ] {
        assert_eq!(link[ours], shown[theirs], "{ours}: {shown}");
    }
    assert_eq!(program["status"]["summary"]["programIDs"], prog["id"].to_string());
    assert_eq!((map["used"].as_bool(), link["inEffect"].as_bool()), (Some(true), Some(true)));

    let before = node.events("tcp-events");
    node.connect(25);
    let after = node.events("tcp-events");
    // ACTIVE_ESTABLISHED_CB and PASSIVE_ESTABLISHED_CB: both ends are in the node's cgroup.
    assert_eq!((after[4] - before[4], after[5] - before[5]), (25, 25));

    node.remove("tcp-events");
    node.nothing_left();
}

#[test]
fn a_restarted_agent_finds_everything_and_loads_nothing() {
    let mut node = Node::new("restart");
    node.start();
    seed(&node, "tcp-events", TCP_EVENTS_BTF);
    node.ready("tcp-events");
    let before = node.details("tcp-events");
    node.connect(3);
    let counted = node.events("tcp-events");
    for signal in ["TERM", "KILL"] {
        node.stop(signal);
        node.connect(2);
        node.start();
        node.ready("tcp-events");
        assert_eq!(node.details("tcp-events"), before, "after SIG{signal}");
    }
    assert_eq!(node.events("tcp-events")[4], counted[4] + 4, "it counts while no agent runs");
    node.remove("tcp-events");
    node.nothing_left();
}

#[test]
fn every_map_is_pinned_even_if_no_program_uses_it() {
    let mut node = Node::new("maps");
    node.start();
    let attach = json!([{"type": "Node"}]);
    let programs = json!([{"name": "on_connect", "attach": attach}, {"name": "on_create", "attach": attach}]);
    node.apply("globals", fixtures::GLOBALS, programs, json!([]));
    node.ready("globals");
    let details = node.details("globals");
    let maps: Vec<(&str, bool, &str)> = details["maps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| (m["name"].as_str().unwrap(), m["used"].as_bool().unwrap(), m["pinPath"].as_str().unwrap()))
        .collect();
    let home = node.home("globals");
    let path = |pin: &str| format!("{home}/maps/{pin}");
    assert_eq!(
        maps,
        [
            (".bss", true, path("_bss").as_str()),
            (".data", true, &path("_data")),
            (".rodata", true, &path("_rodata")),
            ("shared", true, &path("shared")),
            ("unused", false, &path("unused")),
        ]
    );
    let unused = node.bpftool(&["map", "show", "pinned", &path("unused")]);
    assert_eq!((unused["type"].as_str(), unused["max_entries"].as_i64()), (Some("ringbuf"), Some(8192)));
    let accepted = node.condition("globals", "Accepted");
    assert!(accepted["message"].as_str().unwrap().contains("shared"), "the pinning in the ELF is reported: {accepted}");
    assert!(!node.exists(&format!("{}/shared", node.bpffs())), "and ignored");
    node.remove("globals");
    node.nothing_left();
}

/// The cause is at the end of the verifier's log. Kernels before 6.4 keep the beginning, and the message says so.
#[test]
fn a_long_verifier_log_keeps_its_end() {
    let mut node = Node::new("wordy");
    node.start();
    seed(&node, "counter", fixtures::WORDY);
    let ready = node.condition_is("counter", "Ready", "False");
    assert_eq!(ready["reason"], "VerifierRejected");
    let (message, details) = (ready["message"].as_str().unwrap(), node.details("counter"));
    let log = details["verifierLog"].as_str().unwrap();
    let keeps = node.has_feature("VerifierLogEnd");
    assert_eq!(message.contains("invalid mem access 'map_value_or_null'"), keeps, "{message}");
    assert_eq!(log.contains("invalid mem access 'map_value_or_null'"), keeps, "{log}");
    assert_eq!(message.contains("older than 6.4"), !keeps, "{message}");
    assert!(log.starts_with('…') && log.len() > 4 << 10, "{} bytes: {log:.200}", log.len());
    node.remove("counter");
    node.nothing_left();
}

#[test]
fn a_failed_load_leaves_nothing_behind_and_keeps_the_known_good_revision() {
    let mut node = Node::new("refused");
    node.start_with(&["--map-bytes-per-program", "1Mi"]);
    seed(&node, "counter", fixtures::REFUSED);
    let ready = node.condition_is("counter", "Ready", "False");
    assert_eq!(ready["reason"], "VerifierRejected");
    let message = ready["message"].as_str().unwrap();
    assert!(message.contains("my_prog") && message.contains("map_value_or_null"), "{message}");
    let details = node.details("counter");
    let log = details["verifierLog"].as_str().unwrap();
    assert!(log.contains("invalid mem access 'map_value_or_null'") && log.contains("return *value != 0"), "{log}");
    assert_eq!(node.pins("counter"), Vec::<String>::new(), "nothing stays half-loaded");

    seed(&node, "counter", TCP_EVENTS_BTF);
    node.ready("counter");
    let good = node.details("counter");
    node.connect(5);
    let counted = node.events("counter");

    let map = json!([{"name": "my_map", "onIncompatible": "Recreate", "maxEntries": 1 << 20}]);
    for (bad, maps, reason, words) in [
        (fixtures::REFUSED, json!([]), "VerifierRejected", "map_value_or_null"),
        (fixtures::RESHAPED, json!([]), "MapIncompatible", "max_entries 10"),
        (TCP_EVENTS_BTF, map, "MapBytesExceeded", "my_map"),
    ] {
        let attach = json!([{"name": "my_prog", "attach": [{"type": "Node"}]}]);
        node.apply("counter", bad, attach, maps);
        let ready = node.condition_is("counter", "Ready", "False");
        assert_eq!(ready["reason"], reason, "{ready}");
        assert!(ready["message"].as_str().unwrap().contains(words), "{ready}");
        let unchanged = node.details("counter");
        assert_eq!(
            (&unchanged["programs"], &unchanged["links"], &unchanged["maps"]),
            (&good["programs"], &good["links"], &good["maps"])
        );
    }
    node.connect(1);
    assert_eq!(node.events("counter")[4], counted[4] + 1, "the known good program counts on");

    seed(&node, "counter", fixtures::TWICE);
    node.ready("counter");
    let new = node.details("counter");
    assert_ne!(new["programs"][0]["id"], good["programs"][0]["id"]);
    assert_eq!(new["links"][0]["id"], good["links"][0]["id"], "the link is updated, not replaced");
    assert_eq!(new["links"][0]["programID"], new["programs"][0]["id"]);
    assert_eq!(new["maps"][0]["id"], good["maps"][0]["id"], "the map and its content are carried over");
    let before = node.events("counter");
    node.connect(1);
    assert_eq!(node.events("counter")[4], before[4] + 2, "and the new program counts each event twice");
    node.remove("counter");
    node.nothing_left();
}

/// A BpfProgram was deleted while no agent ran, and created again under its name with an object that can't run.
#[test]
fn the_remains_of_a_deleted_namesake_are_removed_even_if_the_new_revision_fails() {
    let mut node = Node::new("namesake");
    for (path, bad) in [("/nowhere", TCP_EVENTS_BTF), ("/", fixtures::REFUSED)] {
        node.start();
        seed(&node, "counter", TCP_EVENTS_BTF);
        node.ready("counter");
        node.stop("KILL");
        node.run("ln", &["-sfn", "another", &format!("{}/_meta/uid", node.home("counter"))]);
        let attach = json!([{"name": "my_prog", "attach": [{"type": "CgroupPath", "cgroupPath": path}]}]);
        node.apply("counter", bad, attach, json!([]));
        node.start();
        node.condition_is("counter", "Ready", "False");
        assert_eq!((node.attached(), node.pins("counter")), (vec![], vec![]), "{path}");
        node.remove("counter");
        node.stop("KILL");
    }
    node.nothing_left();
}

#[test]
fn a_retained_map_outlives_its_program_and_is_reused() {
    let mut node = Node::new("retain");
    node.start();
    let programs = json!([{"name": "my_prog", "attach": [{"type": "Node"}]}]);
    let maps = json!([{"name": "my_map", "reclaimPolicy": "Retain"}]);
    node.apply("counter", TCP_EVENTS_BTF, programs.clone(), maps.clone());
    node.ready("counter");
    node.connect(7);
    let id = node.details("counter")["maps"][0]["id"].clone();
    node.remove("counter");
    assert_eq!(node.pins("counter"), ["maps/my_map"]);
    let retained = &node.node_detail()["retained"][0];
    assert_eq!((&retained["id"], retained["program"].as_str()), (&id, Some("counter")));
    assert_eq!(node.events("counter")[4], 7);

    node.apply("counter", TCP_EVENTS_BTF, programs.clone(), json!([]));
    node.ready("counter");
    assert_eq!(node.details("counter")["maps"][0]["id"], id);
    node.remove("counter");
    node.nothing_left();
}

#[test]
fn a_cgroup_path_is_attached_once_it_exists() {
    let mut node = Node::new("path");
    node.start();
    let attach = |path: &str| json!([{"name": "my_prog", "attach": [{"type": "CgroupPath", "cgroupPath": path}]}]);
    node.apply("path", TCP_EVENTS_BTF, attach("/inner"), json!([]));
    let ready = node.condition_is("path", "Ready", "False");
    assert_eq!(ready["reason"], "CgroupNotFound");
    assert!(ready["message"].as_str().unwrap().contains("/inner"), "{ready}");
    assert_eq!(node.pins("path"), Vec::<String>::new());
    // A path that can't be a cgroup's is not found either.
    for path in ["/cgroup.procs/inner".to_owned(), format!("/{}", "long".repeat(100))] {
        node.apply("path", TCP_EVENTS_BTF, attach(&path), json!([]));
        assert_eq!(node.condition_is("path", "Ready", "False")["reason"], "CgroupNotFound");
    }
    node.apply("path", TCP_EVENTS_BTF, attach("/inner"), json!([]));

    node.make_cgroup("inner");
    node.ready("path");
    let link = &node.details("path")["links"][0];
    assert_eq!(link["cgroupPath"], "/inner");
    node.connect(3);
    assert_eq!(node.events("path")[4], 0, "the node's other cgroups are not counted");

    // Of two entries, one below the other, only the higher gets a link.
    let cgroups = json!([{"type": "CgroupPath", "cgroupPath": "/inner"}, {"type": "Node"}]);
    let both = json!([{"name": "my_prog", "attach": cgroups}]);
    node.apply("path", TCP_EVENTS_BTF, both, json!([]));
    node.until("one link at the root", |node| {
        let links = node.details("path")["links"].clone();
        links.as_array().is_some_and(|l| l.len() == 1) && links[0]["cgroupPath"] == "/"
    });
    node.connect(3);
    assert_eq!(node.events("path")[4], 3, "nothing counts twice");
    node.remove("path");
    node.nothing_left();
}

#[test]
fn invalid_objects_and_specs_are_refused_before_a_load() {
    let mut node = Node::new("invalid");
    node.start();
    let attach = json!([{"type": "Node"}]);
    for (name, bytes, programs, reason, word) in [
        ("no-elf", b"not an ELF".as_slice(), json!([{"name": "my_prog", "attach": attach}]), "InvalidObject", "ELF"),
        ("cut-short", &TCP_EVENTS[..700], json!([{"name": "my_prog", "attach": attach}]), "InvalidObject", "ELF"),
        (
            "no-program",
            TCP_EVENTS,
            json!([{"name": "other", "attach": attach}]),
            "ProgramNotFound",
            "spec.programs[0].name",
        ),
        (
            "type",
            TCP_EVENTS,
            json!([{"name": "my_prog", "type": "CgroupSkb", "attach": attach}]),
            "TypeMismatch",
            "spec.programs[0].type",
        ),
    ] {
        node.apply(name, bytes, programs, json!([]));
        let accepted = node.condition_is(name, "Accepted", "False");
        assert_eq!(accepted["reason"], reason, "{accepted}");
        assert!(accepted["message"].as_str().unwrap().contains(word), "{accepted}");
        assert_eq!(node.pins(name), Vec::<String>::new());
        node.remove(name);
    }
    node.nothing_left();
}

#[test]
fn the_agent_prints_a_table_as_kubectl_does() {
    let mut node = Node::new("table");
    node.start();
    seed(&node, "tcp-events", TCP_EVENTS);
    let program = node.ready("tcp-events");
    let ids = &program["status"]["summary"];
    node.until("the table", |node| {
        let table = node.printed();
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        let [.., headings, row] = &rows[..] else { return false };
        let text = |v: &Value| v.as_str().unwrap().to_owned();
        let columns = "NAME DESIRED UPDATED FAILED PODS READY PROGRAM-IDS MAP-IDS AGE";
        // No target selects pods, so that their column is empty.
        row.len() == 8
            && row[..7] == ["tcp-events", "1", "1", "0", "True", &text(&ids["programIDs"]), &text(&ids["mapIDs"])]
            && headings.join(" ") == columns
    });
    node.remove("tcp-events");
    node.nothing_left();
}
