//! [`EventBudget`]: bounds the Events that quote each node. IO: none; callers pass the time.
//!
//! - Nodes report drift and failures in their own words, and each new message is a new Event. Without a bound, whoever
//!   is root on one node could fill etcd with them.
//! - A node whose report changes again and again makes a BpfProgram be in effect again and again. Such Events quote no
//!   node: they are bounded for each BpfProgram.

use std::collections::HashMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use sockeye_crds::revision::ProgramRef;

use crate::events::{ATTACH, ProgramEvent};

/// A node may have this many Events at once.
const BURST: u32 = 10;
/// A node may have one Event more each time this has passed.
const INTERVAL: SignedDuration = SignedDuration::from_mins(1);
/// Beyond this number of nodes, those that may have all their Events are forgotten.
const MAX_REMEMBERED: usize = 10_000;

/// A token bucket for each node, and one for each BpfProgram.
#[derive(Clone, Debug, Default)]
pub struct EventBudget {
    buckets: HashMap<String, Bucket>,
    /// Events that were suppressed and not counted yet.
    dropped: u64,
}

#[derive(Clone, Debug)]
struct Bucket {
    tokens: u32,
    /// The time from which on the next token is earned.
    since: Timestamp,
    suppressed: u64,
}

impl EventBudget {
    /// Takes a token of each node that an Event about a BpfProgram quotes, or of the BpfProgram if it follows from what
    /// nodes report and quotes none. Returns the Event unless none of them has one. It says how many Events of theirs
    /// were suppressed before.
    pub fn allow(&mut self, mut event: ProgramEvent, program: &ProgramRef, now: Timestamp) -> Option<ProgramEvent> {
        let mut quoted = std::mem::take(&mut event.quoted);
        if quoted.is_empty() && event.action == ATTACH {
            // No node's name has a space.
            quoted.push(format!("BpfProgram {}", program.uid));
        }
        let (allowed, suppressed) = self.take_of_each(quoted.iter().map(String::as_str), now);
        event.note += &suppressed_before(suppressed);
        (quoted.is_empty() || !allowed.is_empty()).then_some(event)
    }

    /// Takes a token of each node for one Event. Returns the nodes that had one, and the number of their Events that
    /// were suppressed before.
    pub(super) fn take_of_each<'n>(
        &mut self,
        nodes: impl IntoIterator<Item = &'n str>,
        now: Timestamp,
    ) -> (Vec<&'n str>, u64) {
        let (mut allowed, mut suppressed, mut quotes) = (Vec::new(), 0, false);
        for node in nodes {
            quotes = true;
            if let Some(before) = self.take(node, now) {
                allowed.push(node);
                suppressed += before;
            }
        }
        self.dropped += u64::from(quotes && allowed.is_empty());
        (allowed, suppressed)
    }

    /// Returns the number of Events that were suppressed since the last call.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// Takes a node's token for one Event. Returns the number of its Events that were suppressed before; none if this
    /// one is suppressed too.
    fn take(&mut self, node: &str, now: Timestamp) -> Option<u64> {
        if self.buckets.len() >= MAX_REMEMBERED && !self.buckets.contains_key(node) {
            self.buckets.retain(|_, bucket| !bucket.is_idle(now));
        }
        let full = Bucket { tokens: BURST, since: now, suppressed: 0 };
        self.buckets.entry(node.to_owned()).or_insert(full).take(now)
    }
}

/// Returns the end of an Event's note that counts the suppressed ones, or nothing.
pub(super) fn suppressed_before(count: u64) -> String {
    if count == 0 { String::new() } else { format!(" ({count} more such Events were suppressed before)") }
}

impl Bucket {
    fn take(&mut self, now: Timestamp) -> Option<u64> {
        self.refill(now);
        match self.tokens.checked_sub(1) {
            Some(tokens) => {
                self.tokens = tokens;
                Some(std::mem::take(&mut self.suppressed))
            }
            None => {
                self.suppressed += 1;
                None
            }
        }
    }

    /// Adds the tokens that were earned. A clock that was set back earns none.
    fn refill(&mut self, now: Timestamp) {
        let earned = now.duration_since(self.since).as_secs().div_euclid(INTERVAL.as_secs());
        let tokens = i64::from(self.tokens).saturating_add(earned.max(0)).min(i64::from(BURST));
        self.tokens = u32::try_from(tokens).unwrap_or(BURST);
        if earned < 0 || self.tokens == BURST {
            self.since = now;
        } else {
            let spent = SignedDuration::from_secs(earned * INTERVAL.as_secs());
            self.since = self.since.checked_add(spent).unwrap_or(now);
        }
    }

