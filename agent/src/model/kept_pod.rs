//! `KeptPod`: a pod that a keeper has selected. The keeper goes on selecting it until the pod ends, whatever becomes of
//! the pod's labels. Pure.
//!
//! Each kept pod has a note on bpffs, which says so to agents that start later.

use std::collections::BTreeMap;

use sockeye_crds::target::PodsTarget;

use super::{keeper, observed::Observed};

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

impl Observed {
    /// Returns the pods that a target of a BpfProgram goes on selecting. Notes of a deleted BpfProgram of the same name
    /// do not count. Without the note of the UID, which somebody may have removed, they are this one's.
    pub fn kept_by(&self, program_uid: &str, target: &PodsTarget) -> KeptByTarget<'_> {
        let is_of_program = self.uid.as_ref().is_none_or(|uid| uid == program_uid);
        let Some(keeper) = keeper::identity(target).filter(|_| is_of_program) else { return KeptByTarget::new() };
        let kept = self.kept_pods.iter().filter(|(pod, _)| pod.keeper == keeper);
        kept.map(|(pod, observed)| (pod.uid.as_str(), observed.path.as_str())).collect()
    }

    /// Returns true if a target of a BpfProgram goes on selecting a pod.
    pub fn keeps(&self, program_uid: &str, target: &PodsTarget, pod_uid: &str) -> bool {
        // A keeper's identity takes a while to compute.
        let may_keep = self.kept_pods.keys().any(|pod| pod.uid == pod_uid);
        may_keep && self.kept_by(program_uid, target).contains_key(pod_uid)
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
