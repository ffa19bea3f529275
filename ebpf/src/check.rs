//! Check: a spec against its object. The same for the operator and for an agent without a cluster, which has no API server
//! to check the schema for it: so the schema's rules are here too. Pure.
//!
//! Every refusal names the field, says what is wrong with it and what to do.

mod targets;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;
use sockeye_crds::{
    BpfProgramSpec, BpfRevisionSpec, MapInfo, ObjectInfo, ProgramInfo, ProgramType, Reason, Refusal,
    names::{self, MAX_INLINE_BYTES, printable},
    program::{Bytecode, MAX_PRIORITY, MapRef, MapSpec, OnDelete, OnShapeChange, ProgramSpec},
    revision::{Feature, ProgramRef},
    selector,
};

use crate::{object::Object, programs, section, settings::Settings};

/// A spec that fits its object.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    /// The digest of the object's bytes.
    pub digest: String,
    /// What the object holds.
    pub object: ObjectInfo,
    /// The programs to run, with their types filled in.
    pub programs: Vec<ProgramSpec>,
    /// Settings of single maps.
    pub maps: Vec<MapSpec>,
    /// Values of global variables.
    pub globals: BTreeMap<String, Value>,
    /// The nodes to run on.
    pub node_selector: Option<LabelSelector>,
    /// Where it runs among others on the same cgroup and attach type.
    pub priority: Option<i64>,
    /// Whether it is to be attached nowhere for now.
    pub suspend: bool,
    /// What a user should know nevertheless.
    pub notes: Vec<String>,
}

impl Accepted {
    /// The revision that dispatches it.
    pub fn into_revision_spec(self, program: ProgramRef, generation: i64, sequence: i64) -> BpfRevisionSpec {
        let Self { digest, object, programs, maps, globals, node_selector, priority, suspend, notes: _ } = self;
        let requires = Vec::new();
        let spec = BpfRevisionSpec {
            program,
            generation,
            sequence,
            digest,
            object,
            node_selector,
            requires,
            programs,
            maps,
            globals,
            priority,
            suspend,
        };
        BpfRevisionSpec { requires: Feature::of(&spec), ..spec }
    }
}

/// The object's bytes, where the spec itself says them; nothing where they are in a ConfigMap.
pub fn given(bytecode: &Bytecode) -> Result<Option<Cow<'static, [u8]>>, Refusal> {
    source(bytecode)?;
    match bytecode {
        Bytecode { inline: Some(text), .. } => decode_inline(text).map(|bytes| Some(Cow::Owned(bytes))),
        Bytecode { builtin: Some(name), .. } => Ok(Some(Cow::Borrowed(programs::builtin(*name)))),
        _ => Ok(None),
    }
}

/// Decodes `spec.bytecode.inline`.
pub fn decode_inline(text: &str) -> Result<Vec<u8>, Refusal> {
    let field = "spec.bytecode.inline";
    let compact: String = text.split_ascii_whitespace().collect();
    let bytes =
        STANDARD.decode(&compact).map_err(|e| refuse(Reason::InvalidSpec, format!("{field} is not base64: {e}")))?;
    if bytes.len() > MAX_INLINE_BYTES {
        let message = format!(
            "{field} holds {} bytes; inline may hold {MAX_INLINE_BYTES}: put the object into a ConfigMap, or strip it \
             (llvm-strip -g)",
            bytes.len()
        );
        return Err(refuse(Reason::InvalidSpec, message));
    }
    Ok(bytes)
}

