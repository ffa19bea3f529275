//! The read API: what it answers agrees with bpftool, and whoever asks it keeps nothing else from going on.

pub mod client;
mod entries;
mod hostile;
mod paging;

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use serde_json::{Value, json};
use sockeye_ebpf::programs::{TCP_EVENTS_BTF, fixtures};
use sockeye_read_api::{
    FailureReason, Route,
    map::{Reference, References},
    node::{self, Program},
};

use self::client::Client;
use crate::node::Node;

/// Switches the kernel's counts of runs on, until it is dropped.
struct Counting(String);

const SETTING: &str = "/proc/sys/kernel/bpf_stats_enabled";

impl Counting {
    fn start() -> Self {
        let before = fs::read_to_string(SETTING).unwrap();
        fs::write(SETTING, "1").unwrap();
        Self(before)
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        fs::write(SETTING, &self.0).unwrap();
    }
}

fn seed(node: &Node, name: &str, object: &[u8]) {
    node.apply(name, object, json!([{"name": "my_prog", "attach": [{"type": "Node"}]}]), json!([]));
}

fn program(client: &Client, name: &str) -> Program {
    client.read(&Route::Program { program: name.to_owned() })
}

fn references(client: &Client, program: &str, map: &str) -> References {
    client.read(&Route::References { program: program.to_owned(), map: map.to_owned() })
}

#[test]
fn the_node_is_as_its_status_says_and_runs_are_counted_live() {
    let mut node = Node::new("read");
    let client = client::start(&mut node);
    seed(&node, "counter", TCP_EVENTS_BTF);
    seed(&node, "tcp-events", TCP_EVENTS_BTF);
    node.ready("counter");
    node.ready("tcp-events");

    let read: node::Node = client.read(&Route::Node);
    assert_eq!((read.name.as_str(), read.suspended.as_deref()), ("test", None));
    assert_eq!(read.programs.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["counter", "tcp-events"]);
    assert_eq!(serde_json::to_value(&read.facts).unwrap(), node.node_status()["node"]);
    let online = Command::new("nproc").arg("--all").output().unwrap();
    assert!(read.cpus >= 1 && read.cpus <= String::from_utf8_lossy(&online.stdout).trim().parse().unwrap());
    for one in &read.programs {
        let mut detail = serde_json::to_value(&one.detail).unwrap();
        let details = node.details(&one.name);
        detail.as_object_mut().unwrap().retain(|field, _| details.get(field).is_some());
        assert_eq!(detail, details, "{}", one.name);
        assert_eq!(one.status.revision.as_deref(), node.entry(&one.name)["revision"].as_str());
    }

    {
        let _counting = Counting::start();
        assert_eq!(client.read::<node::Node>(&Route::Node).counts_runs, Some(true));
        let before = program(&client, "counter").runs[0].count;
        node.connect(20);
        let runs = program(&client, "counter").runs;
        let shown = node.bpftool(&["prog", "show", "id", &runs[0].id.to_string()]);
        assert!(runs[0].count >= before + 40, "both ends of 20 connections: {runs:?}");
        assert_eq!((runs[0].name.as_str(), Some(runs[0].count)), ("my_prog", shown["run_cnt"].as_u64()));
        assert_eq!(Some(runs[0].nanoseconds), shown["run_time_ns"].as_u64());
    }
    ["counter", "tcp-events"].into_iter().for_each(|name| node.remove(name));
    assert_eq!(client.fails("/v1/programs/counter").reason, FailureReason::ProgramNotFound);
    node.nothing_left();
}

#[test]
fn the_whole_log_of_the_verifier_is_kept() {
    let mut node = Node::new("readlog");
    let client = client::start(&mut node);
    seed(&node, "good", TCP_EVENTS_BTF);
    node.ready("good");
    assert_eq!(client.fails("/v1/programs/good/log").reason, FailureReason::LogNotFound);
    assert_eq!(client.fails("/v1/programs/other/log").reason, FailureReason::ProgramNotFound);
    seed(&node, "counter", fixtures::WORDY);
    node.condition_is("counter", "Ready", "False");
    let (status, log) = client.get("/v1/programs/counter/log");
    let log = String::from_utf8(log).unwrap();
    let end = node.details("counter")["verifierLog"].as_str().unwrap().to_owned();
    assert_eq!(status, 200);
    assert!(log.len() > 2 * end.len() && !log.starts_with('…'), "{} bytes: {log:.200}", log.len());
    if node.has_feature("VerifierLogEnd") {
        assert!(log.ends_with(end.trim_start_matches("…\n")), "{end:.200}");
    }
    // Another rejection has another log.
    seed(&node, "counter", fixtures::REFUSED);
    node.until("the next log", |_| {
        let (_, log) = client.get("/v1/programs/counter/log");
        String::from_utf8(log).unwrap().contains("return *value != 0")
    });
    node.remove("counter");
    assert_eq!(client.fails("/v1/programs/counter/log").reason, FailureReason::ProgramNotFound);
    node.remove("good");
    node.nothing_left();
}

