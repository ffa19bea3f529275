//! Tests of trials: a model of a node, and single rules.

use std::ops::Range;

use TrialState::{
    Passed, PassedWithoutLease, Reopened, Reprieved, Reverted, RevertedByLease, Suspected, SuspectedByLease,
};
use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;

use super::*;

fn guard(revision: &str, state: TrialState) -> BTreeMap<String, Trial> {
    [("guard".to_owned(), Trial { revision: revision.to_owned(), state })].into()
}

/// What a program does to its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    None,
    /// It cuts off the agent and the kubelet.
    Node,
    /// It cuts off the kubelet alone.
    Kubelet,
}

/// A node with one program, an API server that is away for some seconds, and a kubelet that is down for some: the
/// notes on bpffs, and what an agent does.
struct Node {
    harm: Harm,
    away: Range<u64>,
    down: Range<u64>,
    /// The second of the Lease's last renewal.
    renewed: i64,
    /// What is read instead of the Lease.
    instead: Option<LeaseReading>,
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
    /// Since when this agent has left it attached without a renewal.
    quiet_since: u64,
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
    fn new(harm: Harm, away: Range<u64>, down: Range<u64>) -> Self {
        let start = Instant::now();
        Self {
            harm,
            away,
            down,
            renewed: -5,
            instead: None,
            noted: TrialState::Open,
            attached: true,
            start,
            now: start,
            trials: Trials::default(),
            listed: true,
            told: Vec::new(),
            cut_off: 0,
            quiet_since: 0,
            again: 0,
        }
    }

    /// A node where nothing is amiss but what the program does.
    fn well(harm: Harm) -> Self {
        Self::new(harm, 0..0, 0..0)
    }

    fn second(&self) -> u64 {
        self.now.duration_since(self.start).as_secs()
    }

    fn is_away(&self) -> bool {
        self.away.contains(&self.second())
    }

    fn start_anew(&mut self) {
        (self.trials, self.listed, self.cut_off, self.quiet_since) = (Trials::default(), false, 0, self.second());
    }

    fn follow(&mut self) {
        let undecided = self.noted.is_undecided() && (self.attached || !self.noted.is_open());
        self.trials.follow(if undecided { guard("guard-1", self.noted) } else { BTreeMap::new() }, self.now);
    }

    /// Up to another time. The kubelet renews the Lease every ten seconds.
    fn wait(&mut self, until: Instant) {
        let before = self.second();
        self.now = until;
        let is_cut_off = self.attached && self.harm != Harm::None;
        for second in (before + 1..=self.second()).filter(|second| second % 10 == 5) {
            if !(is_cut_off || self.away.contains(&second) || self.down.contains(&second)) {
                (self.renewed, self.quiet_since) = (second.cast_signed(), second);
            }
        }
    }

    fn probe(&self) -> ProbeResult {
        if self.is_away() || self.attached && self.harm == Harm::Node {
            return ProbeResult::Unreached;
        }
        ProbeResult::Reached(self.instead.unwrap_or_else(|| renewed(self.renewed)))
    }

