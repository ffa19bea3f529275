//! Carries out the outcomes of connectivity trials: a program that may have cut the node off is reverted.

use std::collections::{BTreeMap, BTreeSet};

use super::Controller;
use crate::{
    model::trial::{Trial, TrialState},
    node::{Node, failure::Failure, observe::ObserveError},
    plan::{self, Step},
};

impl<N: Node> Controller<N> {
    /// Observes the BpfPrograms that are on trial, and no others: what is desired is not known yet.
    pub(super) fn load_trials(&mut self) -> Result<(), ObserveError> {
        let noted = self.node.trials()?;
        let found = noted.into_iter().filter(|(_, trial)| trial.state.is_undecided()).map(|(name, _)| name);
        let names: BTreeSet<String> = found.chain(self.programs.index().trials().keys().cloned()).collect();
        names.iter().for_each(|name| self.observe(name));
        Ok(())
    }

    /// Records new states of trials. A program that may have cut the node off is reverted before that is noted, so that
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
            if reverts {
                self.metrics.rollbacks.inc(&[]);
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
}
