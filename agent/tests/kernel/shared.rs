//! Maps that BpfPrograms share: one map in the kernel, in any order of arrival and removal.

use serde_json::{Value, json};
use sockeye_ebpf::programs::{TCP_EVENTS, TCP_EVENTS_BTF, fixtures};

use crate::{
    killed::calls_of_an_idle_pass,
    map_attachment::{self, FIONREAD, attached_to, kernels},
    node::{Node, text},
    program_types::object,
};

/// Returns a spec with another BpfProgram's map, or with a map of its own that it shares.
fn spec(from: Option<&str>) -> Value {
    let attach = json!([{"name": "my_prog", "attach": [{"type": "Node"}]}]);
    let map = match from {
        Some(program) => json!({"name": "my_map", "mapRef": {"program": program, "name": "my_map"}}),
        None => json!({"name": "my_map", "sharing": "Shared"}),
    };
    json!({"programs": attach, "maps": [map]})
}

fn map(node: &Node, name: &str) -> Value {
    node.details(name)["maps"][0].clone()
}

/// Asserts that two BpfPrograms have one map, by their pins and by the programs' information, and returns its ID.
fn assert_one_map(node: &Node, one: &str, other: &str) -> Value {
    let ids = [one, other].map(|name| {
        let details = node.details(name);
        let id = details["maps"][0]["id"].clone();
        let pin = format!("{}/maps/my_map", node.home(name));
        assert_eq!(node.bpftool(&["map", "show", "pinned", &pin])["id"], id);
        let program = format!("{}/programs/my_prog", node.home(name));
        assert_eq!(node.bpftool(&["prog", "show", "pinned", &program])["map_ids"], json!([id]));
        id
    });
    assert_eq!(ids[0], ids[1]);
    ids[0].clone()
}

#[test]
fn both_programs_count_in_one_shared_map() {
    let mut node = Node::new("shared");
    node.start();
    // The reader comes first. It reports the missing map, and starts as soon as that exists.
    node.apply_spec("reader", TCP_EVENTS_BTF, spec(Some("writer")));
    let waits = node.condition_is("reader", "Ready", "False");
    assert_eq!(waits["reason"], "SharedMapNotFound", "{waits}");
    assert!(waits["message"].as_str().unwrap().contains("map my_map of BpfProgram writer"), "{waits}");
    assert_eq!(node.pins("reader"), Vec::<String>::new());
    node.apply_spec("writer", TCP_EVENTS, spec(None));
    node.ready("writer");
    node.ready("reader");
    assert_one_map(&node, "writer", "reader");
    node.connect(5);
    assert_eq!((node.events("writer")[4], node.events("reader")[4]), (10, 10));
    let (theirs, own) = (map(&node, "writer"), map(&node, "reader"));
    assert_eq!(theirs["sharedBy"], json!(["reader"]));
    assert_eq!(own["mapRef"], json!({"program": "writer", "name": "my_map"}));

    // Another agent finds the same.
    node.stop("KILL");
    node.start();
    for name in ["writer", "reader"] {
        node.ready(name);
    }
    assert_eq!((map(&node, "writer"), map(&node, "reader")), (theirs, own));

    // After it is recreated, both use the new map.
    let mut larger = spec(None);
    larger["maps"][0]["onIncompatible"] = json!("Recreate");
    larger["maps"][0]["maxEntries"] = json!(11);
    node.apply_spec("writer", TCP_EVENTS_BTF, larger);
    node.ready("writer");
    let refused = node.condition_is("reader", "Ready", "False");
    assert_eq!(refused["reason"], "MapIncompatible", "{refused}");
    let message = refused["message"].as_str().unwrap();
    for words in ["writer", "max_entries 11", "max_entries 10"] {
        assert!(message.contains(words), "{message}");
    }
    node.connect(1);
    assert_eq!(node.events("reader")[4], 11, "the last good one counts on, in the map that it had");
    // The same object again, with the size of the shared map in the spec.
    let mut both = spec(Some("writer"));
    both["maps"][0]["maxEntries"] = json!(11);
    node.apply_spec("reader", TCP_EVENTS_BTF, both);
    node.ready("reader");
    assert_eq!(map(&node, "writer")["id"], map(&node, "reader")["id"]);
    node.apply_spec("reader", TCP_EVENTS_BTF, spec(Some("writer")));
    let mut same = spec(None);
    same["maps"][0]["onIncompatible"] = json!("Recreate");
    node.apply_spec("writer", TCP_EVENTS_BTF, same);
    node.ready("writer");
    node.until("the reader has that one", |node| map(node, "reader")["id"] == map(node, "writer")["id"]);
    node.ready("reader");
    assert_one_map(&node, "writer", "reader");

    for name in ["reader", "writer"] {
        node.remove(name);
    }
    node.nothing_left();
}

