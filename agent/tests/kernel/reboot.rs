//! A reboot: bpffs is empty, the kernel assigns new IDs, and the folder still has the manifests and the old statuses.

use std::{env, fs, path::PathBuf, thread::sleep, time::Duration};

use sockeye_agent::kernel::facts;

use crate::{node::Node, seed};
use sockeye_ebpf::programs::{TCP_EVENTS, TCP_EVENTS_BTF};

const NAMES: [&str; 2] = ["legacy", "btf"];

/// Attaches two BpfPrograms before the reboot.
fn set_up(node: &mut Node) {
    node.start();
    for (name, object) in NAMES.into_iter().zip([TCP_EVENTS, TCP_EVENTS_BTF]) {
        seed(node, name, object);
        node.ready(name);
    }
    node.connect(5);
    for name in NAMES {
        assert_eq!(node.events(name)[4], 5);
    }
}

/// Asserts that everything is attached again under new IDs, and that no old status was shown meanwhile.
fn assert_restored(node: &mut Node, boot_before: &str, boot_now: &str) {
    let is_ready = |node: &Node, name: &str| node.condition(name, "Ready")["status"] == "True";
    assert_ne!(boot_before, boot_now);
    assert_eq!(node.node_status()["node"]["bootID"], boot_before);
    assert!(NAMES.iter().all(|name| is_ready(node, name)), "the old statuses are missing");
    assert!(!node.exists(&format!("{}/sockeye", node.bpffs())), "old pins exist");

    fs::remove_file(node.folder().join("agent.log")).unwrap();
    node.start();
    node.until("that the agent has started", |node| node.log().contains(" started"));
    node.until("everything", |node| {
        let ready = NAMES.into_iter().filter(|name| is_ready(node, name));
        let pins = ready.map(|name| assert!(node.exists(&format!("{}/programs/my_prog", node.home(name))), "{name}"));
        pins.count() == NAMES.len()
    });
    assert_eq!(node.node_status()["node"]["bootID"], boot_now);
    for name in NAMES {
        let details = node.verified_details(name);
        assert_eq!(details["links"][0]["inEffect"], true, "{details}");
        assert_eq!(node.events(name)[4], 0, "a new map starts at zero");
    }
    node.connect(3);
    for name in NAMES {
        assert_eq!(node.events(name)[4], 3);
        node.remove(name);
    }
    node.nothing_left();
}

/// An empty bpffs and another boot ID stand in for a reboot.
#[test]
fn everything_is_restored_in_another_boot() {
    let mut node = Node::new("boot");
    set_up(&mut node);
    node.stop("KILL");
    node.run("umount", &["/sys/fs/bpf"]);
    node.run("mount", &["-t", "bpf", "bpf", "/sys/fs/bpf"]);
    let (before, now) = (facts::boot_id().unwrap(), "00000000-0000-4000-8000-000000000000");
    let file = node.folder().join("boot_id");
    fs::write(&file, now).unwrap();
    node.run("mount", &["-o", "bind", &file.display().to_string(), "/proc/sys/kernel/random/boot_id"]);
    assert_restored(&mut node, &before, now);
}

/// A real reboot. The test runs twice: the first run requests a reset while the agent runs, and the second run finds
/// the notes of the first.
#[test]
#[ignore = "needs a reset of the machine between its two runs: tests/run.sh kernels runs it in a guest"]
fn everything_is_restored_after_a_reboot() {
    let state =
        PathBuf::from(env::var_os("SOCKEYE_REBOOT").expect("SOCKEYE_REBOOT names a folder that outlives a reset"));
    let (notes, manifests) = (state.join("boot_id"), state.join("manifests"));
    fs::create_dir_all(&manifests).unwrap();
    let mut node = Node::of_machine("reboot", &manifests);
    if let Ok(before) = fs::read_to_string(&notes) {
        return assert_restored(&mut node, &before, &facts::boot_id().unwrap());
    }
    set_up(&mut node);
    fs::write(notes, facts::boot_id().unwrap()).unwrap();
    fs::write(state.join("reset"), "").unwrap();
    sleep(Duration::from_secs(60));
    panic!("the machine was not reset");
}
