//! `spec.programs[]`: each program checked against the object.

use std::collections::BTreeSet;

use sockeye_crds::{
    ObjectInfo, ProgramInfo, Reason, Refusal, names::printable, program::ProgramSpec, target::AttachTarget,
};

use super::{
    attach,
    rules::{check_count, invalid, list, refuse},
};
use crate::kinds::section;

/// Checks a program, and returns it with its type and its targets set. `default` has the targets of a program that has
/// none, and is checked already.
pub(super) fn check_program(
    field: &str,
    program: &ProgramSpec,
    default: &[AttachTarget],
    object: &ObjectInfo,
) -> Result<ProgramSpec, Refusal> {
    let ProgramSpec { name, program_type, attach } = program;
    let Some(found) = object.programs.iter().find(|p| p.name == *name) else {
        let there = list(object.programs.iter().map(|p| p.name.as_str()));
        let message = format!("{field}.name: the object has no program {}; it has: {there}", printable(name));
        return Err(refuse(Reason::ProgramNotFound, message));
    };
    let ProgramInfo { section, .. } = found;
    let Some(row) = section::find(section) else {
        let message =
            format!("{field}.name: program {name} is in section {}: {}", printable(section), section::why_not(section));
        return Err(refuse(Reason::Unsupported, message));
    };
    if let Some(given) = program_type.filter(|given| *given != row.program_type) {
        let message = format!(
            "{field}.type is {given}, but program {name} is in section {}, which is {}: correct the type, or leave it \
             out",
            printable(section),
            row.program_type
        );
        return Err(refuse(Reason::TypeMismatch, message));
    }
    attach::check_targets(&format!("{field}.attach"), attach, object)?;
    let (place, targets) = attach::targets_of(field, program, default);
    if targets.is_empty() {
        return Err(invalid(format!("{field}.attach must be set, or spec.attach for all programs that have none")));
    }
    attach::check_kinds(&place, targets, name, row)?;
    Ok(ProgramSpec { name: name.clone(), program_type: Some(row.program_type), attach: targets.to_vec() })
}

/// Checks the programs that the object puts into its program arrays. They are loaded with those that the spec names.
pub(super) fn check_tail_calls(programs: &[ProgramSpec], object: &ObjectInfo) -> Result<(), Refusal> {
    let mut all: BTreeSet<&str> = programs.iter().map(|program| program.name.as_str()).collect();
    for map in object.maps.iter().filter(|map| map.map_type == "ProgArray") {
        for name in &map.holds {
            let found = object.programs.iter().find(|program| program.name == *name);
            if found.is_none_or(|found| found.program_type.is_none()) {
                let message = format!(
                    "spec.bytecode: map {} holds program {name}, of a type that sockeye does not run",
                    map.name
                );
                return Err(refuse(Reason::Unsupported, message));
            }
            all.insert(name);
        }
    }
    check_count("spec.programs, with those that the object's program arrays hold,", all.len(), 1, 32)
}
