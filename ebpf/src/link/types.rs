//! The object's BTF as the kernel takes it.

use super::{Features, PlannedProgram};
use crate::object::Object;

/// Returns the bytes of the object's BTF for a kernel.
pub(super) fn write(_: &Object<'_>, _: &mut [PlannedProgram<'_>], _: Features) -> Option<Vec<u8>> {
    None
}
