//! The steps that turn an object's switch: off once nothing is attached, since sockets in a map still run its programs,
//! and on before anything is attached again. Pure.

use super::step::Step;
use crate::model::observed::Observed;

/// Turns the switch off, unless it says nothing already.
pub(super) fn off(observed: &Observed) -> Option<Step> {
    observed.switch.filter(|switch| !switch.is_zero).map(|_| Step::SwitchOff)
}

/// Has the switch say what it said before it was turned off.
pub(super) fn on(observed: &Observed) -> Option<Step> {
    observed.switch.filter(|switch| switch.is_noted).map(|_| Step::SwitchOn)
}
