//! Refusals on a node: each has a reason and a helpful message, leaves nothing half-made, and disturbs no other
//! BpfProgram.

use std::{fs::File, os::fd::AsFd as _};

use serde_json::{Value, json};
use sockeye_agent::{
    kernel::{
        bpf::{self, Position},
        load,
        running::RunningKernel,
    },
    model::kernel::ProgramKind,
};
use sockeye_crds_testing::provoked;
use sockeye_ebpf::programs::{TCP_EVENTS, TCP_EVENTS_BTF, fixtures};

use crate::node::Node;

/// A node with a BpfProgram that works, and the details of that one.
struct Neighbourhood {
    node: Node,
    before: Value,
}

impl Neighbourhood {
    fn new(name: &str, arguments: &[&str]) -> Self {
        let mut node = Node::new(name);
        node.start_with(arguments);
        node.apply("neighbour", TCP_EVENTS_BTF, at(&[json!({"type": "Node"})]), json!([]));
        node.ready("neighbour");
        let before = node.details("neighbour");
        Self { node, before }
    }

    /// Applies a BpfProgram that is refused on the node, and returns the message.
    fn refused(&self, programs: Value, maps: Value, reason: &str) -> String {
        self.refused_object(TCP_EVENTS_BTF, programs, maps, reason)
    }

    fn refused_object(&self, object: &[u8], programs: Value, maps: Value, reason: &str) -> String {
        let node = &self.node;
        node.apply("refused", object, programs, maps);
        let attached = node.condition_is("refused", "Attached", "False");
        assert_eq!(attached["reason"], reason, "{attached}");
        assert_eq!(node.pins("refused"), Vec::<String>::new(), "something is left half-made");
        assert_eq!(node.details("neighbour"), self.before, "the neighbour was disturbed");
        let message = attached["message"].as_str().unwrap();
        provoked(reason, message);
        message.to_owned()
    }

    /// Waits until the refused BpfProgram recovers by itself, and removes everything.
    fn recovers(self) {
        self.node.ready("refused");
        assert_eq!(self.node.details("neighbour"), self.before);
        self.remove_all();
    }

    fn remove_all(self) {
        self.node.remove("refused");
        self.node.remove("neighbour");
        self.node.nothing_left();
    }
}

fn at(targets: &[Value]) -> Value {
    json!([{"name": "my_prog", "attach": targets}])
}

fn path(path: &str) -> Value {
    json!({"type": "CgroupPath", "cgroupPath": path})
}

#[track_caller]
fn assert_contains(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "nothing of {word:?} in: {message}");
    }
}

#[test]
fn the_65th_program_on_a_cgroup_is_refused() {
    let test = Neighbourhood::new("full", &[]);
    test.node.make_cgroup("full");
    let cgroup = File::open(test.node.cgroup().join("full")).unwrap();
    let kind = ProgramKind { prog_type: 13, attach_type: 3 };
    let mut request = load::Request::default();
    request.programs.insert("my_prog", kind);
    request.maps.insert("my_map", load::MapSource::Create { value_size: 8, max_entries: 10 });
    let foreign = crate::load::load(TCP_EVENTS, request, &RunningKernel::default()).unwrap();
    let program = foreign.programs["my_prog"].as_fd();
    let attach = |_| bpf::link_create(program, cgroup.as_fd(), kind.attach_type, Position::default()).unwrap();
    let links: Vec<_> = (0..bpf::MAX_PROGRAMS_PER_CGROUP).map(attach).collect();

    let message = test.refused(at(&[path("/full")]), json!([]), "AttachFailed");
    assert_contains(&message, &["my_prog", "/full", "64 programs", "remove some"]);
    drop(links);
    test.recovers();
}

