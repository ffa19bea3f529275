//! Kills of an agent whose program is attached to a map: by a link, or held by the map on kernels without such links.

use serde_json::{Value, json};

use crate::{
    map_attachment::{FIONREAD, KERNELS, attached_to},
    node::{Node, is_long_run, text},
    objects::replace,
    program_types::{PODS, object},
};

const NAME: &str = "killed";

/// A node with sk-msg under names that nothing else uses, so that leaks are found by them.
struct Scene {
    node: Node,
    kernel: Option<&'static str>,
    /// The program on the map, and one with another name and the same instructions.
    programs: [String; 2],
    map: String,
}

/// The desired state: the index of the program, settings of the maps, and true if suspended.
#[derive(Clone)]
struct Desired(usize, Value, bool);

impl Scene {
    fn set(&self, desired: Option<&Desired>) {
        let Some(Desired(which, maps, suspend)) = desired else {
            self.node.apply_spec(NAME, b"", json!({}));
            return self.node.withdraw(NAME);
        };
        let program = &self.programs[*which];
        let named = replace(object("sk-msg"), b"redirect", program.as_bytes());
        let attach = json!([
            {"name": "remember", "attach": [{"type": "AllPods"}]},
            {"name": program, "attach": [{"type": "Map", "map": {"name": self.map}}]},
        ]);
        let accepted = json!([FIONREAD]);
        let spec = json!({"programs": attach, "maps": maps, "suspend": suspend, "acceptedRegressions": accepted});
        self.node.apply_spec(NAME, &replace(&named, b"sockets", self.map.as_bytes()), spec);
    }

    /// Runs a pass, which is killed before that call if there is one.
    fn once(&self, killed: Option<usize>) -> std::process::Output {
        let kill = killed.map(|call| format!("kill@*#{call}"));
        let faults: Vec<&str> = self.kernel.into_iter().chain(kill.as_deref()).collect();
        self.node.once((!faults.is_empty()).then(|| faults.join(",")).as_deref())
    }

    fn converge(&self, what: &str) {
        let done = self.once(None);
        assert!(done.status.success(), "{what}: {}", text(&done));
    }

    /// Waits for these numbers of each program, of the map, and of programs attached to the map.
    fn holds(&self, what: &str, expected: (usize, usize, usize, usize)) {
        self.node.until(&format!("{what}: {expected:?}"), |node| {
            let count = |kind: &str, name: &String| {
                let all = node.bpftool(&[kind, "show"]);
                all.as_array().map_or(0, |all| all.iter().filter(|one| one["name"] == name.as_str()).count())
            };
            let pin = node.outer_path(&format!("{}/maps/{}", node.home(NAME), self.map));
            // A kernel that can't be queried does not say.
            let runs = if pin.exists() { attached_to(&pin).map_or(expected.3, |programs| programs.len()) } else { 0 };
            let [one, other] = &self.programs;
            (count("prog", one), count("prog", other), count("map", &self.map), runs) == expected
        });
    }
}

#[test]
fn a_kill_before_any_call_is_recovered_by_the_next_pass() {
    // In the short form each kernel tests only some of the calls, different ones for each.
    let stride = if is_long_run() { 1 } else { 2 * KERNELS.len() };
    let mut idle_calls = None;
    for (nth, kernel) in KERNELS.into_iter().enumerate() {
        let node = Node::new(&format!("killed-map-{nth}"));
        node.make_cgroup(PODS);
        let number = std::process::id() % 100_000;
        let programs = ["p", "q"].map(|letter| format!("{letter}{nth}_{number:05}"));
        let scene = Scene { node, kernel, programs, map: format!("m{nth}{number:05}") };
        let idle_calls = *idle_calls
            .get_or_insert_with(|| super::calls_of_an_idle_pass(|call| scene.once(Some(call)).status.success()));
        let settings = |value: Value| {
            let mut map = json!({"name": scene.map, "onIncompatible": "Recreate"});
            map.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
            json!([map])
        };
        let first = Desired(0, settings(json!({})), false);
        let other = Desired(1, settings(json!({})), false);
        let moved = Desired(0, settings(json!({"maxEntries": 64})), false);
        let retained = Desired(0, settings(json!({"reclaimPolicy": "Retain"})), false);
        let suspended = Desired(0, settings(json!({})), true);
        let mut kills = 0;
        for (what, from, to, holds) in [
            ("applied", None, Some(&first), (1, 0, 1, 1)),
            ("another program in its place", Some(&first), Some(&other), (0, 1, 1, 1)),
            ("another map", Some(&first), Some(&moved), (1, 0, 1, 1)),
            ("suspended", Some(&first), Some(&suspended), (1, 0, 1, 0)),
            ("resumed", Some(&suspended), Some(&first), (1, 0, 1, 1)),
            ("deleted", Some(&first), None, (0, 0, 0, 0)),
            ("deleted but for its map", Some(&retained), None, (0, 0, 1, 0)),
        ] {
            for call in (idle_calls + 2 * nth % stride..).step_by(stride) {
                assert!(call < 300, "{what} does not end");
                scene.set(from);
                scene.converge(what);
                scene.set(to);
                if scene.once(Some(call)).status.success() {
                    break;
                }
                scene.converge(&format!("{what}, after a kill before call {call}"));
                scene.holds(&format!("{what}, after a kill before call {call}"), holds);
                kills += 1;
            }
            scene.holds(what, holds);
            for next in [Some(&first), None] {
                scene.set(next);
                scene.converge("nothing");
            }
        }
        println!("killed {kills} times, {}", kernel.unwrap_or("by link"));
        assert!(kills > 10, "too few kills");
        scene.holds("nothing", (0, 0, 0, 0));
        scene.node.nothing_left();
    }
}
