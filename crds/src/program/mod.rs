//! `BpfProgram`: the resource that users write. It names one ELF object, the programs in it to run, where to attach
//! them, and how its maps are kept. The operator writes its status, a summary of all BpfNodes.

mod bytecode;
mod config_map;
mod map;
mod status;
mod stream;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

pub use self::{
    bytecode::{Bytecode, DetachedSignature, ImageSource, PullPolicy, PullSecretRef, Signature},
    config_map::ConfigMapKeyRef,
    map::{EntriesPolicy, EntriesSource, Entry, MapRef, MapSpec, OnIncompatible, Pinning, ReclaimPolicy, Sharing},
    status::{BpfProgramStatus, BytecodeStatus, CurrentRevision, EntriesSummary, NodeCounts, NodeStatus, Summary},
    stream::{Format, StreamField, StreamReader, StreamSpec},
};
use crate::{ProgramType, Value, schema, target::AttachTarget};

/// A BpfProgram runs socket and cgroup eBPF programs on every selected node. The node's agent loads the ELF object,
/// attaches its programs, keeps its maps pinned on bpffs, and reports what the kernel runs.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "sockeye.dev",
    version = "v1alpha1",
    kind = "BpfProgram",
    plural = "bpfprograms",
    shortname = "sbpf",
    category = "sockeye",
    status = "BpfProgramStatus",
    derive = "PartialEq",
    doc = "BpfProgram runs socket and cgroup eBPF programs on every selected node: it names one ELF object, the \
        programs in it to run, where to attach them, and how its maps are kept. Its status reports what the nodes' \
        kernels run.",
    validation = Rule::new("self.metadata.name.size() <= 63 && \
        self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name must be a DNS label (lower-case letters, digits and '-', at most 63): it names a \
            directory on bpffs, which refuses dots"),
    validation = Rule::new("!has(self.spec.maps) || self.spec.maps.all(map, !has(map.mapRef) || map.mapRef.program != \
        self.metadata.name)")
        .message("maps[].mapRef.program must be another BpfProgram").field_path(".spec.maps"),
    validation = Rule::new("!has(self.spec.attach) || self.spec.attach.all(target, !has(target.map) || \
        !has(target.map.program) || target.map.program != self.metadata.name)")
        .message("attach[].map.program must be another BpfProgram: leave it out to name a map of this one")
        .field_path(".spec.attach"),
    validation = Rule::new("self.spec.programs.all(program, !has(program.attach) || program.attach.all(target, \
        !has(target.map) || !has(target.map.program) || target.map.program != self.metadata.name))")
        .message("attach[].map.program must be another BpfProgram: leave it out to name a map of this one")
        .field_path(".spec.programs"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".status.nodes.desired",
        description = "Nodes that the program is to run on"),
    printcolumn(name = "Updated", type_ = "integer", json_path = ".status.nodes.updated",
        description = "Ready nodes on which the latest accepted spec is in effect"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.nodes.failed",
        description = "Ready nodes on which the latest accepted spec can't be brought into effect"),
    printcolumn(name = "Pods", type_ = "integer", json_path = ".status.summary.pods",
        description = "Selected pods to which a program is attached"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether the latest spec is in effect on every Ready node that it selects"),
    printcolumn(name = "Program-IDs", type_ = "string", json_path = ".status.summary.programIDs",
        description = "Kernel program IDs, ordered by node, if at most two nodes have any"),
    printcolumn(name = "Map-IDs", type_ = "string", json_path = ".status.summary.mapIDs",
        description = "Kernel map IDs, ordered by node, if at most two nodes have any"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Type", type_ = "string", json_path = ".status.summary.type", priority = 1,
        description = "Program types, from the ELF sections"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        priority = 1, description = "Reason of the Ready condition"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.summary.runningRevisions", priority = 1,
        description = "The BpfRevisions in effect, to which the IDs belong"),
    printcolumn(name = "Links", type_ = "integer", json_path = ".status.summary.links", priority = 1,
        description = "Links in effect"),
    printcolumn(name = "All-Program-IDs", type_ = "string", json_path = ".status.summary.allProgramIDs", priority = 1,
        description = "Kernel program IDs of the first 16 nodes, and the number of further ones"),
    printcolumn(name = "All-Map-IDs", type_ = "string", json_path = ".status.summary.allMapIDs", priority = 1,
        description = "Kernel map IDs of the first 16 nodes, and the number of further ones")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.attach) || self.programs.all(program, has(program.attach))")
    .message("attach must be set for each program, or once for all: programs[].attach or spec.attach")
    .field_path(".programs"))]
