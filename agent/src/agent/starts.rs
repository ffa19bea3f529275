//! What the container runtime holds back until everything that selects it, strictly, is attached: pods and containers that are
//! about to start.

use std::{
    collections::BTreeMap,
    fmt::{self, Display},
};

use sockeye_crds::{BpfRevision, Reason, target::CgroupTarget};

use super::{Agent, Wants};
use crate::{
    failure::Failure,
    held::HeldLink,
    host::Host,
    nri::{Container, Pod},
    pods,
    track::Track,
};

/// Why something may not start yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotYet {
    /// In words.
    pub why: String,
    /// Whether that can pass by itself at any moment, so that it is worth the wait.
    pub passes: bool,
}

impl Display for NotYet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl<H: Host> Agent<H> {
    /// Takes in what is about to start, which the API server may not have told yet: a pass attaches to it.
    pub fn starting(&mut self, pod: &Pod, container: Option<&Container>) {
        let told = self.told.entry(pod.uid.clone()).or_insert_with(|| as_told(pod));
        told.containers.extend(container.map(|container| (container.id.clone(), container.name.clone())));
    }

    /// Takes in why the runtime starts containers without asking; nothing where it asks.
    pub fn set_unasked(&mut self, why: Option<String>) {
        if self.unasked.is_some() != why.is_some() {
            self.tracks.values_mut().for_each(Track::forget_failures);
        }
        self.unasked = why;
    }

    /// Whether it may start: not before all that selects it strictly is attached to it.
    pub fn may_start(&self, wants: &Wants, pod: &Pod, container: Option<&Container>) -> Result<(), NotYet> {
        for (name, revision) in &wants.run {
            let Some(track) = self.tracks.get(name) else { continue };
            if track.suspended.is_some() || self.suspended.is_some() {
                continue;
            }
            for program in &revision.spec.programs {
                let targets = program.attach.iter().filter_map(|attach| attach.cgroup.as_ref());
                for target in targets.filter(|target| target.strict) {
                    self.is_attached(track, &program.name, target, pod, container).map_err(
                        |NotYet { why, passes }| {
                            let why = format!("BpfProgram {name}: program {} {why}", program.name);
                            NotYet { why, passes: passes || wants.untold(track.needs()).is_some() }
                        },
                    )?;
                }
            }
        }
        Ok(())
    }

    fn is_attached(
        &self,
        track: &Track,
        function: &str,
        target: &CgroupTarget,
        pod: &Pod,
        container: Option<&Container>,
    ) -> Result<(), NotYet> {
        let wanted = track.wanted.as_ref().and_then(|wanted| wanted.functions.get(function));
        let is_it = |link: &HeldLink| {
            link.in_effect && wanted.is_none_or(|wanted| wanted.kind.attach_type == link.info.attach_type)
        };
        let is_at = |cgroup: &str| {
            let links = track.held.links.iter().filter(|(key, link)| key.function == function && is_it(link));
            let mut paths = links.filter_map(|(_, link)| link.path.as_deref());
            match paths.any(|path| pods::is_within(cgroup, path)) {
                true => Ok(()),
                false => Err(not_attached(track.failure.as_ref())),
            }
        };
        if !target.is_selective() {
            return is_at(&self.pods_root);
        }
        if self.pods.lacks_namespace(target, &pod.namespace) {
            let why = format!("may select it: the labels of namespace {} are not known yet", pod.namespace);
            return Err(NotYet { why, passes: true });
        }
        // One that has no cgroup is not among those that are known.
        let known = self.pods.pods.iter().find(|known| known.uid == pod.uid);
        if !self.pods.selects(target, known.unwrap_or(&as_told(pod))) {
            return Ok(());
        }
        // By the kubelet's and the runtime's names, as everything that is attached to is found: the runtime's own paths begin
        // at its root, which need not be ours.
        let here = self.pods.cgroups.get(&pod.uid);
        let cgroup = match container {
            // What is to be attached to its containers can't be yet; but what is known to fail is better said now.
            None if !target.containers.is_empty() => {
                let failure = track.failure.as_ref().filter(|failure| !failure.partial);
                return failure.map_or(Ok(()), |failure| Err(not_attached(Some(failure))));
            }
            Some(container) if !target.containers.is_empty() => match target.containers.contains(&container.name) {
                true => here.and_then(|here| here.containers.get(&container.id)),
                false => return Ok(()),
            },
            _ => here.map(|here| &here.path),
        };
        let nowhere = || "is strict, and its cgroup is not where the kubelet puts it".to_owned();
        is_at(cgroup.ok_or_else(|| NotYet { why: nowhere(), passes: false })?)
    }

    /// What is attached, and to be attached before containers start, is not what was asked for where nobody is asked.
    pub(super) fn is_asked(&self, revision: Option<&BpfRevision>) -> Result<(), Failure> {
        let strict = revision.is_some_and(|revision| revision.spec.cgroup_targets().any(|target| target.strict));
        match self.unasked.as_ref().filter(|_| strict) {
            Some(why) => {
                let message = format!(
                    "strict is not kept: containers here start without waiting for what is attached, because {why}"
                );
                Err(Failure { partial: true, ..Failure::new(Reason::RuntimeNotHooked, message) })
            }
            None => Ok(()),
        }
    }
}

fn as_told(Pod { uid, namespace, name, labels }: &Pod) -> pods::Pod {
    let (uid, namespace, name, labels) = (uid.clone(), namespace.clone(), name.clone(), labels.clone());
    pods::Pod { uid, namespace, name, labels, containers: BTreeMap::new() }
}

fn not_attached(failure: Option<&Failure>) -> NotYet {
    let why = failure.map_or("it is being attached", |failure| failure.message.as_str());
    let passes = failure.is_none_or(|failure| failure.awaits);
    NotYet { why: format!("is strict, and not attached to it: {why}"), passes }
}
