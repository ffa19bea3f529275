//! `PinNames` after a plan: the notes and names that exist once its steps are executed. Pure.

use sockeye_crds::names::pin_name;

use super::step::Step;
use crate::model::{observed::LinkKey, pin_names::PinNames};

impl PinNames {
    /// Returns the notes and names after all steps are executed.
    pub fn after(mut self, steps: &[Step]) -> Self {
        for step in steps {
            self.apply(step);
        }
        self
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::RemoveStray => self.stray = false,
            Step::Claim { uid } => self.uid = Some(uid.clone()),
            Step::SetRevision(revision) => {
                self.revision.clone_from(revision);
                self.trial = self.trial.take().filter(|_| revision.is_some());
            }
            Step::SetTrial(trial) => self.trial = Some(trial.clone()),
            Step::Load { .. }
            | Step::Update(_)
            | Step::Move { .. }
            | Step::Restore(_)
            | Step::ForgetLoad(_)
            | Step::RepinProgram(_)
            | Step::RepinMap(_)
            | Step::RepinLink(_)
            | Step::NoteLossy(_)
            | Step::TakeSocketsOut(_)
            | Step::SwitchOn
            | Step::SwitchOff
            | Step::KeepForSockets { .. } => {}
            Step::KeepPod { pod, path: _ } => drop(self.kept_pods.insert(pod.clone())),
            Step::ForgetPod(pod) => drop(self.kept_pods.remove(pod)),
            Step::Retain(pin) => drop(self.retained.insert(pin.clone())),
            Step::Release(pin) => drop(self.retained.remove(pin)),
            Step::ForgetEntries(pin) => drop(self.recorded.remove(pin)),
            Step::PinMap(pin) => {
                self.shared.remove(pin);
                self.maps.insert(pin.clone());
            }
            Step::ShareMap { name, from: _ } => {
                self.shared.insert(pin_name(name));
                self.maps.insert(pin_name(name));
            }
            Step::BorrowMap { pin, from: _ } => {
                self.shared.insert(pin.clone());
                self.maps.insert(pin.clone());
            }
            Step::UnpinMap(pin) => {
                self.shared.remove(pin);
                self.maps.remove(pin);
            }
            Step::SetForceDetach(force) => self.force_detach = *force,
            Step::PinProgram(function) => drop(self.functions.insert(function.clone())),
            Step::UnpinProgram(function) => drop(self.functions.remove(function)),
            Step::Attach { function, site, before: _ } => drop(self.links.insert(LinkKey::to(function, site))),
            Step::Detach(key) => drop(self.links.remove(key)),
            Step::Leave => *self = Self::default(),
        }
    }
}
