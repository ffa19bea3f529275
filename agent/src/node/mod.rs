//! One node's side effects: reads and changes what bpffs and the kernel hold, one BpfProgram at a time.
//!
//! Start at the trait [`Node`]: it is all that the agent's decisions need of a node. [`KernelNode`] implements it.
//!
//! | file | noun |
//! |---|---|
//! | `kernel_node` | the node itself |
//! | [`layout`] | paths on bpffs |
//! | [`directory`] | sockeye's directory on bpffs: whose it is, and the version of its layout |
//! | [`observe`] | reads what a node has |
//! | [`draining`] | maps that are kept for the sockets in them |
//! | [`execute`] | executes the steps of a plan |
//! | [`entry_sync`], `record` | keeps the entries of maps in sync, and remembers which ones the spec listed |
//! | `switch` | an object's switch, which tells programs whether they are attached |
//! | [`handles`] | the agent's own descriptors of what is pinned |
//! | [`map_attachment`] | a function's attachment to a map |
//! | [`failure`] | the reason why a revision is not in effect |
//! | [`attach_failure`], `load_failure` | failures made of the kernel's answers |
//! | [`helpers`] | the helpers that older kernels refuse |
//! | [`open`] | finds the cgroup root, and asks the kernel what it has |
//! | [`open_home`] | a BpfProgram's opened home |
//! | [`kubelet`] | names of pods' cgroups |
//! | [`watch`] | tells where something happened, by inotify |

pub mod attach_failure;
pub mod directory;
pub mod draining;
pub mod entry_sync;
pub mod execute;
pub mod failure;
pub mod handles;
pub mod helpers;
mod instructions;
mod kernel_node;
pub mod kubelet;
pub mod layout;
mod load_failure;
pub mod map_attachment;
pub mod observe;
pub mod open;
pub mod open_home;
mod record;
mod switch;
pub mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

pub use self::kernel_node::{KernelNode, NodeProperties, features};
use self::{
    entry_sync::{EntriesOutcome, EntriesTask},
    execute::{Executed, Execution},
    failure::Failure,
    handles::Descriptors,
    observe::{Bpffs, Located, ObserveError, Query},
};
use crate::{
    kernel::{SysError, cgroup::Root},
    model::{
        draining_map::DrainingMap,
        entries::ListedMaps,
        kernel::Cgroup,
        node_context::NodeContext,
        observed::Observed,
        pods::{PodCgroup, RequiredInputs},
        trial::Trial,
    },
};

/// A node as the agent sees and changes it. Calls may block.
///
/// `name` is always a BpfProgram's. Paths of cgroups start at the node's cgroup root.
pub trait Node {
    /// The bpffs that holds the pins.
    fn bpffs(&self) -> Result<Bpffs, ObserveError>;
    /// The names of the BpfPrograms that have a home on the node.
    fn homes(&self) -> Result<BTreeSet<String>, ObserveError>;
    /// The trials that are noted on the node, by BpfProgram.
    fn trials(&self) -> Result<BTreeMap<String, Trial>, ObserveError>;
    /// The inputs from which [`Desired`] is made of a revision, except single pods.
    fn node_context(&self, needs: RequiredInputs) -> Result<NodeContext, SysError>;
    /// The pods' cgroups, by the pods' UIDs; with their containers' if `containers`.
    fn pod_cgroups(&self, containers: bool) -> Result<BTreeMap<String, PodCgroup>, SysError>;
    /// The directories in which pods' cgroups come and go; also those in which their containers' do if `containers`.
    fn pod_directories(&self, containers: bool) -> Result<Vec<PathBuf>, SysError>;
    /// Returns whether any process is in the cgroup at a path or below it.
    fn is_populated(&self, path: &str) -> Result<bool, SysError>;
    /// Searches all cgroups for those of pods and containers, by their UIDs and IDs. This may take some milliseconds.
    fn locate(&mut self, pods: &BTreeSet<&str>, containers: &BTreeSet<&str>) -> Result<Located, SysError>;
    /// Finds a pod's cgroup with processes that is not below `pods`, the cgroup of all pods; returns its path. This may
    /// take some milliseconds.
    fn pod_elsewhere(&self, pods: &str) -> Result<Option<String>, SysError>;
    /// Reads what a BpfProgram has on the node.
    fn observe(&mut self, name: &str) -> Result<Observed, SysError>;
    /// The programs attached to the cgroup at a path; `None` if there is no such cgroup.
    fn attached(&self, path: &str, attach_type: u32) -> Result<Option<Query>, SysError>;
    /// The program that runs for sockets that enter a BpfProgram's map; `None` if there is no such map or the kernel
    /// does not tell. `pin` is the map's pin name.
    fn attached_to_map(&self, name: &str, pin: &str, attach_type: u32) -> Result<Option<Query>, SysError>;
    /// Finds a program at a cgroup or below it that is not one of `ours`; returns the cgroup's path and the program's
    /// ID.
    fn foreign_program(&self, path: &str, attach_type: u32, ours: &BTreeSet<u32>) -> Option<(String, u32)>;
    /// Looks at the maps that are kept for the sockets in them: unpins those without any, and returns the others.
    fn drain(&mut self) -> Result<Vec<DrainingMap>, SysError>;
    /// The directories in which something happens if somebody changes a BpfProgram's pins or notes.
    fn directories(&self, name: &str, observed: &Observed) -> Vec<PathBuf>;
    /// The cgroups at these paths that exist, by path.
    fn cgroups(&self, paths: &BTreeSet<&str>) -> Result<BTreeMap<String, Cgroup>, SysError>;
    /// Compares the entries of a BpfProgram's maps with those that its spec lists, and does the task about those that
    /// differ. A map that is not pinned is left out.
    fn sync_entries(
        &mut self,
        name: &str,
        maps: &ListedMaps,
        task: EntriesTask,
    ) -> Result<Vec<EntriesOutcome>, Failure>;
    /// The descriptors that the agent has of a BpfProgram's programs and maps.
    fn descriptors(&self, name: &str) -> Descriptors;
    /// The root of the cgroups. Absent on a node of values.
    fn cgroup_root(&self) -> Option<Root> {
        None
    }
    /// Executes a plan that was made for `before`, and returns what the BpfProgram has afterwards.
    fn execute(
        &mut self,
        name: &str,
        before: &Observed,
        execution: &Execution<'_>,
    ) -> Result<(Executed, Observed), Failure>;
}
