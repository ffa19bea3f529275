//! Kills of the agent: SIGKILL before any call of a plan, and at random moments while specs change. The next agent
//! completes the work; nothing is loaded twice or left behind, and no status is ever false.

mod maps;

use std::{fs, os::unix::fs::MetadataExt as _, os::unix::process::ExitStatusExt as _, thread::sleep, time::Duration};

use serde_json::{Value, json};
use sockeye_agent::node::layout::VERSION;
use sockeye_ebpf::programs::{TCP_EVENTS, TCP_EVENTS_BTF, fixtures};

use crate::{
    node::{Node, is_long_run, text},
    objects::{Names, links},
    program_types::{PODS, example},
};

/// The desired state of the BpfProgram.
struct Desired {
    object: Vec<u8>,
    spec: Value,
}

struct Scene {
    node: Node,
    names: Names,
    cgroups: Vec<u64>,
}

const NAME: &str = "killed";

impl Scene {
    fn new(test: &str, letter: char) -> Self {
        let node = Node::new(test);
        for inner in ["a", "b"] {
            node.make_cgroup(inner);
        }
        let id = |path: &str| fs::metadata(node.cgroup().join(path)).unwrap().ino();
        let cgroups = [".", "a", "b"].map(id).to_vec();
        Self { names: Names::new(letter), cgroups, node }
    }

    /// Returns a desired state: an object at some cgroups, with settings of the map and other fields of the spec.
    fn desired(&self, object: &[u8], paths: &[&str], map: Value, other: Value) -> Desired {
        let attach = |path: &&str| match *path {
            "/" => json!({"type": "Node"}),
            path => json!({"type": "CgroupPath", "cgroupPath": path}),
        };
        let attach: Vec<Value> = paths.iter().map(attach).collect();
        let mut spec = json!({"programs": [{"name": self.names.program, "attach": attach}]});
        if let Value::Object(mut map) = map {
            map.insert("name".into(), self.names.map.clone().into());
            spec["maps"] = json!([map]);
        }
        spec.as_object_mut().unwrap().extend(other.as_object().cloned().unwrap_or_default());
        Desired { object: self.names.in_object(object), spec }
    }

    fn set(&self, desired: Option<&Desired>) {
        match desired {
            Some(Desired { object, spec }) => {
                self.node.apply_spec(NAME, object, spec.clone());
            }
            None => {
                self.node.apply_spec(NAME, b"", json!({}));
                self.node.withdraw(NAME);
            }
        }
    }

    /// Returns the programs attached to each of the cgroups.
    fn attached(&self) -> [Vec<Value>; 3] {
        [".", "a", "b"].map(|path| self.node.attached_below(path))
    }

    fn converge(&self, what: &str) {
        let done = self.node.once(None);
        assert!(done.status.success(), "{what}: {}", text(&done));
    }

    /// Asserts that the reported program is the pinned one, and uses the pinned map.
    fn assert_pinned_program_runs(&self, what: &str) {
        let (now, details) = (self.node.entry(NAME), self.node.details(NAME));
        let ids = |kind: &str| -> Vec<Value> {
            details[kind].as_array().into_iter().flatten().map(|object| object["id"].clone()).collect()
        };
        assert_eq!(now["programIDs"], json!(ids("programs")), "{what}");
        let pin = format!("{}/programs/{}", self.node.home(NAME), self.names.program);
        let shown = self.node.bpftool(&["prog", "show", "pinned", &pin]);
        assert_eq!(shown["id"], ids("programs")[0], "{what}");
        if ids("maps").len() == 1 {
            assert_eq!(shown["map_ids"], json!(ids("maps")), "{what}");
        }
    }

    /// Waits for these numbers of programs and maps, and of links by cgroup. The kernel frees objects with a delay.
    fn holds(&self, what: &str, objects: (usize, usize), at: &[(usize, usize)]) {
        let expected = at.iter().map(|(cgroup, count)| (self.cgroups[*cgroup], *count)).collect();
        self.node.until(&format!("{what}: {objects:?} programs and maps, links {at:?}"), |node| {
            self.names.loaded(node) == objects && links(node, &self.cgroups) == expected
        });
    }
}

