//! Hostile bytes: what the operator and an agent do with them, up to the kernel, takes less than a second and little memory,
//! ends as a condition, and never ends the process.
//!
//! The cases run in a process of their own, so that one that overflows the stack or the memory is a failure with a number.
#![cfg(all(feature = "fixtures", feature = "link"))]
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

/// How a case may end.
const NAMES: [&str; ENDS] =
    ["ready for the kernel", "refused by the reader", "refused by aya-obj", "ended by a panic of aya-obj"];

fn end(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Ready => 0,
        Outcome::Refused(_) => 1,
        Outcome::Unlinked(LinkError::Step { panicked: true, .. }) => 3,
        Outcome::Unlinked(_) => 2,
    }
}

/// The types of the kernel that is here.
fn kernel() -> Option<Btf> {
    Btf::from_sys_fs().inspect_err(|error| println!("NOT RELOCATED against the kernel's BTF: {error}")).ok()
}

/// How many mutants are met: more in the long form of the tests.
fn cases() -> u64 {
    if std::env::var_os("SOCKEYE_CHAOS").is_some() { 1_000_000 } else { 50_000 }
}

#[test]
fn mutants_end_as_conditions() {
    let tally = process::run("mutants", 0..cases(), NAMES);
    println!("{tally}");
    let [ready, refused, ..] = tally.ends;
    assert_eq!(tally.ends.iter().sum::<u64>(), cases());
    assert!(ready > cases() / 20 && refused > cases() / 20, "both must be met: {tally}");
}

/// The process of the mutants.
#[test]
#[ignore = "run by mutants_end_as_conditions, in a process of its own"]
fn mutants() {
    let mut here = None;
    let small = aya_obj::Object::parse(fixtures::EVERYTHING).unwrap().btf.unwrap();
    process::work(|case| {
        let mutant = mutant(case);
        // Every other round of seeds meets a kernel that knows nothing, one in sixteen the types of the kernel that is here:
        // to look through these takes longer than all the rest. The others meet an object's, as if it were a kernel.
        let round = case / SEEDS.len() as u64;
        let types = if round.is_multiple_of(16) { here.get_or_insert_with(kernel).as_ref() } else { Some(&small) };
        end(&roundtrip(&mutant.bytes, mutant.seed.programs, types, &features(round.is_multiple_of(2))))
    });
}

#[test]
fn seeds_are_ready_for_the_kernel() {
    for seed in &SEEDS {
        for known in [true, false] {
            let outcome = roundtrip(seed.bytes, seed.programs, None, &features(known));
            assert_eq!(outcome, Outcome::Ready, "{}", seed.name);
        }
    }
}
