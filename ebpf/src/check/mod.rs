//! Checks a spec against its object. The operator calls [`check`], and so does an agent without a cluster. That agent
//! has no API server to enforce the CRD's schema, so the schema's rules are repeated here. No IO.
//!
//! Every refusal names the field, says what is wrong with it and what to do.

mod accepted;
mod attach;
mod bytecode;
mod checked;
mod creatable;
mod entries;
mod map;
mod notes;
mod program;
mod rules;
mod stream;

use sockeye_crds::{
    BpfProgramSpec, Reason, Refusal, Regression, names,
    program::{MAX_PRIORITY, ProgramSpec},
    provenance::Origin,
    selector,
    target::AttachTarget,
};

use self::rules::{check_count, check_distinct, invalid, list, refuse};
pub use self::{
    accepted::Accepted,
    bytecode::{decode_inline, embedded_bytes, encode_inline},
};
use crate::{
    object::{Object, ObjectError, Selection},
    values::{list::Lists, settings::Settings},
};

/// Checks a spec against the bytes of its object, wherever they come from. Every accepted program has its type and its
/// targets set.
///
/// The spec names no list of entries.
pub fn check(spec: &BpfProgramSpec, bytes: &[u8]) -> Result<Accepted, Refusal> {
    check_with(spec, bytes, &Lists::new())
}

/// Checks a spec against its object and the lists of entries that it names; `lists` has their bytes.
pub fn check_with(spec: &BpfProgramSpec, bytes: &[u8], lists: &Lists) -> Result<Accepted, Refusal> {
    let BpfProgramSpec { bytecode, node_selector, attach, programs, maps, globals, priority, .. } = spec;
    bytecode::check_source(bytecode)?;
    if let Some(fault) = node_selector.as_ref().and_then(|selector| selector::fault("spec.nodeSelector", selector)) {
        return Err(invalid(fault));
    }
    let digest = names::digest(bytes);
    bytecode::check_digest(bytecode, &digest)?;
    let object = Object::read(bytes).map_err(|error| invalid_object(&error))?;
    check_count("spec.programs", programs.len(), 1, 32)?;
    check_distinct("spec.programs", programs.iter().map(|p| p.name.as_str()))?;
    for (i, program) in programs.iter().enumerate() {
        program::row(&format!("spec.programs[{i}]"), program, &object)?;
    }
    entries::check_lists(maps, lists)?;
    let settings = Settings::read_with(&object, globals, maps, lists);
    let mut selection = select(spec, &object, settings.as_ref().ok())?;
    let info = object.info(&mut selection);
    attach::check_targets(attach::DEFAULT, attach, &info)?;
    let mut checked = Vec::with_capacity(programs.len());
    for (i, program) in programs.iter().enumerate() {
        checked.push(program::check_program(&format!("spec.programs[{i}]"), program, attach, (&object, &info))?);
    }
    if let Some(priority) = priority.filter(|priority| !(0..=MAX_PRIORITY).contains(priority)) {
        return Err(invalid(format!("spec.priority is {priority}; it must be 0 to {MAX_PRIORITY}")));
    }
    check_regressions(&spec.accepted_regressions)?;
    check_count("spec.maps", maps.len(), 0, 128)?;
    check_distinct("spec.maps", maps.iter().map(|m| m.name.as_str()))?;
    for (i, map) in maps.iter().enumerate() {
        map::check_map(&format!("spec.maps[{i}]"), map, &info)?;
        entries::check_policy(&format!("spec.maps[{i}]"), map, &info)?;
        stream::check_stream(&format!("spec.maps[{i}]"), map, (&object, &info))?;
    }
    entries::check_size(maps)?;
    creatable::check_creatable(maps, &object.creation_errors(&selection))?;
    attach::check_attached_maps(&checked, maps)?;
    map::check_sockets_pinned(maps, &info)?;
    program::check_tail_calls(programs, &info)?;
    check_count("spec.globals", globals.len(), 0, 256)?;
    settings.map_err(|error| refuse(error.reason(), error.to_string()))?;
    let programs: Vec<ProgramSpec> = checked.into_iter().map(|checked| checked.spec).collect();
    Ok(Accepted {
        digest,
        origin: Origin::default(),
        notes: notes::notes(&object, &selection, &programs),
        object: info,
        programs,
        maps: maps.clone(),
        globals: globals.clone(),
        node_selector: node_selector.clone(),
        priority: *priority,
        suspend: spec.suspend,
        force_detach: spec.force_detach,
        accepted_regressions: spec.accepted_regressions.clone(),
    })
}

/// Selects what the spec needs of the object: its programs, and the maps that it names anywhere.
fn select(spec: &BpfProgramSpec, object: &Object<'_>, settings: Option<&Settings>) -> Result<Selection, Refusal> {
    let targets = spec.attach.iter().chain(spec.programs.iter().flat_map(|program| &program.attach));
    let own = targets.filter_map(AttachTarget::map).filter(|map| map.program.is_none());
    let attached = own.map(|map| map.name.as_str());
    let named = spec.maps.iter().map(|map| map.name.as_str()).chain(attached);
    let set = settings.into_iter().flat_map(|settings| settings.globals.keys());
    let maps = named.chain(set.map(String::as_str)).filter(|name| object.has_map(name));
    let programs = spec.programs.iter().map(|program| program.name.as_str());
    object.select(programs, maps).map_err(|error| invalid_object(&error))
}

/// Checks that all regressions to accept are known ones.
fn check_regressions(accepted: &[String]) -> Result<(), Refusal> {
    check_count("spec.acceptedRegressions", accepted.len(), 0, 16)?;
    let Some(i) = accepted.iter().position(|name| Regression::named(name).is_none()) else { return Ok(()) };
    let known = list(Regression::ALL.into_iter().map(|known| known.info().name));
    let name = names::printable(&accepted[i]);
    Err(invalid(format!("spec.acceptedRegressions[{i}]: no known regression is named {name}; the known ones: {known}")))
}

fn invalid_object(error: &ObjectError) -> Refusal {
    refuse(Reason::InvalidObject, format!("spec.bytecode: the object is refused: {error}"))
}