/// Returns the number of the first call that a pass with nothing to do does not make. The calls before it only probe
/// and observe. `ends` returns true if a pass completes with a kill or a failure set for a call.
pub fn calls_of_an_idle_pass(ends: impl Fn(usize) -> bool) -> usize {
    let (mut made, mut not_made) = (0, 1000);
    while not_made - made > 1 {
        let call = usize::midpoint(made, not_made);
        if ends(call) { not_made = call } else { made = call }
    }
    not_made
}

/// Each transition is repeated with a kill before the first call, the second, and so on, until there is none left.
#[test]
fn a_kill_before_any_call_is_recovered_by_the_next_pass() {
    let scene = Scene::new("killed", 'k');
    let keep = || json!(null);
    let root = ["/"];
    let first = scene.desired(TCP_EVENTS_BTF, &root, keep(), json!({}));
    let other = scene.desired(fixtures::TWICE, &root, keep(), json!({}));
    let apart = scene.desired(TCP_EVENTS_BTF, &["/a", "/b"], keep(), json!({}));
    let moved = scene.desired(TCP_EVENTS, &["/a", "/b"], keep(), json!({}));
    let smaller = scene.desired(TCP_EVENTS_BTF, &root, json!({"onIncompatible": "Recreate"}), json!({}));
    let larger = scene.desired(fixtures::RESHAPED, &root, json!({"onIncompatible": "Recreate"}), json!({}));
    let retained = scene.desired(TCP_EVENTS_BTF, &root, json!({"reclaimPolicy": "Retain"}), json!({}));
    let unpinned = scene.desired(TCP_EVENTS_BTF, &root, json!({"pinning": "None"}), json!({}));
    let suspended = scene.desired(TCP_EVENTS_BTF, &root, keep(), json!({"suspend": true}));
    let filled = scene.desired(
        TCP_EVENTS_BTF,
        &root,
        json!({"entries": [{"key": 0, "value": 7}, {"key": 9, "value": 8}]}),
        json!({}),
    );
    let guard = scene.desired(fixtures::SHUT, &root, keep(), json!({}));
    let one = ((1, 1), &[(0, 1)][..]);
    let two = ((1, 1), &[(1, 1), (2, 1)][..]);
    let idle_calls = calls_of_an_idle_pass(|call| scene.node.once(Some(&format!("kill@*#{call}"))).status.success());
    let mut calls = 0;
    for (what, from, to, (objects, at)) in [
        ("applied", None, Some(&first), one),
        ("another object", Some(&first), Some(&other), one),
        ("filled", None, Some(&filled), one),
        ("two cgroups", None, Some(&apart), two),
        ("another object at two", Some(&apart), Some(&moved), two),
        ("elsewhere", Some(&first), Some(&apart), two),
        ("another attach type", Some(&first), Some(&guard), ((1, 0), &[(0, 1)][..])),
        ("a map of another shape", Some(&smaller), Some(&larger), one),
        ("a map not pinned", Some(&first), Some(&unpinned), one),
        ("suspended", Some(&first), Some(&suspended), ((1, 1), &[][..])),
        ("resumed", Some(&suspended), Some(&first), one),
        ("deleted", Some(&apart), None, ((0, 0), &[][..])),
        ("deleted but for its map", Some(&retained), None, ((0, 1), &[][..])),
    ] {
        let begin = if what == "applied" { 1 } else { idle_calls };
        for call in begin.. {
            assert!(call < 200, "{what} does not end");
            scene.set(from);
            scene.converge(what);
            let status = scene.node.entry(NAME);

            scene.set(to);
            let killed = scene.node.once(Some(&format!("kill@*#{call}")));
            if killed.status.signal() != Some(9) {
                assert!(killed.status.success(), "{what}, without a kill: {}", text(&killed));
                calls += call - begin;
                break;
            }
            assert_eq!(scene.node.entry(NAME), status, "{what}: an agent killed in a pass writes no status");
            // Some go back to the previous state instead.
            let back = call % 4 == 0 && from.is_some();
            if back {
                scene.set(from);
            }
            let what = format!("{what}, after a kill before call {call}, and {}", if back { "back" } else { "on" });
            scene.converge(&what);
            if back || to.is_some() {
                scene.assert_pinned_program_runs(&what);
            }
            if is_long_run() && !back {
                scene.holds(&what, objects, at);
            }
            if to.is_some_and(|to| std::ptr::eq(to, &raw const filled)) {
                let map = format!("{}/maps/{}", scene.node.home(NAME), scene.names.map);
                let counts = scene.node.counts(&["pinned", &map]);
                assert_eq!((counts[0], counts[9]), (7, 8), "the map is filled before it is pinned: {call}");
            }
        }
        scene.holds(what, objects, at);
        // A retained or larger map is removed once it is no longer desired.
        for next in [Some(&smaller), None] {
            scene.set(next);
            scene.converge("nothing");
        }
    }
    println!("killed before each of {calls} calls");
    assert!(calls > 400, "too few calls");
    scene.holds("nothing", (0, 0), &[]);
    scene.node.nothing_left();
}

