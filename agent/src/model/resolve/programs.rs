//! Resolution of functions: the kind of each program, and where it attaches. Pure.

use std::collections::{BTreeMap, BTreeSet};

use sockeye_crds::{RevisionTemplate, names::is_pin_name, program::ProgramSpec};
use sockeye_ebpf::kinds::section::{self, Section, Target};

use super::{inputs::Inputs, targets};
use crate::model::{
    cgroup_path::highest,
    desired::DesiredProgram,
    kernel::{ProgramKind, SK_MSG},
    node_context::NodeContext,
    refusal::{Refusal, kernel_unsupported, unsupported},
};

/// Resolves the template's programs, and the functions that program arrays hold, which are loaded and attached nowhere.
pub(super) fn resolve(inputs: &Inputs<'_>) -> Result<BTreeMap<String, DesiredProgram>, Refusal> {
    let Inputs { spec, node_context, observed: _ } = *inputs;
    let template = &spec.template;
    let mut functions = BTreeMap::new();
    for program in &template.programs {
        functions.insert(program.name.clone(), attached(inputs, program)?);
    }
    let program_arrays = template.object.maps.iter().filter(|map| map.map_type == "ProgArray");
    for name in program_arrays.flat_map(|map| &map.holds) {
        if !functions.contains_key(name) {
            functions.insert(name.clone(), unattached(template, name, node_context)?);
        }
    }
    Ok(functions)
}

/// Resolves one of the template's programs with its attach targets, of which a suspended template has none.
fn attached(inputs: &Inputs<'_>, program: &ProgramSpec) -> Result<DesiredProgram, Refusal> {
    let Inputs { spec, node_context, observed: _ } = *inputs;
    let template = &spec.template;
    let ProgramSpec { name, program_type: _, attach_type: _, attach } = program;
    let (section, kind) = section_and_kind(template, name, node_context)?;
    let (mut paths, mut maps) = (BTreeMap::new(), BTreeSet::new());
    let attach = if template.suspend { &[] } else { attach.as_slice() };
    for target in attach {
        match section.target {
            Target::Cgroup => targets::add_cgroups(name, target, inputs, &mut paths)?,
            Target::Map => drop(maps.insert(targets::map_pin(spec, name, target)?)),
        }
    }
    let can_cut_off = node_context.has_api && section.can_deny();
    let info = template.object.programs.iter().find(|info| info.name == *name);
    let passes_only = kind.prog_type == SK_MSG && info.is_some_and(|info| info.passes_only);
    Ok(DesiredProgram { kind, paths: highest(&paths), maps, can_cut_off, passes_only })
}

/// Resolves a function that is loaded and attached nowhere.
fn unattached(template: &RevisionTemplate, name: &str, node_context: &NodeContext) -> Result<DesiredProgram, Refusal> {
    let (_, kind) = section_and_kind(template, name, node_context)?;
    let (paths, maps) = (BTreeMap::new(), BTreeSet::new());
    Ok(DesiredProgram { kind, paths, maps, can_cut_off: false, passes_only: false })
}

/// Looks up the ELF section of a function and the program kind that the section stands for.
fn section_and_kind(
    template: &RevisionTemplate,
    name: &str,
    node_context: &NodeContext,
) -> Result<(&'static Section, ProgramKind), Refusal> {
    let info = template.object.programs.iter().find(|program| program.name == name);
    let section_name = info.map(|program| program.section.as_str()).unwrap_or_default();
    let attach_type = template.programs.iter().find(|program| program.name == name);
    let attach_type = attach_type.and_then(|program| program.attach_type.as_deref());
    let section = section::of(section_name, attach_type)
        .map_err(|why| unsupported(format!("program {name} is in section {section_name:?}: {why}")))?;
    if !is_pin_name(name) {
        return Err(unsupported(format!(
            "program {name:?} has a name that can't be pinned: letters, digits and _, at most 128"
        )));
    }
    let kind = ProgramKind { prog_type: section.prog_type, attach_type: section.attach_type };
    if node_context.missing_features.programs.contains(&kind) {
        let feature = format!("attach type {}", section.attach_name);
        return Err(kernel_unsupported(&format!("program {name}"), &feature, section.least_kernel));
    }
    Ok((section, kind))
}
