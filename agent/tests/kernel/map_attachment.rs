//! Programs attached to maps: by a link where the kernel has one, elsewhere held by the map; what is said of them is so, also
//! after others have meddled. The kernels without links, and those that do not say what is attached, are made of this one.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::fd::AsFd as _,
    path::Path,
    process::Child,
};

use serde_json::{Value, json};
use sockeye_agent::kernel::bpf;

use crate::{
    node::Node,
    program_types::{PODS, act::pair, actor, object, see},
};

/// Kernels, as the agent meets them: this one, one without links for maps, one that does not say what is attached to them either.
pub const KERNELS: [Option<&str>; 3] = [None, Some("22@sockmap link"), Some("22@sockmap")];
/// `BPF_SK_MSG_VERDICT`
const SK_MSG: u32 = 7;

/// The spec of sk-msg, with these settings of its maps.
fn spec(maps: Value) -> Value {
    let pods = json!([{"cgroup": {"scope": "Pods"}}]);
    json!({"programs": [{"name": "remember", "attach": pods}, {"name": "redirect", "attach": [{"map": "sockets"}]}], "maps": maps})
}

/// A node with a cgroup for its pods, and an agent that meets such a kernel.
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

/// Of the status, what is attached to the map.
fn attachment(node: &Node) -> Value {
    let links = node.details("sk-msg")["links"].as_array().cloned().unwrap_or_default();
    links.into_iter().find(|link| link["program"] == "redirect").unwrap_or_default()
}

fn named(node: &Node, kind: &str, name: &str) -> Value {
    let all = node.details("sk-msg")[kind].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|one| one["name"] == name).unwrap_or_default()
}

/// What the kernel says of the pinned map, whatever the agent was told.
pub fn attached_to(map: &Path) -> Vec<u32> {
    let map = bpf::obj_get(None, map).unwrap();
    bpf::map_query(map.as_fd(), SK_MSG).unwrap().expect("this kernel tells")
}

fn runs(node: &Node) -> Vec<Value> {
    attached_to(&node.seen(&format!("{}/maps/sockets", node.home("sk-msg")))).into_iter().map(Value::from).collect()
}

fn redirected(node: &Node) -> u64 {
    node.counts(&["pinned", &format!("{}/maps/redirected", node.home("sk-msg"))])[0]
}

#[test]
fn the_status_of_an_attachment_agrees_with_the_kernel() {
    for (kernel, letter) in KERNELS.into_iter().zip(["a", "b", "c"]) {
        let mut node = node(&format!("on-map-{letter}"), kernel);
        apply(&node, spec(json!([])));
        node.ready("sk-msg");
        let (said, program, map) =
            (attachment(&node), named(&node, "programs", "redirect"), named(&node, "maps", "sockets"));
        let linked = kernel.is_none() && node.has("SockmapLink");
        assert_eq!(said["type"], if linked { "sockmap" } else { "none" }, "{said}");
        assert_eq!((&said["map"], &said["mapID"]), (&json!("sockets"), &map["id"]), "{said}");
        assert_eq!((&said["programID"], &said["inEffect"]), (&program["id"], &json!(true)), "{said}");
        assert_eq!((&said["attachType"], &said["cgroupID"]), (&json!("sk_msg_verdict"), &Value::Null));
        assert_eq!(runs(&node), [program["id"].clone()]);
        if linked {
            let shown = node.bpftool(&["link", "show", "pinned", &node.pin(&said)]);
            assert_eq!((&said["id"], &said["programID"]), (&shown["id"], &shown["prog_id"]), "{shown}");
        } else {
            let shown = node.bpftool(&["prog", "show", "pinned", &node.pin(&said)]);
            assert_eq!((&said["id"], &shown["id"]), (&json!(0), &program["id"]), "{shown}");
        }
        let notes = node.details("sk-msg")["notes"].to_string();
        assert!(notes.contains("keep the programs they came in with"), "{notes}");
        assert_eq!(notes.contains("has no links for maps"), !linked, "{notes}");
        assert_eq!(notes.contains("does not say what is attached"), kernel == KERNELS[2], "{notes}");
        let accepted = node.condition("sk-msg", "Accepted")["message"].as_str().unwrap().to_owned();
        assert!(accepted.contains("sockets that are in sockets keep"), "{accepted}");

        node.stop("KILL");
        start(&mut node, kernel);
        node.ready("sk-msg");
        assert_eq!(attachment(&node), said, "another agent finds it as it was");
        assert_eq!(see(&node, "speak"), "heard 10 of 10");
        assert_eq!(redirected(&node), 10);
        node.remove("sk-msg");
        node.nothing_left();
    }
}

/// A process with a connection that speaks whenever it is told to.
struct Long(Child);

/// What it does.
pub fn long() -> io::Result<String> {
    let (mut client, mut server) = pair(0)?;
    println!("\nready");
    for _ in io::stdin().lines() {
        client.write_all(b"word")?;
        server.read_exact(&mut [0; 4])?;
        println!("spoke");
    }
    Ok(String::new())
}

impl Long {
    fn start(node: &Node) -> Self {
        let mut long = Self(actor(node, "long").spawn().unwrap());
        long.hears("ready");
        long
    }

    fn hears(&mut self, word: &str) {
        // By the byte: what is behind the line must stay for the next reader.
        let mut out = BufReader::with_capacity(1, self.0.stdout.as_mut().unwrap());
        let mut line = String::new();
        while line.trim() != word {
            line.clear();
            assert!(out.read_line(&mut line).unwrap() > 0, "it has ended");
        }
    }

