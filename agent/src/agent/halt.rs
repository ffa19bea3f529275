//! What is to be attached nowhere: because someone has said so, of one BpfProgram or of the whole node, or because it cut the
//! node off.

use std::collections::{BTreeMap, BTreeSet};

use tokio::task::block_in_place;

use super::Agent;
use crate::{
    failure::Failure,
    held::Held,
    host::{Host, Order},
    kernel::load::KernelBtf,
    layout::{Trial, Verdict},
    observe::ObserveError,
    plan::{self, Step},
};

/// A BpfProgram that had something attached, and what became of that.
pub type Detached = (String, Result<(), Failure>);

impl<H: Host> Agent<H> {
    /// What is noted of the BpfPrograms of which it is not known yet whether they cut this node off. What is attached nowhere is
    /// on no trial.
    pub fn undecided(&self) -> BTreeMap<String, Trial> {
        let undecided = |Held { trial, links, .. }: &Held| {
            let verdict = trial.as_ref()?.verdict;
            trial.clone().filter(|_| verdict.is_undecided() && !(verdict.is_open() && links.is_empty()))
        };
        self.tracks.iter().filter_map(|(name, track)| Some((name.clone(), undecided(&track.held)?))).collect()
    }

    /// Looks at those again, and at no other: for an agent that does not know yet what is wanted.
    pub fn look_at_trials(&mut self) -> Result<(), ObserveError> {
        let noted = block_in_place(|| self.host.trials())?;
        let found = noted.into_iter().filter(|(_, trial)| trial.verdict.is_undecided()).map(|(name, _)| name);
        let names: BTreeSet<String> = found.chain(self.tracks.keys().cloned()).collect();
        names.iter().for_each(|name| self.refresh(name));
        Ok(())
    }

    /// Notes verdicts. What may have cut the node off is taken back first, so that an agent that is killed in between leaves
    /// nothing attached that counts as taken back.
    pub fn judge(&mut self, verdicts: &BTreeMap<String, Verdict>) {
        for (name, &verdict) in verdicts {
            let Some(track) = self.tracks.get(name) else { continue };
            let Some(Trial { revision, verdict: before }) = track.held.trial.clone() else { continue };
            let back = before.is_open() && verdict != Verdict::Passed;
            let noted = [Step::SetTrial(Trial { revision, verdict })];
            let taken_back = if back { self.take_back(name) } else { Ok(()) };
            let done = taken_back.and_then(|()| block_in_place(|| self.execute_alone(name, &noted)));
            if let Err(failure) = done {
                tracing::error!(program = name, %failure, ?verdict, "this verdict could not be carried out");
            }
        }
    }

    /// Takes back what is on trial. What can't be gone back to is at least not left attached.
    fn take_back(&mut self, name: &str) -> Result<(), Failure> {
        let steps = plan::revert(&self.track(name).held);
        block_in_place(|| self.execute_alone(name, &steps)).or_else(|failure| {
            tracing::error!(program = name, %failure, "what ran before can't be gone back to: detaching");
            self.detach(name)
        })
    }

    fn detach(&mut self, name: &str) -> Result<(), Failure> {
        let steps = plan::detach(&self.track(name).held);
        if steps.is_empty() { Ok(()) } else { block_in_place(|| self.execute_alone(name, &steps)) }
    }

    /// Detaches all that is here, whoever wants it; what became of each BpfProgram that had something attached.
    pub fn detach_all(&mut self) -> Result<Vec<Detached>, ObserveError> {
        let mut detached = Vec::new();
        for name in block_in_place(|| self.host.homes())? {
            let done = match block_in_place(|| self.host.observe(&name)) {
                Ok(held) if held.links.is_empty() => continue,
                Ok(held) => {
                    self.track(&name).observe(held);
                    self.detach(&name)
                }
                Err(error) => Err(error.into()),
            };
            if let Err(failure) = &done {
                tracing::error!(program = name, %failure, "not detached");
            }
            detached.push((name, done));
        }
        Ok(detached)
    }

    /// What is to be attached nowhere is detached before anything else, whatever may then fail. Says whether that is all,
    /// because nothing is to be attached on the node.
    pub(super) fn is_suspended(&mut self, name: &str) -> Result<bool, Failure> {
        let node = self.suspended.is_some();
        if self.track(name).suspended.is_some() {
            self.detach(name)?;
        }
        if node {
            self.track(name).settled = true;
        }
        Ok(node)
    }

    /// Where nothing is to be attached on this node: detaches a BpfProgram's links.
    pub(super) fn detach_where_suspended(&mut self, name: &str) -> Result<(), Failure> {
        if self.suspended.is_some() { self.detach(name) } else { Ok(()) }
    }

    /// Executes steps that need neither an object nor what is wanted, and observes.
    fn execute_alone(&mut self, name: &str, steps: &[Step]) -> Result<(), Failure> {
        let executed = self.execute_steps(name, steps);
        self.track(name).forget_failures();
        executed
    }

    /// The same, where a failure counts like any other.
    pub(super) fn execute_steps(&mut self, name: &str, steps: &[Step]) -> Result<(), Failure> {
        let order = Order { steps, wanted: None, bytes: None, kernel_btf: &KernelBtf::default() };
        self.execute(name, &order)?.left.map_or(Ok(()), Err)
    }
}
