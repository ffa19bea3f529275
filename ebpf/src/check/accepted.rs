//! `Accepted`: a spec that fits its object.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use sockeye_crds::{
    BpfRevisionSpec, ObjectInfo, RevisionTemplate, Value,
    program::{MapSpec, ProgramSpec},
    provenance::Origin,
    revision::{Feature, ProgramRef, RevisionState},
};

/// A spec that fits its object.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    /// The digest of the object's bytes.
    pub digest: String,
    /// The origin of the object. A check knows nothing of it: whoever has read the bytes adds it.
    pub origin: Origin,
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
    /// If true, sockets are taken out of sockmaps at once.
    pub force_detach: bool,
    /// The known regressions of kernels that are accepted.
    pub accepted_regressions: Vec<String>,
    /// Notes for the user.
    pub notes: Vec<String>,
}

impl Accepted {
    /// Returns the digests of all bytes that the spec needs: the objects', those of lists of entries, and those of the
    /// proof.
    pub fn digests(&self) -> impl Iterator<Item = &str> {
        let lists = self.maps.iter().filter_map(MapSpec::list_digest);
        std::iter::once(self.digest.as_str()).chain(lists).chain(self.origin.digests())
    }

    /// Returns the spec of the active revision that dispatches the accepted spec.
    pub fn into_revision_spec(
        self,
        program_ref: ProgramRef,
        program_generation: i64,
        sequence: i64,
    ) -> BpfRevisionSpec {
        let Origin { image, variants, proof, signed_by, warning: _ } = self.origin;
        let template = RevisionTemplate {
            digest: self.digest,
            image,
            variants,
            proof,
            signed_by,
            object: self.object,
            node_selector: self.node_selector,
            requires: Vec::new(),
            programs: self.programs,
            maps: self.maps,
            globals: self.globals,
            priority: self.priority,
            suspend: self.suspend,
            force_detach: self.force_detach,
            accepted_regressions: self.accepted_regressions,
        };
        let template = RevisionTemplate { requires: Feature::of(&template), ..template };
        BpfRevisionSpec { state: RevisionState::Active, program_ref, program_generation, sequence, template }
    }
}
