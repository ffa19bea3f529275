//! `KeptPod`: a pod that a keeper has selected. The keeper goes on selecting it until the pod ends, whatever becomes of
//! the pod's labels. Pure.
//!
//! Each kept pod has a note on bpffs, which says so to agents that start later.

use std::collections::BTreeMap;

use super::keeper;

/// A UID in a note's name has at most this many characters.
const MAX_UID: usize = 128;

/// A pod that a keeper has selected.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeptPod {
    keeper: String,
    uid: String,
}

/// The pods that one target goes on selecting: by UID, the cgroup paths in their notes.
pub type KeptByTarget<'a> = BTreeMap<&'a str, &'a str>;

impl KeptPod {
    /// Returns a kept pod; `None` if the keeper's identity or the pod's UID must not become part of a path. A static
    /// pod's UID is read from an annotation, which whoever creates a mirror pod chooses.
    pub fn new(keeper: &str, uid: &str) -> Option<Self> {
        let is_keeper = keeper::is_identity(keeper);
        let is_uid = (1..=MAX_UID).contains(&uid.len())
            && uid.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        (is_keeper && is_uid).then(|| Self { keeper: keeper.to_owned(), uid: uid.to_owned() })
    }

    /// Returns the identity of the keeper.
    pub fn keeper(&self) -> &str {
        &self.keeper
    }

    /// Returns the UID of the pod.
    pub fn uid(&self) -> &str {
        &self.uid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_checked_names_become_part_of_a_path() {
        let keeper = "0123456789abcdef";
        for uid in ["7c9e6679-7425-40de-944b-e07fc1f90ae7", "6f1d0b6a3c2e4a55"] {
            assert!(KeptPod::new(keeper, uid).is_some(), "{uid}");
        }
        for uid in ["", "..", "../x", "a/b", "a.b", "a~b", "A", &"a".repeat(MAX_UID + 1)] {
            assert_eq!(KeptPod::new(keeper, uid), None, "{uid}");
        }
        for keeper in ["", "0123456789abcde", "0123456789abcdeg", "0123456789ABCDEF", "0123456789abcdef0"] {
            assert_eq!(KeptPod::new(keeper, "1"), None, "{keeper}");
        }
    }
}
