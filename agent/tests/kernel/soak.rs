//! Churn: specs change, cgroups and pins come and go, for a while; then all is gone, and the agent is what it was. Half an
//! hour in the long form.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sockeye_ebpf::programs::{TCP_EVENTS, TCP_EVENTS_BTF, fixtures};

use crate::node::{Node, long};

/// What the agent's process holds.
#[derive(Clone, Copy, Debug)]
struct Holds {
    descriptors: usize,
    resident_kb: u64,
}

fn holds(node: &Node) -> Holds {
    let pid = node.process();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")).unwrap();
    Holds {
        descriptors: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
        resident_kb: resident.trim().parse().unwrap(),
    }
}

const PROGRAMS: usize = 10;

/// One turn: each BpfProgram gets another object, another place or another end.
fn turn(node: &Node, turn: usize) {
    let name = |n: usize| format!("churn-{n}");
    node.make_cgroup("inner");
    for n in 0..PROGRAMS {
        let object = [TCP_EVENTS, TCP_EVENTS_BTF, fixtures::TWICE, fixtures::REFUSED][(n + turn) % 4];
        let path = if (n + turn).is_multiple_of(2) { "/inner" } else { "/" };
        let attach: Value = match path {
            "/" => json!([{"cgroup": {"scope": "Node"}}]),
            path => json!([{"cgroup": {"scope": "Path", "path": path}}]),
        };
        node.apply_spec(
            &name(n),
            object,
            json!({"programs": [{"name": "my_prog", "attach": attach}],
                "suspend": (n + turn).is_multiple_of(5), "maps": [{"name": "my_map", "onShapeChange": "Recreate"}]}),
        );
    }
    node.until("every status about this turn", |node| (0..PROGRAMS).all(|n| node.is_about(&name(n))));
    let links = format!("{}/links/my_prog", node.home(&name(turn % PROGRAMS)));
    node.run("sh", &["-c", &format!("rm -f {links}/*")]);
    fs::remove_dir(node.cgroup().join("inner")).unwrap();
    for n in 0..PROGRAMS {
        node.withdraw(&name(n));
    }
    node.until("nothing", |node| node.node_status()["programs"].is_null());
}

#[test]
fn churn_leaves_nothing_behind() {
    let mut node = Node::new("soak");
    node.start();
    // What a process gets once and keeps.
    for warming in 0..4 {
        turn(&node, warming);
    }
    let before = holds(&node);
    let lasts = Duration::from_secs(if long() { 1800 } else { 15 });
    let (start, mut turns) = (Instant::now(), 4);
    while start.elapsed() < lasts {
        turn(&node, turns);
        turns += 1;
    }
    node.nothing_left();
    let after = holds(&node);
    println!("{turns} turns of {PROGRAMS} BpfPrograms: {before:?}, then {after:?}");
    assert!(after.descriptors <= before.descriptors, "{before:?} {after:?}");
    assert!(after.resident_kb <= before.resident_kb + 4096, "{before:?} {after:?}");
}
