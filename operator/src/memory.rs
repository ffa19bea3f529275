//! `Memory`: what the operator remembers of one BpfProgram between two looks. Losing it costs a second check of the same
//! bytes, never correctness: everything that matters is in the API. No IO.

use std::sync::Arc;

use sockeye_crds::{BpfProgramStatus, Refusal};
use sockeye_ebpf::Accepted;

use crate::{drifted::Drifted, told::Told};

/// What is remembered of one BpfProgram.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// What became of the spec and bytes that were checked last.
    pub verdict: Option<(Fingerprint, Arc<Verdict>)>,
    /// The status that was written last, which the watch may not have brought back yet.
    pub written: Option<Written>,
    /// When its status was told.
    pub told: Told,
    /// What others did to it, as far as that is announced.
    pub drifted: Drifted,
}

/// What became of a spec and its bytes.
pub type Verdict = Result<Accepted, Refusal>;

/// Which spec and which bytes: where two are equal, so are the verdicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// The BpfProgram's UID.
    pub uid: String,
    /// Its generation.
    pub generation: i64,
    /// UID and resource version of the ConfigMap that holds the bytes, unless the spec itself does.
    pub config_map: Option<(String, String)>,
}

/// A status as it was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// Of which BpfProgram.
    pub uid: String,
    /// The resource version that the write made.
    pub resource_version: u64,
    /// What was written.
    pub status: BpfProgramStatus,
}

impl Memory {
    /// The verdict on exactly that spec and those bytes.
    pub fn verdict_on(&self, fingerprint: &Fingerprint) -> Option<Arc<Verdict>> {
        self.verdict.as_ref().filter(|(of, _)| of == fingerprint).map(|(_, verdict)| Arc::clone(verdict))
    }

    /// The latest status there is: the one the watch brought, or the one written since.
    pub fn latest_status(
        &self,
        uid: &str,
        resource_version: Option<&str>,
        seen: Option<&BpfProgramStatus>,
    ) -> BpfProgramStatus {
        let seen_at = resource_version.and_then(|version| version.parse::<u64>().ok());
        let newer = |written: &&Written| written.uid == uid && seen_at.is_some_and(|at| at < written.resource_version);
        let written = self.written.as_ref().filter(newer).map(|written| &written.status);
        written.or(seen).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_counts_until_the_watch_brings_it_or_something_newer() {
        let status = |generation| BpfProgramStatus { observed_generation: generation, ..BpfProgramStatus::default() };
        let written = Written { uid: "u".into(), resource_version: 10, status: status(2) };
        let memory = Memory { written: Some(written), ..Memory::default() };
        let latest = |uid, version| memory.latest_status(uid, Some(version), Some(&status(1))).observed_generation;
        assert_eq!(latest("u", "9"), 2);
        assert_eq!(latest("u", "10"), 1);
        assert_eq!(latest("another", "9"), 1);
        assert_eq!(latest("u", "not a number"), 1);
    }
}
