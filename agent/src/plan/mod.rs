//! The plan for one BpfProgram: the steps from its observed state to its desired state. Pure: no IO, and equal
//! arguments give equal steps.
//!
//! Guarantees, which the property tests in `tests/plan.rs` check:
//! - Once the steps are executed, another plan is empty.
//! - A program in effect is taken away only after its replacement is in effect. The exception is a map, which runs one
//!   program of a kind.
//! - Nothing visible happens before the load has succeeded, so a revision that does not load changes nothing.
//!
//! | file | decides or defines |
//! |---|---|
//! | this one | the plan as a whole |
//! | `load` | whether the object is loaded, and which of its maps are carried over, shared or created |
//! | `pins` | which pins are restored, and which maps are retained |
//! | `attach` | for each attachment, whether its link is kept, updated, moved or made |
//! | `desired_attachments`, `order` | the order of attaching, and the order of programs on a cgroup |
//! | `kept_pods` | which notes say that keepers go on selecting pods |
//! | `missing_cgroup` | the refusal of a revision whose cgroup does not exist |
//! | `trial` | whether a connectivity trial begins or ends, and the steps of a revert |
//! | `borrow` | which maps of other BpfPrograms are pinned to attach programs to them |
//! | `draining` | which sockets are taken out of maps, and which maps are kept for their sockets |
//! | `remove` | which links and pins are removed |
//! | `switch` | whether the object's switch is turned |
//! | `step`, `outcome` | one step, and the names of the pins after it |
//! | `context` | the state outside of the BpfProgram that a plan depends on |
//! | [`entry_changes`] | the changes that bring a map's entries in sync with a spec |
//! | `quota` | the bounds on the memory of maps |

mod attach;
mod borrow;
pub mod context;
mod desired_attachments;
mod draining;
pub mod entry_changes;
mod kept_pods;
mod load;
mod missing_cgroup;
pub mod order;
mod outcome;
mod pins;
pub mod quota;
mod remove;
mod step;
mod switch;
mod trial;

use std::borrow::Cow;

use self::context::PlanContext;
pub use self::{draining::take_out, missing_cgroup::missing_cgroup, remove::detach, step::Step, trial::revert};
use crate::model::{
    desired::Desired,
    observed::{Observed, ObservedMap},
    refusal::Refusal,
};

/// Returns the steps from the observed state to the desired one. `None` is a BpfProgram that should have nothing here.
pub fn plan(desired: Option<&Desired>, observed: &Observed, context: &PlanContext) -> Result<Vec<Step>, Refusal> {
    let Some(desired) = desired else { return Ok(remove::remove_all(observed, context)) };
    let (mut steps, observed) = clean_home(desired, observed, context);
    let observed = observed.as_ref();
    trial::check(desired, observed)?;
    let load = load::load(desired, observed, context)?;
    let borrow = borrow::borrow(desired, observed, context)?;
    let making: Vec<Step> = load.into_iter().chain(borrow).collect();
    let attaching = attach::attach(desired, observed, context, &making)?;

    steps.extend(observed.uid.is_none().then(|| Step::Claim { uid: desired.program.uid.clone() }));
    steps.extend(pins::repin(desired, observed));
    let notes = draining::note(desired, observed, &making);
    steps.extend(making);
    steps.extend(notes);
    steps.extend(pins::retention(desired, observed));
    steps.extend(kept_pods::note(desired, observed));
    steps.extend(trial::begin(desired, observed, &attaching.steps, context));
    steps.extend(switch::on(observed).filter(|_| !desired.suspended));
    steps.extend(attaching.steps.iter().cloned());
    let is_in_effect = observed.revision.as_ref() == Some(&desired.revision);
    steps.extend((!is_in_effect).then(|| Step::SetRevision(Some(desired.revision.clone()))));
    steps.extend(remove::remove_stale(desired, observed, &attaching, context));
    steps.extend(switch::off(observed).filter(|_| desired.suspended));
    // Last of all, once nothing else is left to do.
    if desired.suspended && steps.is_empty() {
        steps.extend(take_out(observed, desired.force_detach, context));
    }
    // Last: until all of the other revision is removed, a revert may be necessary.
    steps.extend(trial::end(desired, observed));
    Ok(steps)
}

/// Removes the state of a deleted BpfProgram of the same name, except the maps that it retains, or else half-made pins.
/// Returns the steps and the state after them.
fn clean_home<'a>(desired: &Desired, observed: &'a Observed, context: &PlanContext) -> (Vec<Step>, Cow<'a, Observed>) {
    if observed.uid.as_ref().is_none_or(|uid| *uid == desired.program.uid) {
        return (observed.stray.then_some(Step::RemoveStray).into_iter().collect(), Cow::Borrowed(observed));
    }
    let steps = remove::remove_all(observed, context).into_iter().filter(|step| *step != Step::Leave).collect();
    let retained = observed.maps.iter().filter(|(pin, _)| observed.retained.contains(*pin));
    // `remove_all` restores their pins.
    let maps = retained.map(|(pin, map)| (pin.clone(), ObservedMap { pinned: true, ..map.clone() })).collect();
    let (retained, force_detach) = (observed.retained.clone(), observed.force_detach);
    (steps, Cow::Owned(Observed { retained, force_detach, maps, ..Observed::default() }))
}
