//! Hostile objects up to the kernel: mutants are loaded as the agent loads them, and are applied to a running agent.

use std::fs;

use serde_json::{Value, json};
use sockeye_agent::{
    kernel::{
        facts,
        load::{MapSource, Request, load},
        running::RunningKernel,
    },
    model::{desired::Desired, node_context::NodeContext, observed::Observed},
    node::failure::Failure,
    plan::quota::MapQuota,
};
use sockeye_crds::{BpfRevision, Reason, Refusal, names::lines, revision::ProgramRef};
use sockeye_ebpf::{
    Object,
    check::check,
    programs::{TCP_EVENTS, TCP_EVENTS_BTF, fixtures},
};
use sockeye_ebpf_testing::{
    mutate::{Mutant, Seed, mutant},
    process::{self, ENDS},
    roundtrip::spec,
};

use crate::node::Node;

/// The outcomes of a case.
const NAMES: [&str; ENDS] = ["loaded", "refused by the check", "refused as an object", "refused by policy or kernel"];

/// Returns the number of mutants to load: more in the long form of the tests.
fn cases() -> u64 {
    if std::env::var_os("SOCKEYE_CHAOS").is_some() { 100_000 } else { 5_000 }
}

#[test]
fn mutants_are_loaded_or_refused_for_a_reason() {
    let tally = process::run("hostile::mutants", 0..cases(), NAMES);
    println!("{tally}");
    let [loaded, .., kernel] = tally.ends;
    assert!(loaded > cases() / 50 && kernel > cases() / 50, "too few reach the kernel: {tally}");
}

/// The job of the mutants. Nothing is attached or pinned, so the kernel frees everything with its descriptors.
#[test]
#[ignore = "run by mutants_are_loaded_or_refused_for_a_reason, in a process of its own"]
fn mutants() {
    let machine = facts::machine().unwrap();
    let context = NodeContext {
        machine,
        features: Vec::new(),
        pods_root: "/".into(),
        pods: Default::default(),
        missing_features: Default::default(),
        regressions: Default::default(),
        has_api: false,
    };
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let (kernel, mut before) = (RunningKernel::default(), None);
    // Its features are asked for once, by programs and maps of its own.
    let _ = sockeye_agent::kernel::link_features::features();
    process::work(|case| {
        let before = *before.get_or_insert_with(descriptors);
        let end = attempt(&mutant(case), &context, &kernel);
        assert_eq!(descriptors(), before, "a descriptor is left");
        match end {
            Ok(()) => 0,
            Err((end, failure)) => {
                let Failure { message, verifier_log, .. } = failure;
                assert!(message.len() <= 2048 && lines(&message) == message, "{message:?}");
                assert!(!message.contains(['\n', '\t']), "{message:?}");
                let log = verifier_log.unwrap_or_default();
                assert!(log.len() <= 8192 && lines(&log) == log, "{log:?}");
                end
            }
        }
    });
}

/// Does what an agent does with a BpfProgram up to its first pin. Returns the step at which that failed.
fn attempt(mutant: &Mutant, context: &NodeContext, kernel: &RunningKernel) -> Result<(), (usize, Failure)> {
    let Mutant { seed, bytes } = mutant;
    let accepted = check(&spec(seed.programs), bytes).map_err(|refusal| (1, refusal_of(refusal)))?;
    let program = ProgramRef { name: "mutant".to_owned(), uid: "u".to_owned() };
    let revision = BpfRevision::of(accepted.into_revision_spec(program, 1, 1));
    let desired = Desired::new(&revision, context, &Observed::default()).map_err(|refusal| (3, refusal.into()))?;
    let policy = MapQuota { map_bytes_per_program: Some(16 << 20), map_bytes_per_node: None };
    policy.admit(&desired, || 0, &context.machine).map_err(|refusal| (3, refusal.into()))?;
    let mut request = Request::default();
    request.programs.extend(desired.functions.iter().map(|(name, function)| (name.as_str(), function.kind)));
    for (name, map) in &desired.maps {
        let (value_size, max_entries) = (map.shape.value_size, map.shape.max_entries);
        request.maps.insert(name, MapSource::Create { value_size, max_entries });
    }
    let object = Object::read(bytes).map_err(|error| (2, Failure::new(Reason::InvalidObject, error.to_string())))?;
    load(&object, request, kernel).map(drop).map_err(|error| {
        let failure = Failure::from(error);
        let end = if failure.reason == Reason::InvalidObject { 2 } else { 3 };
        (end, failure)
    })
}

fn refusal_of(refusal: Refusal) -> Failure {
    Failure::new(refusal.reason, refusal.message)
}