#[test]
fn what_keeps_a_map_is_told() {
    let mut node = Node::new("readrefs");
    let client = client::start(&mut node);
    entries::apply(&node);
    let home = node.home("kinds");
    let details = node.details("kinds");
    let id_of = |list: &str, name: &str| {
        let all = details[list].as_array().unwrap();
        all.iter().find(|one| one["name"] == name).unwrap()["id"].as_u64().unwrap() as u32
    };

    let found = references(&client, "kinds", "first");
    assert_eq!(found.map_id, id_of("maps", "first"));
    assert!(found.by.contains(&Reference::Pin { path: format!("{home}/maps/first"), program: "kinds".to_owned() }));
    for outer in ["array_of_maps", "hash_of_maps"] {
        let (program, map, id) = ("kinds".to_owned(), outer.to_owned(), id_of("maps", outer));
        assert!(found.by.contains(&Reference::OuterMap { program, map, id }), "{found:?}");
    }
    assert!(found.by.contains(&Reference::Descriptor { count: 1 }), "{found:?}");
    assert!(!found.by.iter().any(|by| matches!(by, Reference::Program { .. })), "no program refers to it: {found:?}");
    assert!(found.unseen.iter().any(|what| what.contains("other processes")), "{found:?}");

    let found = references(&client, "kinds", "hash");
    let [user] = found.by.iter().filter(|by| matches!(by, Reference::Program { .. })).collect::<Vec<_>>()[..] else {
        panic!("{found:?}")
    };
    let Reference::Program { program, function, id, kept_by } = user else { unreachable!() };
    assert_eq!((program.as_str(), function.as_str(), *id), ("kinds", "on_connect", id_of("programs", "on_connect")));
    let pins = node.pins("kinds");
    let mut expected: Vec<String> = pins
        .iter()
        .filter(|pin| *pin == "programs/on_connect" || pin.starts_with("links/on_connect/"))
        .map(|pin| format!("{home}/{pin}"))
        .collect();
    expected.sort();
    let mut kept_by = kept_by.clone();
    kept_by.sort();
    assert_eq!((kept_by.len(), kept_by), (2, expected));

    assert_eq!(client.fails("/v1/programs/kinds/maps/absent/references").reason, FailureReason::MapNotFound);
    node.remove("kinds");
    node.nothing_left();
}

#[test]
fn the_socket_is_roots_and_goes_with_the_agent() {
    let mut node = Node::new("readsock");
    let socket = client::socket(&node);
    let client = client::start(&mut node);
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);

    // Whatever the mode, the peer is asked for its user.
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    fs::set_permissions(node.folder(), fs::Permissions::from_mode(0o755)).unwrap();
    let script = format!(
        "import socket; s = socket.socket(socket.AF_UNIX); s.settimeout(5); s.connect({:?}); \
         s.sendall(b'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n'); print(len(s.recv(100)))",
        socket.display().to_string()
    );
    let told = |user: &[&str]| {
        let done = Command::new("setpriv").args(user).args(["/usr/bin/python3", "-c", &script]).output().unwrap();
        (done.status.success(), String::from_utf8_lossy(&done.stdout).trim().parse::<u32>().unwrap_or_default())
    };
    let (_, of_root) = told(&["--reuid=0"]);
    let (_, of_others) = told(&["--reuid=1000", "--regid=1000", "--clear-groups"]);
    assert!(of_root > 0 && of_others == 0, "{of_root}, {of_others}");
    node.until("a word about it", |node| node.log().contains("asked by a user that is not root"));

    node.stop("KILL");
    assert!(socket.exists());
    drop(client);
    let client = client::start(&mut node);
    assert_eq!(client.get("/v1/node").0, 200);
    node.stop("TERM");
    assert!(!socket.exists(), "it goes at an orderly end");
    node.nothing_left();
}

#[test]
fn what_is_no_request_is_answered_by_a_reason() {
    let mut node = Node::new("readbad");
    let client = client::start(&mut node);
    entries::apply(&node);
    for (path, reason) in [
        ("/", FailureReason::BadRequest),
        ("/v1/node?x=1", FailureReason::BadRequest),
        ("/v1/programs/kinds/maps/hash/entries?limit=100000", FailureReason::BadRequest),
        ("/v1/programs/kinds/maps/hash/entries?after=s7", FailureReason::BadRequest),
        ("/v1/programs/kinds/maps/hash/entries?after=k00", FailureReason::BadRequest),
        ("/v1/programs/kinds/maps/hash/entries?key=7", FailureReason::KeyInvalid),
        ("/v1/programs/kinds/maps/array/entries?key=4", FailureReason::KeyInvalid),
        ("/v1/programs/kinds/maps/lru_hash/entries?key=77", FailureReason::EntryNotFound),
        ("/v1/programs/kinds/maps/ringbuf/entries", FailureReason::NotReadable),
        ("/v1/programs/kinds/maps/perf/entries", FailureReason::NotReadable),
        ("/v1/programs/kinds/maps/sk_storage/entries", FailureReason::NotReadable),
        ("/v1/programs/kinds/maps/queue/entries?key=1", FailureReason::KeyInvalid),
        ("/v1/programs/kinds/maps/hash/records", FailureReason::NotStreamed),
    ] {
        let failure = client.fails(path);
        assert_eq!(failure.reason, reason, "{path}: {failure}");
        assert!(failure.message.len() > 10, "{path}: {failure}");
    }
    let failure = client.fails("/v1/programs/kinds/maps/absent/entries");
    assert_eq!(failure.reason, FailureReason::MapNotFound);
    let listed: Value = client.read(&Route::Program { program: "kinds".to_owned() });
    assert!(listed["detail"]["maps"].as_array().unwrap().len() > 15, "the message refers to these");
    node.remove("kinds");
    node.nothing_left();
}
