//! [`ProgramCache`]: what the operator remembers of one BpfProgram between two reconciliations. IO: none.
//!
//! Without it the same bytes are checked a second time, and nothing else changes: all state is in the API.

use std::sync::Arc;

use sockeye_crds::{BpfProgramStatus, Refusal};
use sockeye_ebpf::Accepted;

use crate::{events::drift::DriftTracker, reconcile::throttle::StatusThrottle};

/// The cached values of one BpfProgram.
#[derive(Clone, Debug, Default)]
pub struct ProgramCache {
    /// The last check of a spec and its bytes.
    pub check: Option<(CheckInput, Arc<CheckResult>)>,
    /// The status that was written last. The watch may not have brought it back yet.
    pub written: Option<WrittenStatus>,
    /// The times of status writes.
    pub throttle: StatusThrottle,
    /// The drift that was reported before.
    pub drift: DriftTracker,
}

/// The result of checking a spec and its bytes.
pub type CheckResult = Result<Accepted, Refusal>;

/// Identifies a spec and its bytes. Equal inputs have equal results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckInput {
    /// The BpfProgram's UID.
    pub uid: String,
    /// The BpfProgram's generation.
    pub generation: i64,
    /// The UID and resource version of the ConfigMap with the bytes; none if the spec itself has them.
    pub config_map: Option<(String, String)>,
}

/// A status that was written.
#[derive(Clone, Debug)]
pub struct WrittenStatus {
    /// The BpfProgram's UID.
    pub uid: String,
    /// The resource version that the write created.
    pub resource_version: u64,
    /// The status.
    pub status: BpfProgramStatus,
}

impl ProgramCache {
    /// Returns the result of the last check, if its input was the same.
    pub fn checked(&self, input: &CheckInput) -> Option<Arc<CheckResult>> {
        self.check.as_ref().filter(|(last, _)| last == input).map(|(_, result)| Arc::clone(result))
    }

    /// Returns the newer of the status that the watch brought and the one that was written last.
    pub fn latest_status(
        &self,
        uid: &str,
        resource_version: Option<&str>,
        watched: Option<&BpfProgramStatus>,
    ) -> BpfProgramStatus {
        let watched_version = resource_version.and_then(|version| version.parse::<u64>().ok());
        let is_newer = |written: &&WrittenStatus| {
            written.uid == uid && watched_version.is_some_and(|version| version < written.resource_version)
        };
        let written = self.written.as_ref().filter(is_newer).map(|written| &written.status);
        written.or(watched).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_status_counts_until_the_watch_brings_it_or_a_newer_one() {
        let status = |generation| BpfProgramStatus { observed_generation: generation, ..BpfProgramStatus::default() };
        let written = WrittenStatus { uid: "u".into(), resource_version: 10, status: status(2) };
        let cache = ProgramCache { written: Some(written), ..ProgramCache::default() };
        let latest = |uid, version| cache.latest_status(uid, Some(version), Some(&status(1))).observed_generation;
        assert_eq!(latest("u", "9"), 2);
        assert_eq!(latest("u", "10"), 1);
        assert_eq!(latest("another", "9"), 1);
        assert_eq!(latest("u", "not a number"), 1);
    }
}
