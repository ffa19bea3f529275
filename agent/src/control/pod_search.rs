//! `PodSearch`: the pods that run, by the kubelet's word, and whose processes are not where the kubelet's names say.
//! They are searched for by their UIDs and their containers' IDs, and reported if they are nowhere. No IO of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use sockeye_crds::{BpfRevision, Reason};

use crate::{
    kernel::SysError,
    model::{
        observed::Observed,
        pods::{Pod, PodCgroup, Pods, Unlocated},
        refusal::Refusal,
    },
    node::{Node, observe::Located},
};

/// A pod that ends has no cgroup a moment before the kubelet says so. Where others are in place, a search waits for
/// this long.
const FIRST_SEARCH: Duration = Duration::from_secs(1);
/// The longest delay between searches for the same pods.
pub(super) const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// A pod is reported once it is missing for this long.
pub(super) const GRACE: Duration = Duration::from_secs(10);

/// The search for pods' cgroups.
#[derive(Debug, Default)]
pub(super) struct PodSearch {
    /// The pods whose processes were seen in their cgroups. They stay there.
    in_place: BTreeSet<String>,
    /// The cgroups that searches found.
    found: Located,
    /// The pods that are missing, since when, and of which containers.
    missing: BTreeMap<String, (Instant, Unlocated)>,
    /// The next search, and the delay after it.
    next: Option<(Instant, Duration)>,
    last_survey: Option<Instant>,
}

/// What is known of a node's pods.
pub(super) struct KnownPods<'a> {
    /// The pods.
    pub pods: &'a [Pod],
    /// Single containers are selected, so that all of them must be found.
    pub containers: bool,
    /// The time.
    pub now: Instant,
}

impl PodSearch {
    /// Returns whether a survey has something to do.
    pub fn is_due(&self, now: Instant) -> bool {
        let is_new = |at: Instant| at <= now && self.last_survey.is_none_or(|last| last < at);
        let mut since = self.missing.values().map(|(since, _)| *since);
        self.next.is_some_and(|(at, _)| at <= now) || since.any(|since| is_new(since + GRACE))
    }

    /// Adds the cgroups that only a search finds; returns the pods that are nowhere, by UID.
    pub fn survey(
        &mut self,
        node: &mut impl Node,
        known: &KnownPods<'_>,
        cgroups: &mut BTreeMap<String, PodCgroup>,
    ) -> Result<BTreeMap<String, Unlocated>, SysError> {
        let KnownPods { pods, now, .. } = *known;
        self.last_survey = Some(now);
        self.forget_ended(pods);
        self.add_found(pods, cgroups);
        self.find_missing(node, known, cgroups)?;
        if self.next.is_some_and(|(at, _)| at <= now) && self.search(node, now)? {
            self.add_found(pods, cgroups);
            self.find_missing(node, known, cgroups)?;
        }
        let missing = self.missing.iter().filter(|(_, (since, _))| *since + GRACE <= now);
        Ok(missing.map(|(uid, (_, unlocated))| (uid.clone(), unlocated.clone())).collect())
    }

    fn forget_ended(&mut self, pods: &[Pod]) {
        let uids: BTreeSet<&str> = pods.iter().map(|pod| pod.uid.as_str()).collect();
        self.in_place.retain(|uid| uids.contains(uid.as_str()));
        self.found.pods.retain(|uid, _| uids.contains(uid.as_str()));
        if !self.found.containers.is_empty() {
            let ids: BTreeSet<&String> = pods.iter().flat_map(|pod| pod.containers.keys()).collect();
            self.found.containers.retain(|id, _| ids.contains(id));
        }
    }

    fn add_found(&self, pods: &[Pod], cgroups: &mut BTreeMap<String, PodCgroup>) {
        let Located { pods: found, containers } = &self.found;
        if found.is_empty() && containers.is_empty() {
            return;
        }
        for pod in pods {
            if let (None, Some(path)) = (cgroups.get(&pod.uid), found.get(&pod.uid)) {
                cgroups.insert(pod.uid.clone(), PodCgroup { path: path.clone(), ..PodCgroup::default() });
            }
            for (id, path) in pod.containers.keys().filter_map(|id| Some((id, containers.get(id)?))) {
                // A pod without a cgroup of its own is its containers.
                let pod = cgroups.entry(pod.uid.clone());
                let pod = pod.or_insert_with(|| PodCgroup { path: path.clone(), ..PodCgroup::default() });
                pod.containers.entry(id.clone()).or_insert_with(|| path.clone());
            }
        }
    }

