//! `Owners`: the pods that cgroups belong to, by the cgroups' IDs. Does IO: lists of cgroups.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use sockeye_read_api::record::Pod;

use crate::{
    kernel::cgroup::Root,
    model::pod::{self, Pod as NodePod},
    node::kubelet,
};

/// All cgroups are listed for one that is not known, but not more often.
const INTERVAL: Duration = Duration::from_secs(1);
/// A listing looks at no more cgroups than this.
const MAX_CGROUPS: usize = 65_536;

/// The owners of cgroups.
#[derive(Debug, Default)]
pub struct Owners {
    root: Option<Root>,
    pods: Arc<Vec<NodePod>>,
    known: HashMap<u64, Option<Arc<Pod>>>,
    listed: Option<Instant>,
}

impl Owners {
    /// Returns the owners of cgroups below a root.
    pub fn new(root: Option<Root>, pods: Arc<Vec<NodePod>>) -> Self {
        Self { root, pods, ..Self::default() }
    }

    /// Returns owners that are known beforehand.
    #[cfg(test)]
    pub(super) fn of(known: impl IntoIterator<Item = (u64, Pod)>) -> Self {
        let known = known.into_iter().map(|(id, pod)| (id, Some(Arc::new(pod)))).collect();
        Self { known, ..Self::default() }
    }

    /// Records the node's pods as they are now.
    pub fn set_pods(&mut self, pods: Arc<Vec<NodePod>>) {
        if self.pods != pods {
            self.pods = pods;
            self.listed = None;
            self.known.clear();
        }
    }

    /// Returns the pod that a cgroup belongs to.
    pub fn pod(&mut self, cgroup: u64) -> Option<Arc<Pod>> {
        if !self.known.contains_key(&cgroup) && self.listed.is_none_or(|at| at.elapsed() > INTERVAL) {
            self.list();
        }
        self.known.get(&cgroup).cloned().flatten()
    }

    fn list(&mut self) {
        self.listed = Some(Instant::now());
        let Some(root) = &self.root else { return };
        let by_uid: HashMap<&str, &NodePod> = self.pods.iter().map(|pod| (pod.uid.as_str(), pod)).collect();
        self.known.clear();
        // Each with its owner, which is that of the cgroups below it, too.
        let mut queue: Vec<(String, Option<Arc<Pod>>)> = vec![(String::new(), None)];
        while let Some((path, owner)) = queue.pop() {
            for name in root.children(&path).unwrap_or_default() {
                let child = format!("{path}/{name}");
                let owner = owner_of(&name, owner.as_ref(), &by_uid);
                if let Ok(cgroup) = root.cgroup(&child).map(|cgroup| cgroup.id)
                    && self.known.len() < MAX_CGROUPS
                {
                    self.known.insert(cgroup, owner.clone());
                    queue.push((child, owner));
                }
            }
        }
    }
}

/// Returns the owner of a cgroup by its name and its parent's owner.
fn owner_of(name: &str, parent: Option<&Arc<Pod>>, pods: &HashMap<&str, &pod::Pod>) -> Option<Arc<Pod>> {
    if let Some((uid, id)) = kubelet::outside_container(name) {
        return pods.get(uid.as_str()).map(|pod| owner(pod, Some(id)));
    }
    if let Some(uid) = kubelet::pod_uid(name) {
        return pods.get(uid.as_str()).map(|pod| owner(pod, None));
    }
    let parent = parent?;
    let id = kubelet::container_id(name).filter(|_| parent.container.is_none());
    let in_pod = |pod: &&&pod::Pod| pod.namespace == parent.namespace && pod.name == parent.name;
    let Some(container) = id.and_then(|id| pods.values().find(in_pod)?.containers.get(id)) else {
        return Some(Arc::clone(parent));
    };
    Some(Arc::new(Pod { container: Some(container.clone()), ..Pod::clone(parent) }))
}

fn owner(pod: &pod::Pod, container: Option<&str>) -> Arc<Pod> {
    let container = container.and_then(|id| pod.containers.get(id)).cloned();
    Arc::new(Pod { namespace: pod.namespace.clone(), name: pod.name.clone(), container })
}
