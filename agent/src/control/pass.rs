//! A pass: survey the node, list the work, do it in steps, report. A pass that is overtaken by events begins anew: what
//! it had not come to is still pending.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    path::PathBuf,
    sync::Arc,
    time::Instant,
};

use sockeye_crds::names;

use super::{
    Controller,
    all_pods::AllPodsSearch,
    controller::{BpffsSeen, Pass},
    event::Effect,
    pod_search::{KnownPods, PodSearch},
    programs::Requirements,
    reconcile::Attempt,
    starts::{Starts, Waiting},
    work::{Observation, Task, assign, work_list},
};
use crate::{
    model::{
        assignment::Assignment,
        node_context::NodeContext,
        pods::{self, Pods, RequiredInputs},
    },
    node::{
        Node,
        failure::Failure,
        observe::{Bpffs, ObserveError},
    },
};

/// The tasks of one step, at most: a task without a load takes some tens of microseconds.
const TASKS: usize = 32;
/// BpfPrograms that gave each other more to do are taken again at once, this many times in one pass.
const ROUNDS: usize = 4;

impl<N: Node> Controller<N> {
    /// Begins a pass over the BpfPrograms that are pending, or, in a sweep, over all.
    pub(super) fn begin_pass(&mut self, assignment: &Arc<Assignment>, now: Instant) {
        let sweep = self.timer.begin_pass(now);
        let suspended = self.survey.suspended.is_some();
        assign(&mut self.programs, assignment, self.assigned.as_deref());
        self.assigned = Some(Arc::clone(assignment));
        let requirements = self.programs.index().requirements();
        // Without bpffs nothing can be said of what is there, and nothing kept: every attempt fails with that.
        let context = self.survey(assignment, requirements, sweep).map_err(Failure::from);
        // Whatever the survey found: what can be said of these starts is known now.
        self.starts.waiting.values_mut().for_each(|waiting| waiting.surveyed = true);
        if sweep {
            self.programs.all_mut().for_each(|(_, program)| program.pending.sweep = true);
        }
        let turned = suspended != self.survey.suspended.is_some();
        let (kernel, sweep, frozen) = match self.pass.take() {
            // A sweep that begins anew is one still, and what it froze stays frozen unless the suspension turned.
            Some(before) => (before.kernel, sweep || before.sweep, before.frozen),
            None => (mem::take(&mut self.kernel), sweep, BTreeMap::new()),
        };
        let frozen = if turned { BTreeMap::new() } else { frozen };
        let work = work_list(&mut self.programs, assignment, requirements.inputs, now);
        self.pass = Some(Pass { context, kernel, sweep, work, frozen, rounds: 0 });
    }

    /// Continues the pass, if there is one: does tasks until a program was loaded, a few at most; or, once all work is
    /// done, ends it.
    pub(super) fn continue_pass(&mut self, assignment: &Assignment, now: Instant) {
        let Some(mut pass) = self.pass.take() else { return };
        if pass.work.is_empty() && pass.rounds > 0 {
            self.kernel = pass.kernel;
            return self.end_pass(pass.sweep, now);
        }
        for _ in 0..TASKS {
            let Some((name, listed)) = pass.work.pop_front() else { break };
            // More may have happened to it since it was listed.
            let task = self.programs.get(&name).and_then(|program| listed.updated(program, now));
            let Some(task) = task else { continue };
            if let Task::Freeze(why) = &task
                && pass.frozen.insert(name.clone(), why.clone()).as_ref() == Some(why)
            {
                continue;
            }
            if self.run(&name, task, assignment, &pass) {
                break;
            }
        }
        if pass.work.is_empty() {
            pass.rounds += 1;
            let stale = if pass.context.is_ok() && pass.rounds < ROUNDS { self.stale() } else { Default::default() };
            pass.work.extend(stale.into_iter().map(|name| (name, Task::Attempt(Observation::Fresh))));
        }
        if self.timer.start_suspend_check_if_due(now) {
            let suspended = self.survey.suspended.is_none() && self.is_marked();
            self.timer.pass_due |= suspended;
            self.timer.restart_due |= suspended;
        }
        self.pass = Some(pass);
    }