    fn find_missing(
        &mut self,
        node: &impl Node,
        &KnownPods { pods, containers, now }: &KnownPods<'_>,
        cgroups: &BTreeMap<String, PodCgroup>,
    ) -> Result<(), SysError> {
        let mut missing = BTreeMap::new();
        for pod in pods.iter().filter(|pod| !pod.running.is_empty()) {
            if let Some(unlocated) = self.lacks(node, pod, cgroups.get(&pod.uid), containers)? {
                let since = self.missing.get(&pod.uid).map_or(now, |(since, _)| *since);
                missing.insert(pod.uid.clone(), (since, unlocated));
            }
        }
        let is_new = missing.iter().any(|(uid, (_, lacks))| self.missing.get(uid).is_none_or(|(_, had)| had != lacks));
        self.missing = missing;
        if self.missing.is_empty() {
            self.next = None;
        } else if is_new {
            let delay = if self.in_place.is_empty() { Duration::ZERO } else { FIRST_SEARCH };
            self.next = Some((now + delay, 2 * FIRST_SEARCH));
        }
        Ok(())
    }

    /// Returns what of a pod that runs is not found, if anything is not.
    fn lacks(
        &mut self,
        node: &impl Node,
        pod: &Pod,
        cgroup: Option<&PodCgroup>,
        containers: bool,
    ) -> Result<Option<Unlocated>, SysError> {
        let Some(cgroup) = cgroup else {
            return Ok(Some(Unlocated { whole: true, containers: pod.running.clone() }));
        };
        let is_found = |id: &&String| cgroup.containers.contains_key(*id);
        let lacking: BTreeSet<String> = pod.running.iter().filter(|id| !is_found(id)).cloned().collect();
        if lacking.is_empty() {
            return Ok(None);
        }
        let is_in_place = self.in_place.contains(&pod.uid) || node.is_populated(&cgroup.path)?;
        if is_in_place {
            self.in_place.insert(pod.uid.clone());
        }
        let lacks = containers || !is_in_place;
        Ok(lacks.then_some(Unlocated { whole: !is_in_place, containers: lacking }))
    }

    /// Searches for what is missing; reports whether anything was found.
    fn search(&mut self, node: &mut impl Node, now: Instant) -> Result<bool, SysError> {
        let pods = self.missing.iter().filter(|(_, (_, unlocated))| unlocated.whole);
        let pods = pods.map(|(uid, _)| uid.as_str()).collect();
        let containers = self.missing.values().flat_map(|(_, unlocated)| &unlocated.containers);
        let Located { pods, containers } = node.locate(&pods, &containers.map(String::as_str).collect())?;
        self.next = self.next.map(|(_, delay)| (now + delay, (2 * delay).min(LONGEST_DELAY)));
        let is_any = !(pods.is_empty() && containers.is_empty());
        self.found.pods.extend(pods);
        self.found.containers.extend(containers);
        Ok(is_any)
    }
}

/// Refuses a revision, at those pods, that selects pods which are nowhere.
pub(super) fn refuse_unlocated(revision: &BpfRevision, pods: &Pods, observed: &Observed) -> Result<(), Refusal> {
    let uid = &revision.spec.program_ref.uid;
    let mut names = BTreeSet::new();
    for target in revision.spec.template.pods_targets() {
        let kept = observed.kept_by(uid, target);
        names.extend(pods.unlocated(target, &kept).map(|pod| format!("{}/{}", pod.namespace, pod.name)));
    }
    let Some(first) = names.first() else { return Ok(()) };
    let others = if names.len() > 1 { format!(" and {} more", names.len() - 1) } else { String::new() };
    let message = format!(
        "pod {first}{others}: the kubelet says that it runs, and its processes are in no cgroup v2 of its UID or its \
         containers' IDs below the node's cgroup root: set the chart's cgroup.kubeletRoot (--kubelet-cgroup-root) to \
         the kubelet's --cgroup-root, and give the kubelet and the container runtime the same cgroup driver"
    );
    Err(Refusal { reason: Reason::PodCgroupNotFound, message })
}
