//! `BpfRevision`: dispatch, written by the operator: an accepted spec without its bytes. Immutable, owned by its
//! BpfProgram, and what agents run: as ReplicaSet to Deployment.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    ObjectInfo, names,
    program::{MapRef, MapSpec, OnShapeChange, ProgramSpec},
    schema, selector,
    target::{CgroupTarget, Scope},
};

/// A BpfRevision is an accepted spec of a BpfProgram, without its bytes. Immutable.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "sockeye.dev",
    version = "v1alpha1",
    kind = "BpfRevision",
    plural = "bpfrevisions",
    shortname = "sbpfr",
    category = "sockeye",
    derive = "PartialEq",
    doc = "BpfRevision is an accepted spec of a BpfProgram, without its bytes. The operator writes it; agents run it. It is immutable.",
    validation = Rule::new("self.spec == oldSelf.spec").message("a BpfRevision's spec is immutable: edit the BpfProgram instead"),
    printcolumn(name = "Program", type_ = "string", json_path = ".spec.program.name", description = "The BpfProgram it belongs to"),
    printcolumn(name = "Sequence", type_ = "integer", json_path = ".spec.sequence", description = "Of a program's live revisions, an agent runs the one with the highest sequence"),
    printcolumn(name = "Generation", type_ = "integer", json_path = ".spec.generation", description = "The BpfProgram's generation it was made from"),
    printcolumn(name = "Live", type_ = "string", json_path = ".metadata.labels.sockeye\\.dev/live", description = "Whether agents consider it"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct BpfRevisionSpec {
    /// The BpfProgram it was made from.
    pub program: ProgramRef,
    /// That BpfProgram's generation.
    pub generation: i64,
    /// Rises with every revision of a BpfProgram; of the live ones that select a node, its agent runs the highest.
    #[schemars(range(min = 1))]
    pub sequence: i64,
    /// The sha256 of the object's bytes, `sha256:` and 64 hexadecimal digits.
    #[schemars(length(max = 80), regex(pattern = "^sha256:[0-9a-f]{64}$"))]
    pub digest: String,
    /// What the object holds, as the operator read it.
    pub object: ObjectInfo,
    /// The nodes to run on; absent means every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::node_selector")]
    pub node_selector: Option<LabelSelector>,
    /// What an agent must know to run this revision, beyond what every agent does; one that lacks any of it keeps what it
    /// has, and says so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 64)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub requires: Vec<String>,
    /// The programs to run, with their types filled in.
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub programs: Vec<ProgramSpec>,
    /// Settings of single maps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub maps: Vec<MapSpec>,
    /// Values of global variables, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::globals")]
    pub globals: BTreeMap<String, Value>,
    /// Where it runs among others on the same cgroup and attach type; absent means 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub priority: Option<i64>,
    /// Whether it is to be attached nowhere for now.
    #[serde(default, skip_serializing_if = "schema::is_false")]
    pub suspend: bool,
}

/// A BpfProgram, this very one: a re-created one of the same name has another UID.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProgramRef {
    /// Its name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Its UID.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
}

/// What was added to revisions since the first agents. An agent that does not know a field ignores it, and would run
/// something else than what is meant; so a revision names what it makes use of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// Targets that are pods' cgroups: `scope: Pods`.
    ScopePods,
    /// `suspend: true`.
    Suspend,
    /// Maps that are created anew when their shape changes: `onShapeChange: Recreate`.
    RecreateMaps,
    /// Single pods, by their labels or their namespaces' labels.
    PodSelectors,
    /// Single containers, by their names.
    Containers,
    /// No selected container starts unattached: `strict: true`.
    StrictPods,
    /// Programs attached to maps: `attach[].map`.
    MapAttach,
    /// Global variables that the spec sets.
    Globals,
    /// Maps that are filled when they are made: by the spec (`maps[].initial`) or by the object itself (`values`).
    InitialEntries,
    /// Maps of other BpfPrograms: `maps[].from`.
    SharedMaps,
    /// A place among others on the same cgroup: `priority`.
    Priority,
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::ScopePods,
        Self::Suspend,
        Self::RecreateMaps,
        Self::PodSelectors,
        Self::Containers,
        Self::StrictPods,
        Self::MapAttach,
        Self::Globals,
        Self::InitialEntries,
        Self::SharedMaps,
        Self::Priority,
    ];

    /// The word in `requires`.
    pub fn as_str(self) -> String {
        format!("{self:?}")
    }

    /// What a spec makes use of, sorted.
    pub fn of(spec: &BpfRevisionSpec) -> Vec<String> {
        let targets = |has: fn(&CgroupTarget) -> bool| spec.cgroup_targets().any(has);
        let uses = |feature: &Self| match feature {
            Self::ScopePods => targets(|target| target.scope == Scope::Pods),
            Self::PodSelectors => targets(|t| t.pod_selector.is_some() || t.namespace_selector.is_some()),
            Self::Containers => targets(|target| !target.containers.is_empty()),
            Self::StrictPods => targets(|target| target.strict),
            Self::Suspend => spec.suspend,
            Self::RecreateMaps => spec.maps.iter().any(|map| map.on_shape_change == OnShapeChange::Recreate),
            Self::MapAttach => spec.programs.iter().flat_map(|program| &program.attach).any(|at| at.map.is_some()),
            Self::Globals => !spec.globals.is_empty(),
            Self::SharedMaps => spec.maps.iter().any(|map| map.from.is_some()),
            Self::Priority => spec.priority.is_some(),
            Self::InitialEntries => {
                spec.maps.iter().any(|map| !map.initial.is_empty())
                    || spec.object.maps.iter().any(|map| !map.holds.is_empty())
            }
        };
        let mut words: Vec<String> =
            Self::ALL.iter().filter(|feature| uses(feature)).map(|feature| feature.as_str()).collect();
        words.sort_unstable();
        words
    }
}