fn assert_not_shared(node: &Node, name: &str, words: &str) {
    let accepted = node.condition_is(name, "Accepted", "False");
    assert_eq!(accepted["reason"], "MapNotShared", "{accepted}");
    assert!(accepted["message"].as_str().unwrap().contains(words), "{accepted}");
}

/// Who has a map that is no longer shared keeps it, and gets no other one.
#[test]
fn a_map_that_is_not_shared_is_lent_to_nobody() {
    let mut node = Node::new("private");
    node.start();
    let private = |object: &[u8]| {
        let mut spec = spec(None);
        spec["maps"][0]["sharing"] = json!("Private");
        node.apply_spec("writer", object, spec);
        node.ready("writer");
    };
    private(TCP_EVENTS);
    node.apply_spec("reader", TCP_EVENTS_BTF, spec(Some("writer")));
    assert_not_shared(&node, "reader", "BpfProgram writer does not share map my_map: set sharing: Shared");
    assert_eq!((node.pins("reader"), node.attached().len()), (vec![], 1), "nothing of it is loaded");

    node.apply_spec("writer", TCP_EVENTS, spec(None));
    node.ready("reader");
    let lent = assert_one_map(&node, "writer", "reader");
    private(TCP_EVENTS_BTF);
    assert_not_shared(&node, "reader", "BpfProgram writer does not share map my_map");
    assert_eq!(assert_one_map(&node, "writer", "reader"), lent);
    node.connect(1);
    assert_eq!(node.events("reader")[4], 2, "both count on in it");

    // An edit is not accepted before the map is shared again.
    node.apply_spec("reader", fixtures::TWICE, spec(Some("writer")));
    assert_not_shared(&node, "reader", "BpfProgram writer does not share map my_map");
    node.connect(1);
    assert_eq!(node.events("reader")[4], 4, "the last accepted one counts on");
    node.apply_spec("writer", TCP_EVENTS_BTF, spec(None));
    node.ready("reader");
    node.connect(1);
    assert_eq!(node.events("reader")[4], 7);
    for name in ["reader", "writer"] {
        node.remove(name);
    }
    node.nothing_left();
}

/// A wait that can't end by itself is reported with its cause.
#[test]
fn the_status_says_why_a_shared_map_is_missing() {
    let mut node = Node::new("absent");
    node.start();
    let wait_for_message = |node: &Node, name: &str, words: &str| {
        node.until(words, |node| {
            let ready = node.condition(name, "Ready");
            ready["reason"] == "SharedMapNotFound" && ready["message"].as_str().unwrap().contains(words)
        });
    };
    node.apply_spec("one", TCP_EVENTS_BTF, spec(Some("nobody")));
    wait_for_message(&node, "one", "map my_map of BpfProgram nobody: that BpfProgram is not to run on this node");
    let mut misspelt = spec(Some("two"));
    misspelt["maps"][0]["mapRef"]["name"] = json!("my_mpa");
    node.apply_spec("two", TCP_EVENTS_BTF, spec(None));
    node.ready("two");
    node.apply_spec("one", TCP_EVENTS_BTF, misspelt);
    assert_not_shared(&node, "one", "BpfProgram two does not share map my_mpa");
    // A map that is taken from another BpfProgram is not lent on.
    node.apply_spec("one", TCP_EVENTS_BTF, spec(Some("three")));
    node.apply_spec("three", TCP_EVENTS_BTF, spec(Some("one")));
    assert_not_shared(&node, "three", "BpfProgram one does not share map my_map");
    assert_not_shared(&node, "one", "BpfProgram three does not share map my_map");
    node.apply_spec("one", TCP_EVENTS_BTF, spec(None));
    for name in ["one", "two", "three"] {
        node.ready(name);
    }
    assert_one_map(&node, "one", "three");
    for name in ["one", "two", "three"] {
        node.remove(name);
    }
    node.nothing_left();
}

