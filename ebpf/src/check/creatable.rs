//! The maps of an object that no kernel creates as they are defined, and that the spec does not complete.

use sockeye_crds::{Reason, Refusal, names::printable, program::MapSpec};

use super::rules::{invalid, refuse};
use crate::object::maps::CreationError;

/// Checks that the kernel creates every map as it is defined. Some objects leave the number of entries to their loader.
/// Of another BpfProgram's map, that one's definition says what it holds. `errors` has the maps that no kernel creates.
pub(super) fn check_creatable(maps: &[MapSpec], errors: &[(&str, CreationError)]) -> Result<(), Refusal> {
    for (name, error) in errors {
        let spec = maps.iter().find(|map| map.name == *name);
        match error {
            CreationError::NoEntries if spec.is_some_and(|map| map.max_entries.is_some()) => {}
            CreationError::NoEntries => {
                let message = format!("spec.maps: map {name} says no max_entries: set its maxEntries, in spec.maps[]");
                return Err(invalid(message));
            }
            CreationError::Inner | CreationError::OfInner(_) if spec.is_some_and(|map| map.map_ref.is_some()) => {}
            _ => {
                let message = format!("spec.bytecode: the object is refused: map {}: {error}", printable(name));
                return Err(refuse(Reason::InvalidObject, message));
            }
        }
    }
    Ok(())
}
