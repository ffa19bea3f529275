//! The limit of locked memory, which counts on kernels that charge users for maps and programs (before Linux 5.11):
//! agents with the capabilities of the chart, beside a map of another process of root's.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::{Value, json};
use sockeye_ebpf::programs::TCP_EVENTS_BTF;

use crate::{
    node::{Node, agent_path, text},
    seed,
};

/// The user that an agent takes for itself.
const OWN: u32 = 61000;

/// The limits that the kernel starts with, before 5.16 and since.
const LIMITS_KIB: [u32; 2] = [64, 8192];

/// Starts an agent as a container runtime would, with a limit, and waits until it has observed the node.
fn start(node: &mut Node, limit_kib: u32, own: Option<u32>) {
    let script = format!("ulimit -l {limit_kib} && exec \"$0\" \"$@\"");
    let capabilities =
        if own.is_some() { "-all,+bpf,+net_admin,+perfmon,+setuid" } else { "-all,+bpf,+net_admin,+perfmon" };
    let privileges = ["--no-new-privs", "--bounding-set", capabilities, "sh", "-c", &script];
    let arguments = own.map(|uid| format!("--memlock-uid={uid}"));
    node.forget_log();
    node.start_as(&privileges, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    node.until("its start", |node| node.log().contains("probed the kernel"));
}

/// Fills a limit by a map of 8 MiB that this process makes, as root without a limit.
fn fill(node: &Node) {
    let map = format!("{}/other", node.bpffs());
    let of_8_mib = ["type", "array", "key", "4", "value", "4096", "entries", "2048", "name", "other"];
    node.run("bpftool", &[&["map", "create", &map], &of_8_mib[..]].concat());
}

fn program_uid(node: &Node) -> Value {
    node.details("tcp-events")["programs"][0]["userID"].clone()
}

/// Returns the real and the effective user of the node's agent, and its permitted capabilities.
fn identity(node: &Node) -> (Vec<String>, u64) {
    let status = fs::read_to_string(format!("/proc/{}/status", node.process())).unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
    let users = field("Uid:").split_whitespace().take(2).map(str::to_owned).collect();
    (users, u64::from_str_radix(field("CapPrm:").trim(), 16).unwrap())
}

/// `CAP_NET_ADMIN`, `CAP_PERFMON` and `CAP_BPF`
const CAPABILITIES: u64 = 1 << 12 | 1 << 38 | 1 << 39;

#[test]
fn a_full_limit_is_named_with_its_user_and_an_own_user_has_one_to_itself() {
    for limit_kib in LIMITS_KIB {
        let mut node = Node::new(&format!("memlock-{limit_kib}"));
        fill(&node);
        seed(&node, "tcp-events", TCP_EVENTS_BTF);
        start(&mut node, limit_kib, None);
        node.until("its report", |node| node.node_status()["node"]["kernelRelease"].is_string());
        // The probe of this needs the limit too, and is answered all the same.
        let is_charged = !node.has_feature("MemoryCgroups");
        if is_charged {
            let refused = node.condition_is("tcp-events", "Ready", "False");
            assert_eq!(refused["reason"], "MapCreateFailed", "{refused}");
            let message = refused["message"].as_str().unwrap();
            for words in [&format!("RLIMIT_MEMLOCK is {limit_kib} KiB"), "user 0", "map my_map", "LimitMEMLOCK"] {
                assert!(message.contains(words), "{message}");
            }
            assert!(!message.contains("CAP_"), "{message}");
        } else {
            node.ready("tcp-events");
        }
        node.stop("TERM");

        start(&mut node, limit_kib, Some(OWN));
        node.ready("tcp-events");
        let user = if is_charged { OWN } else { 0 };
        assert_eq!(program_uid(&node), user);
        assert_eq!(identity(&node), (vec![user.to_string(), "0".to_owned()], CAPABILITIES));
        node.connect(3);
        assert_eq!(node.events("tcp-events")[4], 3);

        // The homes that one made are the other's too, both ways.
        let details = node.verified_details("tcp-events");
        for own in [None, Some(OWN)] {
            node.stop("KILL");
            start(&mut node, limit_kib, own);
            node.ready("tcp-events");
            assert_eq!(node.verified_details("tcp-events"), details, "nothing is loaded again");
        }
        node.remove("tcp-events");
        node.nothing_left();
    }
}

/// Without the capability that this needs, an agent does not run as another user, and says so.
#[test]
fn an_agent_that_may_not_take_a_user_says_so_where_it_needs_one() {
    let mut node = Node::new("memlock-denied");
    let privileges = ["--no-new-privs", "--bounding-set", "-all,+bpf,+net_admin,+perfmon"];
    seed(&node, "tcp-events", TCP_EVENTS_BTF);
    node.start_as(&privileges, &["--memlock-uid", "61000"]);
    node.until("a report or an end", |node| node.has_ended() || node.node_status()["node"]["features"].is_array());
    if node.has_ended() {
        assert!(node.log().contains("setresuid of the real user 61000 (it needs CAP_SETUID)"), "{}", node.log());
        assert!(!node.log().contains("panicked"), "{}", node.log());
    } else {
        assert!(node.has_feature("MemoryCgroups"), "{}", node.log());
    }
}

/// Returns the configuration of a container as the chart's pod has it, on a node with an old kernel if `own`.
fn container(node: &Node, limit_kib: u32, own: bool) -> Value {
    let mut capabilities = vec!["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"];
    let mut arguments: Vec<String> =
        "/sockeye-agent standalone --manifests=/manifests --node-name=test --bpffs=/host/bpf --host-bpffs=/sys/fs/bpf \
         --cgroup-root=/host/cgroup --once"
            .split_whitespace()
            .map(str::to_owned)
            .collect();
    if own {
        capabilities.push("CAP_SETUID");
        arguments.push(format!("--memlock-uid={OWN}"));
    }
    let bytes = limit_kib << 10;
    let bind = |from: &str, to: &str, how: &str| {
        let options = ["rbind", how];
        json!({"destination": to, "type": "bind", "source": from, "options": options})
    };
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc"}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]}),
        bind(&agent_path().display().to_string(), "/sockeye-agent", "ro"),
        bind(node.bpffs(), "/host/bpf", "rw"),
        bind(&node.cgroup().display().to_string(), "/host/cgroup", "ro"),
        bind(&node.folder().display().to_string(), "/manifests", "rw"),
    ];
    // The libraries of an agent that is not static.
    mounts.extend(LIBRARIES.iter().filter(|path| Path::new(path).exists()).map(|path| bind(path, path, "ro")));
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0}, "cwd": "/", "args": arguments, "noNewPrivileges": true,
            "env": ["RUST_LOG=info"],
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "rlimits": [{"type": "RLIMIT_MEMLOCK", "soft": bytes, "hard": bytes}],
        },
        "root": {"path": "rootfs", "readonly": true},
        "mounts": mounts,
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}],
            "readonlyPaths": ["/proc/sys"], "resources": {"devices": [{"allow": false, "access": "rwm"}]},
        },
    })
}

