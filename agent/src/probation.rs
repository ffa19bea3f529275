//! `Probation`: whether what was attached lately has cut this node off from the API server. Pure: what is noted, time and the
//! outcome of each probe come in as arguments, and what is to be noted comes out.
//!
//! | noted | once the API server | is noted | and |
//! |---|---|---|---|
//! | open | can't be reached, three times in a row | suspected | taken back |
//! | | is reached, after half a minute | passed | |
//! | suspected | is reached, soon | reverted | stays so until another revision is wanted |
//! | | is reached, later, three times in a row | reprieved | attached once more, and noted as reopened |
//! | reopened | can't be reached, three times in a row | reverted | taken back |
//! | | is reached, after half a minute | passed | |
//!
//! Nothing is attached again as long as the API server can't be reached: a program that reaches the API server's own node keeps
//! it away for longer than any wait, and who attaches it again for that keeps it away for good.
//!
//! What is noted outlives the agent. One that is started anew does not know when something was suspected, and takes that for
//! long ago: what is to blame is then found out by the trial that is reopened.

use std::{
    collections::BTreeMap,
    mem,
    time::{Duration, Instant},
};

use crate::layout::{Trial, Verdict};

/// So long a trial takes.
const WINDOW: Duration = Duration::from_secs(30);
/// The API server is probed so often meanwhile.
const EVERY: Duration = Duration::from_secs(2);
/// So many probes in a row that come to the same are no accident.
const ENOUGH: u32 = 3;
/// What was taken back is to blame if the API server can be reached within so long.
const RELIEF: Duration = Duration::from_secs(15);

/// The trials of one node.
#[derive(Debug, Default)]
pub struct Probation {
    cases: BTreeMap<String, Case>,
    next: Option<Instant>,
}

/// One BpfProgram of which it is not known yet.
#[derive(Clone, Debug)]
struct Case {
    noted: Trial,
    /// Since when; absent where that was before this agent.
    since: Option<Instant>,
    /// So many probes in a row came to what would change the verdict.
    in_a_row: u32,
}

impl Case {
    fn probed(&mut self, reached: bool, now: Instant) -> Option<Verdict> {
        let within = |time: Duration| self.since.is_some_and(|since| now.duration_since(since) < time);
        let (soon, over) = (within(RELIEF), !within(WINDOW));
        let noted = self.noted.verdict;
        self.in_a_row = if reached == noted.is_open() { 0 } else { self.in_a_row + 1 };
        let enough = self.in_a_row >= ENOUGH;
        match noted {
            Verdict::Open if enough => Some(Verdict::Suspected),
            Verdict::Reopened if enough => Some(Verdict::Reverted),
            Verdict::Open | Verdict::Reopened => (reached && over).then_some(Verdict::Passed),
            Verdict::Suspected if reached && soon => Some(Verdict::Reverted),
            Verdict::Suspected => enough.then_some(Verdict::Reprieved),
            Verdict::Reprieved | Verdict::Passed | Verdict::Reverted => None,
        }
    }
}

impl Probation {
    /// Takes what is noted now of those that are undecided. The trial of another revision is another one.
    pub fn follow(&mut self, undecided: BTreeMap<String, Trial>, now: Instant) {
        let before = mem::take(&mut self.cases);
        let case = |(name, noted): (String, Trial)| {
            let case = match before.get(&name) {
                Some(case) if case.noted == noted => case.clone(),
                None if noted.verdict == Verdict::Suspected => Case { noted, since: None, in_a_row: 0 },
                _ => Case { noted, since: Some(now), in_a_row: 0 },
            };
            (name, case)
        };
        self.cases = undecided.into_iter().map(case).collect();
        self.next = (!self.cases.is_empty()).then(|| self.next.unwrap_or(now + EVERY));
    }

