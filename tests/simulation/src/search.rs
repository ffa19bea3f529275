//! [`search`]: runs worlds, and makes the first that fails as small as it can.

use std::ops::Range;

use crate::{
    fault::Fault,
    scenario::Scenario,
    world::{Outcome, simulate},
};

/// A failure is shrunk in at most so many worlds.
const MAX_SHRINKS: usize = 300;

/// A world that fails, as small as it could be made.
#[derive(Debug)]
pub struct Found {
    pub scenario: Scenario,
    pub outcome: Outcome,
}

/// Runs the worlds of these seeds. Returns the number of changes in all, or the first that fails.
pub fn search(seeds: Range<u64>) -> Result<usize, Box<Found>> {
    let mut changes = 0;
    for seed in seeds {
        let scenario = Scenario::of(seed);
        let outcome = simulate(&scenario, None);
        changes += outcome.changes;
        if outcome.failure.is_some() {
            return Err(Box::new(shrink(scenario, outcome, None)));
        }
    }
    Ok(changes)
}

/// Finds a world in which a deliberate mistake breaks a promise.
pub fn find(fault: Fault, seeds: Range<u64>) -> Option<Found> {
    seeds.map(Scenario::of).find_map(|scenario| {
        let outcome = simulate(&scenario, Some(fault));
        outcome.failure.is_some().then_some(Found { scenario, outcome })
    })
}

/// Leaves out nodes and actions for as long as the world fails, be it in another way.
pub fn shrink(scenario: Scenario, outcome: Outcome, fault: Option<Fault>) -> Found {
    let (mut found, mut left) = (Found { scenario, outcome }, MAX_SHRINKS);
    loop {
        let smaller = found.scenario.smaller().into_iter().take(left).find_map(|scenario| {
            left -= 1;
            let outcome = simulate(&scenario, fault);
            outcome.failure.is_some().then_some(Found { scenario, outcome })
        });
        match smaller {
            Some(smaller) => found = smaller,
            None => return found,
        }
    }
}
