//! The same with a program that is attached to a map: by link, and held by the map where the kernel has no links, or does not
//! say what is attached either.

use serde_json::{Value, json};

use crate::{
    map_attachment::{KERNELS, attached_to},
    node::{Node, long, text},
    objects::replace,
    program_types::{PODS, object},
};

const NAME: &str = "killed";

/// sk-msg with names that nobody else has, so that leaks are told by them.
struct Scene {
    node: Node,
    kernel: Option<&'static str>,
    /// The program on the map, and one of another name with the same instructions.
    programs: [String; 2],
    map: String,
}

/// What a BpfProgram is to be: which of the two programs, settings of the maps, whether it is suspended.
#[derive(Clone)]
struct Want(usize, Value, bool);

impl Scene {
    fn set(&self, want: Option<&Want>) {
        let Some(Want(which, maps, suspend)) = want else {
            self.node.apply_spec(NAME, b"", json!({}));
            return self.node.withdraw(NAME);
        };
        let program = &self.programs[*which];
        let named = replace(object("sk-msg"), b"redirect", program.as_bytes());
        let attach = json!([
            {"name": "remember", "attach": [{"cgroup": {"scope": "Pods"}}]},
            {"name": program, "attach": [{"map": self.map}]},
        ]);
        let spec = json!({"programs": attach, "maps": maps, "suspend": suspend});
        self.node.apply_spec(NAME, &replace(&named, b"sockets", self.map.as_bytes()), spec);
    }

    /// A pass that is killed before that call, or one that is not.
    fn once(&self, killed: Option<usize>) -> std::process::Output {
        let kill = killed.map(|call| format!("kill@*#{call}"));
        let faults: Vec<&str> = self.kernel.into_iter().chain(kill.as_deref()).collect();
        self.node.once((!faults.is_empty()).then(|| faults.join(",")).as_deref())
    }

    fn settle(&self, what: &str) {
        let done = self.once(None);
        assert!(done.status.success(), "{what}: {}", text(&done));
    }

    /// How many of each program there are, of the map, and of what runs on that.
    fn holds(&self, what: &str, expected: (usize, usize, usize, usize)) {
        self.node.until(&format!("{what}: {expected:?}"), |node| {
            let count = |kind: &str, name: &String| {
                let all = node.bpftool(&[kind, "show"]);
                all.as_array().map_or(0, |all| all.iter().filter(|one| one["name"] == name.as_str()).count())
            };
            let pin = node.seen(&format!("{}/maps/{}", node.home(NAME), self.map));
            let runs = if pin.exists() { attached_to(&pin).len() } else { 0 };
            let [one, other] = &self.programs;
            (count("prog", one), count("prog", other), count("map", &self.map), runs) == expected
        });
    }
}

#[test]
fn a_kill_before_any_call_is_recovered_by_the_next_pass() {
    // In the short form each kernel takes some of the calls, others than the next.
    let stride = if long() { 1 } else { 2 * KERNELS.len() };
    let mut asked = None;
    for (nth, kernel) in KERNELS.into_iter().enumerate() {
        let node = Node::new(&format!("killed-map-{nth}"));
        node.make_cgroup(PODS);
        let number = std::process::id() % 100_000;
        let programs = ["p", "q"].map(|letter| format!("{letter}{nth}_{number:05}"));
        let scene = Scene { node, kernel, programs, map: format!("m{nth}{number:05}") };
        let asked = *asked.get_or_insert_with(|| super::asked(|call| scene.once(Some(call)).status.success()));
        let settings = |value: Value| {
            let mut map = json!({"name": scene.map, "onShapeChange": "Recreate"});
            map.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
            json!([map])
        };
        let first = Want(0, settings(json!({})), false);
        let other = Want(1, settings(json!({})), false);
        let moved = Want(0, settings(json!({"maxEntries": 64})), false);
        let retained = Want(0, settings(json!({"onDelete": "Retain"})), false);
        let suspended = Want(0, settings(json!({})), true);
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
            for call in (asked + 2 * nth % stride..).step_by(stride) {
                assert!(call < 300, "{what} does not end");
                scene.set(from);
                scene.settle(what);
                scene.set(to);
                if scene.once(Some(call)).status.success() {
                    break;
                }
                scene.settle(&format!("{what}, after a kill before call {call}"));
                scene.holds(&format!("{what}, after a kill before call {call}"), holds);
                kills += 1;
            }
            scene.holds(what, holds);
            for next in [Some(&first), None] {
                scene.set(next);
                scene.settle("nothing");
            }
        }
        println!("killed {kills} times, {}", kernel.unwrap_or("by link"));
        assert!(kills > 10, "hardly ever");
        scene.holds("nothing", (0, 0, 0, 0));
        scene.node.nothing_left();
    }
}
