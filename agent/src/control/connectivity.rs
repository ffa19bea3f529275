//! `Trials`: connectivity trials. A program that can deny traffic is on trial after it was attached: if this node can't
//! reach the API server any more, the program is reverted. Pure: the noted states, the time and the outcome of each
//! probe come in as arguments, and the states to note come out.
//!
//! | noted state | the API server | next state | and |
//! |---|---|---|---|
//! | Open | can't be reached, three times in a row | Suspected | the program is reverted |
//! | | is reached, after half a minute | Passed | |
//! | Suspected | is reached, soon | Reverted | until another revision is assigned |
//! | | is reached, later, three times in a row | Reprieved | the program is attached once more, and noted as Reopened |
//! | Reopened | can't be reached, three times in a row | Reverted | the program is reverted |
//! | | is reached, after half a minute | Passed | |
//!
//! Nothing is attached again as long as the API server can't be reached: a program that cuts off the API server's own
//! node would keep it away for longer than any wait, and attaching it again would keep it away for good.
//!
//! The noted state outlives the agent. A new agent does not know since when a program is suspected, and assumes long
//! ago: the reopened trial then finds out what is to blame.

use std::{
    collections::BTreeMap,
    mem,
    time::{Duration, Instant},
};

use crate::model::trial::{Trial, TrialState};

/// The duration of a trial.
const WINDOW: Duration = Duration::from_secs(30);
/// The API server is probed at this interval meanwhile.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// This many probes in a row with the same outcome are no accident.
const ENOUGH: u32 = 3;
/// A program is to blame if the API server is reached within this long after it was reverted.
const RELIEF: Duration = Duration::from_secs(15);

/// The trials of one node.
#[derive(Debug, Default)]
pub struct Trials {
    running: BTreeMap<String, RunningTrial>,
    next: Option<Instant>,
}

/// One undecided trial.
#[derive(Clone, Debug)]
struct RunningTrial {
    noted: Trial,
    /// When this agent first saw the state; absent where an earlier agent noted it.
    since: Option<Instant>,
    /// The number of probes in a row whose outcome would change the state.
    in_a_row: u32,
}

impl RunningTrial {
    fn probed(&mut self, reached: bool, sent: Instant, now: Instant) -> Option<TrialState> {
        // That probe says nothing about what was attached after it was sent.
        if self.since.is_some_and(|since| since > sent) {
            return None;
        }
        let within = |time: Duration| self.since.is_some_and(|since| now.duration_since(since) < time);
        let (soon, over) = (within(RELIEF), !within(WINDOW));
        let noted = self.noted.state;
        self.in_a_row = if reached == noted.is_open() { 0 } else { self.in_a_row + 1 };
        let enough = self.in_a_row >= ENOUGH;
        match noted {
            TrialState::Open if enough => Some(TrialState::Suspected),
            TrialState::Reopened if enough => Some(TrialState::Reverted),
            TrialState::Open | TrialState::Reopened => (reached && over).then_some(TrialState::Passed),
            TrialState::Suspected if reached && soon => Some(TrialState::Reverted),
            TrialState::Suspected => enough.then_some(TrialState::Reprieved),
            TrialState::Reprieved | TrialState::Passed | TrialState::Reverted => None,
        }
    }
}

impl Trials {
    /// Takes the noted states of all undecided trials. The trial of another revision is another one.
    pub fn follow(&mut self, undecided: BTreeMap<String, Trial>, now: Instant) {
        let before = mem::take(&mut self.running);
        let trial = |(name, noted): (String, Trial)| {
            let trial = match before.get(&name) {
                Some(trial) if trial.noted == noted => trial.clone(),
                None if noted.state == TrialState::Suspected => RunningTrial { noted, since: None, in_a_row: 0 },
                _ => RunningTrial { noted, since: Some(now), in_a_row: 0 },
            };
            (name, trial)
        };
        self.running = undecided.into_iter().map(trial).collect();
        self.next = (!self.running.is_empty()).then(|| self.next.unwrap_or(now + PROBE_INTERVAL));
    }

