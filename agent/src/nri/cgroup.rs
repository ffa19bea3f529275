//! Where a cgroup is that a runtime names, as a path below the node's cgroup root. Pure.
//!
//! With the kubelet's cgroupfs driver a cgroup's name is its path. With systemd a pod has a slice, and a container the unit
//! `slice:prefix:name`, as OCI runtimes spell it.

/// A pod's, by what the kubelet asked the runtime for.
pub fn of_pod(parent: &str) -> String {
    match parent.rsplit('/').next() {
        Some(base) if base.ends_with(SLICE) => of_slice(base),
        _ => plain(parent),
    }
}

/// A container's, by `cgroupsPath` in its OCI specification.
pub fn of_container(path: &str) -> String {
    let unit: Vec<&str> = path.splitn(3, ':').collect();
    let [slice, prefix, name] = unit[..] else { return plain(path) };
    let slice = if slice.is_empty() { "system.slice" } else { slice };
    let parent = of_slice(slice);
    match name.ends_with(SLICE) {
        true => format!("{parent}/{name}"),
        false => format!("{parent}/{prefix}-{name}.scope"),
    }
}

const SLICE: &str = ".slice";

/// systemd nests slices by the dashes in their names; `-.slice` is the root.
fn of_slice(name: &str) -> String {
    let name = name.strip_suffix(SLICE).unwrap_or(name);
    if name == "-" {
        return String::new();
    }
    let ends = name.match_indices('-').map(|(at, _)| at).chain([name.len()]);
    ends.filter(|end| *end > 0).map(|end| format!("/{}{SLICE}", &name[..end])).collect()
}

fn plain(path: &str) -> String {
    let parts = path.split('/').filter(|part| !matches!(*part, "" | "." | ".."));
    parts.map(|part| format!("/{part}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_kubelets_cgroupfs_driver_names_them() {
        assert_eq!(of_pod("/node-1/kubepods/burstable/podu1"), "/node-1/kubepods/burstable/podu1");
        assert_eq!(of_container("/node-1/kubepods/burstable/podu1/c1"), "/node-1/kubepods/burstable/podu1/c1");
    }

    #[test]
    fn as_the_kubelets_systemd_driver_names_them() {
        let pod = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podu_1.slice";
        assert_eq!(of_pod(pod), pod);
        assert_eq!(of_pod("kubepods-burstable-podu_1.slice"), pod);
        let container = of_container("kubepods-burstable-podu_1.slice:cri-containerd:c1");
        assert_eq!(container, format!("{pod}/cri-containerd-c1.scope"));
        assert_eq!(of_container(":crio:c1"), "/system.slice/crio-c1.scope");
    }

    #[test]
    fn none_leads_out_of_the_root() {
        assert_eq!(of_container("../../a/./b"), "/a/b");
        assert_eq!(of_pod("-.slice"), "");
        assert_eq!(of_pod(""), "");
    }
}