impl BpfRevisionSpec {
    /// Of what it requires, what is not among the known words.
    pub fn lacking<'a>(&'a self, known: &'a [String]) -> Vec<&'a str> {
        self.requires.iter().filter(|word| !known.contains(word)).map(String::as_str).collect()
    }

    /// The sets of cgroups that its programs are to be attached to.
    pub fn cgroup_targets(&self) -> impl Iterator<Item = &CgroupTarget> {
        self.programs.iter().flat_map(|program| &program.attach).filter_map(|attach| attach.cgroup.as_ref())
    }

    /// Names what a load of this revision gives: two revisions with the same key need no second load.
    ///
    /// Sixteen hexadecimal digits over the bytes' digest and every option that changes loading: which functions, each map's
    /// size, pinning and origin, and global variables. Where programs attach and which nodes run them is not part of it; nor is what a
    /// pinned map is filled with when it is made, since a load carries its content over. One that is not pinned is made by
    /// every load.
    pub fn load_key(&self) -> String {
        use sha2::{Digest as _, Sha256};
        let mut hash = Sha256::new();
        let mut add = |part: &str| {
            hash.update(part.as_bytes());
            hash.update([0]);
        };
        add(&self.digest);
        let mut functions: Vec<&str> = self.programs.iter().map(|p| p.name.as_str()).collect();
        functions.sort_unstable();
        functions.into_iter().for_each(&mut add);
        add("maps");
        let mut maps: Vec<&MapSpec> =
            self.maps.iter().filter(|m| !m.pin || m.max_entries.is_some() || m.from.is_some()).collect();
        maps.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        for MapSpec { name, pin, max_entries, on_delete: _, on_shape_change: _, initial, from } in maps {
            add(name);
            add(if *pin { "pin" } else { "no-pin" });
            add(&max_entries.map(|n| n.to_string()).unwrap_or_default());
            if !pin && !initial.is_empty() {
                add(&serde_json::to_string(initial).unwrap_or_default());
            }
            if let Some(MapRef { program, map }) = from {
                ["from", program, map].into_iter().for_each(&mut add);
            }
        }
        if !self.globals.is_empty() {
            add("globals");
            for (name, value) in &self.globals {
                add(name);
                // Objects are sorted by key.
                add(&value.to_string());
            }
        }
        names::hex(&hash.finalize())[..16].to_owned()
    }

    /// The settings of one map, where the spec has any.
    pub fn map(&self, name: &str) -> Option<&MapSpec> {
        self.maps.iter().find(|m| m.name == name)
    }

    /// Whether a node with these labels is selected.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        selector::selects(self.node_selector.as_ref(), labels)
    }
}

impl BpfRevision {
    /// A revision named by all it says, so that making it twice makes one.
    pub fn named(spec: BpfRevisionSpec) -> Self {
        // A spec made of strings, numbers and lists always serializes; were it not to, the sequence still names it.
        let content = serde_json::to_vec(&spec).unwrap_or_else(|_| spec.sequence.to_string().into_bytes());
        Self::new(&names::revision_name(&spec.program.name, &content), spec)
    }

    /// Whether agents are to consider it: labelled live and not being deleted.
    pub fn is_live(&self) -> bool {
        is_live(&self.metadata)
    }
}

/// The same of one whose metadata alone can be read.
pub fn is_live(metadata: &ObjectMeta) -> bool {
    let label = metadata.labels.as_ref().and_then(|labels| labels.get(names::LABEL_LIVE));
    metadata.deletion_timestamp.is_none() && label.is_some_and(|value| value == "true")
}

/// Of all revisions, the ones a node with these labels is to run, by program name: live, selecting the node, and of those
/// the highest sequence. A name whose BpfProgram was re-created can have live revisions of two UIDs for a moment; the
/// younger object's run, told by the creation time.
pub fn wanted<'a>(
    revisions: impl IntoIterator<Item = &'a BpfRevision>,
    labels: &BTreeMap<String, String>,
) -> BTreeMap<&'a str, &'a BpfRevision> {
    let mut wanted: BTreeMap<&str, &BpfRevision> = BTreeMap::new();
    let rank = |r: &BpfRevision| (r.metadata.creation_timestamp.clone().map(|t| t.0), r.spec.sequence);
    for revision in revisions.into_iter().filter(|r| r.is_live() && r.spec.selects(labels)) {
        let slot = wanted.entry(&revision.spec.program.name).or_insert(revision);
        let same_object = slot.spec.program.uid == revision.spec.program.uid;
        let higher =
            if same_object { revision.spec.sequence > slot.spec.sequence } else { rank(revision) > rank(slot) };
        if higher {
            *slot = revision;
        }
    }
    wanted
}
