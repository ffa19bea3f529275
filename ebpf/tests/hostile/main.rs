//! Hostile objects: whatever the bytes, the operator and an agent handle them up to the kernel in less than a second
//! and with little memory, report a condition, and keep running.
//!
//! The cases run in a child process, so that one that overflows the stack or fills memory is a failure with a number.
#![allow(clippy::unwrap_used, missing_docs)]

mod bombs;
mod corpus;
mod names;
mod odd;
mod poisoned;
mod repeated;

use std::fs;

use sockeye_crds::Reason;
use sockeye_ebpf::{object::image::Image, programs::fixtures};
use sockeye_ebpf_testing::{
    kernel::TableKernel,
    mutate::{SEEDS, mutant},
    process::{self, ENDS},
    roundtrip::{Outcome, roundtrip},
};

/// The possible results of a case.
const NAMES: [&str; ENDS] =
    ["ready for the kernel", "refused as an object", "refused for what it lacks", "refused by the linker"];

const fn index_of(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Ready => 0,
        Outcome::Refused(Reason::InvalidObject) => 1,
        Outcome::Refused(_) => 2,
        Outcome::Unlinked(_) => 3,
    }
}

/// Returns a kernel with the types of the running one, and all features or none.
fn kernel(all: bool) -> TableKernel {
    let types = fs::read("/sys/kernel/btf/vmlinux");
    let types = types.inspect_err(|error| println!("NOT RELOCATED against the kernel's BTF: {error}"));
    TableKernel::new(all, types.ok())
}

/// Returns a kernel with the types of an object.
fn small_kernel(all: bool) -> TableKernel {
    let image = Image::parse(fixtures::EVERYTHING).unwrap();
    TableKernel::new(all, Some(image.section_named(".BTF").unwrap().data().unwrap().to_vec()))
}

/// Returns the number of mutants, which is larger in the long form of the tests.
fn cases() -> u64 {
    if std::env::var_os("SOCKEYE_CHAOS").is_some() { 1_000_000 } else { 50_000 }
}

#[test]
fn every_mutant_is_accepted_or_refused_with_a_reason() {
    let tally = process::run("mutants", 0..cases(), NAMES);
    println!("{tally}");
    let [ready, refused, lacking, unlinked] = tally.ends;
    assert_eq!(tally.ends.iter().sum::<u64>(), cases());
    assert!(
        ready > cases() / 20 && refused > cases() / 20 && lacking > 0 && unlinked > 0,
        "all results must occur: {tally}"
    );
}

/// Runs in the child process of `every_mutant_is_accepted_or_refused_with_a_reason`.
#[test]
#[ignore = "run by every_mutant_is_accepted_or_refused_with_a_reason, in a process of its own"]
fn mutants() {
    let mut here = None;
    let small = [true, false].map(small_kernel);
    process::work(|case| {
        let mutant = mutant(case);
        // Every other round simulates a kernel without features. One round in sixteen uses the running kernel's types,
        // the others an object's, in which more is missing.
        let round = case / SEEDS.len() as u64;
        let all = usize::from(!round.is_multiple_of(2));
        let kernel = match round.is_multiple_of(16) {
            true => here.get_or_insert_with(|| kernel(true)),
            false => &small[all],
        };
        index_of(&roundtrip(&mutant.bytes, mutant.seed.programs, kernel))
    });
}

#[test]
fn undamaged_objects_are_ready_for_the_kernel() {
    for seed in &SEEDS {
        for all in [true, false] {
            let outcome = roundtrip(seed.bytes, seed.programs, &small_kernel(all));
            assert_eq!(outcome, Outcome::Ready, "{}", seed.name);
        }
    }
}
