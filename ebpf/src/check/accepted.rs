//! `Accepted`: a spec that fits its object.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;
use sockeye_crds::{
    BpfRevisionSpec, ObjectInfo,
    program::{MapSpec, ProgramSpec},
    revision::{Feature, ProgramRef},
};

/// A spec that fits its object.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    /// The digest of the object's bytes.
    pub digest: String,
    /// The content of the object.
    pub object: ObjectInfo,
    /// The programs to run, with their types set.
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
    /// Returns the spec of the revision that dispatches the accepted spec.
    pub fn into_revision_spec(self, program: ProgramRef, generation: i64, sequence: i64) -> BpfRevisionSpec {
        let Self { digest, object, programs, maps, globals, node_selector, priority, suspend, notes: _ } = self;
        let requires = Vec::new();
        let spec = BpfRevisionSpec {
            program,
            generation,
            sequence,
            digest,
            object,
            node_selector,
            requires,
            programs,
            maps,
            globals,
            priority,
            suspend,
        };
        BpfRevisionSpec { requires: Feature::of(&spec), ..spec }
    }
}