pub struct BpfProgramSpec {
    /// The source of the ELF object; exactly one must be set.
    pub bytecode: Bytecode,
    /// The nodes to run on, selected by their labels. If absent, every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::node_selector")]
    pub node_selector: Option<LabelSelector>,
    /// The cgroups or maps to attach those programs to that have no `attach` of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub attach: Vec<AttachTarget>,
    /// The programs to run. Each is a function in the object.
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub programs: Vec<ProgramSpec>,
    /// Settings of individual maps. A map that is not listed is pinned, and removed with the BpfProgram.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub maps: Vec<MapSpec>,
    /// Values of global variables (.rodata, .data, .bss), by name: integers, text, or for a composite type JSON text.
    /// They replace the object's own values and are encoded by the variables' BTF types.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256))]
    #[x_kube(validation = schema::names_of_globals())]
    pub globals: BTreeMap<String, Value>,
    /// The position among other BpfPrograms on the same cgroup and attach type, 0 to 1000. Lower values run first;
    /// equal ones run in the order in which the BpfPrograms came to the node. If absent, 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub priority: Option<i64>,
    /// If true, the programs are detached on every node. They stay loaded, and their maps keep their content.
    #[serde(default, skip_serializing_if = "schema::is_false")]
    pub suspend: bool,
    /// If true, sockets are taken out of the BpfProgram's sockmaps and sockhashes at once, also where that loses what
    /// their receivers have not read. If false, such sockets keep their programs until they are closed.
    #[serde(default, skip_serializing_if = "schema::is_false")]
    pub force_detach: bool,
    /// The known regressions of kernels that may befall the sockets of this BpfProgram, by name. Without its name here,
    /// a node whose kernel has the regression refuses the programs that would trigger it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 64), regex(pattern = "^[A-Z][A-Za-z0-9]*$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub accepted_regressions: Vec<String>,
    /// The number of retired BpfRevisions that are kept, the latest ones, with their objects' bytes. If absent, 10. One
    /// that a node runs, or goes back to while a newer one fails there, is kept besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub revision_history_limit: Option<i64>,
}

impl BpfProgramSpec {
    /// The number of retired revisions that are kept if the spec does not say.
    pub const REVISION_HISTORY_LIMIT: usize = 10;

    /// Returns the number of retired revisions to keep.
    pub fn revision_history_limit(&self) -> usize {
        let limit = self.revision_history_limit.and_then(|limit| usize::try_from(limit).ok());
        limit.unwrap_or(Self::REVISION_HISTORY_LIMIT)
    }
}

/// Returns the maps of other BpfPrograms that a spec uses or attaches programs to, each with its field. `programs` have
/// their targets.
pub fn map_refs(maps: &[MapSpec], programs: &[ProgramSpec]) -> impl Iterator<Item = (String, MapRef)> {
    let used = maps.iter().enumerate();
    let used = used.filter_map(|(i, map)| Some((format!("spec.maps[{i}].mapRef"), map.map_ref.clone()?)));
    let targets = programs.iter().flat_map(|program| &program.attach);
    // A target may be one program's, or all programs'.
    used.chain(targets.filter_map(|target| Some(("attach[].map".to_owned(), target.map()?.map_ref()?))))
}

/// The priority of a BpfProgram that sets none.
pub const DEFAULT_PRIORITY: i64 = 500;
/// The highest priority; the lowest is 0.
pub const MAX_PRIORITY: i64 = 1000;

/// A program to run: a function in the object, and where to attach it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProgramSpec {
    /// The name of the function in the ELF object.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9_]+$"))]
    pub name: String,
    /// The program's type. The name of its ELF section determines it; if set, this field must agree.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::of::<ProgramType>")]
    pub program_type: Option<ProgramType>,
    /// The attach type, by libbpf's name, such as cgroup_inet_egress or sk_skb_stream_parser. Only a program whose ELF
    /// section does not determine it needs this: in cgroup/skb, cgroup_skb or sk_skb, or in one with a name of the
    /// user's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[a-z0-9_]+$"))]
    pub attach_type: Option<String>,
    /// The cgroups or maps to attach the program to. If absent, those of `spec.attach`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub attach: Vec<AttachTarget>,
}
