//! `Reason`: why a condition has its status, as one word that programs can compare.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

/// Declares [`Reason`], and each variant's name once for programs and for people.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The reason for a condition's status. Reasons are never free text.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// All reasons.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Returns the word that conditions and Events show: the variant's own name.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

reasons! {
    /// The operator has not looked at the BpfProgram yet.
    Pending,
    // For Accepted.
    /// The latest spec is valid and dispatched.
    Dispatched,
    /// The bytes are not an ELF object for BPF, or are damaged.
    InvalidObject,
    /// `spec.programs[].name` names no function in the object.
    ProgramNotFound,
    /// `spec.programs[].type` is not the type that the function's section determines.
    TypeMismatch,
    /// `spec.maps[].name` names no map in the object.
    MapNotFound,
    /// The spec asks for something that this version of sockeye does not support.
    Unsupported,
    /// The spec contradicts itself or the object in some other way.
    InvalidSpec,
    /// A map that `spec.maps[].mapRef` names is not one that its BpfProgram shares.
    MapNotShared,
    /// The bytes at their source are not those of the spec's digest.
    DigestMismatch,
    /// The object's bytes, or a list of entries, could not be fetched from their source.
    BytecodeUnavailable,
    /// The spec is valid, but the API server refused to store the object's bytes or the revision.
    DispatchFailed,
    // For Attached and for the state on a node.
    /// The revision is in effect on all nodes where it should be.
    InEffect,
    /// No node matches `spec.nodeSelector`.
    NoNodeSelected,
    /// The revision is in effect on all nodes where it should be, and its selectors match no pod on any of them.
    NoPodSelected,
    /// Nodes are selected, and none of them is Ready and has an agent that is Ready.
    NoReadyNodes,
    /// Some nodes have not yet reported that the revision is in effect.
    Progressing,
    /// The kernel's verifier refused a program.
    VerifierRejected,
    /// The kernel refused to create a map.
    MapCreateFailed,
    /// The maps would need more bytes than the agent's policy allows for a program or the node.
    MapBytesExceeded,
    /// A map's shape differs from that of the pinned map whose content should be carried over.
    MapIncompatible,
    /// The entries of a map could not be brought in step with the spec.
    EntriesNotInStep,
    /// A map of another BpfProgram, named by `maps[].mapRef`, is not pinned on the node.
    SharedMapNotFound,
    /// The kernel refused to attach a program.
    AttachFailed,
    /// The cgroup to attach to does not exist or is not a cgroup v2 directory.
    CgroupNotFound,
    /// A selected pod runs, and its processes are in no cgroup of its UID or its containers' IDs.
    PodCgroupNotFound,
    /// bpffs is not mounted, not writable, full, or its directory is not safely sockeye's.
    BpffsUnusable,
    /// The pins on the node have the layout of another version of sockeye, and the agent leaves them alone.
    OlderLayout,
    /// The agent lacks a capability, or a system call is forbidden to it.
    PermissionDenied,
    /// The agent was not told what it must know to attach the program: for example, it may not list pods.
    InputsUnavailable,
    /// The kernel lacks a feature that the program needs.
    KernelUnsupported,
    /// The revision requires a feature that the node's agent is too old to know.
    AgentTooOld,
    /// The kernel no longer lists the attachment.
    NotInEffect,
    /// The load failed in some other way.
    LoadFailed,
    /// The node or its agent's pod is not Ready, so that the state on the node is unknown.
    NodeNotReady,
    /// The node is Ready and has no agent's pod.
    AgentMissing,
    /// The program is detached because someone asked for it: by `spec.suspend`, by the switch for the whole cluster, or
    /// by `detach --all` on the node.
    Suspended,
    /// The agent detached the program again because with it the node could not reach the API server, or its kubelet did
    /// not renew the node's Lease.
    ConnectivityLost,
    /// The program has a strict target, but the container runtime does not wait for the agent before it starts
    /// containers.
    NRINotConnected,
    /// No spec has been accepted yet, so that there is no revision.
    NotDispatched,
    /// The BpfProgram is being deleted.
    Deleting,
    /// The BpfProgram will be deleted once no other BpfProgram uses its maps.
    InUse,
    /// The reason comes from a newer agent or operator, and this version does not know it.
    Other,
}

impl Reason {
    /// Returns whether only an edit of the BpfProgram can help, so that retrying is pointless.
    pub const fn needs_edit(self) -> bool {
        matches!(
            self,
            Self::InvalidObject
                | Self::ProgramNotFound
                | Self::TypeMismatch
                | Self::MapNotFound
                | Self::Unsupported
                | Self::InvalidSpec
                | Self::VerifierRejected
                | Self::MapIncompatible
                | Self::ConnectivityLost
        )
    }
}

impl<'de> Deserialize<'de> for Reason {
    /// Reads an unknown reason as `Other`, so that an older version can read objects that a newer one wrote.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = Cow::<str>::deserialize(deserializer)?;
        Ok(Self::ALL.iter().copied().find(|reason| reason.as_str() == word).unwrap_or(Self::Other))
    }
}

impl JsonSchema for Reason {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Reason".into()
    }

    /// A pattern instead of an enumeration, so that another version or another controller may have reasons of its own.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 1,
            "maxLength": 1024,
            "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"
        })
    }
}
