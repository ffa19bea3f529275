//! Opens the node that the agent runs on: finds its cgroup root, and asks its kernel what it has. Does IO; changes
//! nothing.

use std::path::PathBuf;

use sockeye_crds::node::NodeFacts;

use super::{
    kernel_node::{KernelNode, NodeProperties},
    layout::Layout,
};
use crate::{
    kernel::{
        SysError,
        cgroup::{Root, RootError},
        facts,
        kernel_features::KernelFeatures,
        regressions,
    },
    model::regressions::Regressions,
};

/// The places of a node.
#[derive(Clone, Debug)]
pub struct NodePaths {
    /// Where bpffs is mounted for this process.
    pub bpffs: PathBuf,
    /// Where the host has it mounted: pin paths are reported so.
    pub host_bpffs: PathBuf,
    /// The node's cgroup root; found where absent.
    pub cgroup_root: Option<PathBuf>,
    /// The kubelet's own cgroup root, as a path below the node's: pods' cgroups are below it.
    pub kubelet_root: String,
    /// Whether there is an API server that the agent must be able to reach.
    pub has_api: bool,
}

/// An open node.
pub struct Opened {
    /// The node.
    pub node: KernelNode,
    /// Where its pins are.
    pub layout: Layout,
    /// The node and its kernel, as its BpfNode reports them.
    pub facts: NodeFacts,
}

/// Why the node can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no cgroup root.
    #[error(transparent)]
    Root(#[from] RootError),
    /// A system call failed.
    #[error(transparent)]
    Sys(#[from] SysError),
}

impl NodePaths {
    /// Opens the node.
    ///
    /// # Errors
    /// Fails where there is no cgroup v2 root, or the kernel can't be asked.
    pub fn open(self) -> Result<Opened, OpenError> {
        let Self { bpffs, host_bpffs, cgroup_root, kubelet_root, has_api } = self;
        let root = Root::find(cgroup_root.as_deref())?;
        let KernelFeatures { has, lacks, restrictions, missing_features } = KernelFeatures::probe();
        let regressions = regressions::ask();
        let facts = NodeFacts { regressions: regressions.names(), ..facts::read(root.mode, &has | &restrictions)? };
        let layout = Layout::new(&bpffs, &host_bpffs);
        tracing::info!(cgroup_root = %root.path.display(), pins = %layout.directory().display(), "started");
        tracing::info!(kernel = facts.kernel_release, ?lacks, ?restrictions, "probed the kernel");
        let Regressions { found, unknown } = &regressions;
        tracing::info!(?found, ?unknown, "probed the known regressions");
        let properties = NodeProperties { machine: facts::machine()?, missing_features, regressions, has_api };
        let node = KernelNode::new(layout.clone(), root, kubelet_root, properties);
        Ok(Opened { node, layout, facts })
    }
}
