//! Decides whether a pod or container may start. It waits until every strict target that selects it is attached.

use std::mem;

use sockeye_crds::{
    BpfRevision, Reason,
    target::{AttachTarget, PodsTarget},
};

use super::{Controller, event::Effect, program::ProgramState, starts::Waiting};
use crate::{
    model::{
        assignment::Assignment,
        cgroup_path::is_within,
        observed::ObservedLink,
        start::{Start, StartId},
    },
    node::{Node, failure::Failure},
};

/// Why something may not start yet.
#[derive(Clone, Debug, PartialEq, Eq)]
struct NotYet {
    why: String,
    /// Whether the cause can pass by itself at any moment, so that it is worth the wait.
    passes: bool,
}

/// The answer to a start.
#[derive(Debug)]
enum Answer {
    Admit,
    /// It is refused, for this reason.
    Refuse(String),
    /// It waits, for this reason.
    Wait(String),
}

impl<N: Node> Controller<N> {
    /// Answers the starts that need not wait any longer. A start is refused only once all work is done: until then, and
    /// while the cause can pass, it waits, and the admission task refuses it in time.
    pub(super) fn decide_starts(&mut self) {
        for (id, mut waiting) in mem::take(&mut self.starts.waiting) {
            match self.answer(&waiting) {
                Answer::Admit => self.effects.push(Effect::AnswerStart(id, Ok(()))),
                Answer::Refuse(why) => self.effects.push(Effect::AnswerStart(id, Err(why))),
                Answer::Wait(why) => {
                    if why != waiting.logged {
                        log(id, &waiting.start, &why);
                        waiting.logged = why;
                    }
                    self.starts.waiting.insert(id, waiting);
                }
            }
        }
    }

    /// Returns the answer to a start.
    fn answer(&self, Waiting { start, surveyed, logged }: &Waiting) -> Answer {
        let Some(assignment) = &self.inputs.assignment else {
            let unknown = "the API server has not said yet what this node is to run";
            let is_exempt = start.is_exempt(self.settings.release_namespace.as_deref());
            return if is_exempt { Answer::Admit } else { Answer::Wait(unknown.to_owned()) };
        };
        if !surveyed {
            return Answer::Wait(logged.clone());
        }
        match self.may_start(assignment, start) {
            Ok(()) => Answer::Admit,
            Err(NotYet { why, passes: false }) if self.is_idle() => Answer::Refuse(why),
            Err(NotYet { why, .. }) => Answer::Wait(why),
        }
    }

