//! What users bring (tests/objects), up to the kernel: each object is loaded as the agent loads it, or refused with
//! words that say what to do.

use std::os::fd::AsFd as _;

use serde_json::{Value, json};
use sockeye_agent::{
    kernel::{
        facts, info,
        load::{Loaded, MapSource, Request, load},
        running::RunningKernel,
    },
    model::{desired::Desired, node_context::NodeContext, observed::Observed},
    node::failure::Failure,
};
use sockeye_crds::{BpfRevision, Reason, revision::ProgramRef};
use sockeye_ebpf::{Object, check::check, values::settings::Settings};
use sockeye_ebpf_testing::cases::{built, case, compiled};

/// Does what an agent does with a BpfProgram up to its first pin.
fn attempt(bytes: &[u8], programs: &Value) -> Result<Loaded, Failure> {
    let spec = json!({"bytecode": {"inline": ""}, "attach": [{"type": "Node"}], "programs": programs});
    let accepted = check(&serde_json::from_value(spec).unwrap(), bytes).unwrap();
    let program = ProgramRef { name: "case".to_owned(), uid: "u".to_owned() };
    let revision = BpfRevision::of(accepted.into_revision_spec(program, 1, 1));
    let context = NodeContext {
        machine: facts::machine().unwrap(),
        features: Vec::new(),
        pods_root: "/".into(),
        pods: Default::default(),
        missing_features: Default::default(),
        regressions: Default::default(),
        has_api: false,
    };
    let desired = Desired::new(&revision, &context, &Observed::default()).unwrap();
    let object = Object::read(bytes).unwrap();
    let settings = Settings::read(&object, &desired.globals, &desired.settings).unwrap();
    let mut request = Request { settings, ..Request::default() };
    request.programs.extend(desired.functions.iter().map(|(name, function)| (name.as_str(), function.kind)));
    for (name, map) in &desired.maps {
        let (value_size, max_entries) = (map.shape.value_size, map.shape.max_entries);
        request.maps.insert(name, MapSource::Create { value_size, max_entries });
    }
    load(&object, request, &RunningKernel::default()).map_err(Failure::from)
}

fn named(programs: &[&str]) -> Value {
    programs.iter().map(|name| json!({"name": name})).collect()
}

#[track_caller]
fn assert_refused(bytes: &[u8], program: &str, reason: Reason, words: &[&str]) {
    let failure = attempt(bytes, &named(&[program])).unwrap_err();
    assert_eq!(failure.reason, reason, "{failure}");
    words.iter().for_each(|word| assert!(failure.message.contains(word), "nothing of {word:?} in: {failure}"));
}

#[test]
fn objects_that_libbpf_loads_are_loaded() {
    for (name, programs) in [
        ("plain", &["count", "direct"][..]),
        ("functions", &["drop", "send"]),
        ("functions-at-one-offset", &["filter"]),
        ("unknown-section", &["count"]),
        ("optional-section", &["maybe", "always"]),
        ("kfunc-of-another-program", &["count"]),
        ("core-of-another-program", &["count"]),
        ("core-of-a-module", &["prog"]),
        ("core-size-of-missing-type", &["count"]),
        ("seventy-programs", &["count"]),
        ("license-padded", &["count"]),
        ("bss-of-3-mib", &["count"]),
        ("legacy-annotated-map", &["count"]),
        ("enum-key", &["prog"]),
        ("padding", &["add"]),
        ("kconfig", &["count"]),
        ("lock-in-data", &["count"]),
        ("lock-in-map", &["count"]),
        ("two-statics", &["prog"]),
    ] {
        let loaded = attempt(&case(name), &named(programs)).unwrap_or_else(|failure| panic!("{name}: {failure}"));
        assert_eq!(loaded.programs.len(), programs.len(), "{name}");
        // The kernel takes no enum as an array's key.
        assert_eq!(!loaded.notes.is_empty(), name == "enum-key", "{name}: {:?}", loaded.notes);
    }
}

#[test]
fn objects_of_all_compilers_are_loaded() {
    for (compiler, name, program) in [
        ("clang-11", "plain", "direct"),
        ("clang-14", "plain", "direct"),
        ("clang-19", "plain", "direct"),
        ("clang-22", "plain", "direct"),
        ("clang-23", "plain", "direct"),
        ("clang-19", "function-without-func-info", "call_bare"),
        ("bpftool-7.8", "lock-in-map", "count"),
    ] {
        let loaded = attempt(&built(compiler, name), &named(&[program]));
        loaded.unwrap_or_else(|failure| panic!("{compiler}: {failure}"));
    }
}

#[test]
fn values_of_the_configuration_reach_the_program() {
    let loaded = attempt(&case("kconfig"), &named(&["count"])).unwrap();
    let map = info::map(loaded.maps[".kconfig"].as_fd()).unwrap();
    assert_eq!((map.value_size, map.max_entries), (4, 1));
}

