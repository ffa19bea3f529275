//! A reboot: bpffs comes up empty, the kernel counts its IDs anew, and the manifests and statuses of before are in their
//! folder still.

use std::{env, fs, path::PathBuf, thread::sleep, time::Duration};

use sockeye_agent::kernel::facts;

use crate::{node::Node, seed};
use sockeye_ebpf::programs::{TCP_EVENTS, TCP_EVENTS_BTF};

const NAMES: [&str; 2] = ["legacy", "btf"];

/// What there is before.
fn settled(node: &mut Node) {
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

/// All of it is there again under the IDs that the kernel now has for it, and no status of before was shown meanwhile.
fn comes_back(node: &mut Node, boot_before: &str, boot_now: &str) {
    let is_ready = |node: &Node, name: &str| node.condition(name, "Ready")["status"] == "True";
    assert_ne!(boot_before, boot_now);
    assert_eq!(node.node_status()["node"]["bootID"], boot_before);
    assert!(NAMES.iter().all(|name| is_ready(node, name)), "the statuses of before are not there");
    assert!(!node.exists(&format!("{}/sockeye", node.bpffs())), "pins of before are there");

    fs::remove_file(node.folder().join("agent.log")).unwrap();
    node.start();
    node.until("the agent's first word", |node| node.log().contains(" started"));
    node.until("everything", |node| {
        let ready = NAMES.into_iter().filter(|name| is_ready(node, name));
        let pins = ready.map(|name| assert!(node.exists(&format!("{}/programs/my_prog", node.home(name))), "{name}"));
        pins.count() == NAMES.len()
    });
    assert_eq!(node.node_status()["node"]["bootID"], boot_now);
    for name in NAMES {
        let details = node.agrees(name);
        assert_eq!(details["links"][0]["inEffect"], true, "{details}");
        assert_eq!(node.events(name)[4], 0, "a new map begins at nothing");
    }
    node.connect(3);
    for name in NAMES {
        assert_eq!(node.events(name)[4], 3);
        node.remove(name);
    }
    node.nothing_left();
}

/// What can be had of a reboot without one.
#[test]
fn everything_is_restored_in_another_boot() {
    let mut node = Node::new("boot");
    settled(&mut node);
    node.stop("KILL");
    node.run("umount", &["/sys/fs/bpf"]);
    node.run("mount", &["-t", "bpf", "bpf", "/sys/fs/bpf"]);
    let (before, now) = (facts::boot_id().unwrap(), "00000000-0000-4000-8000-000000000000");
    let file = node.folder().join("boot_id");
    fs::write(&file, now).unwrap();
    node.run("mount", &["-o", "bind", &file.display().to_string(), "/proc/sys/kernel/random/boot_id"]);
    comes_back(&mut node, &before, now);
}

/// A real one, by whoever runs this twice: it asks for a reset at the end of its first half, with the agent running, and does
/// its second half where it finds the first one's notes.
#[test]
#[ignore = "wants the machine reset between its halves: tests/run.sh kernels runs it in a guest"]
fn everything_is_restored_after_a_reboot() {
    let state =
        PathBuf::from(env::var_os("SOCKEYE_REBOOT").expect("SOCKEYE_REBOOT names a folder that outlives a reset"));
    let (notes, manifests) = (state.join("boot_id"), state.join("manifests"));
    fs::create_dir_all(&manifests).unwrap();
    let mut node = Node::of_machine("reboot", &manifests);
    if let Ok(before) = fs::read_to_string(&notes) {
        return comes_back(&mut node, &before, &facts::boot_id().unwrap());
    }
    settled(&mut node);
    fs::write(notes, facts::boot_id().unwrap()).unwrap();
    fs::write(state.join("reset"), "").unwrap();
    sleep(Duration::from_secs(60));
    panic!("nobody has reset the machine");
}
