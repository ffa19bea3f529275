//! `NodeContext`: the facts about this node and its agent on which the meaning of a revision depends. Values.

use super::{
    kernel::{Machine, MissingFeatures},
    pods::Pods,
    regressions::Regressions,
};

/// The facts about this node and its agent on which the meaning of a revision depends.
#[derive(Clone, Debug)]
pub struct NodeContext {
    /// The page size and processors, which decide the sizes of maps.
    pub machine: Machine,
    /// The features that this agent supports, in the words of a revision's `requires`.
    pub features: Vec<String>,
    /// The features that a revision may use and this kernel lacks.
    pub missing_features: MissingFeatures,
    /// The known regressions that this kernel has.
    pub regressions: Regressions,
    /// The cgroup that holds all pods, as a path below the cgroup root; empty unless a target selects it.
    pub pods_root: String,
    /// The pods of this node; empty unless a target selects pods.
    pub pods: Pods,
    /// True if this agent has an API server that it must be able to reach.
    pub has_api: bool,
}
