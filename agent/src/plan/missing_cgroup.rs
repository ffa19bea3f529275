//! The refusal of a revision that names a cgroup which does not exist. Pure.

use std::collections::BTreeMap;

use sockeye_crds::Reason;

use crate::model::{desired::Desired, kernel::Cgroup, refusal::Refusal};

/// Returns a refusal if a cgroup that the spec itself names does not exist. The cgroup of a selected pod may come and
/// go.
pub fn missing_cgroup(desired: &Desired, cgroups: &BTreeMap<String, Cgroup>) -> Option<Refusal> {
    let functions = desired.functions.iter();
    let mut paths = functions.flat_map(|(function, program)| program.paths.iter().map(move |path| (function, path)));
    let (function, (path, _)) = paths.find(|(_, (path, owner))| owner.is_none() && !cgroups.contains_key(*path))?;
    let remedy = remedy(path);
    let message =
        format!("program {function}: there is no cgroup v2 directory {path} below the node's cgroup root: {remedy}");
    Some(Refusal { reason: Reason::CgroupNotFound, message })
}

/// Guesses the remedy from the look of the path.
fn remedy(path: &str) -> &'static str {
    const V1_CONTROLLERS: [&str; 13] = [
        "blkio",
        "cpu",
        "cpuacct",
        "cpuset",
        "devices",
        "freezer",
        "hugetlb",
        "memory",
        "net_cls",
        "net_prio",
        "perf_event",
        "pids",
        "systemd",
    ];
    if path == "/" {
        return "the cgroup that the agent took for the root was removed: restart the agent";
    }
    let last = path.rsplit('/').next().unwrap_or_default();
    let below_mount = path.strip_prefix("/sys/fs/cgroup");
    let first = below_mount.unwrap_or(path).split('/').nth(1).unwrap_or_default();
    if first.split(',').all(|part| V1_CONTROLLERS.contains(&part)) {
        "it looks like a path in the hierarchy of a cgroup v1 controller, and programs attach to cgroup v2 only: name \
         the cgroup v2 directory"
    } else if below_mount.is_some() {
        "the path is relative to that root: leave out /sys/fs/cgroup, and on a node with cgroup v1 controllers \
         /unified too"
    } else if last == "kubepods" || last.ends_with("kubepods.slice") {
        "it is where the kubelet creates the cgroup of all pods unless it has a --cgroup-root: set the chart's \
         cgroup.kubeletRoot (--kubelet-cgroup-root) to the same"
    } else {
        "create it, or correct the path"
    }
}
