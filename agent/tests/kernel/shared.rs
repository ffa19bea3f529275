//! Maps that BpfPrograms share: one map in the kernel, whoever comes first or goes last.

use serde_json::{Value, json};
use sockeye_ebpf::programs::{TCP_EVENTS, TCP_EVENTS_BTF, fixtures};

use crate::{
    killed::asked,
    map_attachment::{self, KERNELS, attached_to},
    node::{Node, text},
    program_types::object,
};

fn spec(from: Option<&str>) -> Value {
    let attach = json!([{"name": "my_prog", "attach": [{"cgroup": {"scope": "Node"}}]}]);
    let from = from.map(|program| json!([{"name": "my_map", "from": {"program": program, "map": "my_map"}}]));
    json!({"programs": attach, "maps": from.unwrap_or_else(|| json!([]))})
}

fn map(node: &Node, name: &str) -> Value {
    node.details(name)["maps"][0].clone()
}

/// That both have one map, told by the kernel: by their pins, and by what their programs use.
fn is_one(node: &Node, one: &str, other: &str) -> Value {
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
    // Whoever comes first: it says what it waits for, and does not wait longer than that is missing.
    node.apply_spec("reader", TCP_EVENTS_BTF, spec(Some("writer")));
    let waits = node.condition_is("reader", "Ready", "False");
    assert_eq!(waits["reason"], "SharedMapMissing", "{waits}");
    assert!(waits["message"].as_str().unwrap().contains("map my_map of BpfProgram writer"), "{waits}");
    assert_eq!(node.pins("reader"), Vec::<String>::new());
    node.apply_spec("writer", TCP_EVENTS, spec(None));
    node.ready("writer");
    node.ready("reader");
    is_one(&node, "writer", "reader");
    node.connect(5);
    assert_eq!((node.events("writer")[4], node.events("reader")[4]), (10, 10));
    let (theirs, own) = (map(&node, "writer"), map(&node, "reader"));
    assert_eq!(theirs["sharedBy"], json!(["reader"]));
    assert_eq!(own["from"], json!({"program": "writer", "map": "my_map"}));

    // Another agent finds it so.
    node.stop("KILL");
    node.start();
    for name in ["writer", "reader"] {
        node.ready(name);
    }
    assert_eq!((map(&node, "writer"), map(&node, "reader")), (theirs, own));

    // Made anew, it is another map, with both.
    let recreate = json!([{"name": "my_map", "onShapeChange": "Recreate"}]);
    let mut larger = spec(None);
    larger["maps"] = json!([{"name": "my_map", "onShapeChange": "Recreate", "maxEntries": 11}]);
    node.apply_spec("writer", TCP_EVENTS_BTF, larger);
    node.ready("writer");
    let refused = node.condition_is("reader", "Ready", "False");
    assert_eq!(refused["reason"], "MapShapeChanged", "{refused}");
    let said = refused["message"].as_str().unwrap();
    assert!(said.contains("writer") && said.contains("max_entries 11") && said.contains("max_entries 10"), "{said}");
    node.connect(1);
    assert_eq!(node.events("reader")[4], 11, "the last good one counts on, in the map that it had");
    // The same object again, whose size is said beside what it is of.
    let mut both = spec(Some("writer"));
    both["maps"][0]["maxEntries"] = json!(11);
    node.apply_spec("reader", TCP_EVENTS_BTF, both);
    node.ready("reader");
    assert_eq!(map(&node, "writer")["id"], map(&node, "reader")["id"]);
    node.apply_spec("reader", TCP_EVENTS_BTF, spec(Some("writer")));
    let mut same = spec(None);
    same["maps"] = recreate;
    node.apply_spec("writer", TCP_EVENTS_BTF, same);
    node.ready("writer");
    node.until("the reader has that one", |node| map(node, "reader")["id"] == map(node, "writer")["id"]);
    node.ready("reader");
    is_one(&node, "writer", "reader");

    for name in ["reader", "writer"] {
        node.remove(name);
    }
    node.nothing_left();
}

