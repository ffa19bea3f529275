//! Hostile objects: whatever the bytes, the operator and an agent handle them up to the kernel in less than a second
//! and with little memory, report a condition, and keep running.
//!
//! The cases run in a child process, so that one that overflows the stack or fills memory is a failure with a number.
#![allow(clippy::unwrap_used, missing_docs)]

mod bombs;
mod corpus;
mod names;

use aya_obj::btf::Btf;
use sockeye_ebpf::{link::LinkError, programs::fixtures};
use sockeye_ebpf_testing::{
    mutate::{SEEDS, mutant},
    process::{self, ENDS},
    roundtrip::{Outcome, features, roundtrip},
};

/// The possible results of a case.
const NAMES: [&str; ENDS] =
    ["ready for the kernel", "refused by the reader", "refused by aya-obj", "ended by a panic of aya-obj"];

fn index_of(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Ready => 0,
        Outcome::Refused(_) => 1,
        Outcome::Unlinked(LinkError::Step { panicked: true, .. }) => 3,
        Outcome::Unlinked(_) => 2,
    }
}

/// Returns the types of the running kernel.
fn kernel() -> Option<Btf> {
    Btf::from_sys_fs().inspect_err(|error| println!("NOT RELOCATED against the kernel's BTF: {error}")).ok()
}

/// Returns the number of mutants, which is larger in the long form of the tests.
fn cases() -> u64 {
    if std::env::var_os("SOCKEYE_CHAOS").is_some() { 1_000_000 } else { 50_000 }
}

#[test]
fn every_mutant_is_accepted_or_refused_with_a_reason() {
    let tally = process::run("mutants", 0..cases(), NAMES);
    println!("{tally}");
    let [ready, refused, ..] = tally.ends;
    assert_eq!(tally.ends.iter().sum::<u64>(), cases());
    assert!(ready > cases() / 20 && refused > cases() / 20, "both results must occur: {tally}");
}

/// Runs in the child process of `every_mutant_is_accepted_or_refused_with_a_reason`.
#[test]
#[ignore = "run by every_mutant_is_accepted_or_refused_with_a_reason, in a process of its own"]
fn mutants() {
    let mut here = None;
    let small = aya_obj::Object::parse(fixtures::EVERYTHING).unwrap().btf.unwrap();
    process::work(|case| {
        let mutant = mutant(case);
        // Every other round simulates a kernel without features. One round in sixteen uses the running kernel's types,
        // because searching these takes longer than everything else. The others use an object's types instead.
        let round = case / SEEDS.len() as u64;
        let types = if round.is_multiple_of(16) { here.get_or_insert_with(kernel).as_ref() } else { Some(&small) };
        index_of(&roundtrip(&mutant.bytes, mutant.seed.programs, types, &features(round.is_multiple_of(2))))
    });
}

#[test]
fn undamaged_objects_are_ready_for_the_kernel() {
    for seed in &SEEDS {
        for known in [true, false] {
            let outcome = roundtrip(seed.bytes, seed.programs, None, &features(known));
            assert_eq!(outcome, Outcome::Ready, "{}", seed.name);
        }
    }
}
