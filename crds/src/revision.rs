//! `BpfRevision`: an accepted spec of a BpfProgram without the object's bytes. The operator writes it and agents run
//! it. It is immutable and owned by its BpfProgram, as a ReplicaSet is by its Deployment.

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

/// A BpfRevision is an accepted spec of a BpfProgram without the object's bytes. It is immutable.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "sockeye.dev",
    version = "v1alpha1",
    kind = "BpfRevision",
    plural = "bpfrevisions",
    shortname = "sbpfr",
    category = "sockeye",
    derive = "PartialEq",
    doc = "BpfRevision is an accepted spec of a BpfProgram without the object's bytes. The operator writes it and \
        agents run it. It is immutable.",
    validation = Rule::new("self.spec == oldSelf.spec")
        .message("a BpfRevision's spec is immutable: edit the BpfProgram instead"),
    printcolumn(name = "Program", type_ = "string", json_path = ".spec.program.name",
        description = "The BpfProgram that the revision belongs to"),
    printcolumn(name = "Sequence", type_ = "integer", json_path = ".spec.sequence",
        description = "The order of a BpfProgram's revisions; an agent runs the highest live one"),
    printcolumn(name = "Generation", type_ = "integer", json_path = ".spec.generation",
        description = "The generation of the BpfProgram that the revision was made from"),
    printcolumn(name = "Live", type_ = "string", json_path = ".metadata.labels.sockeye\\.dev/live",
        description = "Whether agents may run the revision"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct BpfRevisionSpec {
    /// The BpfProgram that the revision was made from.
    pub program: ProgramRef,
    /// The generation of the BpfProgram that the revision was made from.
    pub generation: i64,
    /// The order of a BpfProgram's revisions; each has a higher sequence than the one before. An agent runs the highest
    /// live one that selects its node.
    #[schemars(range(min = 1))]
    pub sequence: i64,
    /// The SHA-256 digest of the object's bytes: `sha256:` and 64 hexadecimal digits.
    #[schemars(length(max = 80), regex(pattern = "^sha256:[0-9a-f]{64}$"))]
    pub digest: String,
    /// The content of the object, as the operator read it.
    pub object: ObjectInfo,
    /// The nodes to run on, selected by their labels. If absent, every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::node_selector")]
    pub node_selector: Option<LabelSelector>,
    /// The features that an agent must know to run this revision. An agent that lacks one keeps what it runs and
    /// reports AgentTooOld.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 64)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub requires: Vec<String>,
    /// The programs to run. The operator has set their types.
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub programs: Vec<ProgramSpec>,
    /// Settings of individual maps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub maps: Vec<MapSpec>,
    /// Values of global variables (.rodata, .data, .bss), by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::globals")]
    pub globals: BTreeMap<String, Value>,
    /// The position among other BpfPrograms on the same cgroup and attach type. If absent, 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub priority: Option<i64>,
    /// If true, the programs are loaded and not attached.
    #[serde(default, skip_serializing_if = "schema::is_false")]
    pub suspend: bool,
}

/// A reference to a BpfProgram. A re-created BpfProgram of the same name has another UID.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProgramRef {
    /// The name of the BpfProgram.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// The UID of the BpfProgram.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
}

/// A feature that was added to revisions after the first release. An agent that does not know a field ignores it and
/// would run something else than the spec means, so a revision lists the features that it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// Targets that are the cgroups of pods: `scope: Pods`.
    ScopePods,
    /// `suspend: true`.
    Suspend,
    /// Maps that are created again when their shape changes: `onShapeChange: Recreate`.
    RecreateMaps,
    /// Pods selected by their labels or their namespaces' labels: `podSelector`, `namespaceSelector`.
    PodSelectors,
    /// Containers selected by their names: `containers`.
    Containers,
    /// Containers that start only once the program is attached: `strict: true`.
    StrictPods,
    /// Programs attached to maps: `attach[].map`.
    MapAttach,
    /// Global variables that the spec sets: `globals`.
    Globals,
    /// Maps that are filled on creation, by the spec (`maps[].initial`) or by the object itself (`values`).
    InitialEntries,
    /// Maps of other BpfPrograms: `maps[].from`.
    SharedMaps,
    /// The position among others on the same cgroup: `priority`.
    Priority,
}