    fn speaks(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        self.hears("spoke");
    }
}

impl Drop for Long {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// What the status says of it, and what suspension does and does not end.
#[test]
fn sockets_in_a_map_keep_the_program_they_entered_with() {
    for (kernel, letter) in KERNELS.into_iter().zip(["a", "b", "c"]) {
        let node = node(&format!("in-map-{letter}"), kernel);
        apply(&node, spec(json!([])));
        node.ready("sk-msg");
        let mut old = Long::start(&node);
        old.speaks();
        assert_eq!(redirected(&node), 1);

        let mut suspended = spec(json!([]));
        suspended["suspend"] = json!(true);
        apply(&node, suspended);
        node.condition_is("sk-msg", "Ready", "False");
        assert_eq!((runs(&node), attachment(&node)), (vec![], Value::Null), "nothing is attached");
        let notes = node.details("sk-msg")["notes"].to_string();
        assert!(notes.contains("also once these are replaced or detached"), "{notes}");
        old.speaks();
        assert_eq!(redirected(&node), 2, "it runs on for the socket that came in with it");
        see(&node, "speak");
        assert_eq!(redirected(&node), 2, "and for none that came later");

        apply(&node, spec(json!([])));
        node.ready("sk-msg");
        see(&node, "speak");
        assert_eq!(redirected(&node), 12);
        drop(old);
        node.remove("sk-msg");
        node.nothing_left();
    }
}

/// By a link update, or by an attachment in the other's place: with no moment in which nothing is attached.
#[test]
fn an_attached_program_is_replaced_without_a_gap() {
    for (kernel, letter) in KERNELS.into_iter().zip(["a", "b", "c"]) {
        let node = node(&format!("replaced-map-{letter}"), kernel);
        let recreate = |sizes: &[(&str, u32)]| {
            let map = |(name, entries): &(&str, u32)| json!({"name": name, "maxEntries": entries, "onShapeChange": "Recreate"});
            spec(sizes.iter().map(map).collect())
        };
        apply(&node, spec(json!([])));
        node.ready("sk-msg");
        let before = attachment(&node);
        apply(&node, recreate(&[("redirected", 2)]));
        node.ready("sk-msg");
        let after = attachment(&node);
        assert_ne!(after["programID"], before["programID"], "loaded anew");
        assert_eq!((&after["id"], &after["mapID"]), (&before["id"], &before["mapID"]), "the same link, the same map");
        assert_eq!(runs(&node), [after["programID"].clone()]);

        // The map itself is made anew: what was attached to the old one is attached to the new one.
        apply(&node, recreate(&[("redirected", 2), ("sockets", 64)]));
        node.ready("sk-msg");
        let moved = attachment(&node);
        assert_ne!(moved["mapID"], before["mapID"]);
        assert_eq!(runs(&node), [moved["programID"].clone()]);
        see(&node, "speak");
        assert_eq!(redirected(&node), 10, "also counted: the map of counts was carried over");
        node.remove("sk-msg");
        node.nothing_left();
    }
}

#[test]
fn external_changes_to_a_map_are_detected_and_repaired() {
    for (kernel, letter) in KERNELS.into_iter().take(2).zip(["a", "b"]) {
        let node = node(&format!("drift-map-{letter}"), kernel);
        apply(&node, spec(json!([])));
        node.ready("sk-msg");
        let (said, map) = (attachment(&node), format!("{}/maps/sockets", node.home("sk-msg")));
        let drifted = |kind: &str, word: &str| {
            node.until(&format!("{kind} with {word}"), |node| {
                let drift = node.details("sk-msg")["drift"].as_array().cloned().unwrap_or_default();
                let told = |d: &Value| d["kind"] == kind && d["message"].as_str().is_some_and(|m| m.contains(word));
                drift.iter().any(told) && attachment(node)["inEffect"] == true && node.exists(&node.pin(&said))
            });
        };
        node.run("rm", &[&node.pin(&said)]);
        drifted("PinRemoved", "map sockets");
        assert_eq!(attachment(&node), said, "it never ceased to run");

        if said["type"] == "sockmap" {
            node.run("bpftool", &["link", "detach", "pinned", &node.pin(&said)]);
        } else {
            let program = format!("{}/programs/redirect", node.home("sk-msg"));
            node.run("bpftool", &["prog", "detach", "pinned", &program, "msg_verdict", "pinned", &map]);
        }
        drifted("LinkDetached", "map sockets");
        assert_eq!(runs(&node), [attachment(&node)["programID"].clone()]);
        assert_eq!(attachment(&node)["programID"], said["programID"]);
        node.remove("sk-msg");
        node.nothing_left();
    }
}

#[test]
fn a_retained_map_runs_no_program() {
    for (kernel, letter) in KERNELS.into_iter().zip(["a", "b", "c"]) {
        let node = node(&format!("retained-map-{letter}"), kernel);
        apply(&node, spec(json!([{"name": "sockets", "onDelete": "Retain"}])));
        node.ready("sk-msg");
        assert_eq!(runs(&node).len(), 1);
        node.remove("sk-msg");
        assert_eq!((node.pins("sk-msg"), runs(&node)), (vec!["maps/sockets".to_owned()], vec![]));
        apply(&node, spec(json!([])));
        node.ready("sk-msg");
        node.remove("sk-msg");
        node.nothing_left();
    }
}
