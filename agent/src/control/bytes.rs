//! The bytes that a revision needs: its object, and the lists of entries that it names.

use std::sync::Arc;

use sockeye_crds::{Reason, names, program::MapSpec};
use sockeye_ebpf::values::list::Lists;

use super::{Controller, fetches::Missing};
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

/// Reports whether the content of any map is compared with the spec's.
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
        if !has_entries(desired) {
            return Ok(RevisionBytes { object: self.object(&desired.digest, assignment)?, lists: Lists::new() });
        }
        let lists = desired.settings.iter().filter_map(|map| Some((map.name.clone(), map.list_digest()?)));
        let lists: Vec<(String, &str)> = lists.collect();
        let mut missing: Option<Failure> = None;
        let needed: Vec<&str> = lists.iter().map(|(_, digest)| *digest).chain([desired.digest.as_str()]).collect();
        self.touch(name).entries.hold_only(&needed);
        // All are asked for at once. What has come is held until the last one has.
        for digest in needed {
            if self.touch(name).entries.held.contains_key(digest) {
                continue;
            }
            match self.object(digest, assignment) {
                Ok(bytes) => drop(self.touch(name).entries.held.insert(digest.to_owned(), bytes)),
                Err(failure) if missing.as_ref().is_none_or(|missing| missing.awaits) => missing = Some(failure),
                Err(_) => {}
            }
        }
        if let Some(missing) = missing {
            return Err(missing);
        }
        let held = &self.touch(name).entries.held;
        let get = |digest: &str| held.get(digest).cloned().ok_or_else(|| Failure::internal("bytes are not held"));
        let object = get(&desired.digest)?;
        let lists = lists.into_iter().map(|(map, digest)| Ok((map, get(digest)?))).collect::<Result<_, Failure>>()?;
        Ok(RevisionBytes { object, lists })
    }

    /// Returns an object that is at hand; has it fetched if it is not.
    fn object(&mut self, digest: &str, assignment: &Assignment) -> Result<Arc<[u8]>, Failure> {
        let at_hand = assignment.objects.get(digest).cloned();
        let bytes = at_hand.map_or_else(|| self.fetches.get(digest, self.now), Ok).map_err(|missing| {
            let (why, awaits) = match missing {
                Missing::Awaited => ("the API server has not given it yet".to_owned(), true),
                Missing::Refused(why) => (why, false),
            };
            let message = format!("the object {digest} can't be had: {why}");
            Failure { awaits, ..Failure::new(Reason::BytecodeUnavailable, message) }
        })?;
        match names::digest(&bytes) {
            found if found == digest => Ok(bytes),
            found => {
                let message = format!("what is stored as {digest} has digest {found}");
                Err(Failure::new(Reason::InvalidObject, message))
            }
        }
    }
}