fn shared_sockets() -> Value {
    json!([{"name": "sockets", "sharing": "Shared"}])
}

/// A program is attached to another's map, and then to a map of its own with the same name. The other's map runs
/// nothing any more.
#[test]
fn a_program_leaves_a_shared_map_that_it_no_longer_uses() {
    for (kernel, letter) in kernels() {
        let node = map_attachment::node(&format!("leaves-{letter}"), kernel);
        let remember = json!({"name": "remember", "attach": [{"type": "AllPods"}]});
        let redirect = json!({"name": "redirect", "attach": [{"type": "Map", "map": {"name": "sockets"}}]});
        let from = json!([{"name": "sockets", "mapRef": {"program": "first", "name": "sockets"}}]);
        let runs = |of: &str| attached_to(&node.outer_path(&format!("{}/maps/sockets", node.home(of))));
        let second = |maps: &Value| {
            node.apply_spec(
                "second",
                object("sk-msg"),
                json!({"acceptedRegressions": [FIONREAD], "programs": [remember, redirect], "maps": maps}),
            );
            node.ready("second");
        };
        node.apply_spec(
            "first",
            object("sk-msg"),
            json!({"acceptedRegressions": [FIONREAD], "programs": [remember], "maps": shared_sockets()}),
        );
        node.ready("first");
        second(&from);
        // A kernel that can't be queried does not say.
        let runs_one = |of: &str| runs(of).is_none_or(|programs| programs.len() == 1);
        assert!(runs_one("first") && runs_one("second"), "one map");
        second(&json!([]));
        node.until("the other's map runs nothing", |_| runs("first").is_none_or(|programs| programs.is_empty()));
        assert!(runs_one("second"));
        for name in ["second", "first"] {
            node.remove(name);
        }
        node.nothing_left();
    }
}

/// A map runs one program of a kind, even if the kernel would let another one replace it.
#[test]
fn a_program_attached_to_a_shared_map_is_not_replaced_by_another_user() {
    for (kernel, letter) in kernels() {
        let node = map_attachment::node(&format!("taken-{letter}"), kernel);
        let attach = json!([
            {"name": "remember", "attach": [{"type": "AllPods"}]},
            {"name": "redirect", "attach": [{"type": "Map", "map": {"name": "sockets"}}]},
        ]);
        let from = json!([{"name": "sockets", "mapRef": {"program": "first", "name": "sockets"}}]);
        node.apply_spec(
            "first",
            object("sk-msg"),
            json!({"acceptedRegressions": [FIONREAD], "programs": attach, "maps": shared_sockets()}),
        );
        node.ready("first");
        let before = node.details("first");
        let listed = before["links"].as_array().map(Vec::len);
        assert_eq!((node.entry("first")["links"].as_u64(), listed), (Some(2), Some(2)));
        node.apply_spec(
            "second",
            object("sk-msg"),
            json!({"acceptedRegressions": [FIONREAD], "programs": attach, "maps": from}),
        );
        let refused = node.condition_is("second", "Ready", "False");
        let message = refused["message"].as_str().unwrap();
        assert!(refused["reason"] == "AttachFailed" && message.contains("BpfProgram first"), "{refused}");
        std::thread::sleep(std::time::Duration::from_secs(5));
        let Value::Object(mut now) = node.details("first") else { panic!("no details") };
        now.remove("maps");
        let mut was = before.as_object().unwrap().clone();
        was.remove("maps");
        assert_eq!(now, was, "the first one is unchanged");
        node.apply_spec(
            "first",
            object("sk-msg"),
            json!({"acceptedRegressions": [FIONREAD], "programs": [attach[0]], "maps": shared_sockets()}),
        );
        node.ready("second");
        for name in ["second", "first"] {
            node.remove(name);
        }
        node.nothing_left();
    }
}

