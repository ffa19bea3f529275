//! Churn: for a while specs change, and cgroups and pins come and go. Then nothing is left, and the agent uses no more
//! memory or descriptors than before. The long form takes half an hour.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sockeye_ebpf::programs::{TCP_EVENTS, TCP_EVENTS_BTF, fixtures};

use crate::node::{Node, is_long_run};

/// The resources of the agent's process.
#[derive(Clone, Copy, Debug)]
struct Resources {
    descriptors: usize,
    resident_kb: u64,
}

fn resources(node: &Node) -> Resources {
    let pid = node.process();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")).unwrap();
    Resources {
        descriptors: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
        resident_kb: resident.trim().parse().unwrap(),
    }
}

const PROGRAMS: usize = 10;

/// Runs one turn: each BpfProgram gets another object, another cgroup or another suspension.
fn turn(node: &Node, turn: usize) {
    let name = |n: usize| format!("churn-{n}");
    node.make_cgroup("inner");
    for n in 0..PROGRAMS {
        let object = [TCP_EVENTS, TCP_EVENTS_BTF, fixtures::TWICE, fixtures::REFUSED][(n + turn) % 4];
        let path = if (n + turn).is_multiple_of(2) { "/inner" } else { "/" };
        let attach: Value = match path {
            "/" => json!([{"type": "Node"}]),
            path => json!([{"type": "CgroupPath", "cgroupPath": path}]),
        };
        node.apply_spec(
            &name(n),
            object,
            json!({"programs": [{"name": "my_prog", "attach": attach}],
                "suspend": (n + turn).is_multiple_of(5), "maps": [{"name": "my_map", "onIncompatible": "Recreate"}]}),
        );
    }
    node.until("every status about this turn", |node| (0..PROGRAMS).all(|n| node.is_status_current(&name(n))));
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
    // The process allocates some resources once.
    for warming in 0..4 {
        turn(&node, warming);
    }
    let before = resources(&node);
    let lasts = Duration::from_secs(if is_long_run() { 1800 } else { 15 });
    let (start, mut turns) = (Instant::now(), 4);
    while start.elapsed() < lasts {
        turn(&node, turns);
        turns += 1;
    }
    node.nothing_left();
    node.until("as few descriptors as before", |node| resources(node).descriptors <= before.descriptors);
    let after = resources(&node);
    println!("{turns} turns of {PROGRAMS} BpfPrograms: {before:?}, then {after:?}");
    assert!(after.descriptors <= before.descriptors, "{before:?} {after:?}");
    assert!(after.resident_kb <= before.resident_kb + 4096, "{before:?} {after:?}");
}