#[test]
fn an_exclusive_foreign_attachment_is_named() {
    let test = Neighbourhood::new("exclusive", &[]);
    for cgroup in ["exclusive", "exclusive/below"] {
        test.node.make_cgroup(cgroup);
    }
    let exclusive = test.node.cgroup().join("exclusive").display().to_string();
    let program = format!("{}/programs/my_prog", test.node.home("neighbour"));
    // Without `multi`, as by a tool that allows no other program.
    test.node.run("bpftool", &["cgroup", "attach", &exclusive, "cgroup_sock_ops", "pinned", &program]);
    let id = test.before["programs"][0]["id"].to_string();

    let message = test.refused(at(&[path("/exclusive/below")]), json!([]), "AttachFailed");
    assert_contains(&message, &[&format!("program {id}, attached at cgroup /exclusive "), "multi", "detach it"]);
    let message = test.refused(at(&[path("/exclusive")]), json!([]), "AttachFailed");
    assert_contains(&message, &["attached at cgroup /exclusive "]);
    test.node.run("bpftool", &["cgroup", "detach", &exclusive, "cgroup_sock_ops", "pinned", &program]);
    test.recovers();
}

#[test]
fn a_missing_capability_is_named() {
    let mut node = Node::new("capability");
    node.start_as(&["--bounding-set", "-all,+bpf,+perfmon"], &[]);
    node.apply("refused", TCP_EVENTS_BTF, at(&[json!({"type": "Node"})]), json!([]));
    let attached = node.condition_is("refused", "Attached", "False");
    assert_eq!(attached["reason"], "PermissionDenied", "{attached}");
    assert_contains(attached["message"].as_str().unwrap(), &["my_prog", "CAP_NET_ADMIN"]);
    assert_eq!(node.pins("refused"), Vec::<String>::new());
    node.remove("refused");
    node.nothing_left();
}

#[test]
fn a_path_without_cgroup_v2_directory_is_refused() {
    let test = Neighbourhood::new("paths", &[]);
    let message = test.refused(at(&[path("/nowhere")]), json!([]), "CgroupNotFound");
    assert_contains(&message, &["/nowhere", "create it"]);
    let message = test.refused(at(&[path("/memory/system.slice")]), json!([]), "CgroupNotFound");
    assert_contains(&message, &["cgroup v1", "cgroup v2"]);
    let message = test.refused(at(&[path("/sys/fs/cgroup/system.slice")]), json!([]), "CgroupNotFound");
    assert_contains(&message, &["leave out /sys/fs/cgroup"]);
    let message = test.refused(at(&[json!({"type": "AllPods"})]), json!([]), "CgroupNotFound");
    assert_contains(&message, &["/kubepods"]);
    test.node.make_cgroup("kubepods");
    test.recovers();
}

#[test]
fn a_map_too_large_for_memory_is_refused() {
    let test = Neighbourhood::new("memory", &[]);
    let node = at(&[json!({"type": "Node"})]);
    let largest = json!([{"name": "my_map", "maxEntries": u32::MAX}]);
    let message = test.refused(node.clone(), largest, "MapCreateFailed");
    assert_contains(&message, &["my_map", "not enough memory"]);
    test.node.apply("refused", TCP_EVENTS_BTF, node, json!([]));
    test.recovers();
}

#[test]
fn maps_beyond_the_policy_are_refused() {
    let test = Neighbourhood::new("policy", &["--map-bytes-per-program", "1Mi", "--map-bytes-per-node", "1Mi"]);
    let node = at(&[json!({"type": "Node"})]);
    let of = |entries: u32| json!([{"name": "my_map", "maxEntries": entries}]);
    let message = test.refused(node.clone(), of(1 << 20), "MapBytesExceeded");
    assert_contains(&message, &["8388608", "1048576", "my_map", "policy.mapBytesPerProgram"]);
    let message = test.refused(node.clone(), of(1 << 17), "MapBytesExceeded");
    assert_contains(&message, &["1048656", "policy.mapBytesPerNode"]);
    test.node.apply("refused", TCP_EVENTS_BTF, node, of((1 << 17) - 10));
    test.recovers();
}