#[test]
fn a_shared_map_outlives_its_owner() {
    let mut node = Node::new("left");
    node.start();
    node.apply_spec("writer", TCP_EVENTS_BTF, spec(None));
    node.apply_spec("reader", fixtures::TWICE, spec(Some("writer")));
    for name in ["writer", "reader"] {
        node.ready(name);
    }
    let id = assert_one_map(&node, "writer", "reader");
    node.connect(2);
    node.remove("writer");
    assert_eq!(map(&node, "reader")["id"], id);
    node.until("a note on that", |node| node.details("reader")["notes"].to_string().contains("no longer"));
    node.connect(1);
    assert_eq!(node.events("reader")[4], 8, "2 * (1 + 2) + 2");

    // Another load keeps the map.
    node.apply_spec("reader", TCP_EVENTS_BTF, spec(Some("writer")));
    node.ready("reader");
    assert_eq!(map(&node, "reader")["id"], id);

    // The owner returns, and both use its new map.
    node.apply_spec("writer", TCP_EVENTS_BTF, spec(None));
    node.ready("writer");
    node.until("the reader has that one", |node| map(node, "reader")["id"] == map(node, "writer")["id"]);
    node.ready("reader");
    let both = assert_one_map(&node, "writer", "reader");
    assert_ne!(both, id);

    // A map of its own is another one.
    node.apply_spec("reader", TCP_EVENTS_BTF, spec(None));
    node.ready("reader");
    assert_ne!(map(&node, "reader")["id"], both);
    assert_eq!(map(&node, "writer")["id"], both);
    assert_eq!(map(&node, "reader")["mapRef"], Value::Null);
    assert!(!node.notes("reader").iter().any(|note| note.starts_with("from~")), "{:?}", node.notes("reader"));

    for name in ["reader", "writer"] {
        node.remove(name);
    }
    node.nothing_left();
}

/// The kills come while the map is shared, and while it is given up.
#[test]
fn a_map_is_shared_or_given_back_after_a_kill_before_any_call() {
    let node = Node::new("shared-killed");
    let converge = |what: &str| {
        let done = node.once(None);
        assert!(done.status.success(), "{what}: {}", text(&done));
    };
    let set = |name: &str, from: Option<&str>| node.apply_spec(name, TCP_EVENTS_BTF, spec(from));
    set("writer", None);
    set("other", None);
    converge("nothing to do");
    let idle_calls = calls_of_an_idle_pass(|call| node.once(Some(&format!("kill@*#{call}"))).status.success());
    // In the short form each transition tests only some of the calls, different ones for each.
    let stride = if crate::node::is_long_run() { 1 } else { 6 };
    let mut kills = 0;
    for (nth, (what, from, to)) in [
        ("shared", None, Some("writer")),
        ("another's", Some("writer"), Some("other")),
        ("its own again", Some("writer"), None),
    ]
    .into_iter()
    .enumerate()
    {
        for call in (idle_calls + 2 * nth % stride..).step_by(stride) {
            assert!(call < 400, "{what} does not end");
            set("reader", from);
            converge(what);
            set("reader", to);
            if node.once(Some(&format!("kill@*#{call}"))).status.success() {
                break;
            }
            kills += 1;
            converge(&format!("{what}, after a kill before call {call}"));
            let ids = ["writer", "other", "reader"].map(|name| map(&node, name)["id"].clone());
            let expected = to.map(|to| if to == "writer" { &ids[0] } else { &ids[1] });
            match expected {
                Some(id) => assert_eq!(ids[2], *id, "{what}, call {call}"),
                None => assert!(ids[2] != ids[0] && ids[2] != ids[1], "{what}, call {call}: {ids:?}"),
            }
            assert_ne!(ids[0], ids[1]);
        }
    }
    println!("killed {kills} times");
    assert!(kills > 10, "too few kills");
    for name in ["reader", "other", "writer"] {
        node.withdraw(name);
    }
    converge("nothing");
    node.nothing_left();
}
