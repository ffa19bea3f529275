//! `Reason`: why a condition has its status, as one word that programs can compare.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// The reason for a condition's status. Reasons are never free text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
pub enum Reason {
    // For Accepted.
    /// The latest spec is valid and dispatched.
    Dispatched,
    /// The bytes are not an ELF object for BPF, or are damaged.
    InvalidObject,
    /// `spec.programs[].name` names no function in the object.
    NoSuchProgram,
    /// `spec.programs[].type` is not the type that the function's section determines.
    TypeMismatch,
    /// `spec.maps[].name` names no map in the object.
    NoSuchMap,
    /// The spec asks for something that this version of sockeye does not support.
    Unsupported,
    /// The spec contradicts itself or the object in some other way.
    InvalidSpec,
    /// The object's bytes could not be fetched from their source.
    BytecodeUnavailable,
    /// The spec is valid, but the API server refused to store the object's bytes or the revision.
    DispatchFailed,
    // For Attached and for the state on a node.
    /// The revision is in effect on all nodes where it should be.
    InEffect,
    /// No node matches `spec.nodeSelector`.
    NoNodeSelected,
    /// Nodes are selected, and none of them is live.
    NoLiveNode,
    /// Some nodes have not yet reported that the revision is in effect.
    Progressing,
    /// The kernel's verifier refused a program.
    VerifierRefused,
    /// The kernel refused to create a map.
    MapRefused,
    /// The maps would need more bytes than the agent's policy allows for a program or the node.
    MapBytesExceeded,
    /// A map's shape differs from that of the pinned map whose content should be carried over.
    MapShapeChanged,
    /// A map of another BpfProgram, named by `maps[].from`, is not pinned on the node.
    SharedMapMissing,
    /// The kernel refused to attach a program.
    AttachRefused,
    /// The cgroup to attach to does not exist or is not a cgroup v2 directory.
    CgroupNotFound,
    /// bpffs is not mounted, not writable, or full.
    BpffsUnusable,
    /// The agent lacks a capability, or a system call is forbidden to it.
    PermissionDenied,
    /// The kernel lacks a feature that the program needs.
    KernelUnsupported,
    /// The revision requires a feature that the node's agent is too old to know.
    AgentTooOld,
    /// The kernel no longer lists the attachment.
    NotInEffect,
    /// The load failed in some other way.
    LoadFailed,
    /// The node or its agent's pod is not Ready, so that the state on the node is unknown.
    NodeNotLive,
    /// The node is Ready and has no agent's pod.
    NoAgent,
    /// The program is detached because someone asked for it: by `spec.suspend`, by the switch for the whole cluster, or
    /// by `detach --all` on the node.
    Suspended,
    /// The agent detached the program again because the node could not reach the API server any more.
    Reverted,
    /// The program has a strict target, but the container runtime does not wait for the agent before it starts
    /// containers.
    RuntimeNotHooked,
    /// No spec has been accepted yet, so that there is no revision.
    NotDispatched,
    /// The BpfProgram is being deleted.
    Deleting,
    /// The BpfProgram will be deleted once no other BpfProgram uses its maps.
    InUse,
    /// The reason comes from a newer agent or operator, and this version does not know it.
    Other,
}

impl<'de> Deserialize<'de> for Reason {
    /// Reads an unknown reason as `Other`, so that an older version can read objects that a newer one wrote.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        Ok(Self::ALL.into_iter().find(|reason| reason.as_str() == word).unwrap_or(Self::Other))
    }
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 35] = [
        Self::Dispatched,
        Self::InvalidObject,
        Self::NoSuchProgram,
        Self::TypeMismatch,
        Self::NoSuchMap,
        Self::Unsupported,
        Self::InvalidSpec,
        Self::BytecodeUnavailable,
        Self::DispatchFailed,
        Self::InEffect,
        Self::NoNodeSelected,
        Self::NoLiveNode,
        Self::Progressing,
        Self::VerifierRefused,
        Self::MapRefused,
        Self::MapBytesExceeded,
        Self::MapShapeChanged,
        Self::SharedMapMissing,
        Self::AttachRefused,
        Self::CgroupNotFound,
        Self::BpffsUnusable,
        Self::PermissionDenied,
        Self::KernelUnsupported,
        Self::AgentTooOld,
        Self::NotInEffect,
        Self::LoadFailed,
        Self::NodeNotLive,
        Self::NoAgent,
        Self::Suspended,
        Self::Reverted,
        Self::RuntimeNotHooked,
        Self::NotDispatched,
        Self::Deleting,
        Self::InUse,
        Self::Other,
    ];

    /// Returns the word that conditions and Events show: the variant's own name.
    pub fn as_str(self) -> String {
        format!("{self:?}")
    }

    /// Returns whether only an edit of the BpfProgram can help, so that retrying is pointless.
    pub const fn needs_edit(self) -> bool {
        matches!(
            self,
            Self::InvalidObject
                | Self::NoSuchProgram
                | Self::TypeMismatch
                | Self::NoSuchMap
                | Self::Unsupported
                | Self::InvalidSpec
                | Self::VerifierRefused
                | Self::MapShapeChanged
                | Self::Reverted
        )
    }
}
