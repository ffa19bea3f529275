//! Finds the pods' cgroups.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::{Path, PathBuf},
};

use crate::{
    kernel::{SysError, cgroup::Root},
    model::pods::PodCgroup,
    node::kubelet,
};

/// The path of the cgroup of all pods: the existing one of the two paths that the kubelet's cgroup drivers give it. A
/// kubelet whose driver was changed leaves the other driver's cgroup behind, empty.
pub fn pods_root(root: &Root, kubelet_root: &str) -> Result<String, SysError> {
    let exists = |path: &str| match root.cgroup(path) {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    };
    let holds_pods = |path: &str| pod_cgroups(root, path, false).map(|pods| !pods.is_empty());
    let [systemd, cgroupfs] = kubelet::pods_cgroups(kubelet_root);
    let by_cgroupfs = !exists(&systemd)? || exists(&cgroupfs)? && !holds_pods(&systemd)? && holds_pods(&cgroupfs)?;
    Ok(if by_cgroupfs { cgroupfs } else { systemd })
}

/// The pods' cgroups below the cgroup of all pods, by the pods' UIDs. With `containers` also their containers' cgroups,
/// which costs one more directory listing for each pod.
pub fn pod_cgroups(root: &Root, pods: &str, containers: bool) -> Result<BTreeMap<String, PodCgroup>, SysError> {
    let mut found = BTreeMap::new();
    for class in kubelet::classes(pods) {
        for name in root.children(&class)? {
            let Some(uid) = kubelet::pod_uid(&name) else { continue };
            let path = format!("{class}/{name}");
            let children = if containers { root.children(&path)? } else { Vec::new() };
            let container = |name: &String| Some((kubelet::container_id(name)?.to_owned(), format!("{path}/{name}")));
            let containers = children.iter().filter_map(container).collect();
            found.insert(uid, PodCgroup { path, containers });
        }
    }
    Ok(found)
}

/// Adds the containers that a runtime with another driver than the kubelet's put into some cgroups of its own: their
/// names have the pods' UIDs.
pub fn add_outside(
    root: &Root,
    parents: &BTreeSet<String>,
    pods: &mut BTreeMap<String, PodCgroup>,
) -> Result<(), SysError> {
    for parent in parents {
        for name in root.children(parent)? {
            let Some((uid, id)) = kubelet::outside_container(&name) else { continue };
            let path = format!("{parent}/{name}");
            // A pod without a cgroup of its own is its containers.
            let pod = pods.entry(uid).or_insert_with(|| PodCgroup { path: path.clone(), ..PodCgroup::default() });
            pod.containers.insert(id.to_owned(), path);
        }
    }
    Ok(())
}

/// Finds a cgroup of a pod, or of a pod's container, that has processes and is not below the cgroup of all pods.
pub fn pod_elsewhere(root: &Root, pods: &str) -> Result<Option<String>, SysError> {
    let (mut queue, mut searched) = (VecDeque::from([String::new()]), 0);
    while let Some(path) = queue.pop_front().filter(|_| searched < MAX_SEARCHED) {
        searched += 1;
        for name in root.children(&path)? {
            let child = format!("{path}/{name}");
            if child == pods {
                continue;
            }
            if kubelet::is_of_pod(&name) && root.is_populated(&child)? {
                return Ok(Some(child));
            }
            queue.push_back(child);
        }
    }
    Ok(None)
}

/// A search looks at no more cgroups than this: a node with 110 pods has about a thousand.
const MAX_SEARCHED: usize = 8192;

/// The cgroups of pods and containers that a search found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Located {
    /// Pods' cgroups, by UID.
    pub pods: BTreeMap<String, String>,
    /// Containers' cgroups, by ID.
    pub containers: BTreeMap<String, String>,
}

/// Searches the whole hierarchy for the cgroups of these pods and containers, by their UIDs and IDs: a kubelet with a
/// `--cgroup-root` that the agent was not told puts them anywhere, and so does a runtime with another driver than the
/// kubelet's.
pub fn locate(root: &Root, pods: &BTreeSet<&str>, containers: &BTreeSet<&str>) -> Result<Located, SysError> {
    let mut found = Located::default();
    let (mut queue, mut searched) = (VecDeque::from([String::new()]), 0);
    while let Some(path) = queue.pop_front() {
        let is_complete = found.pods.len() == pods.len() && found.containers.len() == containers.len();
        searched += 1;
        if is_complete || searched > MAX_SEARCHED {
            break;
        }
        for name in root.children(&path)? {
            let child = format!("{path}/{name}");
            if let Some(id) = kubelet::container_id(&name).filter(|id| containers.contains(id)) {
                found.containers.entry(id.to_owned()).or_insert_with(|| child.clone());
            } else if let Some(uid) = kubelet::pod_uid(&name).filter(|uid| pods.contains(uid.as_str())) {
                found.pods.entry(uid).or_insert_with(|| child.clone());
            }
            queue.push_back(child);
        }
    }
    Ok(found)
}

/// The directories in which pods' cgroups come and go, and the one in which the cgroup of all pods does. With
/// `containers` also those in which containers' cgroups do.
pub fn pod_directories(root: &Root, pods: &str, containers: bool) -> Result<Vec<PathBuf>, SysError> {
    let parent = Path::new(pods).parent().map(|parent| root.join(&parent.to_string_lossy()));
    let classes = kubelet::classes(pods).map(|class| root.join(&class));
    let each = if containers { pod_cgroups(root, pods, false)? } else { BTreeMap::new() };
    let each = each.into_values().map(|pod| root.join(&pod.path));
    Ok(parent.into_iter().chain(classes).chain(each).collect())
}
