//! Sockets in maps: what becomes of unread bytes when a BpfProgram is suspended, deleted or forced; and the regression
//! of FIONREAD, which the probe finds as a server would.

pub mod connection;
mod rivals;

use std::thread;

use serde_json::{Value, json};
use sockeye_agent::kernel::regressions;
use sockeye_crds::Regression;
use sockeye_ebpf::programs::fixtures;

use self::connection::{Connection, UNREAD};
use crate::{map_attachment::FIONREAD, node::Node, program_types::object};

/// Applies an object whose sockets join and pass everything on.
fn apply_passing(node: &Node, more: &Value) {
    let mut spec = json!({"programs": [
        {"name": "join", "attach": [{"type": "Node"}]},
        {"name": "pass", "attach": [{"type": "Map", "map": {"name": "joined"}}]},
    ]});
    merge(&mut spec, more);
    node.apply_spec("p", fixtures::JOINED, spec);
}

/// Applies the example sk-msg: sockets join and what they send is redirected to the other end.
fn apply_redirecting(node: &Node, more: &Value) {
    let mut spec = json!({"acceptedRegressions": [FIONREAD], "programs": [
        {"name": "remember", "attach": [{"type": "Node"}]},
        {"name": "redirect", "attach": [{"type": "Map", "map": {"name": "sockets"}}]},
    ]});
    merge(&mut spec, more);
    node.apply_spec("p", object("sk-msg"), spec);
}

fn merge(spec: &mut Value, more: &Value) {
    more.as_object().into_iter().flatten().for_each(|(field, value)| spec[field] = value.clone());
}

fn draining(node: &Node) -> Vec<Value> {
    node.node_detail()["draining"].as_array().cloned().unwrap_or_default()
}

/// Waits until so many maps with sockets in them are reported, and returns them.
fn until_draining(node: &Node, maps: usize) -> Vec<Value> {
    node.until(&format!("{maps} draining maps"), |node| draining(node).len() == maps);
    draining(node)
}

fn started(name: &str) -> Node {
    let mut node = Node::new(name);
    node.start();
    node.until("what the kernel has", |node| node.node_status()["node"]["kernelRelease"].is_string());
    node
}

fn has_regression(node: &Node) -> bool {
    node.node_status()["node"]["regressions"].to_string().contains(FIONREAD)
}

#[test]
fn a_known_regression_is_refused_unless_the_spec_accepts_it() {
    let node = started("regression");
    apply_passing(&node, &json!({}));
    if has_regression(&node) {
        let ready = node.condition_is("p", "Ready", "False");
        assert_eq!(ready["reason"], "KernelUnsupported", "{ready}");
        let message = ready["message"].as_str().unwrap();
        for words in ["program join", "map joined", FIONREAD, "spec.acceptedRegressions"] {
            assert!(message.contains(words), "{ready}");
        }
        assert_eq!(node.pins("p"), Vec::<String>::new());
        // What is attached nowhere triggers nothing.
        apply_passing(&node, &json!({"suspend": true}));
        node.until("the suspension", |node| node.condition("p", "Ready")["reason"] == "Suspended");
        apply_passing(&node, &json!({"acceptedRegressions": [FIONREAD]}));
    }
    node.ready("p");
    node.remove("p");
    node.nothing_left();
}

/// The probe says what a server would find; and taking the sockets out mends it.
#[test]
fn sockets_that_lose_nothing_leave_the_map_when_it_is_suspended() {
    let node = started("lossless");
    apply_passing(&node, &json!({"acceptedRegressions": [FIONREAD]}));
    node.ready("p");
    let mut connection = Connection::new(&node, 0);
    assert_eq!(connection.ask("send"), UNREAD);
    let unread = if has_regression(&node) { 0 } else { UNREAD };
    assert_eq!(connection.ask("unread"), unread, "the probe found what FIONREAD says");
    apply_passing(&node, &json!({"acceptedRegressions": [FIONREAD], "suspend": true}));
    node.until("the suspension", |node| node.condition("p", "Ready")["reason"] == "Suspended");
    assert_eq!(connection.ask("unread"), UNREAD, "the socket is a plain one");
    assert_eq!(connection.ask("read"), UNREAD, "and lost nothing");
    connection.assert_passes();
    assert_eq!(draining(&node), Vec::<Value>::new());
    connection.close();
    node.remove("p");
    node.nothing_left();
}

#[test]
fn sockets_that_lose_nothing_leave_the_map_when_it_is_deleted_or_everything_detached() {
    for (name, by_switch) in [("lossless-deleted", false), ("lossless-switch", true)] {
        let node = started(name);
        apply_passing(&node, &json!({"acceptedRegressions": [FIONREAD]}));
        node.ready("p");
        let mut connection = Connection::new(&node, 0);
        assert_eq!(connection.ask("send"), UNREAD);
        match by_switch {
            true => drop(node.agent_command("detach", &["--all"])),
            false => node.remove("p"),
        }
        assert_eq!(connection.ask("unread"), UNREAD);
        assert_eq!(connection.ask("read"), UNREAD);
        connection.assert_passes();
        if by_switch {
            node.remove("p");
        }
        // The socket is still open, and keeps nothing.
        node.until("nothing draining", |node| draining(node).is_empty());
        connection.close();
        node.until("an empty directory", |node| !node.exists(&format!("{}/sockeye/_draining", node.bpffs())));
    }
}

