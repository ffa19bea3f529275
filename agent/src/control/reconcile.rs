//! One BpfProgram: observe, plan, execute, observe again. What a failed attempt left is observed too, and is what is
//! reported.

use std::{collections::BTreeMap, mem, sync::Arc};

use sockeye_crds::{BpfRevision, Reason};

use super::{
    Controller,
    bytes::{self, RevisionBytes},
    controller::Pass,
    drift::{self, Change},
    event::Effect,
    pod_search::refuse_unlocated,
    program::Pending,
    work::Observation,
};
use crate::{
    kernel::{SysError, running::RunningKernel},
    model::{
        assignment::Assignment, desired::Desired, kernel::Cgroup, node_context::NodeContext, observed::Observed,
        refusal::Refusal,
    },
    node::{
        Node,
        execute::{Executed, Execution},
        failure::{Failure, UNDONE},
    },
    plan::{self, Step, context::PlanContext, plan},
};

/// How often a plan is made again at once if the node changed under it, for example because a cgroup was removed.
const ROUNDS: usize = 4;

/// The inputs of an attempt.
pub(super) struct Attempt<'a> {
    /// The revision to bring into effect; absent where all of the BpfProgram goes.
    pub revision: Option<&'a BpfRevision>,
    /// The observation that it starts from.
    pub observation: Observation,
    /// The context in which the revision is worked out.
    pub context: &'a NodeContext,
    /// The objects at hand.
    pub assignment: &'a Assignment,
    /// Shared by all loads of a pass.
    pub kernel: &'a RunningKernel,
}

/// What an attempt is to bring about.
struct Goal {
    /// What is desired.
    desired: Option<Arc<Desired>>,
    /// Its cgroups that exist.
    cgroups: BTreeMap<String, Cgroup>,
}

/// The outcome of one round of an attempt.
struct Round {
    /// An object was loaded.
    loaded: bool,
    /// The observed state is the desired one.
    converged: bool,
}

/// Resolves the revision of an attempt. Where that is a known good one, the assigned one's kept pods stay noted.
fn resolve(
    name: &str,
    revision: &BpfRevision,
    Attempt { context, assignment, .. }: &Attempt<'_>,
    observed: &Observed,
) -> Result<Desired, Refusal> {
    let mut desired = Desired::new(revision, context, observed)?;
    let assigned = assignment.revisions.get(name).filter(|assigned| assigned.metadata.name != revision.metadata.name);
    if let Some(assigned) = assigned {
        desired.keep_noted(&assigned.spec, context, observed);
    }
    Ok(desired)
}

impl<N: Node> Controller<N> {
    /// Makes one attempt; returns whether an object was loaded, and the outcome.
    pub(super) fn attempt(&mut self, name: &str, attempt: &Attempt<'_>) -> (bool, Result<(), Failure>) {
        let mut loaded = false;
        let outcome = self.try_attempt(name, attempt, &mut loaded);
        // An object that is on its way is no failure.
        if let Some(failure) = outcome.as_ref().err().filter(|failure| !failure.awaits) {
            self.metrics.errors.inc(&[failure.reason.as_str()]);
        }
        (loaded, outcome.map_err(|failure| self.all_pods.explain(failure, &attempt.context.pods_root)))
    }

