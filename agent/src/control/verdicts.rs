//! `Verdicts`: what this node's own policy says of objects. Each is judged once, outside of the controller, and the
//! verdict is remembered by all that it follows from. No IO.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::verify::{ClaimedObject, Verdict, Verification};

/// A refusal is remembered for this long. It depends on the node's clock too, which may be set meanwhile.
const REFUSED: Duration = Duration::from_secs(60);
/// At most this many verdicts are remembered. One that is forgotten is made again.
const MAX_VERDICTS: usize = 1024;

/// The verdicts on objects, by what was claimed of them.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    states: BTreeMap<ClaimedObject, State>,
    /// The claims that are to be judged.
    asked: Vec<Verification>,
    /// The number of claims that are asked for or being judged.
    pending: usize,
}

/// The state of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known<'a> {
    /// Nobody judges it.
    Nothing,
    /// It is being judged.
    Awaited,
    /// The verdict.
    Given(&'a Verdict),
}

#[derive(Debug)]
enum State {
    Pending,
    Known { verdict: Verdict, since: Instant },
}

impl Verdicts {
    /// Returns the verdict on a claim.
    pub(super) fn get(&self, claim: &ClaimedObject, now: Instant) -> Known<'_> {
        match self.states.get(claim) {
            Some(State::Pending) => Known::Awaited,
            Some(State::Known { verdict, since })
                if !matches!(verdict, Verdict::Rejected(_)) || *since + REFUSED > now =>
            {
                Known::Given(verdict)
            }
            Some(State::Known { .. }) | None => Known::Nothing,
        }
    }

    /// Has a claim judged, unless it is being judged.
    pub(super) fn ask(&mut self, verification: Verification) {
        if matches!(self.states.get(&verification.claim), Some(State::Pending)) {
            return;
        }
        self.states.insert(verification.claim.clone(), State::Pending);
        self.asked.push(verification);
        self.pending += 1;
    }

    /// Records the verdict on a claim that was asked for.
    pub(super) fn arrived(&mut self, claim: ClaimedObject, verdict: Verdict, now: Instant) {
        if !matches!(self.states.get(&claim), Some(State::Pending)) {
            return;
        }
        self.pending -= 1;
        self.states.insert(claim, State::Known { verdict, since: now });
        if self.states.len() > MAX_VERDICTS {
            self.forget_oldest();
        }
    }

    /// Returns the claims to have judged now.
    pub(super) fn next(&mut self) -> Vec<Verification> {
        std::mem::take(&mut self.asked)
    }

    /// Returns the number of claims without a verdict. Their objects and proofs are in memory.
    pub(super) const fn pending(&self) -> usize {
        self.pending
    }

    fn forget_oldest(&mut self) {
        let known = self.states.iter().filter_map(|(claim, state)| match state {
            State::Known { since, .. } => Some((*since, claim)),
            State::Pending => None,
        });
        if let Some(oldest) = known.min_by_key(|(since, _)| *since).map(|(_, claim)| claim.clone()) {
            self.states.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn verification(object: &str) -> Verification {
        let claim = ClaimedObject { digest: object.to_owned(), ..ClaimedObject::default() };
        Verification { claim, object: Arc::from(object.as_bytes()), proof: Vec::new() }
    }

    fn asked(verdicts: &mut Verdicts) -> Vec<String> {
        verdicts.next().into_iter().map(|verification| verification.claim.digest).collect()
    }

    #[test]
    fn a_claim_is_judged_once_and_what_was_accepted_stays_so() {
        let (mut verdicts, now) = (Verdicts::default(), Instant::now());
        let claim = verification("a").claim;
        verdicts.ask(verification("a"));
        verdicts.ask(verification("a"));
        assert_eq!((asked(&mut verdicts), verdicts.pending()), (vec!["a".to_owned()], 1));
        verdicts.ask(verification("a"));
        assert!(asked(&mut verdicts).is_empty() && verdicts.get(&claim, now) == Known::Awaited);
        verdicts.arrived(claim.clone(), Verdict::Accepted, now);
        assert_eq!(verdicts.get(&claim, now + 1000 * REFUSED), Known::Given(&Verdict::Accepted));
        assert_eq!(verdicts.get(&verification("b").claim, now), Known::Nothing);
        assert_eq!(verdicts.pending(), 0);
    }

    #[test]
    fn a_refusal_is_asked_for_again_after_a_while() {
        let (mut verdicts, now) = (Verdicts::default(), Instant::now());
        let claim = verification("a").claim;
        verdicts.ask(verification("a"));
        verdicts.arrived(claim.clone(), Verdict::Rejected("unsigned".into()), now);
        assert_eq!(verdicts.get(&claim, now), Known::Given(&Verdict::Rejected("unsigned".into())));
        assert_eq!(verdicts.get(&claim, now + REFUSED), Known::Nothing);
        asked(&mut verdicts);
        verdicts.ask(verification("a"));
        assert_eq!(asked(&mut verdicts), ["a"]);
        verdicts.arrived(claim.clone(), Verdict::Accepted, now + REFUSED);
        verdicts.arrived(claim.clone(), Verdict::Rejected("late".into()), now + REFUSED);
        assert_eq!(
            verdicts.get(&claim, now + REFUSED),
            Known::Given(&Verdict::Accepted),
            "nobody asked for another one"
        );
    }

    #[test]
    fn few_verdicts_are_remembered_and_none_that_is_awaited_is_forgotten() {
        let (mut verdicts, begin) = (Verdicts::default(), Instant::now());
        verdicts.ask(verification("awaited"));
        for n in 0..2 * MAX_VERDICTS {
            let verification = verification(&n.to_string());
            let claim = verification.claim.clone();
            verdicts.ask(verification);
            verdicts.arrived(claim, Verdict::Accepted, begin + Duration::from_millis(n as u64));
        }
        assert!(verdicts.states.len() <= MAX_VERDICTS && verdicts.pending() == 1);
        let newest = verification(&(2 * MAX_VERDICTS - 1).to_string()).claim;
        assert_eq!(verdicts.get(&newest, begin), Known::Given(&Verdict::Accepted));
        verdicts.arrived(verification("awaited").claim, Verdict::Accepted, begin);
        assert_eq!(verdicts.pending(), 0);
    }
}