    /// Runs a task; reports whether it loaded a program.
    fn run(&mut self, name: &str, task: Task, assignment: &Assignment, pass: &Pass) -> bool {
        if matches!(task, Task::Attempt(_)) {
            tracing::debug!(program = name, "attempt");
        }
        match (task, &pass.context) {
            (Task::Freeze(why), Ok(_)) => self.freeze(name, why, assignment),
            (Task::Observe, Ok(_)) => self.observe(name),
            (Task::KeepKnownGood(observation), Ok(_)) => {
                return self.keep_known_good(name, observation, assignment, pass);
            }
            (Task::Attempt(observation), Ok(context)) => {
                let revision = assignment.revisions.get(name).map(AsRef::as_ref);
                let attempt = Attempt { revision, observation, context, assignment, kernel: &pass.kernel };
                let (loaded, outcome) = self.attempt(name, &attempt);
                self.finish_attempt(name, outcome);
                return self.keep_known_good(name, Observation::Cached, assignment, pass) || loaded;
            }
            (Task::Attempt(_), Err(failure)) => {
                self.touch(name).pending = Default::default();
                self.finish_attempt(name, Err(failure.clone()));
            }
            (_, Err(_)) => {}
        }
        false
    }

    /// Ends a pass: forgets what is gone, asks for watches of what is there, and reports.
    fn end_pass(&mut self, sweep: bool, now: Instant) {
        self.drain();
        self.fetches.forget_unused(now);
        self.forget_gone();
        let touched: BTreeSet<String> = mem::take(&mut self.touched).into_iter().collect();
        if !touched.is_empty() {
            // The report is of what runs now, and what others attach from here on is drift.
            self.timer.pass_due |=
                self.monitor.poll(&self.node, &mut self.programs, self.settings.time_of_day, &self.metrics);
        }
        let directories = touched.into_iter().flat_map(|name| self.watched_directories(name)).collect();
        let bpffs = match self.survey.bpffs {
            BpffsSeen::Device(device) => Some(device),
            BpffsSeen::NotYet | BpffsSeen::Missing => None,
        };
        self.effects.push(Effect::WatchHomes { bpffs, directories, all: sweep });
        // Those of known good revisions too.
        if let RequiredInputs { pods: true, containers, .. } = self.programs.index().requirements().inputs {
            match self.node.pod_directories(containers) {
                Ok(directories) => self.effects.push(Effect::WatchPods(directories)),
                Err(error) => tracing::warn!(%error, "the pods' cgroups can't be watched: sweeps find them"),
            }
        }
        self.knows_node = true;
        self.effects.push(Effect::WriteStatus(Box::new(self.report())));
    }

    /// Forgets the BpfPrograms that are neither desired nor there, and about which there is nothing to say.
    fn forget_gone(&mut self) {
        let gone = self
            .programs
            .iter()
            .filter(|(_, program)| !program.is_desired() && program.observed.is_empty() && program.failure.is_none());
        let gone: Vec<String> = gone.map(|(name, _)| name.clone()).collect();
        for name in gone {
            self.programs.remove(&name);
            self.verifier_logs.remove(&name);
        }
    }

    /// Returns the directories in which an external change to a BpfProgram shows.
    fn watched_directories(&self, name: String) -> Vec<(PathBuf, String)> {
        let observed = self.programs.get(&name).map(|program| &program.observed).filter(|there| !there.is_empty());
        let directories = observed.map(|observed| self.node.directories(&name, observed)).unwrap_or_default();
        directories.into_iter().map(|directory| (directory, name.clone())).collect()
    }

