//! Programs attached to maps, by a link or, on a kernel without links for maps, held by the map itself. The status
//! agrees with the kernel, also after external changes. Injected faults make this kernel behave like one without such
//! links.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::fd::AsFd as _,
    path::Path,
    process::Child,
};

use serde_json::{Value, json};
use sockeye_agent::kernel::bpf;

use crate::{
    node::Node,
    program_types::{PODS, actor, object, outcome},
};

/// Kernels by the fault that makes this one like them: this one, one without links for maps, and one that also can't be
/// queried for what is attached to a map.
pub const KERNELS: [Option<&str>; 3] = [None, Some("22@sockmap link"), Some("22@sockmap")];

/// Returns the kernels that tests run on, each with a letter for names. A guest with a kernel of its own
/// (tests/kernels) imitates no other.
pub fn kernels() -> impl Iterator<Item = (Option<&'static str>, &'static str)> {
    let count = if std::env::var_os("SOCKEYE_OWN_KERNEL").is_some() { 1 } else { KERNELS.len() };
    KERNELS.into_iter().zip(["a", "b", "c"]).take(count)
}

/// The regression that sk_msg programs trigger on some kernels.
pub const FIONREAD: &str = "SockmapFIONREAD";

/// `BPF_SK_MSG_VERDICT`
const SK_MSG: u32 = 7;

/// Returns the spec of sk-msg with these settings of its maps.
fn spec(maps: Value) -> Value {
    let pods = json!([{"type": "AllPods"}]);
    let redirect = json!({"name": "redirect", "attach": [{"type": "Map", "map": {"name": "sockets"}}]});
    let accepted = json!([FIONREAD]);
    json!({"programs": [{"name": "remember", "attach": pods}, redirect], "maps": maps, "acceptedRegressions": accepted})
}

/// Returns a node with a cgroup for its pods and an agent on such a kernel.
pub fn node(name: &str, kernel: Option<&str>) -> Node {
    let mut node = Node::new(name);
    node.make_cgroup(PODS);
    start(&mut node, kernel);
    node
}

fn start(node: &mut Node, kernel: Option<&str>) {
    match kernel {
        Some(fault) => node.start_faulty(fault),
        None => node.start(),
    }
}

fn apply(node: &Node, spec: Value) {
    node.apply_spec("sk-msg", object("sk-msg"), spec);
}

/// Returns the status of the attachment to the map.
fn attachment(node: &Node) -> Value {
    let links = node.details("sk-msg")["links"].as_array().cloned().unwrap_or_default();
    links.into_iter().find(|link| link["program"] == "redirect").unwrap_or_default()
}

fn named(node: &Node, kind: &str, name: &str) -> Value {
    let all = node.details("sk-msg")[kind].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|one| one["name"] == name).unwrap_or_default()
}

/// Returns the programs attached to a pinned map. This process has no fault: `None` means that the kernel can't be
/// queried (before 5.17).
pub fn attached_to(map: &Path) -> Option<Vec<u32>> {
    let map = bpf::obj_get(None, map).unwrap();
    bpf::map_query(map.as_fd(), SK_MSG).unwrap()
}

/// Asserts which programs are attached to the map, on a kernel that can be queried.
fn assert_runs(node: &Node, programs: &[Value]) {
    let pin = format!("{}/maps/sockets", node.home("sk-msg"));
    let attached = attached_to(&node.outer_path(&pin));
    assert_eq!(attached.is_some(), node.has_feature("SockmapQuery"));
    if let Some(attached) = attached {
        assert_eq!(attached.into_iter().map(Value::from).collect::<Vec<_>>(), programs);
    }
}

fn redirected(node: &Node) -> u64 {
    node.counts(&["pinned", &format!("{}/maps/redirected", node.home("sk-msg"))])[0]
}