/// Encodes `spec.bytecode.inline`.
pub fn encode_inline(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Checks a spec against the bytes of its object.
pub fn check(spec: &BpfProgramSpec, bytes: &[u8]) -> Result<Accepted, Refusal> {
    let BpfProgramSpec { bytecode, node_selector, programs, maps, globals, priority, suspend } = spec;
    source(bytecode)?;
    if let Some(fault) = node_selector.as_ref().and_then(|selector| selector::fault("spec.nodeSelector", selector)) {
        return Err(invalid(fault));
    }
    let object = Object::read(bytes)
        .map_err(|e| refuse(Reason::InvalidObject, format!("spec.bytecode: the object is refused: {e}")))?;
    let mut checked = Vec::with_capacity(programs.len());
    count("spec.programs", programs.len(), 1, 32)?;
    distinct("spec.programs", programs.iter().map(|p| p.name.as_str()))?;
    for (i, program) in programs.iter().enumerate() {
        checked.push(self::program(&format!("spec.programs[{i}]"), program, object.info())?);
    }
    if let Some(priority) = priority.filter(|priority| !(0..=MAX_PRIORITY).contains(priority)) {
        return Err(invalid(format!("spec.priority is {priority}; it must be 0 to {MAX_PRIORITY}")));
    }
    count("spec.maps", maps.len(), 0, 128)?;
    distinct("spec.maps", maps.iter().map(|m| m.name.as_str()))?;
    for (i, map) in maps.iter().enumerate() {
        self::map(&format!("spec.maps[{i}]"), map, object.info())?;
    }
    targets::attached_maps(&checked, maps, object.info())?;
    tail_calls(programs, object.info())?;
    count("spec.globals", globals.len(), 0, 256)?;
    Settings::read(bytes, globals, maps).map_err(|error| refuse(error.reason(), error.to_string()))?;
    Ok(Accepted {
        digest: names::digest(bytes),
        notes: notes(&object, &checked),
        object: object.into_info(),
        programs: checked,
        maps: maps.clone(),
        globals: globals.clone(),
        node_selector: node_selector.clone(),
        priority: *priority,
        suspend: *suspend,
    })
}

fn refuse(reason: Reason, message: String) -> Refusal {
    Refusal { reason, message: names::line(&message, 2048) }
}

fn invalid(message: String) -> Refusal {
    refuse(Reason::InvalidSpec, message)
}

fn source(Bytecode { inline, config_map, builtin }: &Bytecode) -> Result<(), Refusal> {
    match [inline.is_some(), config_map.is_some(), builtin.is_some()].map(usize::from).iter().sum() {
        1 => Ok(()),
        _ => Err(invalid("spec.bytecode: exactly one of inline, configMap and builtin must be set".to_owned())),
    }
}

fn count(field: &str, count: usize, least: usize, most: usize) -> Result<(), Refusal> {
    if (least..=most).contains(&count) {
        return Ok(());
    }
    Err(invalid(format!("{field} has {count} items; it must have {least} to {most}")))
}

fn distinct<'a>(field: &str, names: impl Iterator<Item = &'a str>) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    for (i, name) in names.enumerate() {
        if !seen.insert(name) {
            return Err(invalid(format!("{field}[{i}].name: {} is there twice", printable(name))));
        }
    }
    Ok(())
}

/// The names of what there is, for a message.
fn there_are<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() { "none".to_owned() } else { names::clip(&names.join(", "), 512) }
}

fn program(field: &str, program: &ProgramSpec, object: &ObjectInfo) -> Result<ProgramSpec, Refusal> {
    let ProgramSpec { name, program_type, attach } = program;
    let Some(found) = object.programs.iter().find(|p| p.name == *name) else {
        let there = there_are(object.programs.iter().map(|p| p.name.as_str()));
        let message = format!("{field}.name: the object has no program {}; it has: {there}", printable(name));
        return Err(refuse(Reason::NoSuchProgram, message));
    };
    let ProgramInfo { section, .. } = found;
    let Some(row) = section::find(section) else {
        let message =
            format!("{field}.name: program {name} is in section {}: {}", printable(section), section::why_not(section));
        return Err(refuse(Reason::Unsupported, message));
    };
    if let Some(given) = program_type.filter(|given| *given != row.program_type) {
        let message = format!(
            "{field}.type is {given}, but program {name} is in section {}, which is {}: correct the type, or leave it out",
            printable(section),
            row.program_type
        );
        return Err(refuse(Reason::TypeMismatch, message));
    }
    count(&format!("{field}.attach"), attach.len(), 1, 16)?;
    for (i, target) in attach.iter().enumerate() {
        targets::attachment(&format!("{field}.attach[{i}]"), target, row, object)?;
    }
    Ok(ProgramSpec { name: name.clone(), program_type: Some(row.program_type), attach: attach.clone() })
}