    /// Returns whether the bucket is as a new one.
    fn is_idle(&mut self, now: Timestamp) -> bool {
        self.refill(now);
        self.tokens == BURST && self.suppressed == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Takes tokens until one is refused. Returns the answers but the refusal.
    fn take_all(budget: &mut EventBudget, node: &str, now: Timestamp) -> Vec<u64> {
        std::iter::from_fn(|| budget.take(node, now)).collect()
    }

    #[test]
    fn a_node_has_a_burst_and_one_event_a_minute_and_the_next_one_counts_the_suppressed() {
        let mut budget = EventBudget::default();
        assert_eq!(take_all(&mut budget, "a", at(0)), [0; BURST as usize]);
        assert_eq!((budget.take("a", at(1)), budget.take("a", at(59))), (None, None));
        assert_eq!(take_all(&mut budget, "a", at(60)), [3]);
        assert!(take_all(&mut budget, "a", at(119)).is_empty());
        assert_eq!(take_all(&mut budget, "a", at(120)), [2]);
        assert_eq!(take_all(&mut budget, "a", at(120 + 3 * 60)), [1, 0, 0]);
        assert_eq!(take_all(&mut budget, "a", at(1_000_000)).len(), BURST as usize, "no more than a burst is saved");
    }

    #[test]
    fn an_event_that_quotes_nodes_needs_the_token_of_one() {
        let mut budget = EventBudget::default();
        let mut allow = |quoted: &[&str], second| {
            let quoted = quoted.iter().map(|node| (*node).to_owned()).collect();
            let event = ProgramEvent { is_warning: true, reason: String::new(), action: "", note: "n".into(), quoted };
            budget.allow(event, &ProgramRef::default(), at(second)).map(|event| event.note)
        };
        assert_eq!((0..100).filter_map(|_| allow(&["a"], 0)).count(), BURST as usize);
        assert_eq!(allow(&["a", "b"], 0).as_deref(), Some("n"));
        assert_eq!(allow(&[], 0).as_deref(), Some("n"), "it quotes no node");
        assert_eq!(allow(&["a"], 60).as_deref(), Some("n (91 more such Events were suppressed before)"));
    }

    #[test]
    fn an_event_that_follows_from_reports_and_quotes_no_node_needs_a_token_of_its_program() {
        let mut budget = EventBudget::default();
        let mut allow = |uid: &str, action| {
            let program = ProgramRef { name: "p".into(), uid: uid.into() };
            let (reason, note) = ("InEffect".to_owned(), "in effect on 1 of 1 Ready nodes".to_owned());
            budget.allow(ProgramEvent { is_warning: false, reason, action, note, quoted: vec![] }, &program, at(0))
        };
        assert_eq!((0..100).filter_map(|_| allow("a", ATTACH)).count(), BURST as usize);
        assert!(allow("a", "Validate").is_some(), "it follows from an edit");
        assert!(allow("b", ATTACH).is_some());
    }

    #[test]
    fn nodes_have_budgets_of_their_own() {
        let mut budget = EventBudget::default();
        take_all(&mut budget, "a", at(0));
        assert_eq!((budget.take("a", at(0)), budget.take("b", at(0))), (None, Some(0)));
        assert_eq!(budget.take_dropped(), 0, "these are tokens, not Events");
        assert!(budget.take_of_each(["a"], at(0)).0.is_empty());
        assert_eq!(budget.take_of_each(["a", "b"], at(0)).0, ["b"]);
        assert_eq!((budget.take_dropped(), budget.take_dropped()), (1, 0));
    }

    #[test]
    fn a_clock_that_jumps_gives_no_tokens_back_and_takes_none() {
        let mut budget = EventBudget::default();
        take_all(&mut budget, "a", at(10_000));
        assert!(take_all(&mut budget, "a", at(0)).is_empty());
        assert_eq!(take_all(&mut budget, "a", at(60)), [2]);
        assert_eq!(take_all(&mut budget, "a", Timestamp::MAX).len(), BURST as usize);
        assert!(take_all(&mut budget, "a", Timestamp::MIN).is_empty());
    }

    #[test]
    fn only_so_many_nodes_are_remembered() {
        let mut budget = EventBudget::default();
        take_all(&mut budget, "busy", at(0));
        for node in 0..2 * MAX_REMEMBERED {
            budget.take(&node.to_string(), at(node as i64));
        }
        assert!(budget.buckets.len() <= MAX_REMEMBERED, "{}", budget.buckets.len());
        assert_eq!(budget.take("busy", at(2 * MAX_REMEMBERED as i64)), Some(1), "one of its Events was suppressed");
    }
}