/// Each transition is repeated with a failure of the first call, the second, and so on. The next pass recovers.
#[test]
fn a_failed_call_leaves_the_old_or_the_new_revision_whole() {
    const ENOMEM: i32 = 12;
    let scene = Scene::new("fails", 'f');
    let first = scene.desired(TCP_EVENTS_BTF, &["/"], json!(null), json!({}));
    let other = scene.desired(fixtures::TWICE, &["/"], json!(null), json!({}));
    let apart = scene.desired(fixtures::TWICE, &["/a", "/b"], json!(null), json!({}));
    let guard = scene.desired(fixtures::SHUT, &["/"], json!(null), json!({}));
    let refuse = |call: usize| scene.node.once(Some(&format!("{ENOMEM}@*#{call}")));
    let idle_calls = calls_of_an_idle_pass(|call| !text(&refuse(call)).contains("SOCKEYE_FAULT says so"));
    let mut calls = 0;
    let (one, two) = (&[(0, 1)][..], &[(1, 1), (2, 1)][..]);
    for (what, from, to, (maps, at)) in [
        ("applied", None, &first, (1, one)),
        ("another object", Some(&first), &other, (1, one)),
        ("another object elsewhere", Some(&first), &apart, (1, two)),
        ("another attach type", Some(&first), &guard, (0, one)),
    ] {
        let begin = if what == "applied" { 1 } else { idle_calls };
        for call in begin.. {
            assert!(call < 200, "{what} does not end");
            scene.set(from);
            scene.converge(what);
            let (ran, status) = (scene.attached(), scene.node.entry(NAME));
            scene.set(Some(to));
            let failed = refuse(call);
            if !text(&failed).contains("SOCKEYE_FAULT says so") {
                calls += call - begin;
                break;
            }
            // All of one revision or all of the other runs, and the one that is reported to be in effect is.
            let (runs, now) = (scene.attached(), scene.node.entry(NAME));
            let what = format!("{what}, call {call} refused: {}", text(&failed));
            let id = &now["programIDs"][0];
            let new = at.iter().all(|(cgroup, _)| runs[*cgroup].contains(id));
            let nothing_else =
                runs.iter().flatten().all(|other| other == id || ran.iter().flatten().any(|r| r == other));
            assert!(nothing_else && (new || runs == ran), "{ran:?} ran, {runs:?} runs, {now}: {what}");
            let is_new = !now["revision"].is_null() && now["revision"] != status["revision"];
            assert!(
                if is_new { new } else { runs == ran || now["revision"].is_null() },
                "{runs:?} runs, {now}: {what}"
            );
            scene.converge(&what);
        }
        scene.holds(what, (1, maps), at);
    }
    println!("each of {calls} calls was refused");
    assert!(calls > 150, "too few calls");
    scene.set(None);
    scene.converge("nothing");
    scene.holds("nothing", (0, 0), &[]);
    scene.node.nothing_left();
}

/// Each of twelve attachments fails in turn.
#[test]
fn a_failed_attachment_undoes_those_before_it() {
    const ENOMEM: i32 = 12;
    let (name, manifest) = example!("cgroup-sock-addr");
    let node = Node::new("partial");
    node.make_cgroup(PODS);
    let mut failed = 0;
    for nth in 1.. {
        assert!(nth < 200, "it does not end");
        node.apply_example(name, manifest);
        let done = node.once(Some(&format!("{ENOMEM}@BPF_LINK_CREATE#{nth}")));
        if !text(&done).contains("SOCKEYE_FAULT says so") {
            break;
        }
        // The first of these calls only probe the kernel.
        if !done.status.success() {
            failed += 1;
            assert_eq!((node.attached_below(PODS), node.pins(name)), (vec![], vec![]), "call {nth}");
        }
        node.withdraw(name);
        assert!(node.once(None).status.success());
    }
    assert_eq!(failed, 12);
    assert_eq!(node.attached_below(PODS).len(), 12);
    node.withdraw(name);
    assert!(node.once(None).status.success());
    node.nothing_left();
}

