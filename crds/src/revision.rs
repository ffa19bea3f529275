//! `BpfRevision`: an accepted spec of a BpfProgram without the object's bytes. The operator writes it and agents run
//! it. All but its state is immutable, and its BpfProgram owns it, as a Deployment does a ReplicaSet.

mod assignment;
mod load_key;
mod on_architecture;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::assignment::assigned;
use crate::{
    ObjectInfo, Value, names,
    program::{MapRef, MapSpec, ProgramSpec, map_refs},
    provenance::{self, Proof, RevisionImage, SignedBy, Variant},
    schema, selector,
    target::{AttachTarget, PodsTarget},
};

/// A BpfRevision is an accepted spec of a BpfProgram without the object's bytes. All but its state is immutable.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "sockeye.dev",
    version = "v1alpha1",
    kind = "BpfRevision",
    plural = "bpfrevisions",
    shortname = "sbpfr",
    category = "sockeye",
    derive = "PartialEq",
    selectable = ".spec.state",
    // The cost of joining a number's text, whose length CEL does not bound, would exceed the API server's limit.
    validation = Rule::new("self.metadata.name.startsWith(self.spec.programRef.name + '-') && \
        self.metadata.name.substring(self.spec.programRef.name.size() + 1) == string(self.spec.sequence)")
        .message("metadata.name must be the BpfProgram's name, '-' and the sequence: of two writers of one sequence, \
            one fails"),
    doc = "BpfRevision is an accepted spec of a BpfProgram without the object's bytes. The operator writes it and \
        agents run it. All but its state is immutable.",
    printcolumn(name = "Program", type_ = "string", json_path = ".spec.programRef.name",
        description = "The BpfProgram that the revision belongs to"),
    printcolumn(name = "Sequence", type_ = "integer", json_path = ".spec.sequence",
        description = "The order of a BpfProgram's revisions; an agent runs the highest active one"),
    printcolumn(name = "State", type_ = "string", json_path = ".spec.state",
        description = "Whether agents may run the revision"),
    printcolumn(name = "Generation", type_ = "integer", json_path = ".spec.programGeneration",
        description = "The generation of the BpfProgram that the revision was made from"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.template == oldSelf.template && self.programRef == oldSelf.programRef && \
    self.sequence == oldSelf.sequence && self.programGeneration == oldSelf.programGeneration")
    .message("only a BpfRevision's state is mutable: edit the BpfProgram instead"))]
pub struct BpfRevisionSpec {
    /// Tells agents to run the revision, or not to run it anew.
    pub state: RevisionState,
    /// The BpfProgram that the revision was made from.
    pub program_ref: ProgramRef,
    /// The generation of the BpfProgram that the revision was made from.
    #[schemars(range(min = 1))]
    pub program_generation: i64,
    /// The order of a BpfProgram's revisions; each has a higher sequence than the one before. An agent runs the highest
    /// active one that selects its node.
    #[schemars(range(min = 1))]
    pub sequence: i64,
    /// The accepted spec, which agents run.
    pub template: RevisionTemplate,
}

/// Tells agents to run a revision, or not to run it anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RevisionState {
    /// Agents may run the revision.
    Active,
    /// Agents do not run the revision anew, but on nodes on which it is the known good one and a newer one fails. It is
    /// kept while a node reports it so, and among the latest `spec.revisionHistoryLimit` retired ones.
    Retired,
}

impl RevisionState {
    /// Returns the state's name, which field selectors compare.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "Active",
            Self::Retired => "Retired",
        }
    }
}

