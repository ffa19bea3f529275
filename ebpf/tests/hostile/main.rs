//! Hostile bytes: what the operator and an agent do with them, up to the kernel, takes less than a second and little memory,
//! ends as a condition, and never ends the process.
//!
//! The cases run in a process of their own, so that one that overflows the stack or the memory is a failure with a number.
#![cfg(all(feature = "fixtures", feature = "link"))]
#![allow(clippy::unwrap_used, missing_docs)]

mod bombs;
mod forge;
mod names;
mod process;

use std::time::Duration;

use sockeye_ebpf::{
    mutate::{SEEDS, mutant},
    trial::{Outcome, features, trial},
};

/// Each case takes less, of a processor's time: none waits for anything, and the machine may be anyone's too.
const SLOWEST: Duration = Duration::from_secs(1);
/// All cases together, one after the other, take no more memory beyond what the process had when it began.
const MOST_KIB: u64 = 64 << 10;

/// How many mutants are met: more in the long form of the tests.
fn cases() -> u64 {
    if std::env::var_os("SOCKEYE_CHAOS").is_some() { 1_000_000 } else { 50_000 }
}

#[test]
fn mutants_end_as_conditions() {
    let tally = process::run("mutants", 0..cases());
    println!("{tally}");
    let [ready, refused, unlinked, panicked] = tally.outcomes;
    assert_eq!(ready + refused + unlinked, cases());
    assert!(ready > cases() / 20 && refused > cases() / 20, "both must be met: {tally}");
    assert!(panicked <= unlinked);
}

#[test]
fn seeds_are_ready_for_the_kernel() {
    for seed in &SEEDS {
        for known in [true, false] {
            let outcome = trial(seed.bytes, seed.programs, None, &features(known));
            assert_eq!(outcome, Outcome::Ready, "{}", seed.name);
        }
    }
}

/// The process of the mutants.
#[test]
#[ignore = "run by mutants_end_as_conditions, in a process of its own"]
fn mutants() {
    process::work(|case, kernel| {
        let mutant = mutant(case);
        // Every other round of seeds meets a kernel that knows nothing, one in sixteen the types of the kernel that is here:
        // to look through these takes longer than all the rest.
        let round = case / SEEDS.len() as u64;
        let types = if round % 16 == 0 { kernel.here() } else { kernel.small() };
        trial(&mutant.bytes, mutant.seed.programs, types, &features(round % 2 == 0))
    });
}
