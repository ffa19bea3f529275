//! `KnownGood`: the revisions of one BpfProgram that were in effect, and that are kept running while a newer one fails.
//! What an earlier agent brought into effect is known by its name alone, until the API server gives it. No IO.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sockeye_crds::BpfRevision;

use super::spec_summary::SpecSummary;
use crate::model::pods::RequiredInputs;

/// A revision that the API server does not give is asked for again after this long.
const REFUSED: Duration = Duration::from_secs(60);

/// The known good revisions of one BpfProgram.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownGood {
    /// The revision that came into effect last, after its predecessor if that can be reverted to.
    revisions: Vec<(Arc<BpfRevision>, SpecSummary)>,
    /// The revision that is read from the API server, by its name.
    fetch: Option<(String, Fetch)>,
}

#[derive(Clone, Debug)]
enum Fetch {
    Asked,
    Refused { why: String, until: Instant },
}

impl KnownGood {
    /// Records a revision that is in effect; `predecessor` is the one that it can be reverted to.
    pub fn remember(&mut self, revision: &Arc<BpfRevision>, summary: SpecSummary, predecessor: Option<&String>) {
        self.revisions.retain(|(good, _)| predecessor.is_some() && good.metadata.name.as_ref() == predecessor);
        self.revisions.push((Arc::clone(revision), summary));
        self.fetch = None;
    }

    /// Returns the revision of this name, and what must be known of pods for it.
    pub fn get(&self, name: &str) -> Option<(&Arc<BpfRevision>, RequiredInputs)> {
        let is_it = |(good, _): &&(Arc<BpfRevision>, SpecSummary)| good.metadata.name.as_deref() == Some(name);
        self.revisions.iter().find(is_it).map(|(good, summary)| (good, summary.required))
    }

    /// Returns what must be known of pods for any of them.
    pub fn required(&self) -> RequiredInputs {
        self.revisions.iter().fold(RequiredInputs::default(), |all, (_, summary)| all.union(summary.required))
    }

    /// Begins to read a revision from the API server, unless it is known, was asked for or was refused lately. Returns
    /// whether it is to be read now.
    pub fn begin_fetch(&mut self, name: &str, now: Instant) -> bool {
        let waits = self.fetch.as_ref().is_some_and(|(asked, fetch)| {
            asked == name && !matches!(fetch, Fetch::Refused { until, .. } if *until <= now)
        });
        if waits || self.get(name).is_some() {
            return false;
        }
        self.fetch = Some((name.to_owned(), Fetch::Asked));
        true
    }

    /// Handles the API server's answer about a revision of the BpfProgram with this UID. Returns whether the revision
    /// is there now.
    pub fn arrived(
        &mut self,
        uid: Option<&str>,
        name: &str,
        answer: Result<Arc<BpfRevision>, String>,
        now: Instant,
    ) -> bool {
        if self.fetch.as_ref().is_none_or(|(asked, _)| asked != name) {
            return false;
        }
        let is_own = |revision: &Arc<BpfRevision>| {
            revision.metadata.name.as_deref() == Some(name) && Some(revision.spec.program_ref.uid.as_str()) == uid
        };
        let answer = answer.and_then(|revision| match is_own(&revision) {
            true => Ok(revision),
            false => Err(format!("BpfRevision {name} is of another BpfProgram")),
        });
        match answer {
            Ok(revision) => {
                let summary = SpecSummary::of(&revision);
                self.revisions.push((revision, summary));
                self.fetch = None;
                true
            }
            Err(why) => {
                self.fetch = Some((name.to_owned(), Fetch::Refused { why, until: now + REFUSED }));
                false
            }
        }
    }

    /// Returns why a revision can't be had, if the API server does not give it.
    pub fn refusal(&self, name: &str) -> Option<&str> {
        match self.fetch.as_ref().filter(|(asked, _)| asked == name)? {
            (_, Fetch::Refused { why, .. }) => Some(why),
            (_, Fetch::Asked) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const UID: &str = "u";

    fn revision(name: &str) -> Arc<BpfRevision> {
        let template = json!({"digest": "", "object": {"programs": []}, "programs": []});
        let spec = json!({
            "state": "Retired", "programRef": {"name": "p", "uid": UID}, "programGeneration": 1, "sequence": 1,
            "template": template,
        });
        let mut revision = BpfRevision::of(serde_json::from_value(spec).unwrap());
        revision.metadata.name = Some(name.to_owned());
        Arc::new(revision)
    }

    #[test]
    fn a_revision_is_asked_for_once_and_again_a_while_after_a_refusal() {
        let (mut known_good, now) = (KnownGood::default(), Instant::now());
        assert!(known_good.begin_fetch("p-1", now) && !known_good.begin_fetch("p-1", now));
        assert!(!known_good.arrived(Some(UID), "p-1", Err("gone".into()), now));
        assert_eq!((known_good.refusal("p-1"), known_good.refusal("p-2")), (Some("gone"), None));
        assert!(!known_good.begin_fetch("p-1", now) && known_good.begin_fetch("p-1", now + REFUSED));
        assert!(known_good.arrived(Some(UID), "p-1", Ok(revision("p-1")), now));
        assert!(known_good.get("p-1").is_some() && !known_good.begin_fetch("p-1", now + 2 * REFUSED));
    }

    #[test]
    fn what_was_not_asked_for_and_what_is_of_another_program_does_not_count() {
        let (mut known_good, now) = (KnownGood::default(), Instant::now());
        assert!(!known_good.arrived(Some(UID), "p-1", Ok(revision("p-1")), now));
        for (uid, named) in [(Some("other"), "p-1"), (None, "p-1"), (Some(UID), "p-2")] {
            let mut known_good = KnownGood::default();
            assert!(known_good.begin_fetch("p-1", now));
            assert!(!known_good.arrived(uid, "p-1", Ok(revision(named)), now));
            assert!(known_good.refusal("p-1").is_some_and(|why| why.contains("another BpfProgram")));
        }
        known_good.begin_fetch("p-1", now);
        known_good.remember(&revision("p-3"), SpecSummary::default(), None);
        assert!(!known_good.arrived(Some(UID), "p-1", Ok(revision("p-1")), now), "another one is in effect since");
    }
}