    /// Returns when to probe next, if at all.
    pub const fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Takes the outcome of a probe that was `sent` then; returns the states that follow. One that could not be noted
    /// follows from the next probe too.
    pub fn probed(&mut self, reached: bool, sent: Instant, now: Instant) -> BTreeMap<String, TrialState> {
        self.next = Some(now + PROBE_INTERVAL);
        let running = self.running.iter_mut();
        running.filter_map(|(name, trial)| Some((name.clone(), trial.probed(reached, sent, now)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use TrialState::{Passed, Reprieved, Reverted, Suspected};
    use proptest::prelude::*;

    use super::*;

    fn guard(revision: &str, state: TrialState) -> BTreeMap<String, Trial> {
        [("guard".to_owned(), Trial { revision: revision.to_owned(), state })].into()
    }

    /// A node with one program, which cuts it off or does not, and an API server that is away for some time, in
    /// seconds: the notes on bpffs, and what an agent does.
    struct Node {
        guilty: bool,
        away: Range<u64>,
        noted: TrialState,
        attached: bool,
        start: Instant,
        now: Instant,
        trials: Trials,
        /// Whether this agent knows what is desired: until then it attaches nothing.
        listed: bool,
        /// The states that were noted, each with its second.
        told: Vec<(u64, TrialState)>,
        /// How many probes failed in a row while it was attached.
        cut_off: u32,
        /// How often it was attached again.
        again: usize,
    }

    /// How an agent is ended.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Killed {
        /// Between two probes.
        Between,
        /// As it was about to note the next state, having done what belongs to it.
        BeforeNote,
    }

    impl Node {
        fn new(guilty: bool, away: Range<u64>) -> Self {
            let (start, trials) = (Instant::now(), Trials::default());
            let (noted, listed, told) = (TrialState::Open, true, Vec::new());
            Self { guilty, away, noted, attached: true, start, now: start, trials, listed, told, cut_off: 0, again: 0 }
        }

        fn second(&self) -> u64 {
            self.now.duration_since(self.start).as_secs()
        }

        fn is_away(&self) -> bool {
            self.away.contains(&self.second())
        }

        fn start_anew(&mut self) {
            (self.trials, self.listed, self.cut_off) = (Trials::default(), false, 0);
        }

        fn follow(&mut self) {
            let undecided = self.noted.is_undecided() && (self.attached || !self.noted.is_open());
            self.trials.follow(if undecided { guard("guard-1", self.noted) } else { BTreeMap::new() }, self.now);
        }

        /// Up to the next probe, or a second where there is none, and what follows from it.
        fn turn(&mut self, killed: Option<Killed>) {
            self.follow();
            let probes = self.trials.next();
            self.now = probes.unwrap_or(self.now + Duration::from_secs(1));
            let reached = !(self.is_away() || self.guilty && self.attached);
            self.cut_off = if reached || !self.attached || probes.is_none() { 0 } else { self.cut_off + 1 };
            let state = probes.and_then(|_| self.trials.probed(reached, self.now, self.now).remove("guard"));
            if let Some(state) = state {
                self.attached &= state == Passed || !self.noted.is_open();
                if killed != Some(Killed::BeforeNote) {
                    self.noted = state;
                    self.told.push((self.second(), state));
                }
            }
            if killed.is_some() {
                return self.start_anew();
            }
            self.follow();
            self.listed |= reached;
            // As a pass does it.
            if self.listed && !self.attached && !matches!(self.noted, Suspected | Reverted) {
                assert!(reached, "attached while the API server can't be reached");
                self.attached = true;
                self.again += 1;
                if self.noted == Reprieved {
                    self.noted = TrialState::Reopened;
                }
            }
        }

        fn run(mut self, turns: usize) -> Vec<(u64, TrialState)> {
            (0..turns).for_each(|_| self.turn(None));
            self.told
        }
    }

    #[test]
    fn a_program_passes_after_half_a_minute_of_successful_probes() {
        assert_eq!(Node::new(false, 0..0).run(40), [(30, Passed)]);
    }

    #[test]
    fn two_failed_probes_change_nothing() {
        assert_eq!(Node::new(false, 7..11).run(40), [(30, Passed)]);
    }

    #[test]
    fn a_program_is_reverted_if_the_server_is_reached_without_it() {
        assert_eq!(Node::new(true, 0..0).run(40), [(6, Suspected), (8, Reverted)]);
        assert_eq!(Node::new(false, 28..40).run(40), [(32, Suspected), (40, Reverted)], "as far as can be told");
    }

    #[test]
    fn a_suspected_program_is_tried_once_more_if_the_server_is_reached_only_later() {
        assert_eq!(Node::new(false, 0..300).run(400), [(6, Suspected), (304, Reprieved), (334, Passed)]);
        assert_eq!(Node::new(true, 0..300).run(400), [(6, Suspected), (304, Reprieved), (310, Reverted)]);
    }

    #[test]
    fn nothing_is_decided_while_the_server_is_not_reached() {
        assert_eq!(Node::new(true, 0..u64::MAX).run(1000), [(6, Suspected)]);
    }

    #[test]
    fn an_unsteady_server_reprieves_nobody() {
        let (mut trials, now) = (Trials::default(), Instant::now());
        trials.follow(guard("guard-1", Suspected), now);
        for reached in [true, true, false, true, true, false] {
            assert_eq!(trials.probed(reached, now, now), BTreeMap::new());
        }
    }

    #[test]
    fn another_revision_gets_a_trial_of_full_length() {
        let (mut trials, start) = (Trials::default(), Instant::now());
        let mut passed = Vec::new();
        for second in (0..=60).step_by(2) {
            let now = start + Duration::from_secs(second);
            trials.follow(guard(if second < 26 { "guard-1" } else { "guard-2" }, TrialState::Open), now);
            passed.extend(trials.probed(true, now, now).into_values().map(|state| (second, state)));
        }
        assert_eq!(passed.first(), Some(&(56, Passed)));
    }

    #[test]
    fn a_probe_that_was_sent_before_a_program_was_attached_says_nothing_about_it() {
        let (mut trials, start) = (Trials::default(), Instant::now());
        trials.follow(guard("guard-1", TrialState::Open), start + Duration::from_secs(1));
        let mut probed = |sent: u64| {
            let sent = start + Duration::from_secs(sent);
            trials.probed(false, sent, sent + Duration::from_secs(2)).len()
        };
        assert_eq!([0, 2, 4, 6].map(&mut probed), [0, 0, 0, 1]);
    }

    #[test]
    fn nothing_is_probed_without_an_undecided_trial() {
        let mut trials = Trials::default();
        trials.follow(BTreeMap::new(), Instant::now());
        assert_eq!(trials.next(), None);
    }

    #[test]
    fn a_state_that_could_not_be_noted_is_returned_again() {
        let (mut trials, mut now) = (Trials::default(), Instant::now());
        let open = guard("guard-1", TrialState::Open);
        let mut given = Vec::new();
        for _ in 0..5 {
            trials.follow(open.clone(), now);
            now = trials.next().unwrap();
            given.push(trials.probed(false, now, now).len());
        }
        assert_eq!(given, [0, 0, 1, 1, 1]);
    }

    proptest! {
        /// Whenever agents are killed, the trial has the same outcome.
        #[test]
        fn killed_agents_do_not_change_the_outcome(
            guilty in any::<bool>(),
            from in 0..40u64,
            length in prop_oneof![Just(0), 1..60u64],
            kills in prop::collection::btree_map(0..60usize,
                prop_oneof![Just(Killed::Between), Just(Killed::BeforeNote)], 0..4),
        ) {
            let mut node = Node::new(guilty, from..from + length);
            for turn in 0..400 {
                node.turn(kills.get(&turn).copied());
                prop_assert!(node.cut_off <= ENOUGH, "taken back as soon as that is no accident");
            }
            let unnoted = kills.values().filter(|killed| **killed == Killed::BeforeNote).count();
            prop_assert!(node.again <= 1 + unnoted, "tried once more, and that is all");
            prop_assert!(!node.noted.is_undecided() && node.noted != Reprieved);
            prop_assert_eq!(node.attached, node.noted == Passed);
            let suspected = node.told.iter().find(|(_, state)| *state == Suspected);
            match suspected {
                _ if guilty => prop_assert_eq!(node.noted, Reverted),
                Some((second, _)) if from + length < second + RELIEF.as_secs() => {}
                _ => prop_assert_eq!(node.noted, Passed),
            }
        }
    }
}