/// A new agent reconciles the refused BpfProgram before the one that has the maps.
#[test]
fn maps_beyond_the_policy_are_refused_after_a_restart() {
    let mut node = Node::new("policy-again");
    let bounds = ["--map-bytes-per-node", "1Mi"];
    let of = |entries: u32| json!([{"name": "my_map", "maxEntries": entries}]);
    let refused = |node: &Node| {
        let ready = node.condition_is("a-refused", "Ready", "False");
        assert_eq!(ready["reason"], "MapBytesExceeded", "{ready}");
    };
    node.start_with(&bounds);
    node.apply("holds", TCP_EVENTS_BTF, at(&[json!({"type": "Node"})]), of(1 << 16));
    node.ready("holds");
    node.apply("a-refused", TCP_EVENTS_BTF, at(&[json!({"type": "Node"})]), of(1 << 17));
    refused(&node);
    node.stop("KILL");
    node.forget_log();
    node.start_with(&bounds);
    node.until("its attempt", |node| node.log().contains("MapBytesExceeded"));
    refused(&node);
    assert_eq!(node.pins("a-refused"), Vec::<String>::new());
    for name in ["a-refused", "holds"] {
        node.remove(name);
    }
    node.nothing_left();
}

/// docs/kernels.md lists the kernels that have the type, and probe.rs checks that list.
#[test]
fn a_map_type_that_the_kernel_lacks_is_refused() {
    let test = Neighbourhood::new("storage", &[]);
    let node = at(&[json!({"type": "Node"})]);
    if test.node.has_feature("MapCgrpStorage") {
        test.node.apply("refused", fixtures::STORAGE, node, json!([]));
        test.node.ready("refused");
        let maps = test.node.verified_details("refused")["maps"].clone();
        assert!(maps.as_array().unwrap().iter().any(|map| map["type"] == "CgrpStorage"), "{maps}");
        return test.remove_all();
    }
    let message = test.refused_object(fixtures::STORAGE, node.clone(), json!([]), "KernelUnsupported");
    assert_contains(&message, &["per_cgroup", "CgrpStorage", "6.2", "spec.nodeSelector"]);
    assert!(!test.node.log().contains("step refused"), "no load was to be attempted: {}", test.node.log());
    test.node.apply("refused", TCP_EVENTS_BTF, node, json!([]));
    test.recovers();
}

#[test]
fn a_missing_bpffs_is_reported_and_waited_for() {
    let mut node = Node::new("bpffs");
    node.run("umount", &["/sys/fs/bpf"]);
    node.start();
    node.apply("waiting", TCP_EVENTS_BTF, at(&[json!({"type": "Node"})]), json!([]));
    let attached = node.condition_is("waiting", "Attached", "False");
    assert_eq!(attached["reason"], "BpffsUnusable", "{attached}");
    assert_contains(attached["message"].as_str().unwrap(), &["/sys/fs/bpf", "mount -t bpf"]);
    // Another file system is refused as well.
    node.run("mount", &["-t", "tmpfs", "none", "/sys/fs/bpf"]);
    node.apply("waiting", TCP_EVENTS_BTF, at(&[json!({"type": "Node"})]), json!([]));
    assert_eq!(node.condition_is("waiting", "Attached", "False")["reason"], "BpffsUnusable");
    node.run("umount", &["/sys/fs/bpf"]);
    node.run("mount", &["-t", "bpf", "bpf", "/sys/fs/bpf"]);
    node.ready("waiting");
    node.remove("waiting");
    node.nothing_left();
}

#[test]
fn an_unknown_field_is_refused() {
    let mut node = Node::new("strict");
    node.start();
    let attach = json!([{"type": "Node"}]);
    node.apply("typo", TCP_EVENTS_BTF, json!([{"name": "my_prog", "attach": attach, "atach": []}]), json!([]));
    node.until("the refusal", |node| node.log().contains("unknown field spec.programs[0].atach"));
    let target = json!({"type": "Pods", "pods": {"podSelector": {}, "whenUnselectd": "KeepUntilPodEnds"}});
    node.apply("typo", TCP_EVENTS_BTF, at(&[target]), json!([]));
    let field = "unknown field spec.programs[0].attach[0].pods.whenUnselectd";
    node.until("the refusal", |node| node.log().contains(field));
    assert_eq!(node.pins("typo"), Vec::<String>::new());
}
