//! The bytes that a revision needs: its object, the lists of entries that it names, and what proves who signed the
//! object where this node verifies that and has no verdict yet.

use std::sync::Arc;

use sockeye_crds::{Reason, names, program::MapSpec};
use sockeye_ebpf::values::list::Lists;

use super::{
    Controller,
    fetches::NotAvailable,
    verdicts::Known,
    verify::{ClaimedObject, Verdict, Verification},
};
use crate::{
    model::{assignment::Assignment, desired::Desired},
    node::{Node, failure::Failure},
};

/// The bytes that a revision needs.
pub(super) struct RevisionBytes {
    /// The object's.
    pub object: Arc<[u8]>,
    /// Those of the lists of entries.
    pub lists: Lists,
}

/// Returns whether the content of any map is compared with the spec's.
pub(super) fn has_entries(desired: &Desired) -> bool {
    desired.settings.iter().any(MapSpec::has_entries)
}

impl<N: Node> Controller<N> {
    /// Returns the bytes that a revision needs and that are at hand; has the others fetched.
    pub(super) fn revision_bytes(
        &mut self,
        name: &str,
        desired: &Desired,
        assignment: &Assignment,
    ) -> Result<RevisionBytes, Failure> {
        let to_judge = self.to_judge(desired)?;
        let proof = to_judge.as_ref().map_or(&[][..], ClaimedObject::proof_digests);
        let lists = desired.settings.iter().filter_map(|map| Some((map.name.clone(), map.list_digest()?)));
        let lists: Vec<(String, &str)> = lists.collect();
        let mut missing: Option<Failure> = None;
        let loaded: Vec<&str> = lists.iter().map(|(_, digest)| *digest).chain([desired.digest.as_str()]).collect();
        let needed: Vec<&str> = loaded.iter().copied().chain(proof.iter().map(String::as_str)).collect();
        let revision = desired.revision.as_str();
        self.touch(name).entries.held.hold_only(revision, &needed);
        // All are asked for at once. What has come is held until the last one has.
        for digest in needed {
            if self.touch(name).entries.held.get(revision, digest).is_some() {
                continue;
            }
            match self.object(digest, assignment) {
                Ok(bytes) => self.touch(name).entries.held.insert(revision, digest, bytes),
                Err(failure) if missing.as_ref().is_none_or(|missing| missing.awaits) => missing = Some(failure),
                Err(_) => {}
            }
        }
        if let Some(missing) = missing {
            return Err(missing);
        }
        let held = &mut self.touch(name).entries.held;
        let mut get = |digest: &str| held.get(revision, digest).ok_or_else(|| Failure::internal("bytes are not held"));
        let object = get(&desired.digest)?;
        let proof = proof.iter().map(|digest| get(digest)).collect::<Result<Vec<_>, Failure>>()?;
        if let Some(claim) = to_judge {
            // The proof is of no more use here.
            held.hold_only(revision, &loaded);
            self.verdicts.ask(Verification { claim, object, proof });
            return Err(awaits_verdict(&desired.digest));
        }
        let lists = lists.into_iter().map(|(map, digest)| Ok((map, get(digest)?))).collect::<Result<_, Failure>>()?;
        if !has_entries(desired) {
            held.hold_only(revision, &[]);
        }
        Ok(RevisionBytes { object, lists })
    }

    /// Returns what has to be judged before an object may be loaded, if this node verifies who signed objects and has
    /// no verdict on this one. Refuses an object that nobody signed whom the node's own policy accepts.
    fn to_judge(&self, desired: &Desired) -> Result<Option<ClaimedObject>, Failure> {
        if !self.verifies {
            return Ok(None);
        }
        let claim = ClaimedObject::of(desired);
        match self.verdicts.get(&claim, self.now) {
            Known::Nothing => Ok(Some(claim)),
            Known::Awaited => Err(awaits_verdict(&desired.digest)),
            Known::Given(Verdict::Accepted) => Ok(None),
            Known::Given(Verdict::Warned(warning)) => {
                tracing::warn!(revision = desired.revision, warning, "loaded all the same: the policy only warns");
                Ok(None)
            }
            Known::Given(Verdict::Rejected(why)) => {
                let message = format!("revision {} is not loaded: {why}", desired.revision);
                Err(Failure::new(Reason::VerificationFailed, message))
            }
        }
    }

    /// Returns an object that is at hand; has it fetched if it is not.
    fn object(&mut self, digest: &str, assignment: &Assignment) -> Result<Arc<[u8]>, Failure> {
        let at_hand = assignment.objects.get(digest).cloned();
        let bytes = at_hand.map_or_else(|| self.fetches.get(digest, self.now), Ok).map_err(|missing| {
            let (why, awaits) = match missing {
                NotAvailable::Awaited => ("the API server has not given it yet".to_owned(), true),
                NotAvailable::Refused(why) => (why, false),
            };
            let message = format!("the object {digest} can't be had, and the agent asks for it again: {why}");
            Failure { awaits, ..Failure::new(Reason::BytecodeUnavailable, message) }
        })?;
        match self.fetches.check(digest, &bytes) {
            Ok(()) => Ok(bytes),
            Err(found) => {
                let message = format!(
                    "what is stored as {digest} has digest {found}: delete ConfigMap {} of sockeye's namespace, and \
                     the operator stores it anew",
                    names::object_config_map(digest)
                );
                Err(Failure::new(Reason::InvalidObject, message))
            }
        }
    }
}

/// The failure of a load that waits for a verdict.
fn awaits_verdict(digest: &str) -> Failure {
    let message = format!("the object {digest} is not loaded yet: this node verifies who signed it");
    Failure { awaits: true, ..Failure::new(Reason::BytecodeUnavailable, message) }
}