fn map(field: &str, map: &MapSpec, object: &ObjectInfo) -> Result<(), Refusal> {
    let MapSpec { name, pin, max_entries, on_delete, on_shape_change, initial, from } = map;
    count(&format!("{field}.initial"), initial.len(), 0, 1024)?;
    let Some(found) = object.maps.iter().find(|m| m.name == *name) else {
        let there = there_are(object.maps.iter().map(|m| m.name.as_str()));
        let message = format!("{field}.name: the object has no map {}; it has: {there}", printable(name));
        return Err(refuse(Reason::NoSuchMap, message));
    };
    if let Some(entries) = max_entries {
        if found.definition.is_data() {
            return Err(invalid(format!(
                "{field}.maxEntries: {name} is global data, whose size the object alone says"
            )));
        }
        if !(1..=i64::from(u32::MAX)).contains(entries) {
            return Err(invalid(format!("{field}.maxEntries is {entries}; it must be 1 to {}", u32::MAX)));
        }
        if found.map_type.ends_with("Storage") {
            return Err(invalid(format!(
                "{field}.maxEntries: {name} is of type {}, which has no size",
                found.map_type
            )));
        }
    }
    if let Some(from) = from {
        return shared(&format!("{field}.from"), map, from, found);
    }
    if !pin && *on_delete == OnDelete::Retain {
        return Err(invalid(format!(
            "{field}.onDelete: a map that is not pinned can't be retained: only its pin would keep it"
        )));
    }
    if !pin && found.map_type == "ProgArray" {
        return Err(invalid(format!(
            "{field}.pin: a program array loses its entries with its last descriptor or pin, and tail calls would fall \
             through silently: leave it pinned"
        )));
    }
    if !pin && *on_shape_change == OnShapeChange::Recreate {
        return Err(invalid(format!(
            "{field}.onShapeChange: a map that is not pinned is made anew with every load: leave it out"
        )));
    }
    if *on_delete == OnDelete::Retain && found.is_of_load() {
        return Err(invalid(format!(
            "{field}.onDelete: {name} is {}: it belongs to one revision and goes with it",
            found.of_load_because()
        )));
    }
    Ok(())
}

/// A map of another BpfProgram: that one says all of it; `maxEntries` is what is awaited of it, where it is not what this object
/// says. Whether it is there, and of the same shape, each node tells.
fn shared(field: &str, map: &MapSpec, from: &MapRef, found: &MapInfo) -> Result<(), Refusal> {
    let MapSpec { name, pin, max_entries: _, on_delete, on_shape_change, initial, from: _ } = map;
    for (setting, given) in [
        ("pin: false", !pin),
        ("onDelete: Retain", *on_delete == OnDelete::Retain),
        ("onShapeChange: Recreate", *on_shape_change == OnShapeChange::Recreate),
        ("initial", !initial.is_empty()),
    ] {
        if given {
            return Err(invalid(format!(
                "{field}: {name} is {from}, which says all of it: leave out {setting} here, or set it there"
            )));
        }
    }
    if found.is_of_load() {
        return Err(invalid(format!(
            "{field}: {name} is {}: it belongs to one revision, and can't be another's",
            found.of_load_because()
        )));
    }
    let MapRef { program, map } = from;
    if !names::is_dns_label(program) {
        return Err(invalid(format!("{field}.program: {} is no BpfProgram's name", printable(program))));
    }
    if !names::is_pin_name(map) {
        return Err(invalid(format!("{field}.map: {} is no name of a map that can be shared", printable(map))));
    }
    Ok(())
}

/// Programs that the object puts into its program arrays are loaded with those that the spec names.
fn tail_calls(programs: &[ProgramSpec], object: &ObjectInfo) -> Result<(), Refusal> {
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
    count("spec.programs, with those that the object's program arrays hold,", all.len(), 1, 32)
}

fn notes(object: &Object, programs: &[ProgramSpec]) -> Vec<String> {
    let mut notes = Vec::new();
    if !object.pin_requests.is_empty() {
        let names = there_are(object.pin_requests.iter().map(String::as_str));
        notes.push(format!(
            "the ELF asks for maps to be pinned by their names; sockeye ignores that and pins them in the BpfProgram's own \
             directory: {names}"
        ));
    }
    let maps: BTreeSet<&str> = programs.iter().flat_map(|p| &p.attach).filter_map(|at| at.map.as_deref()).collect();
    if !maps.is_empty() {
        notes.push(format!(
            "sockets that are in {} keep the program they came in with: a later one, or none, is for sockets that come then",
            there_are(maps.into_iter())
        ));
    }
    let devices = programs.iter().filter(|p| p.program_type == Some(ProgramType::CgroupDevice));
    let devices: Vec<&str> = devices.map(|p| p.name.as_str()).collect();
    if !devices.is_empty() {
        notes.push(format!(
            "container runtimes attach device programs of their own to containers' cgroups: an access that {} allows needs \
             their yes too",
            there_are(devices.into_iter())
        ));
    }
    notes
}
