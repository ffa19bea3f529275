//! Check: a spec against its object. The same for the operator and for an agent without a cluster, which has no API server
//! to check the schema for it: so the schema's rules are here too. Pure.
//!
//! Every refusal names the field, says what is wrong with it and what to do.

use std::{borrow::Cow, collections::BTreeSet};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use sockeye_crds::{
    BpfProgramSpec, BpfRevisionSpec, ObjectInfo, ProgramInfo, Reason,
    names::{self, MAX_INLINE_BYTES},
    program::{Attach, Bytecode, CgroupTarget, MapSpec, OnDelete, OnShapeChange, ProgramSpec, Scope},
    revision::{self, Feature, ProgramRef},
};

use crate::{
    elf::printable,
    object::Object,
    programs,
    section::{self, Target},
};

/// Why a spec is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// In one word.
    pub reason: Reason,
    /// In words: which field, what is wrong, what to do.
    pub message: String,
}

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
    /// The nodes to run on.
    pub node_selector: Option<LabelSelector>,
    /// Whether it is to be attached nowhere for now.
    pub suspend: bool,
    /// What a user should know nevertheless.
    pub notes: Vec<String>,
}

impl Accepted {
    /// The revision that dispatches it.
    pub fn into_revision_spec(self, program: ProgramRef, generation: i64, sequence: i64) -> BpfRevisionSpec {
        let Self { digest, object, programs, maps, node_selector, suspend, notes: _ } = self;
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
    let BpfProgramSpec { bytecode, node_selector, programs, maps, suspend } = spec;
    source(bytecode)?;
    if let Some(fault) = node_selector.as_ref().and_then(revision::selector_fault) {
        return Err(invalid(format!("spec.nodeSelector: {fault}")));
    }
    let object = Object::read(bytes)
        .map_err(|e| refuse(Reason::InvalidObject, format!("spec.bytecode: the object is refused: {e}")))?;
    let mut checked = Vec::with_capacity(programs.len());
    count("spec.programs", programs.len(), 1, 32)?;
    distinct("spec.programs", programs.iter().map(|p| p.name.as_str()))?;
    for (i, program) in programs.iter().enumerate() {
        checked.push(self::program(&format!("spec.programs[{i}]"), program, object.info())?);
    }
    count("spec.maps", maps.len(), 0, 128)?;
    distinct("spec.maps", maps.iter().map(|m| m.name.as_str()))?;
    for (i, map) in maps.iter().enumerate() {
        self::map(&format!("spec.maps[{i}]"), map, object.info())?;
    }
    Ok(Accepted {
        digest: names::digest(bytes),
        notes: notes(&object),
        object: object.into_info(),
        programs: checked,
        maps: maps.clone(),
        node_selector: node_selector.clone(),
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
        let message = format!(
            "{field}.name: program {name} is in section {}, a type that sockeye does not run: it runs socket and cgroup programs",
            printable(section)
        );
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
        attachment(&format!("{field}.attach[{i}]"), target, row)?;
    }
    Ok(ProgramSpec { name: name.clone(), program_type: Some(row.program_type), attach: attach.clone() })
}

fn attachment(field: &str, target: &Attach, row: &section::Section) -> Result<(), Refusal> {
    match (target, row.target) {
        (Attach { cgroup: Some(cgroup), map: None }, Target::Cgroup) => cgroup_target(field, cgroup),
        (Attach { cgroup: None, map: Some(_) }, Target::Map) => Err(refuse(
            Reason::Unsupported,
            format!("{field}.map: this version of sockeye attaches to cgroups only, not yet to maps"),
        )),
        (Attach { cgroup: Some(_), map: None }, Target::Map) => {
            Err(invalid(format!("{field}.cgroup: a {} program attaches to a map: set map instead", row.program_type)))
        }
        (Attach { cgroup: None, map: Some(_) }, Target::Cgroup) => {
            Err(invalid(format!("{field}.map: a {} program attaches to cgroups: set cgroup instead", row.program_type)))
        }
        _ => Err(invalid(format!("{field}: exactly one of cgroup and map must be set"))),
    }
}

fn cgroup_target(field: &str, CgroupTarget { scope, path }: &CgroupTarget) -> Result<(), Refusal> {
    let field = format!("{field}.cgroup");
    match (scope, path) {
        (Scope::Node | Scope::Pods, None) => Ok(()),
        (Scope::Path, Some(path)) => {
            let leaves = path.split('/').any(|part| matches!(part, "." | ".."));
            if !path.starts_with('/') || leaves || path.len() > 1024 || path.chars().any(char::is_control) {
                return Err(invalid(format!(
                    "{field}.path: {} must begin with '/', hold no '.' or '..', and have at most 1024 bytes: it is taken \
                     below the node's cgroup root",
                    printable(path)
                )));
            }
            Ok(())
        }
        (Scope::Path, None) => Err(invalid(format!("{field}.path must be set with scope Path"))),
        (_, Some(_)) => Err(invalid(format!("{field}.path must be set with scope Path only"))),
    }
}

fn map(field: &str, map: &MapSpec, object: &ObjectInfo) -> Result<(), Refusal> {
    let MapSpec { name, pin, max_entries, on_delete, on_shape_change } = map;
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
    if *on_delete == OnDelete::Retain && found.definition.is_data() {
        return Err(invalid(format!(
            "{field}.onDelete: {name} is global data, which belongs to one revision and goes with it"
        )));
    }
    Ok(())
}

fn notes(object: &Object) -> Vec<String> {
    let asking = &object.pin_requests;
    if asking.is_empty() {
        return Vec::new();
    }
    let names = there_are(asking.iter().map(String::as_str));
    vec![format!(
        "the ELF asks for maps to be pinned by their names; sockeye ignores that and pins them in the BpfProgram's own \
         directory: {names}"
    )]
}
