//! `Accepted`: a spec that fits its object.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use sockeye_crds::{
    BpfRevisionSpec, ObjectInfo, RevisionTemplate, Value,
    program::{MapSpec, ProgramSpec},
    revision::{Feature, ProgramRef, RevisionState},
};

/// A spec that fits its object.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    /// The digest of the object's bytes.
    pub digest: String,
    /// The content of the object.
    pub object: ObjectInfo,
    /// The programs to run, with their types and their targets set.
    pub programs: Vec<ProgramSpec>,
    /// Settings of individual maps.
    pub maps: Vec<MapSpec>,
    /// Values of global variables.
    pub globals: BTreeMap<String, Value>,
    /// The nodes to run on.
    pub node_selector: Option<LabelSelector>,
    /// The position among other BpfPrograms on the same cgroup and attach type.
    pub priority: Option<i64>,
    /// If true, the programs are loaded and not attached.
    pub suspend: bool,
    /// Notes for the user.
    pub notes: Vec<String>,
}

impl Accepted {
    /// Returns the digests of all bytes that the spec needs: the object's, and those of lists of entries.
    pub fn digests(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.digest.as_str()).chain(self.maps.iter().filter_map(MapSpec::list_digest))
    }

    /// Returns the spec of the active revision that dispatches the accepted spec.
    pub fn into_revision_spec(
        self,
        program_ref: ProgramRef,
        program_generation: i64,
        sequence: i64,
    ) -> BpfRevisionSpec {
        let Self { digest, object, programs, maps, globals, node_selector, priority, suspend, notes: _ } = self;
        let requires = Vec::new();
        let template =
            RevisionTemplate { digest, object, node_selector, requires, programs, maps, globals, priority, suspend };
        let template = RevisionTemplate { requires: Feature::of(&template), ..template };
        BpfRevisionSpec { state: RevisionState::Active, program_ref, program_generation, sequence, template }
    }
}