    fn try_attempt(&mut self, name: &str, attempt: &Attempt<'_>, loaded: &mut bool) -> Result<(), Failure> {
        let Attempt { revision, .. } = *attempt;
        let pending = mem::take(&mut self.touch(name).pending);
        // Nothing is known to have happened to the maps if only the sockets in them are to be counted.
        let reads_maps = attempt.observation == Observation::Fresh && pending != Pending::for_sockets();
        let observed = match attempt.observation {
            Observation::Fresh => Some(self.node.observe(name)?),
            Observation::Cached => None,
        };
        let before = &self.touch(name).observed;
        let resolved = revision.map(|revision| resolve(name, revision, attempt, observed.as_ref().unwrap_or(before)));
        let (resolved, refusal) = match resolved.transpose() {
            Ok(resolved) => (resolved, None),
            Err(refusal) => (None, Some(refusal)),
        };
        let Goal { desired, cgroups } = self.take_observation(name, observed, resolved)?;
        if revision.is_some() && self.detach_if_suspended(name)? {
            return Ok(());
        }
        if let Some(revision) = revision {
            self.remove_stale(name, &revision.spec.program_ref.uid)?;
        }
        if let Some(refusal) = refusal {
            return Err(refusal.into());
        }
        let changes_entries = self.prepare_entries(name, desired.as_deref(), attempt.assignment)?;
        let mut found = Some(cgroups);
        for _ in 0..ROUNDS {
            let cgroups = found.take().map_or_else(|| self.cgroups(desired.as_deref()), Ok)?;
            let plan_context = self.plan_context(name, desired.as_deref(), cgroups)?;
            let plan_context = PlanContext { changes_entries, ..plan_context };
            let round = self.round(name, desired.as_deref(), &plan_context, attempt)?;
            *loaded |= round.loaded;
            if round.converged {
                let goal = Goal { desired, cgroups: plan_context.cgroups };
                return self.after_convergence(name, attempt, &goal, *loaded || reads_maps);
            }
        }
        Err(Failure::new(Reason::NotInEffect, UNDONE))
    }

    /// Syncs the entries of a BpfProgram whose plan is empty, and fails for what no plan brings about.
    fn after_convergence(
        &mut self,
        name: &str,
        attempt: &Attempt<'_>,
        Goal { desired, cgroups }: &Goal,
        reads_maps: bool,
    ) -> Result<(), Failure> {
        match desired.as_deref().filter(|desired| bytes::has_entries(desired)) {
            Some(desired) => {
                let (now, entries) = (self.now, &self.touch(name).entries);
                if reads_maps || !entries.is_synced(&desired.revision) || entries.is_check_due(now) {
                    self.sync_entries(name, desired, attempt.assignment)?;
                }
            }
            None => self.forget_entries(name, desired.as_deref()),
        }
        self.find_foreign_devices(name);
        let partial = |refusal: Refusal| Failure { partial: true, ..refusal.into() };
        if let Some(refusal) = desired.as_deref().and_then(|desired| plan::missing_cgroup(desired, cgroups)) {
            return Err(partial(refusal));
        }
        if let Some(revision) = attempt.revision {
            refuse_unlocated(revision, &attempt.context.pods, &self.touch(name).observed).map_err(partial)?;
            if self.touch(name).required().root {
                self.all_pods.refuse(&attempt.context.pods_root).map_err(partial)?;
            }
        }
        self.check_runtime_asks(attempt.revision)
    }

    /// Keeps the known good revision running while the assigned one fails: attaches it to new pods and repairs external
    /// changes. Returns whether an object was loaded.
    pub(super) fn keep_known_good(
        &mut self,
        name: &str,
        observation: Observation,
        assignment: &Assignment,
        pass: &Pass,
    ) -> bool {
        let (Ok(context), Some(program)) = (&pass.context, self.programs.get_mut(name)) else { return false };
        program.pending.pods = false;
        if let Some(revision) = program.known_good_to_fetch(self.now) {
            self.effects.push(Effect::FetchRevision { program: name.to_owned(), name: revision });
        }
        let Some((good, required)) = program.kept_known_good() else { return false };
        // Without its pods it would seem to have no place at all.
        if assignment.unknown_inputs(required).is_some() {
            return false;
        }
        let failure = program.failure.clone();
        let attempt = Attempt { revision: Some(&good), observation, context, assignment, kernel: &pass.kernel };
        let (loaded, outcome) = self.attempt(name, &attempt);
        if let Err(error) = outcome {
            let revision = good.metadata.name.as_deref();
            tracing::warn!(program = name, revision, %error, "the known good revision can't be kept whole");
        }
        self.touch(name).failure = failure;
        loaded
    }

    /// Removes what a deleted BpfProgram of the same name left behind, even if the new one then fails.
    fn remove_stale(&mut self, name: &str, uid: &str) -> Result<(), Failure> {
        let observed = &self.touch(name).observed;
        if observed.uid.as_ref().is_none_or(|owner| owner == uid) {
            return Ok(());
        }
        let context = PlanContext { lent: self.lent(name), ..PlanContext::default() };
        let steps = plan(None, &self.touch(name).observed, &context)?;
        if steps.is_empty() { Ok(()) } else { self.execute_steps(name, &steps) }
    }

