//! [`Trim`]: drops the fields of a watched object that nobody reads, before the operator keeps it in memory. IO: none.

use kube::{Resource as _, core::DeserializeGuard};
use sockeye_crds::{BpfNode, BpfProgram, BpfRevision, node::Details};

use crate::watch::{
    nodes::{PartialNode, PartialPod, sort_by_name},
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
            status.details.iter_mut().for_each(trim_details);
            status.order = Vec::new();
            sort_by_name(status);
        }
    }
}

/// Drops the strings that no status shows. On many nodes they would be most of the operator's memory.
fn trim_details(details: &mut Details) {
    let Details { name: _, wanted: _, message: _, verifier_log, notes, drift: _, programs, maps, cgroups: _, links } =
        details;
    *verifier_log = None;
    *notes = Vec::new();
    for program in programs {
        for text in [&mut program.kernel_name, &mut program.loaded_at, &mut program.pin_path] {
            *text = String::new();
        }
        program.map_ids = Vec::new();
    }
    for map in maps {
        (map.kernel_name, map.map_type, map.pin_path) = (String::new(), String::new(), None);
        (map.from, map.shared_by) = (None, Vec::new());
    }
    for link in links {
        (link.cgroup_path, link.link_type, link.attach_type) = (None, String::new(), String::new());
        (link.container, link.pin_path) = (None, String::new());
    }
}

impl Trim for PartialNode {
    fn trim(&mut self) {
        let meta = self.meta_mut();
        meta.managed_fields = None;
        meta.annotations = None;
    }
}

impl Trim for PartialPod {
    fn trim(&mut self) {
        let meta = self.meta_mut();
        meta.managed_fields = None;
        meta.annotations = None;
    }
}

impl Trim for ConfigMapMeta {
    fn trim(&mut self) {
        self.metadata.managed_fields = None;
        self.metadata.annotations = None;
    }
}
