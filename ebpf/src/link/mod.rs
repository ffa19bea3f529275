//! Links an object for a kernel: [`link`] makes of an object, the programs that a spec names, its settings and the
//! facts of a kernel a [`Plan`], the BTF, maps and programs as bpf(2) takes them. No IO.
//!
//! The result is libbpf's (`bpf_object__load`), instruction by instruction; tests/oracle/differences lists what differs
//! and why. Everything is bounded by the size of the object, for every object.
//!
//! | module | noun |
//! |---|---|
//! | [`Request`] | what to link of the object |
//! | `plan` | the result |
//! | [`Poisoned`] | the instructions that no verifier accepts, and why |
//! | [`Kernel`], [`Features`] | the facts of a kernel |
//! | [`core`](mod@core) | relocations against the kernel's types |
//! | `code` | a program with all that it calls |
//! | `externs` | the kernel's functions, variables and configuration |
//! | `records` | function and line information of a program |
//! | `maps` | the maps to create |
//! | `types` | the object's BTF as the kernel takes it |
//! | [`rejection`] | what the log of a kernel that refuses a program means |

mod code;
mod config;
pub mod core;
mod error;
mod externs;
mod features;
mod kernel;
mod maps;
mod plan;
mod poisoned;
mod records;
pub mod rejection;
mod request;
mod types;

use self::{code::Linker, records::RecordIndex};
pub use self::{
    error::LinkError,
    features::Features,
    kernel::Kernel,
    plan::{MapAttributes, Plan, PlannedMap, PlannedProgram, PlannedSlot, Records},
    poisoned::{Invalid, Poisoned},
    request::{MapRequest, ProgramKind, Request},
};
use crate::{
    object::{Object, Selection, maps::MapForm},
    values::settings::Settings,
};

/// Links an object for a kernel.
pub fn link<'a>(
    object: &'a Object<'a>,
    request: &Request<'_>,
    settings: &'a Settings,
    kernel: &dyn Kernel,
) -> Result<Plan<'a>, LinkError> {
    let names = || request.programs.keys().copied();
    let selection = object.select(names(), request.maps.keys().copied())?;
    let mut notes: Vec<String> = records::unread(object).into_iter().collect();
    let features = kernel.features();
    let externs = externs::resolve(object, &selection, kernel, &mut notes)?;
    let mut plan = Plan {
        license: object.license(),
        kernel_version: object.kernel_version().unwrap_or_else(|| kernel.version()),
        maps: maps::plan(object, &selection, (request, settings, &externs), kernel)?,
        ..Plan::default()
    };
    let places = selection.maps.iter().enumerate().map(|(place, map)| (*map, place)).collect();
    let linker = Linker::new(object, &selection, &externs.resolved, kernel)?;
    let records = RecordIndex::of(object, features);
    let constants = constants(object, &selection, features);
    for index in &selection.programs {
        let Some(function) = object.functions.get(*index) else { continue };
        let Some(kind) = request.programs.get(function.name).copied() else { continue };
        let mut linked = linker.link(*index);
        linked.give(&externs.resolved, &places, features);
        let (functions, lines) = records.of_program(object, &linked, &mut notes)?;
        plan.programs.push(PlannedProgram {
            name: function.name,
            prog_type: kind.prog_type,
            attach_type: kind.attach_type,
            code: linked.code,
            maps: linked.maps,
            functions,
            lines,
            bound: constants.clone(),
            poisoned: Poisoned { btf: object.btf(), functions: linked.poisoned },
            strings: object.btf().map(crate::btf::Btf::strings),
        });
    }
    plan.btf = types::write(object, &mut plan.programs, features);
    plan.notes = notes;
    Ok(plan)
}

/// Returns the maps with constants, which each program keeps (libbpf's `bpf_object_load_prog`).
fn constants(object: &Object<'_>, selection: &Selection, features: Features) -> Vec<usize> {
    let maps = selection.maps.iter().enumerate();
    let is_constant = |index: &usize| object.maps.get(*index).is_some_and(|map| map.form == MapForm::Rodata);
    maps.filter(|(_, index)| features.prog_bind_map && is_constant(index)).map(|(place, _)| place).collect()
}
