//! What a node denies to all programs: reported as features of its BpfNode, and named where it is why one is refused.

use std::fs;

use serde_json::json;
use sockeye_ebpf::programs::fixtures::READER;

use crate::node::Node;

fn told(path: &str) -> String {
    fs::read_to_string(path).unwrap()
}

/// The kernel's arguments say whether it is locked down. tests/kernels boots one that is.
#[test]
fn a_program_that_reads_the_kernels_memory_is_refused_under_lockdown_and_loaded_otherwise() {
    let is_locked_down = told("/proc/cmdline").contains("lockdown=confidentiality");
    let mut node = Node::new("lockdown");
    node.start();
    let programs = json!([{"name": "read", "attach": [{"type": "Node"}]}]);
    for _ in 0..2 {
        node.apply("reader", READER, programs.clone(), json!([]));
        if is_locked_down {
            let refused = node.condition_is("reader", "Ready", "False");
            assert_eq!(refused["reason"], "KernelUnsupported", "{refused}");
            let message = refused["message"].as_str().unwrap();
            for words in ["lockdown=confidentiality", "program read", "bpf_probe_read"] {
                assert!(message.contains(words), "{message}");
            }
            assert_eq!(node.pins("reader"), Vec::<String>::new());
        } else {
            node.ready("reader");
        }
        assert_eq!(node.has_feature("LockdownConfidentiality"), is_locked_down);
        // The same again by another agent, which has no revision from before.
        node.stop("KILL");
        node.start();
    }
    node.remove("reader");
    node.nothing_left();
}

#[test]
fn a_node_that_keeps_perf_events_to_admins_says_so() {
    let level: i32 = told("/proc/sys/kernel/perf_event_paranoid").trim().parse().unwrap();
    let mut node = Node::new("paranoid");
    node.start();
    node.until("what the kernel has", |node| node.node_status()["node"]["kernelRelease"].is_string());
    assert_eq!(node.has_feature("PerfEventParanoid"), level > 2, "level {level}");
}