impl Feature {
    /// All features.
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

    /// Returns the feature's name in `requires`.
    pub fn as_str(self) -> String {
        format!("{self:?}")
    }

    /// Returns the names of the features that a spec uses, sorted.
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
    /// Returns the required features that are not in `known`.
    pub fn lacking<'a>(&'a self, known: &'a [String]) -> Vec<&'a str> {
        self.requires.iter().filter(|word| !known.contains(word)).map(String::as_str).collect()
    }

    /// Returns the cgroup targets of all programs.
    pub fn cgroup_targets(&self) -> impl Iterator<Item = &CgroupTarget> {
        self.programs.iter().flat_map(|program| &program.attach).filter_map(|attach| attach.cgroup.as_ref())
    }

    /// Returns a key that identifies the result of loading this revision: a node that has loaded one revision needs no
    /// new load for another with the same key.
    ///
    /// The key is sixteen hexadecimal digits over the object's digest and every option that changes a load: the
    /// functions, each map's size, pinning and origin, and global variables. The targets and the selected nodes are not
    /// part of it. The initial entries of a pinned map are not either, since a load carries the map's content over;
    /// those of a map that is not pinned are, since every load creates the map.
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
                // serde_json sorts objects by key, so that equal values hash equally.
                add(&value.to_string());
            }
        }
        names::hex(&hash.finalize())[..16].to_owned()
    }

    /// Returns the settings of a map, if the spec has any.
    pub fn map(&self, name: &str) -> Option<&MapSpec> {
        self.maps.iter().find(|m| m.name == name)
    }

    /// Returns whether the revision selects a node with these labels.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        selector::selects(self.node_selector.as_ref(), labels)
    }
}

impl BpfRevision {
    /// Returns a revision whose name is derived from its content, so that creating it twice creates one object.
    pub fn named(spec: BpfRevisionSpec) -> Self {
        // Serializing strings, numbers and lists cannot fail. If it did, the sequence would still give a name of its
        // own.
        let content = serde_json::to_vec(&spec).unwrap_or_else(|_| spec.sequence.to_string().into_bytes());
        Self::new(&names::revision_name(&spec.program.name, &content), spec)
    }

    /// Returns whether agents may run the revision: it has the live label and is not being deleted.
    pub fn is_live(&self) -> bool {
        is_live(&self.metadata)
    }
}

/// Returns whether agents may run the revision with this metadata.
pub fn is_live(metadata: &ObjectMeta) -> bool {
    let label = metadata.labels.as_ref().and_then(|labels| labels.get(names::LABEL_LIVE));
    metadata.deletion_timestamp.is_none() && label.is_some_and(|value| value == "true")
}

/// Returns the revisions that a node with these labels is to run, by the BpfProgram's name: of the live ones that
/// select the node, the one with the highest sequence. Just after a BpfProgram was re-created, live revisions of two
/// UIDs can exist; the revision that was created last then belongs to the younger BpfProgram, which wins.
pub fn desired<'a>(
    revisions: impl IntoIterator<Item = &'a BpfRevision>,
    labels: &BTreeMap<String, String>,
) -> BTreeMap<&'a str, &'a BpfRevision> {
    let mut desired: BTreeMap<&str, &BpfRevision> = BTreeMap::new();
    let rank = |r: &BpfRevision| (r.metadata.creation_timestamp.clone().map(|t| t.0), r.spec.sequence);
    for revision in revisions.into_iter().filter(|r| r.is_live() && r.spec.selects(labels)) {
        let slot = desired.entry(&revision.spec.program.name).or_insert(revision);
        let same_object = slot.spec.program.uid == revision.spec.program.uid;
        let higher =
            if same_object { revision.spec.sequence > slot.spec.sequence } else { rank(revision) > rank(slot) };
        if higher {
            *slot = revision;
        }
    }
    desired
}