#[test]
fn the_status_of_an_attachment_agrees_with_the_kernel() {
    for (kernel, letter) in kernels() {
        let mut node = node(&format!("on-map-{letter}"), kernel);
        apply(&node, spec(json!([])));
        node.ready("sk-msg");
        let (reported, program, map) =
            (attachment(&node), named(&node, "programs", "redirect"), named(&node, "maps", "sockets"));
        let linked = kernel.is_none() && node.has_feature("SockmapLink");
        assert_eq!(reported["type"], if linked { json!("sockmap") } else { Value::Null }, "{reported}");
        assert_eq!((&reported["map"], &reported["mapID"]), (&json!("sockets"), &map["id"]), "{reported}");
        assert_eq!((&reported["programID"], &reported["inEffect"]), (&program["id"], &json!(true)), "{reported}");
        assert_eq!((&reported["attachType"], &reported["cgroupID"]), (&json!("sk_msg_verdict"), &Value::Null));
        assert_runs(&node, &[program["id"].clone()]);
        if linked {
            let shown = node.bpftool(&["link", "show", "pinned", &node.pin(&reported)]);
            assert_eq!((&reported["id"], &reported["programID"]), (&shown["id"], &shown["prog_id"]), "{shown}");
        } else {
            let shown = node.bpftool(&["prog", "show", "pinned", &node.pin(&reported)]);
            assert_eq!((&reported["id"], &shown["id"]), (&Value::Null, &program["id"]), "{shown}");
        }
        let notes = node.details("sk-msg")["notes"].to_string();
        assert!(notes.contains("keep the programs they came in with"), "{notes}");
        assert_eq!(notes.contains("has no links for maps"), !linked, "{notes}");
        let is_silent = kernel == KERNELS[2] || !node.has_feature("SockmapQuery");
        assert_eq!(notes.contains("does not say what is attached"), is_silent, "{notes}");
        let accepted = node.condition("sk-msg", "Accepted")["message"].as_str().unwrap().to_owned();
        assert!(accepted.contains("sockets that are in sockets keep"), "{accepted}");

        node.stop("KILL");
        start(&mut node, kernel);
        node.ready("sk-msg");
        assert_eq!(attachment(&node), reported, "another agent finds it as it was");
        assert_eq!(outcome(&node, "speak"), "heard 10 of 10");
        assert_eq!(redirected(&node), 10);
        node.remove("sk-msg");
        node.nothing_left();
    }
}

/// A process with one connection, which sends on demand.
struct LongConnection(Child);

impl LongConnection {
    fn start(node: &Node) -> Self {
        let mut connection = Self(actor(node, "long").spawn().unwrap());
        connection.wait_for("ready");
        connection
    }

    fn wait_for(&mut self, word: &str) {
        // One byte at a time, so that what follows the line stays for the next reader.
        let mut out = BufReader::with_capacity(1, self.0.stdout.as_mut().unwrap());
        let mut line = String::new();
        while line.trim() != word {
            line.clear();
            assert!(out.read_line(&mut line).unwrap() > 0, "the process has exited");
        }
    }

    fn send(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        self.wait_for("spoke");
    }
}

