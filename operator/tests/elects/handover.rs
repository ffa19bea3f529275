//! How soon another candidate leads after each end of a leader, and what a deletion does.

use std::time::Duration;

use sockeye_operator::leader::election::{End, RENEW_DEADLINE};

use crate::world::World;

/// The Lease lasts ten seconds from the last renewal, seen late by a message's delay.
const AFTER_DEATH: Duration = Duration::from_millis(10_300);

/// Starts candidates, and returns the one that leads.
fn led(candidates: usize, seed: u64) -> (World, usize) {
    let mut world = World::new(candidates, seed);
    let took = world.time_to_leader(Duration::from_secs(1)).unwrap();
    assert!(took < Duration::from_millis(200), "the first leader waits for nobody: {took:?}");
    world.run_for(Duration::from_millis(5_000 + seed * 37 % 3_000));
    let leader = world.leaders()[0];
    (world, leader)
}

#[test]
fn a_stopped_leader_is_followed_once_its_writers_have_stopped() {
    for seed in 0..200 {
        let (mut world, leader) = led(3, seed);
        world.stop(leader);
        world.run_for(Duration::from_millis(1_300));
        let leaders = world.leaders();
        assert!(leaders.len() == 1 && leaders[0] != leader, "{leaders:?} after {leader}");
        assert_eq!(world.candidates[leader].ends, [End::Stopped]);
    }
}

#[test]
fn a_dead_leader_is_followed_when_its_lease_ends() {
    for seed in 0..200 {
        let (mut world, leader) = led(2, seed);
        world.kill(leader);
        let took = world.time_to_leader(Duration::from_secs(15)).unwrap();
        assert!((Duration::from_millis(7_900)..AFTER_DEATH).contains(&took), "{took:?}");
        assert_eq!(world.leaders(), [1 - leader]);
    }
}

#[test]
fn a_container_that_starts_again_need_not_wait_for_its_own_lease() {
    let (mut world, leader) = led(1, 1);
    world.kill(leader);
    world.start(leader);
    assert!(world.time_to_leader(Duration::from_millis(200)).is_some());
}

#[test]
fn a_single_replica_leads_at_once_after_a_release_and_waits_after_a_death() {
    let (mut world, leader) = led(1, 1);
    world.stop(leader);
    world.run_for(Duration::from_secs(2));
    world.replace(leader);
    assert!(world.time_to_leader(Duration::from_millis(200)).is_some());
    world.kill(leader);
    world.replace(leader);
    let took = world.time_to_leader(Duration::from_secs(15)).unwrap();
    assert!((Duration::from_millis(9_800)..AFTER_DEATH).contains(&took), "{took:?}");
}

#[test]
fn a_candidate_whose_write_is_answered_too_late_takes_the_lease_again() {
    let mut paused = 0;
    for seed in 0..200 {
        let mut world = World::new(1, seed);
        world.run_for(Duration::from_millis(seed % 60));
        if world.leaders().is_empty() {
            world.suspend(0, RENEW_DEADLINE + Duration::from_secs(1));
            world.run_for(Duration::from_secs(9));
            assert_eq!(world.leaders(), [0]);
            assert!(world.candidates[0].ends.is_empty());
            paused += 1;
        }
    }
    assert!(paused > 50);
}

#[test]
fn a_leader_that_is_cut_off_ends_before_another_leads() {
    for seed in 0..200 {
        let (mut world, leader) = led(2, seed);
        world.candidates[leader].faults.is_cut_off = true;
        world.run_for(RENEW_DEADLINE + Duration::from_millis(200));
        assert_eq!(world.candidates[leader].ends, [End::Late]);
        assert!(world.leaders().is_empty());
        assert!(world.time_to_leader(Duration::from_secs(4)).is_some());
    }
}

#[test]
fn a_leader_survives_three_seconds_without_an_answer() {
    for seed in 0..200 {
        let (mut world, leader) = led(2, seed);
        world.candidates[leader].faults.loses_answers = true;
        world.run_for(Duration::from_secs(3));
        world.mend(leader);
        world.run_for(Duration::from_secs(10));
        assert_eq!(world.leaders(), [leader]);
        assert!(world.candidates[leader].ends.is_empty());
    }
}

#[test]
fn a_broken_watch_delays_a_follower_by_seconds() {
    for seed in 0..200 {
        let (mut world, leader) = led(2, seed);
        world.candidates[1 - leader].faults.is_watch_broken = true;
        world.run_for(Duration::from_secs(30));
        world.kill(leader);
        let took = world.time_to_leader(Duration::from_secs(20)).unwrap();
        assert!(took < AFTER_DEATH + Duration::from_secs(4), "{took:?}");
    }
}

#[test]
fn a_deleted_lease_is_its_holders_who_creates_it_again_at_once() {
    for seed in 0..200 {
        let (mut world, leader) = led(3, seed);
        world.delete();
        world.run_for(Duration::from_millis(200));
        assert_eq!(world.leaders(), [leader]);
        world.run_for(Duration::from_secs(20));
        assert_eq!(world.leaders(), [leader]);
        assert!(world.candidates.iter().all(|candidate| candidate.ends.is_empty()));
    }
}

#[test]
fn a_deleted_lease_of_a_dead_holder_is_free_when_it_would_have_ended() {
    let (mut world, leader) = led(2, 1);
    world.kill(leader);
    world.delete();
    let took = world.time_to_leader(Duration::from_secs(15)).unwrap();
    assert!((Duration::from_secs(7)..AFTER_DEATH).contains(&took), "{took:?}");
}