    /// Records what is observed, if it was observed anew, and what is desired, and external changes. Cgroups are
    /// looked up after the observation: the cgroup of a link that died with it must not be seen any more.
    fn take_observation(
        &mut self,
        name: &str,
        observed: Option<Observed>,
        resolved: Option<Desired>,
    ) -> Result<Goal, Failure> {
        let by_spec = resolved
            .as_ref()
            .is_some_and(|desired| desired.suspended)
            .then(|| "spec.suspend is true: set it to false to have the programs attached again".to_owned());
        let suspended = self.survey.suspended.clone().or(by_spec);
        let detaching = self.survey.suspended.is_some();
        self.touch(name).suspended = suspended;
        let desired = resolved.map(Arc::new);
        let cgroups = self.cgroups(desired.as_deref())?;
        let program = self.touch(name);
        let keeps_known_good = program.keeps_known_good();
        let changes = match &observed {
            // A known good revision that is kept is as the last attempt left it, which ended with an observation.
            Some(observed) if (program.converged || keeps_known_good) && !detaching => {
                self.drift(name, observed, desired.as_deref(), &cgroups)?
            }
            _ => Vec::new(),
        };
        drift::count(&self.metrics, &changes);
        let (now, time_of_day) = (self.now, (self.settings.time_of_day)());
        let program = self.touch(name);
        let is_assigned = desired.as_ref().is_none_or(|desired| Some(desired.revision.as_str()) == program.revision());
        program.desire(desired.clone());
        if let Some(observed) = observed {
            program.observe(observed);
            let repair = program.record_drift(changes, now, time_of_day);
            // Where a known good revision is kept, it is repaired later, and the assigned one is tried all the same.
            if !(keeps_known_good && is_assigned) {
                repair?;
            }
        }
        Ok(Goal { desired, cgroups })
    }

    /// Returns the external changes to what was desired until now; `cgroups` are those of what is desired now.
    fn drift(
        &self,
        name: &str,
        observed: &Observed,
        desired: Option<&Desired>,
        cgroups: &BTreeMap<String, Cgroup>,
    ) -> Result<Vec<Change>, SysError> {
        let Some(program) = self.programs.get(name) else { return Ok(Vec::new()) };
        let before = program.desired.as_deref();
        if before.map(|before| &before.revision) == desired.map(|desired| &desired.revision) {
            return Ok(drift::since(&program.observed, observed, cgroups));
        }
        Ok(drift::since(&program.observed, observed, &self.cgroups(before)?))
    }

    /// Plans, executes, and observes again.
    fn round(
        &mut self,
        name: &str,
        desired: Option<&Desired>,
        context: &PlanContext,
        attempt: &Attempt<'_>,
    ) -> Result<Round, Failure> {
        let program = self.touch(name);
        let mut steps = plan(desired, &program.observed, context)?;
        // A known good revision that is kept has passed its trial: it leaves the note on the assigned one's alone.
        let revision = desired.map(|desired| desired.revision.as_str());
        let noted = program.observed.trial.as_ref().map(|trial| trial.revision.as_str());
        let sets_trial = revision == program.revision() || noted.is_none() || noted == revision;
        steps.retain(|step| sets_trial || !matches!(step, Step::SetTrial(_)));
        program.converged = steps.is_empty();
        if program.converged {
            return Ok(Round { loaded: false, converged: true });
        }
        let loads = steps.iter().any(|step| matches!(step, Step::Load { .. }));
        let bytes = match desired.filter(|_| loads) {
            Some(desired) => {
                let (quota, machine) = (self.settings.quota, &attempt.context.machine);
                quota.admit(desired, || self.map_bytes_besides(name, machine), machine)?;
                Some(self.revision_bytes(name, desired, attempt.assignment)?)
            }
            None => None,
        };
        let (bytes, lists) = bytes.map(|RevisionBytes { object, lists }| (object, lists)).unzip();
        let execution = Execution { steps: &steps, desired, bytes: bytes.as_deref(), lists, kernel: attempt.kernel };
        let executed = self.execute(name, &execution);
        if loads {
            match &executed {
                Ok(executed) => self.metrics.loaded(executed.load_time),
                Err(_) => self.metrics.load_failed(),
            }
        }
        let Executed { unpinned, load_notes, refused, moved, left, load_time: _ } = executed?;
        let program = self.touch(name);
        program.moved += moved;
        if loads {
            program.loaded(unpinned, load_notes);
        }
        if !refused.is_empty() {
            return Err(Failure::at_pods(refused));
        }
        if let Some(failure) = left {
            return Err(failure);
        }
        // A link that was moved is looked up again where it is now.
        program.converged = plan(desired, &program.observed, context)?.is_empty();
        let (revision, converged) = (program.revision(), program.converged);
        tracing::info!(program = name, revision, steps = steps.len(), converged, "plan executed");
        Ok(Round { loaded: loads, converged })
    }