/// An accepted spec, which agents run, with the digest in place of the bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevisionTemplate {
    /// The SHA-256 digest of the object's bytes: `sha256:` and 64 hexadecimal digits.
    #[schemars(length(max = 71), regex(pattern = "^sha256:[0-9a-f]{64}$"))]
    pub digest: String,
    /// The content of the object, as the operator read it.
    pub object: ObjectInfo,
    /// The image that the object comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::of::<RevisionImage>")]
    pub image: Option<RevisionImage>,
    /// The objects for architectures, if they differ. `digest` and `object` are those of the first one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["architecture".into()]))]
    pub variants: Vec<Variant>,
    /// What lets a node verify who signed the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::of::<Proof>")]
    pub proof: Option<Proof>,
    /// Who signed the object, as the operator found when it dispatched the revision. Agents do not read it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub signed_by: Vec<SignedBy>,
    /// The nodes to run on, selected by their labels. If absent, every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::node_selector")]
    pub node_selector: Option<LabelSelector>,
    /// The features that an agent must know to run this revision. An agent that lacks one keeps what it runs and
    /// reports AgentTooOld.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 64), regex(pattern = "^[A-Z][A-Za-z0-9]*$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub requires: Vec<String>,
    /// The programs to run. The operator has set their types and their targets.
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
    #[schemars(extend("maxProperties" = 256))]
    #[x_kube(validation = schema::names_of_globals())]
    pub globals: BTreeMap<String, Value>,
    /// The position among other BpfPrograms on the same cgroup and attach type. If absent, 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub priority: Option<i64>,
    /// If true, the programs are loaded and not attached.
    #[serde(default, skip_serializing_if = "schema::is_false")]
    pub suspend: bool,
    /// If true, sockets are taken out of sockmaps at once, also where that loses data.
    #[serde(default, skip_serializing_if = "schema::is_false")]
    pub force_detach: bool,
    /// The known regressions of kernels that the BpfProgram accepts, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 64), regex(pattern = "^[A-Z][A-Za-z0-9]*$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub accepted_regressions: Vec<String>,
}

/// A reference to a BpfProgram. A re-created BpfProgram of the same name has another UID.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProgramRef {
    /// The name of the BpfProgram.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// The UID of the BpfProgram.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
}

/// A feature that was added to revisions after the first release. An agent that does not know a field ignores it and
/// would run something else than the spec means, so a revision lists the features that it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// The cgroup of all pods: `type: AllPods`.
    AllPods,
    /// Pods selected by their labels or their namespaces' labels: `type: Pods`.
    PodSelectors,
    /// Containers selected by their names: `pods.containers`.
    Containers,
    /// Containers that start only once the program is attached: `pods.startPolicy: WaitForAttachment`.
    StrictPods,
    /// Pods that keep the program when they are no longer selected: `pods.whenUnselected: KeepUntilPodEnds`.
    KeepUnselected,
    /// Programs attached to maps: `type: Map`.
    MapAttach,
    /// `suspend: true`.
    Suspend,
    /// Maps that are created again when their shape changes: `onIncompatible: Recreate`.
    RecreateMaps,
    /// Global variables that the spec sets: `globals`.
    Globals,
    /// Maps that are filled on creation, by the spec (`maps[].entries`) or by the object itself (`values`).
    MapEntries,
    /// Entries that are kept in sync with the spec: `maps[].entriesPolicy: Sync`.
    SyncEntries,
    /// Lists of entries in ConfigMaps: `maps[].entriesFrom`.
    EntriesFrom,
    /// Maps of other BpfPrograms: `maps[].mapRef`.
    SharedMaps,
    /// The position among others on the same cgroup: `priority`.
    Priority,
    /// Attach types that the spec gives: `programs[].attachType`.
    AttachType,
    /// Programs attached to maps of other BpfPrograms: `attach[].map.program`.
    SharedMapAttach,
    /// Sockets that are taken out of maps at once: `forceDetach: true`. An agent that does not know
    /// `acceptedRegressions` refuses nothing for a regression, so that field requires no feature.
    ForceDetach,
    /// Objects that differ by architecture: `variants`.
    Variants,
    /// Maps whose pins would have one name, since bpffs allows no dots: `.data.a.b` and `.data.a_b`.
    DistinctPins,
    /// Buffers that the agent reads: `maps[].stream` with `reader: Agent`.
    Streams,
}

impl Feature {
    /// All features.
    pub const ALL: [Self; 20] = [
        Self::AllPods,
        Self::PodSelectors,
        Self::Containers,
        Self::StrictPods,
        Self::KeepUnselected,
        Self::MapAttach,
        Self::Suspend,
        Self::RecreateMaps,
        Self::Globals,
        Self::MapEntries,
        Self::SyncEntries,
        Self::EntriesFrom,
        Self::SharedMaps,
        Self::Priority,
        Self::AttachType,
        Self::SharedMapAttach,
        Self::ForceDetach,
        Self::Variants,
        Self::DistinctPins,
        Self::Streams,
    ];

    /// Returns the feature's name in `requires`.
    pub fn as_str(self) -> String {
        format!("{self:?}")
    }