impl Drop for LongConnection {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Suspension detaches the program from the map, and not from the sockets in it.
#[test]
fn sockets_in_a_map_keep_the_program_they_entered_with() {
    for (kernel, letter) in kernels() {
        let node = node(&format!("in-map-{letter}"), kernel);
        apply(&node, spec(json!([])));
        node.ready("sk-msg");
        let mut old = LongConnection::start(&node);
        old.send();
        assert_eq!(redirected(&node), 1);

        let mut suspended = spec(json!([]));
        suspended["suspend"] = json!(true);
        apply(&node, suspended);
        node.condition_is("sk-msg", "Ready", "False");
        assert_runs(&node, &[]);
        assert_eq!(attachment(&node), Value::Null, "nothing is attached");
        let notes = node.details("sk-msg")["notes"].to_string();
        assert!(notes.contains("also once these are replaced or detached"), "{notes}");
        old.send();
        assert_eq!(redirected(&node), 2, "it runs on for the socket that came in with it");
        outcome(&node, "speak");
        assert_eq!(redirected(&node), 2, "and for none that came later");

        apply(&node, spec(json!([])));
        node.ready("sk-msg");
        outcome(&node, "speak");
        assert_eq!(redirected(&node), 12);
        drop(old);
        node.remove("sk-msg");
        node.nothing_left();
    }
}

/// A link update, or an attachment in place of the old one, replaces the program.
#[test]
fn an_attached_program_is_replaced_without_a_gap() {
    for (kernel, letter) in kernels() {
        let node = node(&format!("replaced-map-{letter}"), kernel);
        let recreate = |sizes: &[(&str, u32)]| {
            let map = |(name, entries): &(&str, u32)| {
                let on_change = "Recreate";
                json!({"name": name, "maxEntries": entries, "onIncompatible": on_change})
            };
            spec(sizes.iter().map(map).collect())
        };
        apply(&node, spec(json!([])));
        node.ready("sk-msg");
        let before = attachment(&node);
        apply(&node, recreate(&[("redirected", 2)]));
        node.ready("sk-msg");
        let after = attachment(&node);
        assert_ne!(after["programID"], before["programID"], "another load");
        assert_eq!((&after["id"], &after["mapID"]), (&before["id"], &before["mapID"]), "the same link, the same map");
        assert_runs(&node, &[after["programID"].clone()]);

        // The map itself is recreated: the program is attached to the new one.
        apply(&node, recreate(&[("redirected", 2), ("sockets", 64)]));
        node.ready("sk-msg");
        let moved = attachment(&node);
        assert_ne!(moved["mapID"], before["mapID"]);
        assert_runs(&node, &[moved["programID"].clone()]);
        outcome(&node, "speak");
        assert_eq!(redirected(&node), 10, "the map of counts was carried over");
        node.remove("sk-msg");
        node.nothing_left();
    }
}

#[test]
fn external_changes_to_a_map_are_detected_and_repaired() {
    for (kernel, letter) in kernels().take(2) {
        let node = node(&format!("drift-map-{letter}"), kernel);
        apply(&node, spec(json!([])));
        node.ready("sk-msg");
        let (reported, map) = (attachment(&node), format!("{}/maps/sockets", node.home("sk-msg")));
        let wait_for_drift = |kind: &str, word: &str| {
            node.until(&format!("{kind} with {word}"), |node| {
                let drift = node.entry("sk-msg")["drift"].as_array().cloned().unwrap_or_default();
                let matches = |d: &Value| d["kind"] == kind && d["message"].as_str().is_some_and(|m| m.contains(word));
                drift.iter().any(matches) && attachment(node)["inEffect"] == true && node.exists(&node.pin(&reported))
            });
        };
        node.run("rm", &[&node.pin(&reported)]);
        wait_for_drift("PinRemoved", "map sockets");
        assert_eq!(attachment(&node), reported, "it never ceased to run");
        if !node.has_feature("SockmapQuery") {
            // Nobody can see what happens to the map.
            node.remove("sk-msg");
            node.nothing_left();
            continue;
        }

        if reported["type"] == "sockmap" {
            node.run("bpftool", &["link", "detach", "pinned", &node.pin(&reported)]);
        } else {
            let program = format!("{}/programs/redirect", node.home("sk-msg"));
            node.run("bpftool", &["prog", "detach", "pinned", &program, "msg_verdict", "pinned", &map]);
        }
        wait_for_drift("LinkDetached", "map sockets");
        assert_runs(&node, &[attachment(&node)["programID"].clone()]);
        assert_eq!(attachment(&node)["programID"], reported["programID"]);
        node.remove("sk-msg");
        node.nothing_left();
    }
}

#[test]
fn a_retained_map_runs_no_program() {
    for (kernel, letter) in kernels() {
        let node = node(&format!("retained-map-{letter}"), kernel);
        apply(&node, spec(json!([{"name": "sockets", "reclaimPolicy": "Retain"}])));
        node.ready("sk-msg");
        assert_runs(&node, &[attachment(&node)["programID"].clone()]);
        node.remove("sk-msg");
        assert_eq!(node.pins("sk-msg"), ["maps/sockets"]);
        assert_runs(&node, &[]);
        apply(&node, spec(json!([])));
        node.ready("sk-msg");
        node.remove("sk-msg");
        node.nothing_left();
    }
}