    /// When to probe next, if at all.
    pub const fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Takes a probe's outcome; gives the verdicts that follow from it. One that is not noted follows from the next one too.
    pub fn probed(&mut self, reached: bool, now: Instant) -> BTreeMap<String, Verdict> {
        self.next = Some(now + EVERY);
        let verdicts = self.cases.iter_mut();
        verdicts.filter_map(|(name, case)| Some((name.clone(), case.probed(reached, now)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use Verdict::{Passed, Reprieved, Reverted, Suspected};
    use proptest::prelude::*;

    use super::*;

    fn guard(revision: &str, verdict: Verdict) -> BTreeMap<String, Trial> {
        [("guard".to_owned(), Trial { revision: revision.to_owned(), verdict })].into()
    }

    /// A node with one program, which cuts it off or does not, and an API server that is away for some time, in seconds. What
    /// stands on bpffs, and what an agent makes of it.
    struct Node {
        guilty: bool,
        away: Range<u64>,
        noted: Verdict,
        attached: bool,
        start: Instant,
        now: Instant,
        probation: Probation,
        /// Whether this agent has been told what is wanted: until then it attaches nothing.
        listed: bool,
        /// What was noted, and in which second.
        told: Vec<(u64, Verdict)>,
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
        /// As it was about to note the next verdict, having done what belongs to it.
        BeforeNote,
    }

    impl Node {
        fn new(guilty: bool, away: Range<u64>) -> Self {
            let (start, probation) = (Instant::now(), Probation::default());
            let (noted, listed, told) = (Verdict::Open, true, Vec::new());
            Self {
                guilty,
                away,
                noted,
                attached: true,
                start,
                now: start,
                probation,
                listed,
                told,
                cut_off: 0,
                again: 0,
            }
        }

        fn second(&self) -> u64 {
            self.now.duration_since(self.start).as_secs()
        }

        fn is_away(&self) -> bool {
            self.away.contains(&self.second())
        }

        fn start_anew(&mut self) {
            (self.probation, self.listed, self.cut_off) = (Probation::default(), false, 0);
        }

        fn follow(&mut self) {
            let undecided = self.noted.is_undecided() && (self.attached || !self.noted.is_open());
            self.probation.follow(if undecided { guard("guard-1", self.noted) } else { BTreeMap::new() }, self.now);
        }

        /// Up to the next probe, or a second where there is none, and what follows from it.
        fn turn(&mut self, killed: Option<Killed>) {
            self.follow();
            let probes = self.probation.next();
            self.now = probes.unwrap_or(self.now + Duration::from_secs(1));
            let reached = !(self.is_away() || self.guilty && self.attached);
            self.cut_off = if reached || !self.attached || probes.is_none() { 0 } else { self.cut_off + 1 };
            let verdict = probes.and_then(|_| self.probation.probed(reached, self.now).remove("guard"));
            if let Some(verdict) = verdict {
                self.attached &= verdict == Passed || !self.noted.is_open();
                if killed != Some(Killed::BeforeNote) {
                    self.noted = verdict;
                    self.told.push((self.second(), verdict));
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
                    self.noted = Verdict::Reopened;
                }
            }
        }

        fn run(mut self, turns: usize) -> Vec<(u64, Verdict)> {
            (0..turns).for_each(|_| self.turn(None));
            self.told
        }
    }

    #[test]
    fn half_a_minute_of_reaching_it_passes() {
        assert_eq!(Node::new(false, 0..0).run(40), [(30, Passed)]);
    }

    #[test]
    fn two_probes_that_fail_are_an_accident() {
        assert_eq!(Node::new(false, 7..11).run(40), [(30, Passed)]);
    }

    #[test]
    fn it_is_to_blame_if_the_server_is_reached_without_it() {
        assert_eq!(Node::new(true, 0..0).run(40), [(6, Suspected), (8, Reverted)]);
        assert_eq!(Node::new(false, 28..40).run(40), [(32, Suspected), (40, Reverted)], "as far as can be told");
    }

    #[test]
    fn it_is_tried_once_more_if_the_server_is_reached_only_later() {
        assert_eq!(Node::new(false, 0..300).run(400), [(6, Suspected), (304, Reprieved), (334, Passed)]);
        assert_eq!(Node::new(true, 0..300).run(400), [(6, Suspected), (304, Reprieved), (310, Reverted)]);
    }

    #[test]
    fn as_long_as_the_server_is_not_reached_nothing_is_decided() {
        assert_eq!(Node::new(true, 0..u64::MAX).run(1000), [(6, Suspected)]);
    }

    #[test]
    fn a_server_that_comes_and_goes_is_not_reached() {
        let (mut probation, now) = (Probation::default(), Instant::now());
        probation.follow(guard("guard-1", Suspected), now);
        for reached in [true, true, false, true, true, false] {
            assert_eq!(probation.probed(reached, now), BTreeMap::new());
        }
    }

    #[test]
    fn another_revision_has_half_a_minute_of_its_own() {
        let (mut probation, start) = (Probation::default(), Instant::now());
        let mut passed = Vec::new();
        for second in (0..=60).step_by(2) {
            let now = start + Duration::from_secs(second);
            probation.follow(guard(if second < 26 { "guard-1" } else { "guard-2" }, Verdict::Open), now);
            passed.extend(probation.probed(true, now).into_values().map(|verdict| (second, verdict)));
        }
        assert_eq!(passed.first(), Some(&(56, Passed)));
    }

    #[test]
    fn nothing_undecided_probes_nothing() {
        let mut probation = Probation::default();
        probation.follow(BTreeMap::new(), Instant::now());
        assert_eq!(probation.next(), None);
    }

    #[test]
    fn a_verdict_that_could_not_be_noted_is_given_again() {
        let (mut probation, mut now) = (Probation::default(), Instant::now());
        let open = guard("guard-1", Verdict::Open);
        let mut given = Vec::new();
        for _ in 0..5 {
            probation.follow(open.clone(), now);
            now = probation.next().unwrap();
            given.push(probation.probed(false, now).len());
        }
        assert_eq!(given, [0, 0, 1, 1, 1]);
    }

    proptest! {
        /// Whenever agents are killed, it comes to the same end.
        #[test]
        fn who_is_killed_changes_nothing_in_the_end(
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
            let suspected = node.told.iter().find(|(_, verdict)| *verdict == Suspected);
            match suspected {
                _ if guilty => prop_assert_eq!(node.noted, Reverted),
                Some((second, _)) if from + length < second + RELIEF.as_secs() => {}
                _ => prop_assert_eq!(node.noted, Passed),
            }
        }
    }
}
