//! `HeldBytes`: bytes that have come for a BpfProgram's revisions, while others are still awaited. Values.

use std::{collections::BTreeMap, sync::Arc};

/// Bytes are held for this many revisions: the assigned one, and a known good one that runs while that fails.
const REVISIONS: usize = 2;

/// Bytes that have come for a BpfProgram's revisions. An attempt for one revision drops nothing that was held for
/// another: bytes come one by one, and the known good revision is attempted after each.
#[derive(Clone, Debug, Default)]
pub(super) struct HeldBytes(Vec<Held>);

/// The bytes that have come for one revision.
#[derive(Clone, Debug)]
struct Held {
    revision: String,
    by_digest: BTreeMap<String, Arc<[u8]>>,
}

impl HeldBytes {
    /// Returns the bytes of a digest, and holds them for this revision too if they came for another.
    pub(super) fn get(&mut self, revision: &str, digest: &str) -> Option<Arc<[u8]>> {
        let bytes = Arc::clone(self.0.iter().find_map(|held| held.by_digest.get(digest))?);
        self.insert(revision, digest, Arc::clone(&bytes));
        Some(bytes)
    }

    /// Holds bytes for a revision.
    pub(super) fn insert(&mut self, revision: &str, digest: &str, bytes: Arc<[u8]>) {
        let at = self.0.iter().position(|held| held.revision == revision).unwrap_or_else(|| {
            self.0.insert(0, Held { revision: revision.to_owned(), by_digest: BTreeMap::new() });
            self.0.truncate(REVISIONS);
            0
        });
        self.0[at].by_digest.insert(digest.to_owned(), bytes);
    }

    /// Forgets what is of no more use to a revision: all but these digests.
    pub(super) fn hold_only(&mut self, revision: &str, digests: &[&str]) {
        for held in self.0.iter_mut().filter(|held| held.revision == revision) {
            held.by_digest.retain(|digest, _| digests.contains(&digest.as_str()));
        }
    }

    /// Forgets all but what is held for this revision.
    pub(super) fn forget_but(&mut self, revision: Option<&str>) {
        self.0.retain(|held| Some(held.revision.as_str()) == revision);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(held: &mut HeldBytes, revision: &str, digests: &[&str]) -> Vec<bool> {
        let is_held =
            |digest: &&str| held.0.iter().any(|held| held.revision == revision && held.by_digest.contains_key(*digest));
        digests.iter().map(is_held).collect()
    }

    #[test]
    fn what_is_held_for_a_revision_stays_whatever_another_needs() {
        let (mut bytes, some) = (HeldBytes::default(), Arc::<[u8]>::from(&b"bytes"[..]));
        bytes.insert("p-2", "a", Arc::clone(&some));
        bytes.insert("p-1", "b", Arc::clone(&some));
        bytes.hold_only("p-1", &[]);
        assert_eq!(held(&mut bytes, "p-2", &["a", "b"]), [true, false]);
        assert_eq!(bytes.get("p-1", "a"), Some(Arc::clone(&some)), "it is the same for both");
        bytes.hold_only("p-2", &[]);
        assert_eq!(held(&mut bytes, "p-1", &["a"]), [true]);
        bytes.insert("p-3", "c", Arc::clone(&some));
        bytes.insert("p-4", "d", some);
        assert_eq!(bytes.get("p-4", "a"), None, "two revisions at most");
        bytes.forget_but(Some("p-4"));
        assert_eq!((bytes.get("p-4", "c"), bytes.0.len()), (None, 1));
        bytes.forget_but(None);
        assert!(bytes.0.is_empty());
    }
}