/// What no waiting would change is said.
#[test]
fn the_status_says_why_a_shared_map_is_missing() {
    let mut node = Node::new("absent");
    node.start();
    let says = |node: &Node, name: &str, words: &str| {
        node.until(words, |node| {
            let ready = node.condition(name, "Ready");
            ready["reason"] == "SharedMapMissing" && ready["message"].as_str().unwrap().contains(words)
        });
    };
    node.apply_spec("one", TCP_EVENTS_BTF, spec(Some("nobody")));
    says(&node, "one", "map my_map of BpfProgram nobody: that BpfProgram is not to run on this node");
    let mut misspelt = spec(Some("two"));
    misspelt["maps"][0]["from"]["map"] = json!("my_mpa");
    node.apply_spec("two", TCP_EVENTS_BTF, spec(None));
    node.ready("two");
    node.apply_spec("one", TCP_EVENTS_BTF, misspelt);
    says(&node, "one", "map my_mpa of BpfProgram two: that BpfProgram has no such map; its maps: my_map");
    node.apply_spec("one", TCP_EVENTS_BTF, spec(Some("three")));
    node.apply_spec("three", TCP_EVENTS_BTF, spec(Some("one")));
    says(&node, "three", "in a circle");
    // Which one of them ends.
    node.apply_spec("one", TCP_EVENTS_BTF, spec(None));
    for name in ["one", "two", "three"] {
        node.ready(name);
    }
    is_one(&node, "one", "three");
    for name in ["one", "two", "three"] {
        node.remove(name);
    }
    node.nothing_left();
}

/// Attached to another's map, and then to one of its own under the same name: the other's runs nothing of it any more.
#[test]
fn a_program_leaves_a_shared_map_that_it_no_longer_uses() {
    for (kernel, letter) in KERNELS.into_iter().zip(["a", "b", "c"]) {
        let node = map_attachment::node(&format!("leaves-{letter}"), kernel);
        let remember = json!({"name": "remember", "attach": [{"cgroup": {"scope": "Pods"}}]});
        let redirect = json!({"name": "redirect", "attach": [{"map": "sockets"}]});
        let from = json!([{"name": "sockets", "from": {"program": "first", "map": "sockets"}}]);
        let runs = |of: &str| attached_to(&node.seen(&format!("{}/maps/sockets", node.home(of))));
        let second = |maps: &Value| {
            node.apply_spec("second", object("sk-msg"), json!({"programs": [remember, redirect], "maps": maps}));
            node.ready("second");
        };
        node.apply_spec("first", object("sk-msg"), json!({"programs": [remember], "maps": []}));
        node.ready("first");
        second(&from);
        assert_eq!((runs("first").len(), runs("second").len()), (1, 1), "one map");
        second(&json!([]));
        node.until("the other's map runs nothing", |_| runs("first").is_empty());
        assert_eq!(runs("second").len(), 1);
        for name in ["second", "first"] {
            node.remove(name);
        }
        node.nothing_left();
    }
}

