//! [`Trim`]: drops the fields of a watched object that nobody reads, before the operator keeps it in memory. IO: none.

use kube::{Resource as _, core::DeserializeGuard};
use sockeye_crds::{BpfNode, BpfNodeStatus, BpfProgram, BpfRevision, node::NodeFacts};

use crate::watch::{
    nodes::{PartialNode, PartialPod},
    stores::ConfigMapMeta,
};

/// A watched kind.
pub trait Trim {
    /// Drops the fields that nobody reads.
    fn trim(&mut self);
}

impl Trim for DeserializeGuard<BpfProgram> {
    fn trim(&mut self) {
        let meta = self.meta_mut();
        meta.managed_fields = None;
        if let Some(annotations) = &mut meta.annotations {
            // It is a second copy of inline bytes.
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
    }
}

impl Trim for DeserializeGuard<BpfRevision> {
    fn trim(&mut self) {
        self.meta_mut().managed_fields = None;
    }
}

impl Trim for DeserializeGuard<BpfNode> {
    fn trim(&mut self) {
        self.meta_mut().managed_fields = None;
        if let Ok(BpfNode { status: Some(status), .. }) = &mut self.0 {
            let BpfNodeStatus { node, counts: _, programs: _, suspended, conditions, omitted: _ } = status;
            (*node, *suspended, *conditions) = (NodeFacts::default(), None, Vec::new());
        }
    }
}

/// [`PartialNode`] has no other fields than those that are read.
impl Trim for PartialNode {
    fn trim(&mut self) {}
}

/// [`PartialPod`] has no other fields than those that are read.
impl Trim for PartialPod {
    fn trim(&mut self) {}
}

impl Trim for ConfigMapMeta {
    fn trim(&mut self) {
        self.metadata.managed_fields = None;
        self.metadata.annotations = None;
    }
}
