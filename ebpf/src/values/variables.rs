//! `Variable`: a variable in a data section, where its symbol places it. No IO.
//!
//! Compilers leave the offsets in BTF's data sections zero for global variables, and linkers fill them in.

use std::collections::BTreeMap;

use crate::{
    btf::{Btf, Kind},
    object::{Object, externs::ExternKind, image::Symbol, maps::Map, maps::MapForm},
};

/// The maximum number of variables in a section.
const MAX_VARIABLES: usize = 16_384;

/// A variable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Variable<'a> {
    pub(crate) name: &'a str,
    pub(crate) offset: usize,
    pub(crate) size: usize,
    pub(crate) type_id: u32,
}

/// Returns the variables of a map that is a data section, in the order of the types.
pub(crate) fn of_map<'a>(object: &Object<'a>, btf: &Btf<'a>, map: &Map<'a>) -> Vec<Variable<'a>> {
    let Some(section) = btf.get(map.definition.value_type).filter(|one| one.kind == Kind::Datasec) else {
        return Vec::new();
    };
    let mut symbols: BTreeMap<&str, Vec<Symbol<'_>>> = BTreeMap::new();
    for symbol in object.image.symbols().filter(|symbol| symbol.section() == Some(map.section)) {
        symbols.entry(symbol.name()).or_default().push(symbol);
    }
    let mut variables = Vec::new();
    for entry in section.vars().take(MAX_VARIABLES) {
        let Some(one) = btf.get(entry.type_id).filter(|one| one.kind == Kind::Var) else { continue };
        let Ok(name) = str::from_utf8(one.name()) else { continue };
        let place = match map.form {
            MapForm::Kconfig => config_place(object, name),
            _ => place(symbols.get(name).map(Vec::as_slice).unwrap_or_default(), entry.offset),
        };
        let Some((offset, size)) = place else { continue };
        let is_within = offset.checked_add(size).is_some_and(|end| end <= map.definition.value_size.into());
        if is_within && btf.resolve_size(one.type_id()).map(u64::from) == Some(size) {
            variables.push(Variable { name, offset: offset as usize, size: size as usize, type_id: one.type_id() });
        }
    }
    variables
}

/// Returns the offset and the size of the symbol that a variable is.
fn place(of_name: &[Symbol<'_>], offset: u32) -> Option<(u64, u64)> {
    // Of static variables of one name, the types' own offsets tell which is which.
    let symbol = match of_name {
        [symbol] => Some(symbol),
        several => several.iter().find(|symbol| symbol.offset == u64::from(offset)),
    };
    symbol.map(|symbol| (symbol.offset, symbol.size))
}

/// Returns the offset and the size of a value of the kernel's configuration.
fn config_place(object: &Object<'_>, name: &str) -> Option<(u64, u64)> {
    object.externs.iter().find_map(|one| match one.kind {
        ExternKind::Config(config) if one.name == name => Some((config.offset.into(), config.size.into())),
        _ => None,
    })
}
