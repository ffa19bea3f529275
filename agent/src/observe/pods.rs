//! Where the pods' cgroups are.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::{
    kernel::{SysError, cgroup::Root},
    kubelet,
    pods::PodCgroup,
};

/// The cgroup that holds all pods: of the paths that the kubelet's cgroup drivers give it, the one that is there. A kubelet whose
/// driver was changed leaves the other's, empty.
pub fn pods_root(root: &Root, kubelet_root: &str) -> Result<String, SysError> {
    let is_there = |path: &str| match root.cgroup(path) {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    };
    let holds_pods = |path: &str| pod_cgroups(root, path, false).map(|pods| !pods.is_empty());
    let [systemd, cgroupfs] = kubelet::pods_cgroups(kubelet_root);
    let by_cgroupfs = !is_there(&systemd)? || is_there(&cgroupfs)? && !holds_pods(&systemd)? && holds_pods(&cgroupfs)?;
    Ok(if by_cgroupfs { cgroupfs } else { systemd })
}

/// Where the pods' cgroups are, below the cgroup of all pods; their containers' too, where these are asked for: that costs a
/// look into each pod's directory.
pub fn pod_cgroups(root: &Root, pods: &str, containers: bool) -> Result<BTreeMap<String, PodCgroup>, SysError> {
    let mut found = BTreeMap::new();
    for class in kubelet::classes(pods) {
        for name in root.children(&class)? {
            let Some(uid) = kubelet::pod_uid(&name) else { continue };
            let path = format!("{class}/{name}");
            let inner = if containers { root.children(&path)? } else { Vec::new() };
            let ids = inner
                .iter()
                .filter_map(|name| Some((kubelet::container_id(name)?.to_owned(), format!("{path}/{name}"))));
            let containers = ids.collect();
            found.insert(uid, PodCgroup { path, containers });
        }
    }
    Ok(found)
}

/// The directories in which pods' cgroups come and go, those in which their containers' do where these are asked for, and
/// the one in which the cgroup of all pods does.
pub fn pod_directories(root: &Root, pods: &str, containers: bool) -> Result<Vec<PathBuf>, SysError> {
    let above = Path::new(pods).parent().map(|above| root.join(&above.to_string_lossy()));
    let classes = kubelet::classes(pods).map(|class| root.join(&class));
    let each = if containers { pod_cgroups(root, pods, false)? } else { BTreeMap::new() };
    let each = each.into_values().map(|pod| root.join(&pod.path));
    Ok(above.into_iter().chain(classes).chain(each).collect())
}