/// A map runs one program of a kind, whoever's: also where the kernel would let another take its place.
#[test]
fn a_program_attached_to_a_shared_map_is_not_replaced_by_another_user() {
    for (kernel, letter) in KERNELS.into_iter().zip(["a", "b", "c"]) {
        let node = map_attachment::node(&format!("taken-{letter}"), kernel);
        let attach = json!([{"name": "remember", "attach": [{"cgroup": {"scope": "Pods"}}]}, {"name": "redirect", "attach": [{"map": "sockets"}]}]);
        let from = json!([{"name": "sockets", "from": {"program": "first", "map": "sockets"}}]);
        node.apply_spec("first", object("sk-msg"), json!({"programs": attach, "maps": []}));
        node.ready("first");
        let before = node.details("first");
        assert_eq!(
            (before["cgroups"].clone(), before["links"].as_array().unwrap().len()),
            (json!(1), 2),
            "a map is no cgroup"
        );
        node.apply_spec("second", object("sk-msg"), json!({"programs": attach, "maps": from}));
        let refused = node.condition_is("second", "Ready", "False");
        let message = refused["message"].as_str().unwrap();
        assert!(refused["reason"] == "AttachRefused" && message.contains("BpfProgram first"), "{refused}");
        std::thread::sleep(std::time::Duration::from_secs(5));
        let Value::Object(mut now) = node.details("first") else { panic!("no details") };
        now.remove("maps");
        let mut was = before.as_object().unwrap().clone();
        was.remove("maps");
        assert_eq!(now, was, "nobody took anything from it");
        node.apply_spec("first", object("sk-msg"), json!({"programs": [attach[0]], "maps": []}));
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
    let id = is_one(&node, "writer", "reader");
    node.connect(2);
    node.remove("writer");
    assert_eq!(map(&node, "reader")["id"], id);
    node.until("a note on that", |node| node.details("reader")["notes"].to_string().contains("no longer"));
    node.connect(1);
    assert_eq!(node.events("reader")[4], 8, "2 * (1 + 2) + 2");

    // Also through another load.
    node.apply_spec("reader", TCP_EVENTS_BTF, spec(Some("writer")));
    node.ready("reader");
    assert_eq!(map(&node, "reader")["id"], id);

    // Back again, the owner's is the one.
    node.apply_spec("writer", TCP_EVENTS_BTF, spec(None));
    node.ready("writer");
    node.until("the reader has that one", |node| map(node, "reader")["id"] == map(node, "writer")["id"]);
    node.ready("reader");
    let both = is_one(&node, "writer", "reader");
    assert_ne!(both, id);

    // One's own is not the other's.
    node.apply_spec("reader", TCP_EVENTS_BTF, spec(None));
    node.ready("reader");
    assert_ne!(map(&node, "reader")["id"], both);
    assert_eq!(map(&node, "writer")["id"], both);
    assert_eq!(map(&node, "reader")["from"], Value::Null);
    assert!(!node.notes("reader").iter().any(|note| note.starts_with("from~")), "{:?}", node.notes("reader"));

    for name in ["reader", "writer"] {
        node.remove(name);
    }
    node.nothing_left();
}

/// Killed before any call while it takes another's map, or gives it back.
#[test]
fn a_map_is_shared_or_given_back_after_a_kill_before_any_call() {
    let node = Node::new("shared-killed");
    let settle = |what: &str| {
        let done = node.once(None);
        assert!(done.status.success(), "{what}: {}", text(&done));
    };
    let set = |name: &str, from: Option<&str>| node.apply_spec(name, TCP_EVENTS_BTF, spec(from));
    set("writer", None);
    set("other", None);
    settle("nothing to do");
    let asked = asked(|call| node.once(Some(&format!("kill@*#{call}"))).status.success());
    // In the short form each transition takes some of the calls, others than the next.
    let stride = if crate::node::long() { 1 } else { 6 };
    let mut kills = 0;
    for (nth, (what, from, to)) in [
        ("shared", None, Some("writer")),
        ("another's", Some("writer"), Some("other")),
        ("its own again", Some("writer"), None),
    ]
    .into_iter()
    .enumerate()
    {
        for call in (asked + 2 * nth % stride..).step_by(stride) {
            assert!(call < 400, "{what} does not end");
            set("reader", from);
            settle(what);
            set("reader", to);
            if node.once(Some(&format!("kill@*#{call}"))).status.success() {
                break;
            }
            kills += 1;
            settle(&format!("{what}, after a kill before call {call}"));
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
    assert!(kills > 10, "hardly ever");
    for name in ["reader", "other", "writer"] {
        node.withdraw(name);
    }
    settle("nothing");
    node.nothing_left();
}