#[test]
fn redirected_bytes_are_read_after_a_suspension() {
    let node = started("redirect-suspended");
    apply_redirecting(&node, &json!({}));
    node.ready("p");
    let mut connection = Connection::new(&node, 0);
    assert_eq!(connection.ask("send"), UNREAD);
    apply_redirecting(&node, &json!({"suspend": true}));
    let map = until_draining(&node, 1).remove(0);
    assert_eq!((&map["program"], &map["name"], &map["sockets"]), (&json!("p"), &json!("sockets"), &json!(2)), "{map}");
    assert!(map["pinPath"].as_str().unwrap().ends_with("/p/maps/sockets"), "{map}");
    let notes = node.details("p")["notes"].to_string();
    assert!(notes.contains("2 sockets are still in map sockets"), "{notes}");
    // Sockets that come now stay outside.
    let mut other = Connection::new(&node, 0);
    other.assert_passes();
    assert_eq!(draining(&node)[0]["sockets"], 2);
    assert_eq!(connection.ask("read"), UNREAD, "nothing is lost");
    connection.assert_passes();
    connection.close();
    other.close();
    until_draining(&node, 0);
    node.remove("p");
    node.nothing_left();
}

/// The deletion waits for no socket, and the bytes are read after an agent was killed and the BpfProgram made anew.
#[test]
fn redirected_bytes_are_read_after_a_deletion() {
    let mut node = started("redirect-deleted");
    apply_redirecting(&node, &json!({}));
    node.ready("p");
    let mut connection = Connection::new(&node, 0);
    assert_eq!(connection.ask("send"), UNREAD);
    node.remove("p");
    let map = until_draining(&node, 1).remove(0);
    assert_eq!((&map["program"], &map["name"], &map["sockets"]), (&json!("p"), &json!("sockets"), &json!(2)), "{map}");
    let pin = map["pinPath"].as_str().unwrap();
    assert!(pin.contains("/_draining/p~"), "{map}");
    assert_eq!(node.bpftool(&["map", "show", "pinned", pin])["id"], map["id"]);
    node.stop("KILL");
    node.start();
    apply_redirecting(&node, &json!({}));
    node.ready("p");
    assert_eq!(until_draining(&node, 1), std::slice::from_ref(&map));
    let maps = node.details("p")["maps"].clone();
    let new = maps.as_array().unwrap().iter().find(|map| map["name"] == "sockets").unwrap();
    assert_ne!(new["id"], map["id"], "a BpfProgram of the name gets a new map");
    assert_eq!(connection.ask("read"), UNREAD, "nothing is lost");
    connection.assert_passes();
    connection.close();
    until_draining(&node, 0);
    node.remove("p");
    node.nothing_left();
}

/// A map that an update gives up is kept as well.
#[test]
fn redirected_bytes_are_read_after_the_map_was_made_anew() {
    let node = started("redirect-anew");
    let sized = |entries: u32| {
        let maps = json!([{"name": "sockets", "maxEntries": entries, "onIncompatible": "Recreate"}]);
        apply_redirecting(&node, &json!({"maps": maps}));
    };
    sized(64);
    node.ready("p");
    let mut connection = Connection::new(&node, 0);
    assert_eq!(connection.ask("send"), UNREAD);
    sized(128);
    node.ready("p");
    assert_eq!(until_draining(&node, 1)[0]["sockets"], 2);
    assert_eq!(connection.ask("read"), UNREAD, "nothing is lost");
    connection.close();
    until_draining(&node, 0);
    node.remove("p");
    node.nothing_left();
}

/// What the reference says of forceDetach: unread bytes that were redirected are lost.
#[test]
fn force_takes_sockets_out_at_once_and_loses_redirected_bytes() {
    for (name, deletes) in [("force-suspended", false), ("force-deleted", true)] {
        let node = started(name);
        apply_redirecting(&node, &json!({"forceDetach": deletes}));
        node.ready("p");
        let mut connection = Connection::new(&node, 0);
        assert_eq!(connection.ask("send"), UNREAD);
        if deletes {
            node.remove("p");
        } else {
            apply_redirecting(&node, &json!({"suspend": true}));
            until_draining(&node, 1);
            apply_redirecting(&node, &json!({"forceDetach": true, "suspend": true}));
        }
        node.until("nothing draining", |node| draining(node).is_empty());
        assert_eq!(connection.ask("read"), 0, "they went with the map's queue");
        connection.close();
        if !deletes {
            node.remove("p");
        }
        node.nothing_left();
    }
}

