//! `Condition`: one thing that is true of a BpfProgram or not, when that changed, and why.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// A condition, as Kubernetes' API conventions shape it (`metav1.Condition`), with bounded strings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Accepted, Attached, Ready; and Reconciling or Stalled while True.
    #[serde(rename = "type")]
    pub type_: ConditionType,
    /// True, False or Unknown.
    pub status: Status,
    /// The `metadata.generation` that was looked at.
    #[serde(default)]
    pub observed_generation: i64,
    /// When `status` last changed.
    pub last_transition_time: Time,
    /// Why, in one word that programs can compare.
    pub reason: Reason,
    /// Why, in words for people: what is wrong, where, and what to do.
    #[serde(default)]
    #[schemars(length(max = 4096))]
    pub message: String,
}

/// What a condition is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum ConditionType {
    /// The latest spec is valid and dispatched.
    Accepted,
    /// The dispatched revision is in effect on every live selected node.
    Attached,
    /// Both Accepted and Attached.
    Ready,
    /// Work towards the latest spec is under way (kstatus).
    Reconciling,
    /// Only an edit can help (kstatus).
    Stalled,
}

/// A condition's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Status {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It cannot be told.
    Unknown,
}

impl From<bool> for Status {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// Why a condition has its status. Every reason there is, so that none is ever built from free text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
pub enum Reason {
    // Accepted
    /// The latest spec is valid and dispatched.
    Dispatched,
    /// The bytes are no ELF object for BPF, or a damaged one.
    InvalidObject,
    /// `spec.programs[].name` is not a function in the object.
    NoSuchProgram,
    /// `spec.programs[].type` is not what the function's section says.
    TypeMismatch,
    /// `spec.maps[].name` is not a map in the object.
    NoSuchMap,
    /// The spec asks for something this version of sockeye does not do.
    Unsupported,
    /// The spec contradicts itself or the object in some other way.
    InvalidSpec,
    /// The bytes could not be fetched from where the spec says they are.
    BytecodeUnavailable,
    /// It is valid, and the API server refused to store its bytes or its revision.
    DispatchFailed,
    // Attached, and a node's state
    /// In effect wherever it should be.
    InEffect,
    /// No node matches `spec.nodeSelector`.
    NoNodeSelected,
    /// Nodes are selected, but none of them is live.
    NoLiveNode,
    /// Some nodes have not yet said that the revision is in effect.
    Progressing,
    /// The kernel's verifier refused a program.
    VerifierRefused,
    /// The kernel refused to create a map.
    MapRefused,
    /// The maps would hold more bytes than the agent's policy allows a program or the node.
    MapBytesExceeded,
    /// A map's shape differs from that of the pinned map whose content it should carry over.
    MapShapeChanged,
    /// A map of another BpfProgram that it is to share is not pinned on the node.
    SharedMapMissing,
    /// The kernel refused to attach.
    AttachRefused,
    /// The cgroup to attach to does not exist or is no cgroup v2 directory.
    CgroupNotFound,
    /// bpffs is not mounted, not writable, or full.
    BpffsUnusable,
    /// The agent lacks a capability or is refused a system call.
    PermissionDenied,
    /// The kernel lacks something that the program needs.
    KernelUnsupported,
    /// The revision requires what the node's agent, an older one, does not know.
    AgentTooOld,
    /// The attachment is no longer listed by the kernel.
    NotInEffect,
    /// Loading failed in some other way.
    LoadFailed,
    /// The node is not Ready, or its agent's pod is not: what runs there is not known.
    NodeNotLive,
    /// The node is Ready and has no agent.
    NoAgent,
    /// It is attached nowhere because someone said so: `spec.suspend`, the switch for the whole cluster, or `detach --all` on
    /// the node.
    Suspended,
    /// It was attached, the node then lost the API server, and its agent took it back.
    Reverted,
    /// It is attached, and containers on the node start without waiting for it, though a target of it is strict.
    RuntimeNotHooked,
    /// Nothing was dispatched: no spec has been accepted yet.
    NotDispatched,
    /// The object is being deleted.
    Deleting,
    /// It is to be deleted once no other BpfProgram uses its maps.
    InUse,
    /// A newer agent's or operator's reason, which this version does not know.
    Other,
}

impl<'de> Deserialize<'de> for Reason {
    /// Takes any word: versions may differ by one, and an object must stay readable to the older.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        Ok(Self::ALL.into_iter().find(|reason| reason.as_str() == word).unwrap_or(Self::Other))
    }
}

impl Reason {
    /// All of them.
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

    /// The word as it stands in a condition, an Event and a metric's label: the variant's own name.
    pub fn as_str(self) -> String {
        format!("{self:?}")
    }

    /// Whether only an edit of the object can help, so that retrying is pointless.
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

/// What a condition should say now; [`merge`] gives it its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What it is about.
    pub type_: ConditionType,
    /// Whether it holds.
    pub status: Status,
    /// Why, in one word.
    pub reason: Reason,
    /// Why, in words.
    pub message: String,
}

/// The conditions that `verdicts` make of the `previous` ones: a condition keeps its transition time while its status
/// stays, one that has no verdict any more goes, and the order is the one of [`ConditionType`].
pub fn merge(
    previous: &[Condition],
    verdicts: Vec<Verdict>,
    observed_generation: i64,
    now: Timestamp,
) -> Vec<Condition> {
    let mut conditions: Vec<Condition> = verdicts
        .into_iter()
        .map(|Verdict { type_, status, reason, message }| {
            let unchanged = previous.iter().find(|c| c.type_ == type_ && c.status == status);
            Condition {
                type_,
                status,
                observed_generation,
                last_transition_time: unchanged.map_or(Time(now), |c| c.last_transition_time.clone()),
                reason,
                message: crate::names::clip(&message, 4096),
            }
        })
        .collect();
    conditions.sort_by_key(|c| c.type_);
    conditions
}

/// The condition of one type, if it is there.
pub fn find(conditions: &[Condition], type_: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}