/// Attempts are repeated with a growing delay. A real bpffs is never full.
#[test]
fn a_full_or_read_only_bpffs_is_reported_and_recovered_from() {
    let mut scene = Scene::new("full", 'e');
    let first = scene.desired(TCP_EVENTS_BTF, &["/"], json!(null), json!({}));
    let other = scene.desired(fixtures::TWICE, &["/"], json!(null), json!({}));
    scene.set(Some(&first));
    scene.converge("before");
    let ran = scene.node.attached();
    for (errno, word) in [(28, "full"), (30, "read-only")] {
        scene.node.start_faulty(&format!("{errno}@BPF_OBJ_PIN"));
        scene.set(Some(&other));
        let ready = scene.node.condition_is(NAME, "Ready", "False");
        assert_eq!(ready["reason"], "BpffsUnusable", "{ready}");
        assert!(ready["message"].as_str().unwrap().contains(word), "{ready}");
        assert_eq!(scene.node.attached(), ran, "the known good revision stays");
        sleep(Duration::from_secs(4));
        let attempts = scene.node.log().matches("step refused").count();
        assert!((2..=4).contains(&attempts), "{attempts} attempts in four seconds");
        scene.node.stop("KILL");
        scene.node.forget_log();
        scene.set(Some(&first));
        scene.converge("between");
    }
    scene.node.start();
    scene.set(Some(&other));
    scene.node.ready(NAME);
    scene.holds("healed", (1, 1), &[(0, 1)]);
    scene.node.remove(NAME);
    scene.node.nothing_left();
}

/// A small random generator, so that a run can be repeated from its seed.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

/// Specs change while the agent is killed.
#[test]
fn an_agent_killed_at_random_moments_leaves_no_duplicates() {
    let mut scene = Scene::new("random", 'r');
    let keep = || json!(null);
    let all_desired = [
        Some(scene.desired(TCP_EVENTS_BTF, &["/"], keep(), json!({}))),
        Some(scene.desired(fixtures::TWICE, &["/a", "/b"], keep(), json!({}))),
        Some(scene.desired(TCP_EVENTS, &["/a"], keep(), json!({}))),
        Some(scene.desired(TCP_EVENTS_BTF, &["/b"], json!({"pinning": "None"}), json!({}))),
        Some(scene.desired(TCP_EVENTS_BTF, &["/"], keep(), json!({"suspend": true}))),
        None,
    ];
    let kills = if is_long_run() { 1000 } else { 100 };
    let mut random = 42;
    let mut last = None;
    for kill in 0..kills {
        scene.node.start();
        for _ in 0..1 + next(&mut random) % 3 {
            last = all_desired[(next(&mut random) % 6) as usize].as_ref();
            scene.set(last);
            sleep(Duration::from_micros(next(&mut random) % 30_000));
        }
        scene.node.stop("KILL");
        // After most kills another agent starts at once; after these, the status and the objects are checked.
        if kill % 5 == 0 {
            let what = format!("after kill {kill}");
            scene.converge(&what);
            if last.is_some() {
                scene.assert_pinned_program_runs(&what);
            }
            let most = usize::from(last.is_some());
            scene.node.until(&what, |node| scene.names.loaded(node) == (most, most));
        }
    }
    scene.set(all_desired[1].as_ref());
    scene.converge("after all kills");
    scene.holds("after all kills", (1, 1), &[(1, 1), (2, 1)]);
    scene.set(None);
    scene.converge("nothing");
    scene.holds("nothing", (0, 0), &[]);
    scene.node.nothing_left();
    println!("killed {kills} times");
}

/// An agent killed while it makes or removes a home leaves empty directories behind.
#[test]
fn an_empty_home_is_removed() {
    let node = Node::new("empty");
    for (home, below) in [("made", ""), ("left", "_meta"), ("claimed", "maps")] {
        node.run("mkdir", &["-p", &format!("{}/{below}", node.home(home))]);
    }
    // An agent notes the layout before it makes a home.
    node.run("ln", &["-s", VERSION, &node.home("_layout")]);
    assert!(node.once(None).status.success());
    node.nothing_left();
}