    /// Up to the next probe, or a second where there is none, and what follows from it.
    fn turn(&mut self, killed: Option<Killed>) {
        self.follow();
        let probes = self.trials.next();
        self.wait(probes.unwrap_or(self.now + Duration::from_secs(1)));
        let probe = self.probe();
        let reached = probe != ProbeResult::Unreached;
        self.cut_off = if reached || !self.attached || probes.is_none() { 0 } else { self.cut_off + 1 };
        let state = probes.and_then(|_| self.trials.probed(probe, self.now, self.now).remove("guard"));
        if let Some(state) = state {
            self.attached &= state.has_passed() || !self.noted.is_open();
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
        let refused = self.noted.is_reverted() && self.noted != Reprieved;
        // As a pass does it.
        if self.listed && !self.attached && !refused {
            assert!(reached, "attached while the API server can't be reached");
            (self.attached, self.quiet_since) = (true, self.second());
            self.again += 1;
            if self.noted == Reprieved {
                self.noted = Reopened;
            }
        }
    }

    fn run(mut self, turns: usize) -> Vec<(u64, TrialState)> {
        (0..turns).for_each(|_| self.turn(None));
        self.told
    }
}

/// What is read of a Lease that was renewed in a second of the test.
fn renewed(second: i64) -> LeaseReading {
    let time = Timestamp::from_second(1_800_000_000 + second).unwrap();
    LeaseReading::Renewed(Renewal { time, duration: Duration::from_secs(40) })
}

/// A probe of a node whose kubelet is well.
fn well(second: u64) -> ProbeResult {
    ProbeResult::Reached(renewed((second / 10 * 10).cast_signed()))
}

#[test]
fn a_program_passes_after_half_a_minute_of_successful_probes() {
    assert_eq!(Node::well(Harm::None).run(40), [(30, Passed)]);
}

#[test]
fn two_failed_probes_change_nothing() {
    assert_eq!(Node::new(Harm::None, 7..11, 0..0).run(40), [(30, Passed)]);
}

#[test]
fn a_program_is_reverted_if_the_server_is_reached_without_it() {
    assert_eq!(Node::well(Harm::Node).run(40), [(6, Suspected), (8, Reverted)]);
    assert_eq!(Node::new(Harm::None, 28..40, 0..0).run(40), [(32, Suspected), (40, Reverted)], "as far as can be told");
}

#[test]
fn a_suspected_program_is_tried_once_more_if_the_server_is_reached_only_later() {
    assert_eq!(Node::new(Harm::None, 0..300, 0..0).run(400), [(6, Suspected), (304, Reprieved), (334, Passed)]);
    assert_eq!(Node::new(Harm::Node, 0..300, 0..0).run(400), [(6, Suspected), (304, Reprieved), (310, Reverted)]);
}

#[test]
fn nothing_is_decided_while_the_server_is_not_reached() {
    assert_eq!(Node::new(Harm::Node, 0..u64::MAX, 0..0).run(1000), [(6, Suspected)]);
}

#[test]
fn a_program_is_reverted_if_the_kubelet_renews_its_lease_only_without_it() {
    assert_eq!(Node::well(Harm::Kubelet).run(40), [(32, SuspectedByLease), (36, RevertedByLease)]);
    let down = Node::new(Harm::None, 0..0, 0..40).run(40);
    assert_eq!(down, [(32, SuspectedByLease), (46, RevertedByLease)], "as far as can be told");
}

#[test]
fn a_program_is_tried_once_more_if_the_kubelet_renews_its_lease_only_later() {
    let down = |harm| Node::new(harm, 0..0, 0..100).run(100);
    assert_eq!(down(Harm::None), [(32, SuspectedByLease), (116, Reprieved), (146, Passed)]);
    assert_eq!(down(Harm::Kubelet), [(32, SuspectedByLease), (116, Reprieved), (148, RevertedByLease)]);
    let mut forbidden = Node::new(Harm::None, 0..0, 0..1000);
    (0..16).for_each(|_| forbidden.turn(None));
    forbidden.instead = Some(LeaseReading::Forbidden);
    assert_eq!(forbidden.run(40), [(32, SuspectedByLease), (38, Reprieved), (68, PassedWithoutLease)]);
}

#[test]
fn a_trial_lasts_until_the_lease_was_renewed_twice() {
    assert_eq!(Node::new(Harm::None, 0..0, 0..20).run(40), [(36, Passed)]);
    assert_eq!(Node::new(Harm::None, 0..0, 6..30).run(40), [(36, Passed)]);
}

#[test]
fn a_program_is_tried_once_more_if_nobody_renews_the_lease_without_it_either() {
    let told = [(32, SuspectedByLease), (332, Reprieved), (362, PassedWithoutLease)];
    assert_eq!(Node::new(Harm::None, 0..0, 0..u64::MAX).run(400), told);
    // The kubelet comes back while the program is attached again.
    let told = [(32, SuspectedByLease), (332, Reprieved), (366, Passed)];
    assert_eq!(Node::new(Harm::None, 0..0, 0..350).run(400), told);
    // An API server that is away meanwhile says nothing about the Lease.
    let told = [(32, SuspectedByLease), (500, Reprieved), (530, PassedWithoutLease)];
    assert_eq!(Node::new(Harm::None, 100..202, 0..u64::MAX).run(400), told);
}

#[test]
fn a_program_passes_by_the_api_server_alone_where_no_lease_tells_of_the_kubelet() {
    for instead in [LeaseReading::Absent, LeaseReading::Forbidden] {
        let node = |harm| Node { instead: Some(instead), ..Node::well(harm) };
        assert_eq!(node(Harm::None).run(40), [(30, PassedWithoutLease)]);
        assert_eq!(node(Harm::Node).run(40), [(6, Suspected), (8, Reverted)]);
    }
    let unread = Node { instead: Some(LeaseReading::Unread), ..Node::well(Harm::None) };
    assert_eq!(unread.run(400), [], "an API server without its storage");
}

#[test]
fn an_unsteady_server_reprieves_nobody() {
    let (mut trials, now) = (Trials::default(), Instant::now());
    trials.follow(guard("guard-1", Suspected), now);
    let reached = ProbeResult::Reached(LeaseReading::Absent);
    for probe in [reached, reached, ProbeResult::Unreached, reached, reached, ProbeResult::Unreached] {
        assert_eq!(trials.probed(probe, now, now), BTreeMap::new());
    }
}

#[test]
fn another_revision_gets_a_trial_of_full_length() {
    let (mut trials, start) = (Trials::default(), Instant::now());
    let mut passed = Vec::new();
    for second in (0..=60).step_by(2) {
        let now = start + Duration::from_secs(second);
        trials.follow(guard(if second < 26 { "guard-1" } else { "guard-2" }, TrialState::Open), now);
        passed.extend(trials.probed(well(second), now, now).into_values().map(|state| (second, state)));
    }
    assert_eq!(passed.first(), Some(&(56, Passed)));
}

#[test]
fn a_probe_that_was_sent_before_a_program_was_attached_says_nothing_about_it() {
    let (mut trials, start) = (Trials::default(), Instant::now());
    trials.follow(guard("guard-1", TrialState::Open), start + Duration::from_secs(1));
    let mut probed = |sent: u64| {
        let sent = start + Duration::from_secs(sent);
        trials.probed(ProbeResult::Unreached, sent, sent + Duration::from_secs(2)).len()
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
        given.push(trials.probed(ProbeResult::Unreached, now, now).len());
    }
    assert_eq!(given, [0, 0, 1, 1, 1]);
}

proptest! {
    /// Whenever agents are killed, the trial has the same outcome.
    #[test]
    fn killed_agents_do_not_change_the_outcome(
        harm in prop_oneof![Just(Harm::None), Just(Harm::Node), Just(Harm::Kubelet)],
        from in 0..40u64,
        length in prop_oneof![Just(0), 1..60u64],
        kills in prop::collection::btree_map(0..60usize,
            prop_oneof![Just(Killed::Between), Just(Killed::BeforeNote)], 0..4),
    ) {
        let mut node = Node::new(harm, from..from + length, 0..0);
        for turn in 0..400 {
            node.turn(kills.get(&turn).copied());
            prop_assert!(node.cut_off <= ENOUGH, "taken back as soon as that is no accident");
            let quiet = node.second() - node.quiet_since;
            prop_assert!(!node.attached || node.noted.has_passed() || quiet <= 40, "quiet for {quiet} s");
        }
        let unnoted = kills.values().filter(|killed| **killed == Killed::BeforeNote).count();
        prop_assert!(node.again <= 1 + unnoted, "tried once more, and that is all");
        prop_assert!(!node.noted.is_undecided() && node.noted != Reprieved);
        prop_assert_eq!(node.attached, node.noted == Passed, "{:?}", node.noted);
        let suspected = node.told.iter().find(|(_, state)| *state == Suspected);
        match suspected {
            _ if harm == Harm::Node => prop_assert_eq!(node.noted, Reverted),
            _ if harm == Harm::Kubelet => prop_assert!(matches!(node.noted, Reverted | RevertedByLease)),
            Some((second, _)) if from + length < second + RELIEF.as_secs() => {}
            _ => prop_assert_eq!(node.noted, Passed),
        }
    }
}
