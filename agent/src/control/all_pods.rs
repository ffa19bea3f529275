//! `AllPodsSearch`: whether the cgroup of all pods is where pods run. That cgroup may be one that nothing is in: the
//! kubelet has another `--cgroup-root`, or the container runtime another cgroup driver. No IO of its own.

use std::time::{Duration, Instant};

use sockeye_crds::Reason;

use super::pod_search::{GRACE, LONGEST_DELAY};
use crate::{
    kernel::SysError,
    model::refusal::Refusal,
    node::{Node, failure::Failure},
};

/// The first delay between searches for the pods of a node whose cgroup of all pods is empty.
const FIRST_DELAY: Duration = Duration::from_secs(5);
/// The search for pods that run outside of the cgroup of all pods.
#[derive(Debug, Default)]
pub(super) struct AllPodsSearch {
    /// The time since which that cgroup is empty, or not there: the last of its pods may just have ended.
    empty_since: Option<Instant>,
    /// The cgroup of a pod elsewhere, as the last search found it.
    found: Option<String>,
    /// The next search, and the delay after it.
    next: Option<(Instant, Duration)>,
    reported: bool,
}

impl AllPodsSearch {
    /// Returns whether a survey has something to do.
    pub fn is_due(&self, now: Instant) -> bool {
        self.next.is_some_and(|(at, _)| at <= now) || self.is_to_be_reported(now) && !self.reported
    }

    /// Looks whether any process is in the cgroup of all pods, and searches for pods elsewhere if none is.
    pub fn survey(&mut self, node: &impl Node, pods: &str, now: Instant) -> Result<(), SysError> {
        if node.is_populated(pods)? {
            *self = Self::default();
            return Ok(());
        }
        self.empty_since.get_or_insert(now);
        let (at, delay) = self.next.unwrap_or((now, FIRST_DELAY));
        self.next = Some((at, delay));
        if at <= now {
            self.found = node.pod_elsewhere(pods)?;
            self.next = Some((now + delay, (2 * delay).min(LONGEST_DELAY)));
        }
        self.reported = self.is_to_be_reported(now);
        Ok(())
    }

    /// Returns the cgroup of a pod elsewhere. The cgroup of all pods may not even be there.
    pub fn found(&self) -> Option<&str> {
        self.found.as_deref()
    }

    /// Refuses a target that is attached to the cgroup of all pods, while pods run elsewhere.
    pub fn refuse(&self, pods: &str) -> Result<(), Refusal> {
        let Some(found) = self.found().filter(|_| self.reported) else { return Ok(()) };
        let message = format!(
            "AllPods: no process is in {pods}, the cgroup of all pods by the kubelet's names, and pods run elsewhere, \
             as in {found}: set the chart's cgroup.kubeletRoot (--kubelet-cgroup-root) to the kubelet's --cgroup-root, \
             and give the kubelet and the container runtime the same cgroup driver"
        );
        Err(Refusal { reason: Reason::PodCgroupNotFound, message })
    }

    /// Adds to the failure of a revision that lacks the cgroup of all pods where a pod was found.
    pub fn explain(&self, failure: Failure, pods: &str) -> Failure {
        let lacks_it = failure.reason == Reason::CgroupNotFound && failure.message.contains(&format!(" {pods} "));
        match self.found().filter(|_| lacks_it) {
            Some(found) => Failure { message: format!("{}; a pod runs in {found}", failure.message), ..failure },
            None => failure,
        }
    }

    fn is_to_be_reported(&self, now: Instant) -> bool {
        self.found.is_some() && self.empty_since.is_some_and(|since| since + GRACE <= now)
    }
}
