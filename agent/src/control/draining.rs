//! The sockets in maps whose BpfProgram is suspended or gone: takes those out that may be, and looks from time to time
//! at the maps that are kept for the others.

use super::{Controller, controller::BpffsSeen};
use crate::{
    model::kernel::Machine,
    node::Node,
    plan::{self, Step, context::PlanContext},
};

impl<N: Node> Controller<N> {
    /// Has the maps looked at at the end of the pass, if a plan kept one.
    pub(super) fn follow_kept_maps(&mut self, steps: &[Step]) {
        if steps.iter().any(|step| matches!(step, Step::KeepForSockets { .. })) {
            self.draining.hasten(self.now);
        }
    }

    /// Marks BpfPrograms with sockets in their maps and nothing attached, so that the next pass counts the sockets
    /// again. Returns whether a pass is due for any map.
    pub(super) fn mark_draining(&mut self) -> bool {
        if !self.draining.is_due(self.now) {
            return false;
        }
        let mut is_due = !self.draining.maps.is_empty();
        for program in self.programs.those_mut(|_, program| program.observed.draining().next().is_some()) {
            program.pending.sockets = true;
            self.draining.begin();
            is_due = true;
        }
        is_due
    }

    /// Takes sockets out where everything on the node is suspended, now that everything is detached; and looks at the
    /// maps that are kept for sockets.
    pub(super) fn drain(&mut self) {
        if self.survey.suspended.is_some() {
            self.take_sockets_out();
        }
        // Nothing is touched on a bpffs that is not to be used.
        if !matches!(self.survey.bpffs, BpffsSeen::Device(_)) || !self.draining.is_due(self.now) {
            return;
        }
        let begin = self.draining.begin();
        self.look_at_draining_maps();
        self.draining.looked(self.now, begin.elapsed());
    }

    fn look_at_draining_maps(&mut self) {
        match self.node.drain() {
            Ok(maps) => (self.draining.maps, self.draining.is_known) = (maps, true),
            Err(error) => tracing::warn!(%error, "the draining maps can't be looked at"),
        }
    }

    /// Returns the bytes that the maps which are kept for their sockets may hold.
    pub(super) fn draining_bytes(&mut self, machine: &Machine) -> u64 {
        if !self.draining.is_known {
            self.look_at_draining_maps();
        }
        self.draining.maps.iter().fold(0, |sum: u64, map| sum.saturating_add(map.shape.bytes(machine)))
    }

    /// Takes sockets out of the maps of all BpfPrograms that have nothing attached, where nothing is lost or the spec
    /// says so. It is the last thing that a suspension does: no detachment waits for it.
    pub(super) fn take_sockets_out(&mut self) {
        let context = PlanContext::default();
        let steps: Vec<(String, Vec<Step>)> = self
            .programs
            .iter()
            .map(|(name, program)| {
                let observed = &program.observed;
                (name.clone(), plan::take_out(observed, observed.force_detach, &context))
            })
            .filter(|(_, steps)| !steps.is_empty())
            .collect();
        for (name, steps) in steps {
            if let Err(failure) = self.execute_steps(&name, &steps) {
                tracing::warn!(program = name, %failure, "sockets can't be taken out of its maps");
            }
        }
    }
}
