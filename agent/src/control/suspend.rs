//! What is to be attached nowhere: because someone suspended one BpfProgram or the whole node, or because a program cut
//! the node off.

use std::collections::{BTreeMap, BTreeSet};

use super::Controller;
use crate::{
    kernel::running::RunningKernel,
    model::trial::{Trial, TrialState},
    node::{Node, execute::Execution, failure::Failure, observe::ObserveError},
    plan::{self, Step},
};

/// A BpfProgram that had something attached, and the outcome of detaching it.
pub type Detached = (String, Result<(), Failure>);

impl<N: Node> Controller<N> {
    /// Observes the BpfPrograms that are on trial, and no others: what is desired is not known yet.
    pub(super) fn load_trials(&mut self) -> Result<(), ObserveError> {
        let noted = self.node.trials()?;
        let found = noted.into_iter().filter(|(_, trial)| trial.state.is_undecided()).map(|(name, _)| name);
        let names: BTreeSet<String> = found.chain(self.programs.index().trials().keys().cloned()).collect();
        names.iter().for_each(|name| self.observe(name));
        Ok(())
    }

    /// Notes new states of trials. A program that may have cut the node off is reverted before that is noted, so that
    /// an agent that is killed in between leaves nothing attached that counts as reverted.
    pub(super) fn judge(&mut self, states: &BTreeMap<String, TrialState>) {
        for (name, &state) in states {
            let Some(program) = self.programs.get(name) else { continue };
            let Some(Trial { revision, state: before }) = program.observed.trial.clone() else { continue };
            let reverts = before.is_open() && !state.has_passed();
            let note = [Step::SetTrial(Trial { revision: revision.clone(), state })];
            if state.has_passed() {
                self.touch(name).entries.on_trial = None;
            }
            let reverted = if reverts { self.revert(name, &revision) } else { Ok(()) };
            if let Err(failure) = reverted.and_then(|()| self.execute_alone(name, &note)) {
                tracing::error!(program = name, %failure, ?state, "the outcome of this trial can't be carried out");
            }
        }
    }

    /// Reverts what is on trial. Where its predecessor, or the entries that the predecessor listed, can't be restored,
    /// it is at least detached.
    fn revert(&mut self, name: &str, revision: &str) -> Result<(), Failure> {
        // The entries come first: a former revision that is noted as in effect is kept running.
        let mut reverted = self.restore_entries(name, revision);
        if reverted.is_ok() {
            let steps = plan::revert(&self.touch(name).observed);
            reverted = self.execute_alone(name, &steps);
        }
        reverted.or_else(|failure| {
            tracing::error!(program = name, %failure, "its predecessor can't be restored: detaching");
            self.detach(name)
        })
    }

    fn detach(&mut self, name: &str) -> Result<(), Failure> {
        let steps = plan::detach(&self.touch(name).observed);
        if steps.is_empty() { Ok(()) } else { self.execute_alone(name, &steps) }
    }

    /// Detaches everything on this node, desired or not; returns the outcome for each BpfProgram that had something
    /// attached.
    pub fn detach_all(&mut self) -> Result<Vec<Detached>, ObserveError> {
        let mut detached = Vec::new();
        for name in self.node.homes()? {
            let outcome = match self.node.observe(&name) {
                Ok(observed) if plan::detach(&observed).is_empty() => continue,
                Ok(observed) => {
                    self.touch(&name).observe(observed);
                    self.detach(&name)
                }
                Err(error) => Err(error.into()),
            };
            if let Err(failure) = &outcome {
                tracing::error!(program = name, %failure, "not detached");
            }
            detached.push((name, outcome));
        }
        self.take_sockets_out();
        Ok(detached)
    }

    /// Detaches a suspended BpfProgram before anything else, whatever may then fail. Reports whether that is all there
    /// is to do, because the whole node is suspended.
    pub(super) fn is_suspended(&mut self, name: &str) -> Result<bool, Failure> {
        if self.touch(name).suspended.is_some() {
            self.detach(name)?;
        }
        let whole_node = self.survey.suspended.is_some();
        if whole_node {
            self.touch(name).converged = true;
        }
        Ok(whole_node)
    }

    /// Detaches a BpfProgram if the whole node is suspended.
    pub(super) fn detach_where_suspended(&mut self, name: &str) -> Result<(), Failure> {
        if self.survey.suspended.is_some() { self.detach(name) } else { Ok(()) }
    }

    /// Executes steps that need neither an object nor what is desired, and retries at once what failed before.
    fn execute_alone(&mut self, name: &str, steps: &[Step]) -> Result<(), Failure> {
        let executed = self.execute_steps(name, steps);
        self.touch(name).forget_failures();
        executed
    }

    /// Executes steps that need neither an object nor what is desired.
    pub(super) fn execute_steps(&mut self, name: &str, steps: &[Step]) -> Result<(), Failure> {
        let execution = Execution { steps, desired: None, bytes: None, lists: None, kernel: &RunningKernel::default() };
        self.execute(name, &execution)?.left.map_or(Ok(()), Err)
    }
}