    /// Looks at the node as a whole: whether bpffs is there and the same as before, the homes that nobody desires (in a
    /// sweep), the suspension, and what revisions are worked out with.
    fn survey(
        &mut self,
        assignment: &Assignment,
        requirements: Requirements,
        sweep: bool,
    ) -> Result<NodeContext, ObserveError> {
        let bpffs = self.node.bpffs();
        let before = mem::replace(&mut self.survey.bpffs, BpffsSeen::of(&bpffs));
        let older = bpffs.as_ref().err().filter(|error| matches!(error, ObserveError::OlderLayout { .. }));
        let older = older.map(ToString::to_string);
        if let Some(older) = older.as_ref().filter(|older| self.survey.older_layout.as_ref() != Some(*older)) {
            tracing::error!("{older}");
        }
        self.survey.older_layout = older;
        let Bpffs { device, suspended: mark } = match bpffs {
            Ok(bpffs) => bpffs,
            Err(error) => {
                // Nothing can be detached; but container starts do not wait for what is suspended.
                self.set_suspended();
                return Err(error);
            }
        };
        let mounted_anew = !matches!(before, BpffsSeen::NotYet) && before != BpffsSeen::Device(device);
        if mounted_anew {
            tracing::warn!("bpffs was mounted anew: everything is pinned again");
        }
        if sweep || mounted_anew {
            for name in self.node.homes()? {
                self.programs.entry(&name);
            }
        }
        self.survey.mark = mark;
        let turned = self.set_suspended();
        if turned || mounted_anew {
            self.programs.all_mut().for_each(|(_, program)| program.forget_failures());
        }
        let mut context = self.node.node_context(requirements.inputs)?;
        self.survey.keeps_order = !context.missing_features.order;
        self.survey.ordered = requirements.ordered && self.survey.keeps_order;
        self.survey.sharing = requirements.shares;
        self.settings.facts.regressions = context.regressions.names();
        context.pods = self.survey_pods(assignment, requirements.inputs)?;
        self.survey_all_pods(&context.pods_root, requirements.inputs)?;
        Ok(context)
    }

    /// Records why the node is suspended. Returns whether that began or ended.
    fn set_suspended(&mut self) -> bool {
        let by_node = || self.survey.mark.as_ref().map(|why| format!("detach --all on this node: {why}"));
        // A user chose the words.
        let suspended = self.inputs.suspended.clone().or_else(by_node).map(|why| names::line(&why, 512));
        let turned = suspended.is_some() != self.survey.suspended.is_some();
        if turned {
            let what = if suspended.is_some() { "suspended: detaching everything" } else { "no longer suspended" };
            tracing::warn!(why = suspended, "{what}");
        }
        self.survey.suspended = suspended;
        turned
    }

    /// Finds the pods' cgroups, where any target asks for pods, and marks the BpfPrograms to which a change of pods
    /// matters.
    fn survey_pods(&mut self, assignment: &Assignment, inputs: RequiredInputs) -> Result<Pods, ObserveError> {
        let mut pods = Pods::default();
        if inputs.pods {
            let mut cgroups = self.node.pod_cgroups(inputs.containers)?;
            let Starts { announced, waiting } = &mut self.starts;
            for Waiting { start, .. } in waiting.values() {
                announced.entry(start.pod.uid.clone()).or_insert_with(|| start.pod.clone());
            }
            announced.retain(|uid, _| cgroups.contains_key(uid));
            let joined = pods::joined(&assignment.pods.clone().unwrap_or_default(), announced);
            let Self { node, pod_search, now, .. } = self;
            let known = KnownPods { pods: &joined, containers: inputs.containers, now: *now };
            let unlocated = pod_search.survey(node, &known, &mut cgroups)?;
            pods = Pods {
                pods: joined,
                namespaces: assignment.namespaces.clone().unwrap_or_default(),
                cgroups,
                unlocated,
                complete: assignment.pods.is_some(),
            };
        } else {
            self.starts.announced = BTreeMap::new();
            self.pod_search = PodSearch::default();
        }
        if pods != self.survey.pods {
            self.programs.all_mut().for_each(|(_, program)| program.pending.pods = true);
            self.survey.pods = pods.clone();
        }
        Ok(pods)
    }

    /// Looks whether pods run in the cgroup of all pods, where any target is that. What follows for these targets is
    /// worked out anew once it is another answer.
    fn survey_all_pods(&mut self, pods: &str, inputs: RequiredInputs) -> Result<(), ObserveError> {
        if !inputs.root {
            self.all_pods = AllPodsSearch::default();
            return Ok(());
        }
        let answer = |search: &AllPodsSearch| (search.found().map(str::to_owned), search.refuse(pods).is_err());
        let before = answer(&self.all_pods);
        self.all_pods.survey(&self.node, pods, self.now)?;
        if answer(&self.all_pods) != before {
            let concerned = self.programs.those_mut(|_, program| program.required_in_all().root);
            concerned.for_each(|program| program.forget_failures());
        }
        Ok(())
    }

    /// Returns whether someone suspended everything on this node since the pass began.
    fn is_marked(&self) -> bool {
        self.node.bpffs().is_ok_and(|bpffs| bpffs.suspended.is_some())
    }
}
