//! Detaches what someone suspended: one BpfProgram, or the whole node.

use super::Controller;
use crate::{
    kernel::running::RunningKernel,
    node::{Node, execute::Execution, failure::Failure, observe::ObserveError},
    plan::{self, Step},
};

/// A BpfProgram that had something attached, and the outcome of detaching it.
pub type Detached = (String, Result<(), Failure>);

impl<N: Node> Controller<N> {
    /// Detaches all of a BpfProgram.
    pub(super) fn detach(&mut self, name: &str) -> Result<(), Failure> {
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

    /// Detaches the BpfProgram if it is suspended. Returns whether the whole node is suspended, so that nothing else is
    /// to do.
    pub(super) fn detach_if_suspended(&mut self, name: &str) -> Result<bool, Failure> {
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
    pub(super) fn execute_alone(&mut self, name: &str, steps: &[Step]) -> Result<(), Failure> {
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