    fn may_start(&self, assignment: &Assignment, start: &Start) -> Result<(), NotYet> {
        if self.survey.suspended.is_some() {
            return Ok(());
        }
        let release_namespace = self.settings.release_namespace.as_deref();
        for (name, revision) in &assignment.revisions {
            let template = &revision.spec.template;
            let Some(program) = self.programs.get(name) else { continue };
            // Where the node was suspended, and is no longer, the program still is until its next attempt.
            if program.suspended.is_some() && template.suspend {
                continue;
            }
            for function in &template.programs {
                let targets = function.attach.iter().filter_map(AttachTarget::pods);
                for target in targets.filter(|target| start.can_be_held_by(target, release_namespace)) {
                    self.is_attached(program, &function.name, target, start).map_err(|NotYet { why, passes }| {
                        NotYet {
                            why: format!("BpfProgram {name}: program {} {why}", function.name),
                            passes: passes || assignment.unknown_inputs(program.required()).is_some(),
                        }
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Checks that a function is attached to what is about to start, if its target selects that.
    fn is_attached(
        &self,
        program: &ProgramState,
        function: &str,
        target: &PodsTarget,
        Start { pod, container }: &Start,
    ) -> Result<(), NotYet> {
        let pods = &self.survey.pods;
        if pods.lacks_namespace(target, &pod.namespace) {
            let why = format!("may select it: the labels of namespace {} are not known yet", pod.namespace);
            return Err(NotYet { why, passes: true });
        }
        // A pod without a cgroup is not among those that are known.
        let known = pods.pods.iter().find(|known| known.uid == pod.uid);
        let keeps = || program.observed.keeps(program.uid().unwrap_or_default(), target, &pod.uid);
        if !(pods.selects(target, known.unwrap_or(pod)) || keeps()) {
            return self.knows_kept_pods(program, target);
        }
        // By the kubelet's and the runtime's names, as everything that is attached to is found: the runtime's own paths
        // begin at its root, which need not be ours.
        let cgroups = pods.cgroups.get(&pod.uid);
        let cgroup = match container {
            // A program for containers can't be attached before there are any; but a known failure is better reported
            // now.
            None if !target.containers.is_empty() => {
                self.is_settled(program)?;
                let failure = program.failure.as_ref().filter(|failure| !failure.partial);
                return failure.map_or(Ok(()), |failure| Err(not_attached(Some(failure))));
            }
            Some(container) if !target.containers.is_empty() => match target.containers.contains(&container.name) {
                true => cgroups.and_then(|cgroups| cgroups.containers.get(&container.id)),
                false => return Ok(()),
            },
            _ => cgroups.map(|cgroups| &cgroups.path),
        };
        self.is_in_effect_at(cgroup.ok_or_else(|| nowhere(program))?, program, function)
    }

    /// Checks that the pods are known which a target selected before this agent started, and goes on selecting.
    fn knows_kept_pods(&self, program: &ProgramState, target: &PodsTarget) -> Result<(), NotYet> {
        let is_known = !target.keeps_unselected() || program.was_observed || self.is_idle();
        let why = || "may have selected it before, which is not known yet".to_owned();
        if is_known { Ok(()) } else { Err(NotYet { why: why(), passes: true }) }
    }

    /// Returns whether all work is done that is known of.
    fn is_idle(&self) -> bool {
        self.pass.is_none() && !self.timer.pass_due
    }

    /// Checks that what is known of a BpfProgram is of its assigned revision, and nothing happened to it since.
    fn is_settled(&self, program: &ProgramState) -> Result<(), NotYet> {
        match !self.is_idle() && (program.pending.changed || program.pending.dirty) {
            true => Err(not_attached(program.failure.as_ref())),
            false => Ok(()),
        }
    }

    /// Checks that a function is in effect at a cgroup or above it.
    fn is_in_effect_at(&self, cgroup: &str, program: &ProgramState, function: &str) -> Result<(), NotYet> {
        self.is_settled(program)?;
        let desired = program.desired.as_ref().and_then(|desired| desired.functions.get(function));
        let is_it = |link: &ObservedLink| {
            link.in_effect && desired.is_none_or(|desired| desired.kind.attach_type == link.info.attach_type)
        };
        let links = program.observed.links.iter().filter(|(key, link)| key.function == function && is_it(link));
        let mut paths = links.filter_map(|(_, link)| link.path.as_deref());
        match paths.any(|path| is_within(cgroup, path)) {
            true => Ok(()),
            false => Err(not_attached(program.failure.as_ref())),
        }
    }

    /// Fails where a strict revision is in effect, and the container runtime does not ask before it starts containers.
    pub(super) fn check_runtime_asks(&self, revision: Option<&BpfRevision>) -> Result<(), Failure> {
        let strict = revision.is_some_and(|revision| revision.spec.template.pods_targets().any(PodsTarget::is_strict));
        match self.inputs.runtime_gap.as_ref().filter(|_| strict) {
            Some(why) => {
                let message = format!(
                    "startPolicy WaitForAttachment is not kept: containers here start without waiting, because {why} \
                     (docs/strict.md says what to configure)"
                );
                Err(Failure { partial: true, ..Failure::new(Reason::NRINotConnected, message) })
            }
            None => Ok(()),
        }
    }
}

fn not_attached(failure: Option<&Failure>) -> NotYet {
    let why = failure.map_or("it is being attached", |failure| failure.message.as_str());
    let passes = failure.is_none_or(|failure| failure.awaits);
    NotYet { why: format!("is to be attached before it starts, and is not yet: {why}"), passes }
}

/// Without the node's bpffs, no cgroup was looked for: what keeps all of the BpfProgram away comes first.
fn nowhere(program: &ProgramState) -> NotYet {
    let failure = program.failure.as_ref().filter(|failure| !failure.partial);
    let why = "is to be attached before it starts, and its cgroup is not where the kubelet puts it".to_owned();
    failure.map_or(NotYet { why, passes: false }, |failure| not_attached(Some(failure)))
}

fn log(StartId(id): StartId, Start { pod, container }: &Start, why: &str) {
    let container = container.as_ref().map(|container| container.name.as_str());
    tracing::warn!(id, namespace = pod.namespace, pod = pod.name, container, why, "a start waits");
}
