//! The operator and the agents in random worlds (docs/reliability.md). What runs is the operator's election, queue,
//! reconciliation and requests, and the agents' controllers, throttles and writers, over a model of the API server and
//! nodes that are values. Time is paused, one thread runs all, and all choices follow from one seed.
//!
//! | file | noun |
//! |---|---|
//! | [`scenario`] | what happens to a world from outside |
//! | [`world`] | a world, and what comes of a scenario |
//! | [`api`] | the model of the API server, and the promises that each write keeps |
//! | [`operator`], [`agent`] | a process: the real parts, and a loop around them without random branches |
//! | [`control_plane`] | what tells which nodes and agents are Ready |
//! | [`node`] | a fake node that checks each plan |
//! | [`invariants`] | what is so once all is quiet |
//! | [`search`] | many worlds, and the smallest one that fails |
//! | [`fault`] | deliberate mistakes, which must be found |
//!
//! `SOCKEYE_SEED` runs the world of one seed, `SOCKEYE_WORLDS` says how many to run. With `SOCKEYE_CHAOS` there are
//! many more, from a random seed on.
//!
//! What differs from a cluster: no process ends in the middle of a control step, there are no pods, sockets, images,
//! signatures or connectivity trials, and all agents are of this version.

#![allow(clippy::unwrap_used, clippy::expect_used)] // Helpers of tests are tests.

mod agent;
mod api;
mod control_plane;
mod fault;
mod invariants;
mod node;
mod operator;
mod random;
mod scenario;
mod search;
mod world;

use std::{
    env,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use self::{
    api::kind::Kind,
    fault::Fault,
    scenario::{Action, Process, Scenario, Spec},
    search::{find, search, shrink},
    world::simulate,
};

/// The number of worlds in `make test`.
const WORLDS: u64 = 800;
/// The number of worlds in `make chaos`.
const CHAOS_WORLDS: u64 = 40_000;
/// A deliberate mistake is found in so many worlds.
const WORLDS_PER_FAULT: u64 = 60;

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn worlds_converge_and_keep_every_promise() {
    let is_chaos = env::var_os("SOCKEYE_CHAOS").is_some();
    let seeds = match number("SOCKEYE_SEED") {
        Some(seed) => seed..seed + number("SOCKEYE_WORLDS").unwrap_or(1),
        None if is_chaos => {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            // Leaves room for those that follow.
            let first = since.as_nanos() as u64 >> 16;
            first..first + number("SOCKEYE_WORLDS").unwrap_or(CHAOS_WORLDS)
        }
        None => 0..number("SOCKEYE_WORLDS").unwrap_or(WORLDS),
    };
    println!("worlds of the seeds {seeds:?}");
    let worlds = seeds.end - seeds.start;
    match search(seeds) {
        Ok(changes) => println!("{worlds} worlds, {changes} changes of objects"),
        Err(found) => {
            let seed = found.scenario.seed;
            panic!("SOCKEYE_SEED={seed}: {:?}\nthe smallest that fails: {:#?}", found.outcome.failure, found.scenario);
        }
    }
}

#[test]
fn a_seed_replays_to_the_same_changes() {
    for seed in 0..8 {
        let scenario = Scenario::of(seed);
        assert_eq!(simulate(&scenario, None), simulate(&scenario, None), "seed {seed}");
    }
}

#[test]
fn each_deliberate_mistake_is_found() {
    for fault in Fault::ALL {
        let found = find(fault, 0..WORLDS_PER_FAULT);
        let found = found.unwrap_or_else(|| panic!("{fault:?} is not found in {WORLDS_PER_FAULT} worlds"));
        println!("{fault:?}: seed {}: {}", found.scenario.seed, found.outcome.failure.unwrap());
    }
}

#[test]
fn a_world_that_fails_is_made_smaller() {
    let found = find(Fault::ReportsOnce, 0..WORLDS_PER_FAULT).unwrap();
    let before = found.scenario.actions.len();
    let smallest = shrink(found.scenario, found.outcome, Some(Fault::ReportsOnce));
    assert!(smallest.outcome.failure.is_some());
    assert!(smallest.scenario.actions.len() <= before.min(3), "{smallest:#?}");
}

const SPEC: Spec = Spec { object: 0, is_for_pods: false, is_selective: false, is_suspended: false, is_valid: true };

/// Runs a world of two nodes.
fn assert_keeps_promises(actions: &[(u64, Action)]) {
    let actions = actions.iter().map(|(seconds, action)| (Duration::from_secs(*seconds), *action));
    let actions: Vec<_> = actions.collect();
    for seed in 0..10 {
        let scenario = Scenario { seed, nodes: 2, actions: actions.clone() };
        assert_eq!(simulate(&scenario, None).failure, None, "seed {seed}");
    }
}

#[test]
fn a_deletion_waits_for_a_node_whose_report_is_missing() {
    assert_keeps_promises(&[
        (5, Action::Apply("p", SPEC)),
        (60, Action::Cut(Process::Agent(1), Duration::from_secs(7))),
        (0, Action::DeleteReport(1)),
        (1, Action::Delete("p")),
    ]);
}

#[test]
fn a_first_report_that_is_empty_ends_a_deletion() {
    assert_keeps_promises(&[
        (5, Action::Apply("p", SPEC)),
        (20, Action::Hold(Process::Operator(0), Kind::Report, Duration::from_secs(15))),
        (0, Action::Hold(Process::Operator(1), Kind::Report, Duration::from_secs(15))),
        (0, Action::Join(2)),
        (8, Action::Delete("p")),
    ]);
}

#[test]
fn a_watch_of_revisions_that_lags_dispatches_nothing_twice() {
    let edited = Spec { object: 2, ..SPEC };
    assert_keeps_promises(&[
        (5, Action::Apply("p", SPEC)),
        (10, Action::Hold(Process::Operator(0), Kind::Revision, Duration::from_secs(20))),
        (0, Action::Hold(Process::Operator(1), Kind::Revision, Duration::from_secs(20))),
        (1, Action::Apply("p", edited)),
        (4, Action::Apply("p", SPEC)),
    ]);
}