/// A stream under a verdict: its unread bytes lie in the map's queue too.
#[test]
fn bytes_under_a_verdict_are_read_after_a_suspension_and_a_deletion() {
    for (name, deletes) in [("verdict-suspended", false), ("verdict-deleted", true)] {
        let node = started(name);
        let streams = json!([{"type": "Map", "map": {"name": "streams"}}]);
        let apply = |suspend: bool| {
            let programs = json!([
                {"name": "accepted", "attach": [{"type": "Node"}]},
                {"name": "parse", "attach": streams}, {"name": "judge", "attach": streams},
            ]);
            let accepted = json!([FIONREAD]);
            let spec = json!({"programs": programs, "suspend": suspend, "acceptedRegressions": accepted});
            node.apply_spec("p", object("sk-skb"), spec);
        };
        apply(false);
        node.ready("p");
        let mut connection = Connection::new(&node, 4203);
        assert_eq!(connection.ask("send"), UNREAD);
        if deletes {
            node.remove("p");
        } else {
            apply(true);
        }
        assert_eq!(until_draining(&node, 1)[0]["sockets"], 1);
        assert_eq!(connection.ask("read"), UNREAD, "nothing is lost");
        connection.assert_passes();
        connection.close();
        until_draining(&node, 0);
        if !deletes {
            node.remove("p");
        }
        node.nothing_left();
    }
}

/// A program is attached to another BpfProgram's map: only where that one shares it, and only to a map of sockets.
#[test]
fn a_program_is_attached_to_another_programs_sockmap() {
    let node = started("elsewhere");
    let lender = |sharing: &str| {
        let join = json!([{"name": "join", "attach": [{"type": "Node"}]}]);
        let maps = json!([{"name": "joined", "sharing": sharing}]);
        let spec = json!({"programs": join, "maps": maps, "acceptedRegressions": [FIONREAD]});
        node.apply_spec("lender", fixtures::JOINED, spec);
    };
    let borrower = |suspend: bool| {
        let target = json!([{"type": "Map", "map": {"name": "joined", "program": "lender"}}]);
        let programs = json!([{"name": "pass", "attach": target}]);
        let spec = json!({"programs": programs, "suspend": suspend, "acceptedRegressions": [FIONREAD]});
        node.apply_spec("borrower", fixtures::JOINED, spec);
    };
    lender("Private");
    node.ready("lender");
    borrower(false);
    let refused = node.condition_is("borrower", "Ready", "False");
    assert!(refused["message"].as_str().unwrap().contains("does not share map joined"), "{refused}");
    lender("Shared");
    node.ready("borrower");
    let link = node.details("borrower")["links"][0].clone();
    let maps = node.details("lender")["maps"].clone();
    assert_eq!((&link["mapID"], &link["map"]), (&maps[0]["id"], &json!("lender~joined")), "{link}");
    assert_eq!(node.details("lender")["maps"][0]["sharedBy"], json!(["borrower"]));
    let mut connection = Connection::new(&node, 0);
    connection.assert_passes();
    // The lender's sockets stay in the map while the borrower has its program on it.
    let sockets = || node.bpftool(&["map", "dump", "pinned", &format!("{}/maps/joined", node.home("lender"))]);
    let count = || sockets().as_array().map_or(0, Vec::len);
    assert_eq!(count(), 2);
    borrower(true);
    node.until("the suspension", |node| node.condition("borrower", "Ready")["reason"] == "Suspended");
    assert_eq!(count(), 2, "the lender still has sockets join");
    borrower(false);
    node.ready("borrower");
    node.remove("borrower");
    connection.assert_passes();
    node.remove("lender");
    assert_eq!(connection.ask("send"), UNREAD);
    assert_eq!(connection.ask("unread"), UNREAD, "the last one takes the sockets out: nobody redirected anything");
    connection.close();
    node.until("nothing draining", |node| draining(node).is_empty());
    node.nothing_left();
}

/// Without the right to TCP_REPAIR nothing is known, and nothing is claimed.
#[test]
fn a_probe_that_is_denied_knows_nothing() {
    let denied = thread::spawn(|| {
        let mut capabilities = rustix::thread::capabilities(None).unwrap();
        capabilities.effective.remove(rustix::thread::CapabilitySet::NET_ADMIN);
        rustix::thread::set_capabilities(None, capabilities).unwrap();
        regressions::ask()
    });
    let denied = denied.join().unwrap();
    assert!(denied.found.is_empty());
    let why = &denied.unknown[&Regression::SockmapFionread];
    assert!(why.contains("TCP_REPAIR"), "{why}");
    let begin = std::time::Instant::now();
    assert_eq!(regressions::ask().unknown, [].into(), "with the right it is known");
    println!("probed in {:?}", begin.elapsed());
}