/// The verifier quotes lines of source from the object.
#[test]
fn a_verifier_log_contains_no_terminal_control_characters() {
    let source = b"return *value != 0;";
    let mut bytes = fixtures::REFUSED.to_vec();
    let at = bytes.windows(source.len()).position(|window| window == source).unwrap();
    bytes[at..at + 4].copy_from_slice(b"\x1b[2J");
    let context = NodeContext {
        machine: facts::machine().unwrap(),
        features: Vec::new(),
        pods_root: "/".into(),
        pods: Default::default(),
        missing_features: Default::default(),
        regressions: Default::default(),
        has_api: false,
    };
    let seed = Seed { name: "refused", bytes: fixtures::REFUSED, programs: &["my_prog"] };
    let (_, failure) = attempt(&Mutant { seed, bytes }, &context, &RunningKernel::default()).unwrap_err();
    assert_eq!(failure.reason, Reason::VerifierRejected, "{failure}");
    let log = failure.verifier_log.unwrap();
    assert!(log.contains("?[2Jrn *value") && log.contains('\n') && lines(&log) == log, "{log:?}");
}

/// A BpfProgram that works runs beside the mutants, undisturbed.
#[test]
fn an_agent_reports_the_outcome_of_each_mutant() {
    let mut node = Node::new("hostile");
    node.start_with(&["--map-bytes-per-program", "16Mi"]);
    let attach = json!([{"type": "Node"}]);
    node.apply("neighbour", TCP_EVENTS_BTF, json!([{"name": "my_prog", "attach": attach}]), json!([]));
    node.ready("neighbour");
    let before = node.details("neighbour");
    let idle = node.peak_kib();

    // All of a round side by side; the next round replaces them. A cgroup takes 64 programs of a type.
    let rounds: u64 = if std::env::var_os("SOCKEYE_CHAOS").is_some() { 100 } else { 5 };
    let names: Vec<String> = (0..50).map(|index| format!("mutant-{index}")).collect();
    for round in 0..rounds {
        let case = |index: usize| 50 * round + index as u64;
        let applied: Vec<u32> = names.iter().enumerate().map(|(index, name)| apply(&node, name, case(index))).collect();
        for (index, name) in names.iter().enumerate() {
            node.until(&format!("the outcome of case {}", case(index)), |node| {
                let [accepted, ready] = ["Accepted", "Ready"].map(|type_| node.condition(name, type_));
                let is_final = accepted["status"] == "False" || !ready.is_null() && ready["reason"] != "Progressing";
                node.is_status_of(name, applied[index]) && is_final
            });
            for condition in ["Accepted", "Ready"].map(|type_| node.condition(name, type_)) {
                let message = condition["message"].as_str().unwrap();
                assert!(lines(message) == message && !message.contains('\n'), "case {}: {condition}", case(index));
                let reason: Reason = serde_json::from_value(condition["reason"].clone()).unwrap();
                assert_ne!(reason, Reason::Other, "case {}: {condition}", case(index));
            }
        }
    }
    assert_eq!(node.details("neighbour"), before, "the neighbour was disturbed");
    let grown = node.peak_kib() - idle;
    assert!(grown < 64 << 10, "{grown} KiB beyond idle");
    let log = node.log();
    assert!(log.lines().all(|line| line.len() < 8192 && !line.chars().any(|c| c.is_control())), "{log:?}");
    assert!(!log.contains("backtrace") && !log.contains("panicked"), "{log}");
    println!("{} mutants reported by a running agent; {:.1} MiB beyond idle", 50 * rounds, f64::from(grown) / 1024.0);
    names.iter().for_each(|name| node.remove(name));
    node.remove("neighbour");
    node.nothing_left();
}

/// Returns the object with a `.BTF.ext` that can't be read.
fn with_damaged_records(object: &[u8]) -> Vec<u8> {
    let records = Object::read(object).unwrap().image().section_named(".BTF.ext").unwrap().data().unwrap();
    let at = object.windows(records.len()).position(|window| window == records).unwrap();
    let mut bytes = object.to_vec();
    bytes[at] = 0;
    bytes
}

#[test]
fn an_agent_notes_records_that_it_can_not_read_or_refuses_what_needs_types() {
    let mut node = Node::new("records");
    node.start();
    let programs = json!([{"name": "my_prog", "attach": [{"type": "Node"}]}]);
    node.apply("noted", &with_damaged_records(TCP_EVENTS), programs.clone(), json!([]));
    node.ready("noted");
    let notes = node.details("noted")["notes"].clone();
    let is_there = |note: &Value| {
        let note = note.as_str().unwrap();
        note.starts_with("CO-RE relocations, functions and lines are not known: ") && note.contains(".BTF.ext")
    };
    assert!(notes.as_array().is_some_and(|notes| notes.iter().any(is_there)), "{notes}");
    // Its map is defined by types.
    node.apply("refused", &with_damaged_records(TCP_EVENTS_BTF), programs, json!([]));
    let accepted = node.condition_is("refused", "Accepted", "False");
    assert_eq!(accepted["reason"], "InvalidObject");
    let message = accepted["message"].as_str().unwrap();
    assert!(message.contains("my_map") && message.contains("build the object anew"), "{message}");
    node.remove("noted");
    node.remove("refused");
    node.nothing_left();
}

fn apply(node: &Node, name: &str, case: u64) -> u32 {
    let Mutant { seed, bytes } = mutant(case);
    let attach = json!([{"type": "Node"}]);
    let programs: Vec<_> = seed.programs.iter().map(|name| json!({"name": name, "attach": attach})).collect();
    node.apply(name, &bytes, json!(programs), json!([]))
}
