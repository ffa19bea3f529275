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
use sockeye_ebpf_testing::cases::{built, case};

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