    /// Returns the names of the features that a template uses, sorted.
    pub fn of(template: &RevisionTemplate) -> Vec<String> {
        let targets = |is: fn(&AttachTarget) -> bool| template.targets().any(is);
        let pods = |are: fn(&PodsTarget) -> bool| template.pods_targets().any(are);
        let uses = |feature: &Self| match feature {
            Self::AllPods => targets(|target| matches!(target, AttachTarget::AllPods)),
            Self::PodSelectors => pods(|_| true),
            Self::Containers => pods(|pods| !pods.containers.is_empty()),
            Self::StrictPods => pods(PodsTarget::is_strict),
            Self::KeepUnselected => pods(PodsTarget::keeps_unselected),
            Self::MapAttach => targets(|target| target.map().is_some()),
            Self::Suspend => template.suspend,
            Self::RecreateMaps => template.maps.iter().any(MapSpec::is_recreated),
            Self::Globals => !template.globals.is_empty(),
            Self::SyncEntries => template.maps.iter().any(MapSpec::is_synced),
            Self::EntriesFrom => template.maps.iter().any(|map| map.entries_from.is_some()),
            Self::SharedMaps => template.maps.iter().any(|map| map.map_ref.is_some()),
            Self::Priority => template.priority.is_some(),
            Self::AttachType => template.programs.iter().any(|program| program.attach_type.is_some()),
            Self::SharedMapAttach => targets(|target| target.map().is_some_and(|map| map.program.is_some())),
            Self::ForceDetach => template.force_detach,
            Self::Variants => !template.variants.is_empty(),
            Self::DistinctPins => {
                let pins = names::pin_names(template.object.maps.iter().map(|map| map.name.as_str()));
                pins.iter().any(|(map, pin)| names::pin_name(map) != *pin)
            }
            Self::Streams => template.maps.iter().any(MapSpec::is_read),
            Self::MapEntries => {
                template.maps.iter().any(MapSpec::lists_entries)
                    || template.object.maps.iter().any(|map| !map.holds.is_empty())
            }
        };
        let mut words: Vec<String> =
            Self::ALL.iter().filter(|feature| uses(feature)).map(|feature| feature.as_str()).collect();
        words.sort_unstable();
        words
    }
}

impl RevisionTemplate {
    /// Returns the required features that are not in `known`.
    pub fn lacking<'a>(&'a self, known: &'a [String]) -> Vec<&'a str> {
        self.requires.iter().filter(|word| !known.contains(word)).map(String::as_str).collect()
    }

    /// Returns the targets of all programs.
    pub fn targets(&self) -> impl Iterator<Item = &AttachTarget> {
        self.programs.iter().flat_map(|program| &program.attach)
    }

    /// Returns the maps of other BpfPrograms that the revision uses or attaches programs to, each with its field.
    pub fn map_refs(&self) -> impl Iterator<Item = (String, MapRef)> {
        map_refs(&self.maps, &self.programs)
    }

    /// Returns the targets that select pods.
    pub fn pods_targets(&self) -> impl Iterator<Item = &PodsTarget> {
        self.targets().filter_map(AttachTarget::pods)
    }

    /// Returns the digests of all bytes that the operator stores for the revision: the objects', those of lists of
    /// entries, and those of the proof.
    pub fn digests(&self) -> impl Iterator<Item = &str> {
        let lists = self.maps.iter().filter_map(MapSpec::list_digest);
        let origin = provenance::digests(&self.variants, self.proof.as_ref());
        std::iter::once(self.digest.as_str()).chain(lists).chain(origin)
    }

    /// Returns whether bytes of a digest are among those that the operator stores for the revision.
    pub fn has_bytes(&self, digest: &str) -> bool {
        self.digests().any(|its| its == digest)
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
    /// Returns a revision with the name that its BpfProgram and its sequence determine. So of two writers that create
    /// the same sequence, one fails.
    pub fn of(spec: BpfRevisionSpec) -> Self {
        Self::new(&names::revision_name(&spec.program_ref.name, spec.sequence), spec)
    }

    /// Returns whether agents may run the revision: it is active, not being deleted, and has the name that its
    /// BpfProgram and its sequence determine.
    pub fn is_live(&self) -> bool {
        let BpfRevisionSpec { state, program_ref, sequence, .. } = &self.spec;
        let name = names::revision_name(&program_ref.name, *sequence);
        self.metadata.deletion_timestamp.is_none()
            && *state == RevisionState::Active
            && names::is_dns_label(&program_ref.name)
            && self.metadata.name.as_deref() == Some(name.as_str())
    }
}