#[test]
fn a_function_of_the_kernel_is_called_or_named_where_it_is_missing() {
    match attempt(&case("kfunc"), &named(&["redirect"])) {
        Ok(loaded) => assert!(loaded.notes.is_empty(), "{:?}", loaded.notes),
        Err(failure) => {
            assert_eq!(failure.reason, Reason::KernelUnsupported, "{failure}");
            assert!(failure.message.contains("bpf_"), "{failure}");
        }
    }
}

/// Compiles the text of a program `p`.
fn program(text: &str) -> Vec<u8> {
    compiled(&format!(
        "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n#include <bpf/bpf_core_read.h>\nint n;\n{text}\n\
         char LICENSE[] SEC(\"license\") = \"GPL\";\n"
    ))
}

#[test]
fn what_a_kernel_lacks_is_named_whatever_asks_for_it() {
    const READ: &str = "SEC(\"cgroup_skb/egress\") int p(struct __sk_buff *skb) { n = BPF_CORE_READ(";
    for (text, words) in [
        (
            format!(
                "struct never_was {{ int x; }} __attribute__((preserve_access_index));\n\
                 {READ}(struct never_was *)skb, x); return 1; }}"
            ),
            "this kernel has no struct never_was",
        ),
        (
            "enum bpf_map_type___own { BPF_MAP_TYPE_NEVER_WAS = 7 };\n\
             SEC(\"sockops\") int p(struct bpf_sock_ops *ops) { \
             n = bpf_core_enum_value(enum bpf_map_type___own, BPF_MAP_TYPE_NEVER_WAS); return 1; }"
                .to_owned(),
            "bpf_map_type___own has no BPF_MAP_TYPE_NEVER_WAS",
        ),
        (
            "extern int bpf_never_was(int) __ksym;\n\
             SEC(\"sockops\") int p(struct bpf_sock_ops *ops) { return bpf_never_was(1); }"
                .to_owned(),
            "the kernel function \"bpf_never_was\"",
        ),
        (
            "extern int bpf_never_was(int) __ksym __weak;\n\
             SEC(\"sockops\") int p(struct bpf_sock_ops *ops) { return bpf_never_was(1); }"
                .to_owned(),
            "the kernel function bpf_never_was",
        ),
        (
            "SEC(\"sockops\") int p(struct bpf_sock_ops *ops) { return ((int (*)(void))5000)() & 1; }".to_owned(),
            "no helper of that number",
        ),
    ] {
        assert_refused(&program(&text), "p", Reason::KernelUnsupported, &[words]);
    }
}

#[test]
fn what_no_kernel_takes_is_told_with_its_cause() {
    let lock = "struct value { struct bpf_spin_lock lock; int n; };\n\
                struct { __uint(type, BPF_MAP_TYPE_LRU_HASH); __uint(max_entries, 8); __type(key, int); \
                __type(value, struct value); } m SEC(\".maps\");\n\
                SEC(\"cgroup_skb/egress\") int p(struct __sk_buff *skb) { int key = 0; \
                struct value *v = bpf_map_lookup_elem(&m, &key); \
                if (v) { bpf_spin_lock(&v->lock); v->n++; bpf_spin_unlock(&v->lock); } return 1; }";
    let words = ["map m has no types", "maps of type LruHash can't have the spin lock"];
    assert_refused(&program(lock), "p", Reason::VerifierRejected, &words);
    let table = "static int f(int x) { return x + 1; }\nstatic int g(int x) { return x + 2; }\n\
                 int (*const table[])(int) = { f, g };\n\
                 SEC(\"sockops\") int p(struct bpf_sock_ops *ops) { return table[ops->op & 1](3) & 1; }";
    assert_refused(&program(table), "p", Reason::VerifierRejected, &["through a pointer"]);
    let flags = "struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(map_flags, 0x400); __uint(max_entries, 2); \
                 __type(key, int); __type(value, long); } m SEC(\".maps\");\n\
                 SEC(\"sockops\") int p(struct bpf_sock_ops *ops) { int key = 0; \
                 return !bpf_map_lookup_elem(&m, &key); }";
    let words = ["type Hash, keys of 4 bytes, values of 8, 2 entries, flags 0x400"];
    assert_refused(&program(flags), "p", Reason::MapCreateFailed, &words);
}

#[test]
fn a_refusal_names_what_the_kernel_lacks_and_the_line_of_the_source() {
    assert_refused(
        &case("core-missing-field"),
        "count",
        Reason::KernelUnsupported,
        &["struct task_struct___m has no renamed_long_ago", "<byte_off>", "core-missing-field.bpf.c:"],
    );
    assert_refused(&case("license-none"), "count", Reason::VerifierRejected, &["GPL", "license-none.bpf.c:"]);
}
