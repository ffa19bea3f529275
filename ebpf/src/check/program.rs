//! `spec.programs[]`: each program checked against the object.

use std::collections::BTreeSet;

use sockeye_crds::{ObjectInfo, Reason, Refusal, names::printable, program::ProgramSpec, target::AttachTarget};

use super::{
    attach,
    checked::Checked,
    rules::{check_count, invalid, list, refuse},
};
use crate::{
    kinds::section::{self, Section, Unknown},
    object::Object,
};

/// Returns the kind of a program, or the reason why the object has no such program, or sockeye does not run it.
pub(super) fn row(field: &str, program: &ProgramSpec, object: &Object<'_>) -> Result<&'static Section, Refusal> {
    let ProgramSpec { name, program_type, attach_type, attach: _ } = program;
    let Some(section) = object.section_of(name) else {
        let mut there: Vec<&str> = object.programs().map(|(name, _)| name).collect();
        there.sort_unstable();
        let there = list(there.into_iter());
        let why = object.why_no_program(name).map_or_else(|| format!("it has: {there}"), str::to_owned);
        let message = format!("{field}.name: the object has no program {}; {why}", printable(name));
        return Err(refuse(Reason::ProgramNotFound, message));
    };
    let row = section::of(section, attach_type.as_deref()).map_err(|why| {
        let (reason, part) = match why {
            Unknown::Section(_) => (Reason::Unsupported, "name"),
            Unknown::AttachType(_) => (Reason::InvalidSpec, "attachType"),
        };
        refuse(reason, format!("{field}.{part}: program {name} is in section {}: {why}", printable(section)))
    })?;
    if let Some(given) = program_type.filter(|given| *given != row.program_type) {
        let message = format!(
            "{field}.type is {given}, but program {name} is in section {}, which is {}: correct the type, or leave it \
             out",
            printable(section),
            row.program_type
        );
        return Err(refuse(Reason::TypeMismatch, message));
    }
    Ok(row)
}

/// Checks a program, and returns it with its type and its targets set. `default` has the targets of a program that has
/// none, and is checked already.
pub(super) fn check_program(
    field: &str,
    program: &ProgramSpec,
    default: &[AttachTarget],
    (object, info): (&Object<'_>, &ObjectInfo),
) -> Result<Checked, Refusal> {
    let ProgramSpec { name, program_type: _, attach_type, attach } = program;
    let row = row(field, program, object)?;
    attach::check_targets(&format!("{field}.attach"), attach, info)?;
    let (place, targets) = attach::targets_of(field, program, default);
    if targets.is_empty() {
        return Err(invalid(format!("{field}.attach must be set, or spec.attach for all programs that have none")));
    }
    attach::check_kinds(&place, targets, name, row)?;
    let spec = ProgramSpec {
        name: name.clone(),
        program_type: Some(row.program_type),
        attach_type: attach_type.clone(),
        attach: targets.to_vec(),
    };
    Ok(Checked { spec, field: place, row })
}

/// Checks the programs that the object puts into its program arrays. They are loaded with those that the spec names.
pub(super) fn check_tail_calls(programs: &[ProgramSpec], object: &ObjectInfo) -> Result<(), Refusal> {
    let mut all: BTreeSet<&str> = programs.iter().map(|program| program.name.as_str()).collect();
    for map in object.maps.iter().filter(|map| map.map_type == "ProgArray") {
        for name in &map.holds {
            let found = object.programs.iter().find(|program| program.name == *name);
            let section = found.map(|found| found.section.as_str()).unwrap_or_default();
            let is_named = programs.iter().any(|program| program.name == *name);
            if let Some(why) = section::of(section, None).err().filter(|_| !is_named) {
                let message = format!(
                    "spec.bytecode: map {} holds program {name}, which is in section {}: {why}",
                    map.name,
                    printable(section)
                );
                return Err(refuse(Reason::Unsupported, message));
            }
            all.insert(name);
        }
    }
    check_count("spec.programs, with those that the object's program arrays hold,", all.len(), 1, 32)
}
