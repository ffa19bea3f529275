//! Candidates for one Lease, under a clock and a network of the test's own: never two leaders, and always one again
//! once the faults are over. No cluster, no waiting.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod handover;
mod random;
mod world;

use std::time::Duration;

use proptest::prelude::*;

use crate::world::{Faults, World};

/// After the last fault one leads within this time: a request of before may arrive until [`LONGEST_DELAY`] later, then
/// the Lease of a dead holder has to end on a clock that is slow by a hundredth, then a failed request is repeated.
const PROGRESS: Duration = Duration::from_secs(19);
const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// Something that happens to a candidate.
#[derive(Clone, Debug)]
enum Action {
    CutOff(usize),
    LoseAnswers(usize),
    BreakWatch(usize),
    Refuse(usize),
    Delay(usize, Duration),
    Mend(usize),
    Suspend(usize, Duration),
    Kill(usize),
    Stop(usize),
    Start(usize),
    Replace(usize),
    Delete,
}

fn action(candidates: usize) -> impl Strategy<Value = Action> {
    let n = || 0..candidates;
    let up_to = |seconds: u64| (0..seconds * 1000).prop_map(Duration::from_millis);
    prop_oneof![
        3 => n().prop_map(Action::CutOff),
        2 => n().prop_map(Action::LoseAnswers),
        1 => n().prop_map(Action::BreakWatch),
        1 => n().prop_map(Action::Refuse),
        3 => (n(), up_to(LONGEST_DELAY.as_secs())).prop_map(|(n, delay)| Action::Delay(n, delay)),
        5 => n().prop_map(Action::Mend),
        2 => (n(), up_to(20)).prop_map(|(n, duration)| Action::Suspend(n, duration)),
        1 => n().prop_map(Action::Kill),
        1 => n().prop_map(Action::Stop),
        4 => n().prop_map(Action::Start),
        2 => n().prop_map(Action::Replace),
        1 => Just(Action::Delete),
    ]
}

/// Actions, each some time after the one before it.
fn schedule(candidates: usize) -> impl Strategy<Value = Vec<(Duration, Action)>> {
    let pause = prop_oneof![Just(0..100u64), Just(0..3_000), Just(0..15_000)].prop_flat_map(|range| range);
    proptest::collection::vec((pause.prop_map(Duration::from_millis), action(candidates)), 0..60)
}

fn act(world: &mut World, action: Action) {
    let change = |world: &mut World, n: usize, change: fn(&mut Faults)| change(&mut world.candidates[n].faults);
    match action {
        Action::CutOff(n) => change(world, n, |faults| faults.is_cut_off = true),
        Action::LoseAnswers(n) => change(world, n, |faults| faults.loses_answers = true),
        Action::BreakWatch(n) => change(world, n, |faults| faults.is_watch_broken = true),
        Action::Refuse(n) => change(world, n, |faults| faults.has_conflicts = true),
        Action::Delay(n, delay) => world.candidates[n].faults.delay = delay,
        Action::Mend(n) => world.mend(n),
        Action::Suspend(n, duration) => world.suspend(n, duration),
        Action::Kill(n) => world.kill(n),
        Action::Stop(n) => world.stop(n),
        Action::Start(n) => world.start(n),
        Action::Replace(n) => world.replace(n),
        Action::Delete => world.delete(),
    }
}

fn case() -> impl Strategy<Value = (usize, u64, Vec<(Duration, Action)>)> {
    (2..=3usize, any::<u64>()).prop_flat_map(|(n, seed)| (Just(n), Just(seed), schedule(n)))
}

fn cases() -> u32 {
    if std::env::var_os("SOCKEYE_CHAOS").is_some() { 100_000 } else { 1_000 }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    /// Any faults follow each other in any order; the world fails where two may write at one time. After the last one a
    /// candidate leads within a bounded time, and stays the leader. Then a renewal every two seconds is all that is
    /// written.
    #[test]
    fn there_are_never_two_leaders_and_soon_one((candidates, seed, actions) in case()) {
        let mut world = World::new(candidates, seed);
        for (pause, action) in actions {
            world.run_for(pause);
            act(&mut world, action);
        }
        world.heal();
        world.run_and_restart_for(PROGRESS);
        let leaders = world.leaders();
        prop_assert_eq!(leaders.len(), 1, "{:?} after the last fault", PROGRESS);
        for _ in 0..100 {
            world.run_for(Duration::from_millis(100));
            prop_assert_eq!(world.leaders(), leaders.clone(), "the leader remains");
        }
        let before = world.requests;
        world.run_for(Duration::from_secs(20));
        let requests = world.requests - before;
        prop_assert!((9..=11).contains(&requests), "{} requests in 20 s", requests);
    }

    /// However it goes wrong, no candidate asks for the Lease more than a few times a second.
    #[test]
    fn requests_are_bounded((candidates, seed, actions) in case()) {
        let mut world = World::new(candidates, seed);
        let (mut taken, mut happened) = (0, 0);
        for (pause, action) in actions {
            world.run_for(pause);
            act(&mut world, action);
            happened += 1;
            taken = world.requests;
        }
        // A read, a write, and a read after its conflict, for each thing that happened; and two a second.
        let bound = candidates * (10 + 4 * happened + 2 * usize::try_from(world.now.as_secs()).unwrap());
        prop_assert!(taken <= bound, "{} requests in {:?}, {} actions", taken, world.now, happened);
    }
}