/// The folders of libraries that a machine may have.
const LIBRARIES: [&str; 3] = ["/lib", "/lib64", "/usr/lib"];

/// Runs one pass of an agent in a container.
fn pass_in_container(node: &Node, limit_kib: u32, own: bool) -> Output {
    let bundle = tempfile::tempdir().unwrap();
    let rootfs = bundle.path().join("rootfs");
    for directory in ["proc", "dev", "sys", "host/bpf", "host/cgroup", "manifests"].iter().chain(&LIBRARIES) {
        fs::create_dir_all(rootfs.join(directory.trim_start_matches('/'))).unwrap();
    }
    fs::write(rootfs.join("sockeye-agent"), "").unwrap();
    fs::write(bundle.path().join("config.json"), container(node, limit_kib, own).to_string()).unwrap();
    let (state, bundle) = (bundle.path().join("state").display().to_string(), bundle.path().display().to_string());
    let name = format!("sockeye-test-{}-{limit_kib}", std::process::id());
    node.inside("runc").args(["--root", &state, "run", "--bundle", &bundle, &name]).output().unwrap()
}

/// In a real container, with nothing but what the chart gives it.
#[test]
fn an_agent_in_a_container_has_a_limit_to_itself() {
    let is_guest = fs::read_to_string("/proc/cmdline").unwrap().contains("init=/init");
    if !is_guest || Command::new("runc").arg("--version").output().is_err() {
        println!("NOT TESTED IN A CONTAINER: this needs runc on a machine with cgroup v2 alone (tests/kernels)");
        return;
    }
    for limit_kib in LIMITS_KIB {
        let node = Node::new(&format!("container-{limit_kib}"));
        fill(&node);
        seed(&node, "tcp-events", TCP_EVENTS_BTF);
        let alone = pass_in_container(&node, limit_kib, false);
        let is_charged = !node.has_feature("MemoryCgroups");
        assert_eq!(alone.status.success(), !is_charged, "{}", text(&alone));
        let ready = node.condition("tcp-events", "Ready");
        let message = ready["message"].as_str().unwrap_or_default();
        assert_eq!(message.contains(&format!("RLIMIT_MEMLOCK is {limit_kib} KiB")), is_charged, "{ready}");
        let own = pass_in_container(&node, limit_kib, true);
        assert!(own.status.success(), "{}", text(&own));
        assert_eq!(node.condition("tcp-events", "Ready")["status"], "True", "{}", text(&own));
        // On a newer kernel the first agent has loaded it, as root.
        assert_eq!(program_uid(&node), if is_charged { OWN } else { 0 });
        node.connect(3);
        assert_eq!(node.events("tcp-events")[4], 3);
    }
}
