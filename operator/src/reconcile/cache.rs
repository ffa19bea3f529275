//! [`ProgramCache`]: what the operator remembers of one BpfProgram between two reconciliations. IO: none.
//!
//! Without it the same bytes are checked a second time, and nothing else changes: all state is in the API.

use std::sync::Arc;

use sockeye_crds::{BpfProgramStatus, Refusal};
use sockeye_ebpf::Accepted;

use crate::{
    events::{drift::DriftTracker, refused::RefusedTracker},
    reconcile::{step::ObjectVersion, throttle::StatusThrottle},
};

/// The cached values of one BpfProgram.
#[derive(Clone, Debug, Default)]
pub struct ProgramCache {
    /// The last check of a spec and its bytes.
    pub check: Option<(CheckInput, Arc<CheckResult>)>,
    /// The last write to the BpfProgram. The watch may not have brought it back yet.
    pub written: Option<LastWrite>,
    /// The times of status writes.
    pub throttle: StatusThrottle,
    /// The drift that was reported before.
    pub drift: DriftTracker,
    /// The refused connections that were reported before.
    pub refused: RefusedTracker,
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
    pub config_map: Option<Version>,
    /// The digest that the reference of the image means; none if the bytes come from elsewhere.
    pub image: Option<String>,
    /// The UIDs and resource versions of the ConfigMaps with lists of entries, in the spec's order.
    pub lists: Vec<Option<Version>>,
}

/// The UID and the resource version of a ConfigMap.
pub type Version = (String, String);

/// A write to a BpfProgram: of its finalizers, or of its status.
#[derive(Clone, Debug)]
pub struct LastWrite {
    /// The BpfProgram's UID.
    pub uid: String,
    /// The resource version that the write created.
    pub resource_version: u64,
    /// The status that the BpfProgram has since.
    pub status: BpfProgramStatus,
}

impl ProgramCache {
    /// Returns the result of the last check, if its input was the same.
    pub fn checked(&self, input: &CheckInput) -> Option<Arc<CheckResult>> {
        self.check.as_ref().filter(|(last, _)| last == input).map(|(_, result)| Arc::clone(result))
    }

    /// Returns the newer of the status that the watch brought and the one that was written last. Where the watch
    /// brought none, as of an object that can't be read, the last one counts.
    pub fn latest_status(
        &self,
        uid: &str,
        resource_version: Option<&str>,
        watched: Option<&BpfProgramStatus>,
    ) -> BpfProgramStatus {
        let only = || self.write_of(uid).filter(|_| watched.is_none());
        let written = self.newer_write(uid, resource_version).or_else(only);
        written.map(|written| &written.status).or(watched).cloned().unwrap_or_default()
    }

    /// Returns the newer of the resource version that the watch brought and the one that was written last. A write that
    /// is based on the older one would fail.
    pub fn latest_version(&self, uid: &str, resource_version: Option<&str>) -> String {
        let newer = self.newer_write(uid, resource_version).map(|written| written.resource_version.to_string());
        newer.unwrap_or_else(|| resource_version.unwrap_or_default().to_owned())
    }

    /// Remembers that a BpfProgram is in this version, with this status, after a write.
    pub fn record_write(&mut self, version: &ObjectVersion, status: &BpfProgramStatus) {
        let ObjectVersion { name: _, uid, resource_version } = version;
        self.written = resource_version.parse().ok().map(|resource_version| LastWrite {
            uid: uid.clone(),
            resource_version,
            status: status.clone(),
        });
    }

    fn newer_write(&self, uid: &str, resource_version: Option<&str>) -> Option<&LastWrite> {
        let watched_version = resource_version.and_then(|version| version.parse::<u64>().ok())?;
        self.write_of(uid).filter(|written| watched_version < written.resource_version)
    }

    fn write_of(&self, uid: &str) -> Option<&LastWrite> {
        self.written.as_ref().filter(|written| written.uid == uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(generation: i64) -> BpfProgramStatus {
        BpfProgramStatus { observed_generation: Some(generation), ..BpfProgramStatus::default() }
    }

    fn written_in_version_10() -> ProgramCache {
        let mut cache = ProgramCache::default();
        let version = ObjectVersion { name: "p".into(), uid: "u".into(), resource_version: "10".into() };
        cache.record_write(&version, &status(2));
        cache
    }

    #[test]
    fn a_written_status_counts_until_the_watch_brings_it_or_a_newer_one() {
        let cache = written_in_version_10();
        let latest = |uid, version| cache.latest_status(uid, Some(version), Some(&status(1))).observed_generation;
        assert_eq!(latest("u", "9"), Some(2));
        assert_eq!(latest("u", "10"), Some(1));
        assert_eq!(latest("another", "9"), Some(1));
        assert_eq!(latest("u", "not a number"), Some(1));
    }

    #[test]
    fn a_written_status_counts_where_the_watch_brings_none() {
        let latest = |uid| written_in_version_10().latest_status(uid, Some("11"), None).observed_generation;
        assert_eq!((latest("u"), latest("another")), (Some(2), None));
    }

    #[test]
    fn the_next_write_is_based_on_the_last_one_until_the_watch_brings_it_or_a_newer_one() {
        let cache = written_in_version_10();
        let latest = |uid, version| cache.latest_version(uid, Some(version));
        assert_eq!([latest("u", "9"), latest("u", "10"), latest("u", "11")], ["10", "10", "11"]);
        assert_eq!([latest("another", "9"), latest("u", "not a number")], ["9", "not a number"]);
    }
}