    /// Executes a plan, and records what is there then, whatever the outcome.
    pub(super) fn execute(&mut self, name: &str, execution: &Execution<'_>) -> Result<Executed, Failure> {
        self.follow_kept_maps(execution.steps);
        let before = mem::take(&mut self.touch(name).observed);
        let (executed, observed) = match self.node.execute(name, &before, execution) {
            Ok((executed, observed)) => (Ok(executed), Ok(observed)),
            Err(failure) => (Err(failure), self.node.observe(name)),
        };
        let time_of_day = (self.settings.time_of_day)();
        if let (Some(desired), Ok(observed)) = (execution.desired, &observed) {
            let changes = drift::recreated(&before, observed, desired);
            drift::count(&self.metrics, &changes);
            self.touch(name).record_recreated(changes, time_of_day);
        }
        let program = self.touch(name);
        program.observed = before;
        program.observe(observed?);
        executed
    }

    /// Observes a BpfProgram, and changes nothing.
    pub(super) fn observe(&mut self, name: &str) {
        match self.node.observe(name) {
            Ok(observed) => self.touch(name).observe(observed),
            Err(error) => tracing::warn!(program = name, %error, "can't be observed"),
        }
    }

    /// Observes a BpfProgram and leaves it as it is; but where this node is suspended, it is detached too.
    pub(super) fn freeze(&mut self, name: &str, why: Refusal, assignment: &Assignment) {
        let now = self.now;
        match self.node.observe(name) {
            Ok(observed) => {
                self.touch(name).freeze(observed, why, assignment.knows(name), now);
                self.touch(name).assign_unreadable(assignment.unreadable.get(name));
            }
            Err(error) => tracing::warn!(program = name, %error, "can't be observed"),
        }
        if let Err(failure) = self.detach_where_suspended(name) {
            tracing::warn!(program = name, %failure, "can't be detached");
        }
    }

    /// Records the outcome of an attempt, and logs what is new in it.
    pub(super) fn finish_attempt(&mut self, name: &str, mut outcome: Result<(), Failure>) {
        let now = self.now;
        if let Some(log) = outcome.as_mut().err().and_then(|failure| failure.whole_log.take()) {
            self.verifier_logs.put(name, log);
        }
        let Some(program) = self.programs.get_mut(name) else { return };
        match &outcome {
            Err(failure) if failure.awaits => tracing::debug!(program = name, %failure),
            Err(failure) if program.failure.as_ref() != Some(failure) => {
                tracing::warn!(program = name, revision = program.revision(), %failure, "not in effect");
            }
            Ok(()) if program.is_desired() && program.failure.as_ref().is_some_and(|failure| !failure.awaits) => {
                tracing::info!(program = name, "in effect again");
            }
            _ => {}
        }
        program.finish_attempt(outcome, now);
    }

    fn cgroups(&self, desired: Option<&Desired>) -> Result<BTreeMap<String, Cgroup>, SysError> {
        desired.map_or_else(|| Ok(BTreeMap::new()), |desired| self.node.cgroups(&desired.paths()))
    }
}
