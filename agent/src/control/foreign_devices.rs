//! Device programs of others, which run beside a BpfProgram's own. Asks the node.

use std::collections::{BTreeMap, BTreeSet};

use super::Controller;
use crate::node::Node;

/// `BPF_CGROUP_DEVICE`
const CGROUP_DEVICE: u32 = 6;

impl<N: Node> Controller<N> {
    /// Finds device programs of others at or below a BpfProgram's: container runtimes have theirs. They are reported,
    /// and left alone.
    pub(super) fn find_foreign_devices(&mut self, name: &str) {
        let desired = self.programs.get(name).and_then(|program| program.desired.as_ref());
        let functions = desired.into_iter().flat_map(|desired| desired.functions.values());
        let devices = functions.filter(|function| function.kind.attach_type == CGROUP_DEVICE);
        let paths: BTreeSet<&String> = devices.flat_map(|function| function.paths.keys()).collect();
        // Hardly any BpfProgram has one, and to know which are ours takes a walk over all of them.
        let found = match paths.is_empty() {
            true => BTreeMap::new(),
            false => {
                let links = self.programs.values().flat_map(|program| program.observed.links.values());
                let ours: BTreeSet<u32> = links.map(|link| link.info.program_id).collect();
                let foreign =
                    |path: &String| Some((path.clone(), self.node.foreign_program(path, CGROUP_DEVICE, &ours)?));
                paths.into_iter().filter_map(foreign).collect()
            }
        };
        self.touch(name).foreign_devices = found;
    }
}
