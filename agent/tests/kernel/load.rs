//! The loader alone, without an agent.

use std::{fs, os::fd::AsFd as _, process::Command};

use serde_json::json;
use sockeye_agent::{
    kernel::{
        bpf, facts, info,
        kernel_features::KernelFeatures,
        load::{self, LoadError, Loaded, MapSource, Request},
        running::RunningKernel,
    },
    model::{kernel::ProgramKind, map_shape::MapShape},
};
use sockeye_ebpf::{
    Object,
    programs::{TCP_EVENTS_BTF, fixtures},
};

use crate::node::Node;

/// `BPF_PROG_TYPE_SOCK_OPS`, `BPF_CGROUP_SOCK_OPS`
const SOCK_OPS: ProgramKind = ProgramKind { prog_type: 13, attach_type: 3 };

/// Loads an object as the agent does.
pub fn load(bytes: &[u8], request: Request<'_>, kernel: &RunningKernel) -> Result<Loaded, LoadError> {
    load::load(&Object::read(bytes).unwrap(), request, kernel)
}

fn request<'a>(program: &'a str, map: &'a str, value_size: u32, max_entries: u32) -> Request<'a> {
    let mut request = Request::default();
    request.programs.insert(program, SOCK_OPS);
    request.maps.insert(map, MapSource::Create { value_size, max_entries });
    request
}

#[test]
fn the_kernels_types_are_read_once_and_only_for_an_object_that_needs_them() {
    let kernel = RunningKernel::default();
    for _ in 0..2 {
        let loaded = load(TCP_EVENTS_BTF, request("my_prog", "my_map", 8, 10), &kernel).unwrap();
        let program = info::program(loaded.programs["my_prog"].as_fd()).unwrap();
        let map = info::map(loaded.maps["my_map"].as_fd()).unwrap();
        assert_eq!(program.map_ids, [map.id]);
        assert!(!kernel.has_read_types(), "no relocation asks for it");
    }
    let first = load(fixtures::CORE, request("read_rtt", "smoothed", 4, 1), &kernel).unwrap();
    assert!(kernel.has_read_types());
    let second = load(fixtures::CORE, request("read_rtt", "smoothed", 4, 1), &kernel).unwrap();
    let tag = |loaded: &Loaded| info::program(loaded.programs["read_rtt"].as_fd()).unwrap().tag;
    assert_eq!(tag(&first), tag(&second));
}

/// Returns the number of a process's mappings of the kernel's types.
fn mappings(process: &str) -> usize {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    maps.lines().filter(|line| line.ends_with(" /sys/kernel/btf/vmlinux")).count()
}

/// Runs itself again, in a process in which no other test maps anything.
#[test]
fn the_kernels_types_are_mapped_where_possible_and_dropped() {
    const ALONE: &str = "SOCKEYE_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let name = "load::the_kernels_types_are_mapped_where_possible_and_dropped";
        let mut again = Command::new(std::env::current_exe().unwrap());
        let run = again.args(["--exact", name]).env(ALONE, "1").output().unwrap();
        let words = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success() && words.contains("1 passed"), "{words}");
        return;
    }
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse().unwrap_or(0));
    // `btf_sysfs_vmlinux_mmap` of kernel/bpf/sysfs_btf.c
    let can_be_mapped = (numbers.next().unwrap(), numbers.next().unwrap()) >= (6, 16);
    let mut kernel = RunningKernel::default();
    for _ in 0..2 {
        assert_eq!(mappings("self"), 0);
        load(fixtures::CORE, request("read_rtt", "smoothed", 4, 1), &kernel).unwrap();
        load(fixtures::CORE, request("read_rtt", "smoothed", 4, 1), &kernel).unwrap();
        assert_eq!(mappings("self"), usize::from(can_be_mapped), "{release}");
        kernel.forget();
        assert!(!kernel.has_read_types());
    }
    assert_eq!(mappings("self"), 0);
}

#[test]
fn an_agent_drops_the_kernels_types_within_seconds() {
    let mut node = Node::new("types");
    node.start();
    let attach = json!([{"name": "read_rtt", "attach": [{"type": "Node"}]}]);
    node.apply("core", fixtures::CORE, attach, json!([]));
    node.ready("core");
    node.until("the end of its mapping", |node| mappings(&node.process().to_string()) == 0);
    node.remove("core");
    node.nothing_left();
}

#[test]
fn a_load_uses_the_map_that_it_is_given() {
    let kernel = RunningKernel::default();
    let mut first = load(TCP_EVENTS_BTF, request("my_prog", "my_map", 8, 10), &kernel).unwrap();
    let map = first.maps.remove("my_map").unwrap();
    let id = info::map(map.as_fd()).unwrap().id;
    let mut again = Request::default();
    again.programs.insert("my_prog", SOCK_OPS);
    again.maps.insert("my_map", MapSource::Reuse(map));
    let second = load(fixtures::TWICE, again, &kernel).unwrap();
    assert_eq!(info::program(second.programs["my_prog"].as_fd()).unwrap().map_ids, [id]);
}

#[test]
fn a_load_error_names_the_missing_or_refused_program() {
    let kernel = RunningKernel::default();
    let missing = load(TCP_EVENTS_BTF, request("other", "my_map", 8, 10), &kernel).unwrap_err();
    assert!(matches!(&missing, LoadError::Missing(what) if what == "program other"), "{missing}");
    let refused = load(fixtures::REFUSED, request("my_prog", "my_map", 8, 10), &kernel).unwrap_err();
    let LoadError::Program { name, log, rejection, .. } = refused else { panic!("{refused}") };
    assert_eq!(name, "my_prog");
    assert!(log.contains("map_value_or_null"), "{log}");
    let source = rejection.source.unwrap();
    assert!(source.file.ends_with("refused.bpf.c") && source.text.contains("*value"), "{source}");
    let without = load(TCP_EVENTS_BTF, request("my_prog", "other", 8, 10), &kernel).unwrap_err();
    assert!(matches!(&without, LoadError::Missing(what) if what == "map other"), "{without}");
}

/// The policy computes the size of a map before its creation. A kernel without `MapMemory` reports whole pages instead,
/// from the sizes of entries alone.
#[test]
fn the_computed_size_of_a_map_is_close_to_what_the_kernel_charges() {
    let machine = facts::machine().unwrap();
    let is_charged = KernelFeatures::probe().has.contains("MapMemory");
    for (name, map_type, key_size, value_size, max_entries) in [
        ("hash", 1, 4, 8, 10_000),
        ("array", 2, 4, 8, 100_000),
        ("array-odd", 2, 4, 13, 100_000),
        ("percpu-hash", 5, 8, 16, 10_000),
        ("percpu-array", 6, 4, 64, 10_000),
        ("lru-hash", 9, 16, 32, 10_000),
        ("ringbuf", 27, 0, 0, 1 << 20),
    ] {
        let shape = MapShape { map_type, key_size, value_size, max_entries, flags: 0 };
        let attr = bpf::MapAttr { name, map_type, key_size, value_size, max_entries, ..bpf::MapAttr::default() };
        let fd = bpf::map_create(&attr).unwrap();
        let (charged, counted) = (info::map(fd.as_fd()).unwrap().memlock_bytes, shape.bytes(&machine));
        if !is_charged {
            let entries = u64::from(max_entries) * u64::from((key_size + value_size).next_multiple_of(8));
            assert_eq!(charged, entries.next_multiple_of(machine.page.into()), "{name}");
            continue;
        }
        let ratio = counted as f64 / charged as f64;
        assert!((0.8..1.25).contains(&ratio), "{name}: {counted} counted, {charged} charged");
    }
}
