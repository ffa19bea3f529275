//! `Reason`: why a condition has its status, as one word that programs can compare.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

/// Declares [`Reason`], and each variant's name once for programs and for people.
///
/// `tests/lint/reasons.py` makes docs/reasons.md of it. There the text after "To do:" is the remedy, and a comment
/// "Shown in:" says where the reasons below it are shown. A page is written as `docs/PAGE.md#anchor`.
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
    // Shown in: `Accepted` and `Ready` of a new BpfProgram.
    /// The operator has not looked at the BpfProgram yet.
    ///
    /// To do: wait; if it stays, see whether the operator runs.
    Pending,
    // Shown in: `Accepted` of the BpfProgram, and `Ready` while the spec is refused.
    /// The latest spec is valid and dispatched.
    ///
    /// To do: nothing.
    Dispatched,
    /// The bytes are not an ELF object for BPF, or are damaged; or a program that the spec names needs what no kernel
    /// has or takes: a symbol that no object defines, a map without key or value.
    ///
    /// To do: see the message; correct the source, or build the object anew.
    InvalidObject,
    /// `spec.programs[].name` names no function in the object.
    ///
    /// To do: name one of those that the message lists.
    ProgramNotFound,
    /// `spec.programs[].type` is not the type that the function's section determines.
    ///
    /// To do: remove `type`, or correct `SEC(...)` in the source.
    TypeMismatch,
    /// `spec.maps[].name` or `attach[].map.name` names no map in the object.
    ///
    /// To do: name one of those that the message lists.
    MapNotFound,
    /// The spec asks for something that this version of sockeye does not support.
    ///
    /// To do: see the message, which names the field.
    Unsupported,
    /// The spec contradicts itself or the object in some other way.
    ///
    /// To do: see the message, which begins with the field.
    InvalidSpec,
    /// The map that `spec.maps[].mapRef` or `attach[].map` names is not one that its BpfProgram shares, or there is no
    /// such BpfProgram.
    ///
    /// To do: set `sharing: Shared` on that map, in the BpfProgram that owns it; the operator notices.
    MapNotShared,
    /// The bytes at their source are not those of the spec's digest. A spec that was accepted before stays accepted.
    ///
    /// To do: set the digest that `sha256sum` prints of the bytes that you mean, or put those bytes into the ConfigMap;
    /// the operator notices.
    DigestMismatch,
    /// The object's bytes, or a list of entries, could not be fetched from their source. A node may show it, too,
    /// also while it verifies who signed them.
    ///
    /// To do: create what the message says is missing; the operator notices, and nodes ask again.
    BytecodeUnavailable,
    /// The image is being pulled from its registry. Nodes run what was accepted before.
    ///
    /// To do: wait.
    ImagePulling,
    /// The image could not be pulled: the registry is away, does not know it, or wants other credentials. The operator
    /// tries again, with a growing delay. A spec that was accepted before stays accepted.
    ///
    /// To do: see the message and `docs/images.md`; an edit of the BpfProgram has it tried at once.
    ImagePullFailed,
    /// What the registry gave is no image that sockeye reads, is too large, or has other bytes than its digest says; or
    /// the image's parts don't lead to its object.
    ///
    /// To do: see the message; push the image anew.
    InvalidImage,
    /// The policy asks for a signature, and there is none that it accepts. No node sees the bytes. As a warning Event:
    /// the policy only warns.
    ///
    /// To do: sign the image or the bytes as the message says, or have the rule changed that it names.
    SignatureRequired,
    /// The policy denies the source of the object: the image's repository, the builtin, or the kind of source.
    ///
    /// To do: use another source, or have the rule changed that the message names.
    SourceDenied,
    /// The spec is valid, but the API server refused to store the object's bytes or the revision. The operator tries
    /// again.
    ///
    /// To do: have changed what refused it: a quota, an admission policy, a right that the operator lacks.
    DispatchFailed,
    // Shown in: `Attached` and `Ready` of the BpfProgram.
    /// The revision is in effect on all nodes where it should be.
    ///
    /// To do: nothing.
    InEffect,
    /// No node matches `spec.nodeSelector`. Ready is True.
    ///
    /// To do: label a node, or change `nodeSelector`.
    NoNodeSelected,
    /// The revision is in effect on all nodes where it should be, and its targets match no pod, or no container, on any
    /// of them. Ready is True: a guard may be applied before its Deployment.
    ///
    /// To do: nothing, or correct the selectors; pods that they match get the program as they come.
    NoPodSelected,
    /// Nodes are selected, and none of them is Ready and has an agent that is Ready.
    ///
    /// To do: look at the nodes and the agents' pods.
    NoReadyNodes,
    /// Some nodes have not yet reported that the revision is in effect.
    ///
    /// To do: wait.
    Progressing,
    // Shown in: the state of the BpfProgram on the node (BpfNode), `Attached` and `Ready` of the BpfProgram, `Ready` of
    // the BpfNode.
    /// The kernel's verifier refused a program.
    ///
    /// To do: correct the program; the end of the verifier's log is in the node's BpfNodeDetail.
    VerifierRejected,
    /// The kernel refused to create a map. Stalled if it never takes its type, sizes or flags, or what the object puts
    /// into it.
    ///
    /// To do: see the message; if it names RLIMIT_MEMLOCK, see `docs/operations.md#nodes-with-linux-before-511`.
    MapCreateFailed,
    /// The maps would need more bytes than the agent's policy allows for a program or the node. Nothing was created.
    ///
    /// To do: lower `maps[].maxEntries`, or have the chart's `policy` raised.
    MapBytesExceeded,
    /// A map's shape differs from that of the pinned map whose content should be carried over, or that is to be shared.
    ///
    /// To do: rename the map, set `onIncompatible: Recreate`, or define both maps alike.
    MapIncompatible,
    /// The entries of a map could not be brought in step with the spec: no room, a frozen map, or others who change
    /// them as fast.
    ///
    /// To do: see the message and `docs/maps.md#what-is-refused`.
    EntriesNotInStep,
    /// A map of another BpfProgram, named by `maps[].mapRef` or `attach[].map.program`, is not pinned on the node.
    ///
    /// To do: have the other BpfProgram run there; the agent notices at once.
    SharedMapNotFound,
    /// The kernel refused to attach a program.
    ///
    /// To do: see the message, which distinguishes a full cgroup from an attachment that keeps others out, and names
    /// that attachment.
    AttachFailed,
    /// The cgroup to attach to does not exist or is not a cgroup v2 directory; or there is none of all pods.
    ///
    /// To do: create it, or correct the path; for all pods see `docs/pods.md#how-the-agent-finds-cgroups`. A cgroup v1
    /// path never works.
    CgroupNotFound,
    /// A selected pod runs, and its processes are in no cgroup of its UID or its containers' IDs. The program is
    /// attached to the other pods. Or, of `AllPods`: no process is in the cgroup of all pods, and pods run elsewhere.
    ///
    /// To do: see `docs/pods.md#how-the-agent-finds-cgroups`.
    PodCgroupNotFound,
    /// bpffs is not mounted, not writable, full, or its directory is not safely sockeye's.
    ///
    /// To do: mount it: `mount -t bpf bpf /sys/fs/bpf`, or `-o remount,rw`; or see the message. The agent notices.
    BpffsUnusable,
    /// The pins on the node have the layout of another version of sockeye, and the agent leaves them alone.
    ///
    /// To do: run the command that the message names: `docs/operations.md#upgrade-and-rollback`.
    OlderLayout,
    /// The agent lacks a capability, or a system call is forbidden to it.
    ///
    /// To do: install the chart as it is.
    PermissionDenied,
    /// The agent does not know what it must to attach the program: it may not list pods, or could not probe its kernel
    /// for a known regression (`docs/kernels.md#known-regressions`), which it tries again.
    ///
    /// To do: see the message; for pods set `agent.podTargets`, or pass `--pods` to an agent without a cluster.
    InputsUnavailable,
    /// The kernel lacks what the program needs: an attach type, a map type, a helper, BTF; it is locked down; or it has
    /// a known regression (`docs/kernels.md#known-regressions`) that the program would trigger. The node keeps its
    /// known good revision.
    ///
    /// To do: exclude such nodes with `nodeSelector`, or accept the regression (`acceptedRegressions`).
    KernelUnsupported,
    /// The revision requires a feature that the node's agent is too old to know, or the agent can't read it at all. The
    /// node keeps its known good revision.
    ///
    /// To do: upgrade the agents.
    AgentTooOld,
    /// The kernel no longer lists the attachment; or the node or its kubelet lost the API server, the agent detached
    /// the program, and it is not yet known whether the program was to blame.
    ///
    /// To do: wait, the agent tries again; `drift` shows what was changed.
    NotInEffect,
    /// The load failed in some other way.
    ///
    /// To do: see the message.
    LoadFailed,
    /// The node verifies signatures itself, and found none of the object that its policy accepts; or the stored proof
    /// does not lead to the object. It loads nothing, and keeps its known good revision.
    ///
    /// To do: see the message. If the operator's policy accepts the object, find out who dispatched it:
    /// `docs/security.md#a-compromised-operator`.
    VerificationFailed,
    /// The image has no object for the node's architecture.
    ///
    /// To do: push one for it, or exclude such nodes with `nodeSelector`.
    ArchitectureMissing,
    // Shown in: `status.nodeStatuses[]` of the BpfProgram.
    /// The node or its agent's pod is not Ready, so that the state on the node is unknown.
    ///
    /// To do: look at the node and its agent's pod.
    NodeNotReady,
    /// The node is Ready and has no agent's pod.
    ///
    /// To do: look at the DaemonSet.
    AgentMissing,
    // Shown in: the state of the BpfProgram on the node (BpfNode), `Attached` and `Ready` of the BpfProgram, `Ready` of
    // the BpfNode.
    /// The program is detached because someone asked for it: by `spec.suspend`, by the switch for the whole cluster, or
    /// by `detach --all` on the node.
    ///
    /// To do: set `suspend: false`, or lift the suspension: `docs/operations.md#stop-everything`.
    Suspended,
    /// The agent detached the program again because with it the node could not reach the API server, or its kubelet did
    /// not renew the node's Lease. Where that took long, it happened twice.
    ///
    /// To do: correct the program; the next revision is tried anew.
    ConnectivityLost,
    /// The program is attached, and has a strict target, but the container runtime does not wait for the agent before
    /// it starts containers.
    ///
    /// To do: see the message and `docs/strict.md`.
    NRINotConnected,
    // Shown in: `Attached` and `Ready` of the BpfProgram; for a valid spec in `Accepted`.
    /// No spec has been accepted yet, or an accepted one is about to be dispatched, so that there is no revision.
    ///
    /// To do: wait, or see `Accepted`.
    NotDispatched,
    // Shown in: `Ready` and `Reconciling` of the BpfProgram, while it is being deleted.
    /// The BpfProgram is being deleted; the message names the nodes that still hold it.
    ///
    /// To do: wait.
    Deleting,
    /// The BpfProgram will be deleted once no other BpfProgram uses its maps. It runs until then.
    ///
    /// To do: delete the BpfPrograms that the message names, or remove their `maps[].mapRef` and
    /// `attach[].map.program`.
    InUse,
    // Shown in: the state of the BpfProgram on the node (BpfNode), `Attached` and `Ready` of the BpfProgram, `Ready` of
    // the BpfNode.
    /// The reason, or the whole report, comes from a newer agent or operator, and this version does not know it.
    ///
    /// To do: see the message; upgrade the operator.
    Other,
}

impl Reason {
    /// Returns whether only an edit of the BpfProgram can help, so that retrying is pointless. Of other reasons some
    /// causes are such, too ([`NodeProgram::needs_edit`](crate::node::NodeProgram::needs_edit)).
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
                | Self::KernelUnsupported
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
