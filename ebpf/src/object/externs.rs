//! `Externs`: what an object expects others to define: kernel functions and variables (`__ksym`), the kernel's
//! configuration (`__kconfig`), and what a linker should have resolved.
//!
//! The order is that of libbpf's `bpf_object__collect_externs`, since it determines where configuration values lie in
//! `.kconfig`.

use std::{cmp::Reverse, collections::BTreeMap};

use crate::{
    btf::{Btf, Kind},
    object::image::{Binding, Image},
};

/// Something that the object does not define.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Extern<'a> {
    pub(crate) name: &'a str,
    /// The index of the symbol.
    pub(crate) symbol: usize,
    /// True if the object can do without it.
    pub(crate) is_weak: bool,
    pub(crate) kind: ExternKind,
}

/// The kind of an extern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExternKind {
    /// A value of the kernel's configuration, which libbpf puts into the map `.kconfig`.
    Config(Config),
    /// A function of the kernel, with the prototype's type.
    Function { prototype: u32 },
    /// A variable of the kernel with its type.
    Variable { type_id: u32 },
    /// A symbol of the kernel of which only the address is known (`extern const void`).
    Address,
    /// None of these: another object defines it, or none.
    Undefined,
    /// A configuration value of a type that libbpf does not take either.
    BadConfig,
}

/// A value of the kernel's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) form: ConfigForm,
    /// The offset in `.kconfig`, in bytes.
    pub(crate) offset: u32,
    /// Bytes.
    pub(crate) size: u32,
    align: u32,
}

/// The form of a configuration value: libbpf's `enum kcfg_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConfigForm {
    /// `char`, or an integer of one byte.
    Char { signed: bool },
    /// `bool`
    Bool,
    /// An integer of 2 to 8 bytes.
    Int { signed: bool },
    /// `enum libbpf_tristate`
    Tristate,
    /// An array of `char`.
    Text,
}

/// Finds the externs.
pub(crate) fn read<'a>(image: &Image<'a>, btf: Option<&Btf<'_>>) -> Vec<Extern<'a>> {
    let symbols: Vec<_> = image.symbols().filter(|symbol| symbol.is_extern() && !symbol.name().is_empty()).collect();
    if symbols.is_empty() {
        return Vec::new();
    }
    let types = btf.map(Types::of);
    let mut externs: Vec<Extern<'a>> = symbols
        .into_iter()
        .map(|symbol| Extern {
            name: symbol.name(),
            symbol: symbol.index,
            is_weak: symbol.binding == Binding::Weak,
            kind: types.as_ref().map_or(ExternKind::Undefined, |types| types.kind(symbol.name())),
        })
        .collect();
    externs.sort_by(|a, b| order(a).cmp(&order(b)));
    let mut end = 0u32;
    for one in &mut externs {
        if let ExternKind::Config(config) = &mut one.kind {
            config.offset = end.checked_next_multiple_of(config.align).unwrap_or(u32::MAX);
            end = config.offset.saturating_add(config.size);
        }
    }
    externs
}

/// Configuration values first, by alignment from the largest and size from the smallest, then all by name
/// (libbpf's `cmp_externs`).
fn order<'a>(one: &Extern<'a>) -> (u8, Reverse<u32>, u32, &'a str) {
    match one.kind {
        ExternKind::Config(Config { size, align, .. }) => (0, Reverse(align), size, one.name),
        _ => (1, Reverse(0), 0, one.name),
    }
}

/// The types of externs, by name.
struct Types<'b, 'a> {
    btf: &'b Btf<'a>,
    /// The first function or variable of each name.
    by_name: BTreeMap<&'a [u8], u32>,
    /// The data section of each variable and function that is in one.
    sections: BTreeMap<u32, u32>,
}

impl<'b, 'a> Types<'b, 'a> {
    fn of(btf: &'b Btf<'a>) -> Self {
        let mut types = Self { btf, by_name: BTreeMap::new(), sections: BTreeMap::new() };
        for one in btf.types() {
            match one.kind {
                Kind::Var | Kind::Func => drop(types.by_name.entry(one.name()).or_insert(one.id)),
                Kind::Datasec => {
                    for var in one.vars() {
                        types.sections.entry(var.type_id).or_insert(one.id);
                    }
                }
                _ => {}
            }
        }
        types
    }

    fn kind(&self, name: &str) -> ExternKind {
        const EXTERN: u32 = 2;
        let one = self.by_name.get(name.as_bytes()).and_then(|id| self.btf.get(*id));
        let Some(one) = one.filter(|one| one.linkage() == EXTERN) else { return ExternKind::Undefined };
        let section = self.sections.get(&one.id).and_then(|id| self.btf.get(*id));
        let type_id = self.btf.skip_modifiers(one.type_id()).map_or(0, |skipped| skipped.id);
        match section.map(|section| section.name()) {
            Some(b".kconfig") if one.kind == Kind::Var => {
                self.config(one.type_id()).map_or(ExternKind::BadConfig, ExternKind::Config)
            }
            Some(b".ksyms") if one.kind == Kind::Func => ExternKind::Function { prototype: type_id },
            Some(b".ksyms") if type_id != 0 => ExternKind::Variable { type_id },
            Some(b".ksyms") => ExternKind::Address,
            _ => ExternKind::Undefined,
        }
    }

    fn config(&self, type_id: u32) -> Option<Config> {
        let size = self.btf.resolve_size(type_id).filter(|size| *size > 0)?;
        let align = self.btf.align_of(type_id).filter(|align| *align > 0)?;
        Some(Config { form: self.form(type_id, 1)?, offset: 0, size, align })
    }

    /// Returns the form of a configuration value: libbpf's `find_kcfg_type`.
    fn form(&self, type_id: u32, arrays: usize) -> Option<ConfigForm> {
        let one = self.btf.skip_modifiers(type_id)?;
        match one.kind {
            Kind::Int => {
                let encoding = one.int().encoding;
                let signed = encoding & crate::btf::Int::SIGNED != 0;
                match one.size() {
                    size if encoding & crate::btf::Int::BOOL != 0 => (size == 1).then_some(ConfigForm::Bool),
                    1 => Some(ConfigForm::Char { signed }),
                    2 | 4 | 8 => Some(ConfigForm::Int { signed }),
                    _ => None,
                }
            }
            Kind::Enum if one.size() != 4 => None,
            Kind::Enum | Kind::Enum64 => one.is_named(b"libbpf_tristate").then_some(ConfigForm::Tristate),
            Kind::Array => {
                let array = one.array().filter(|array| array.len > 0)?;
                let element = self.form(array.element, arrays.checked_sub(1)?)?;
                matches!(element, ConfigForm::Char { .. }).then_some(ConfigForm::Text)
            }
            _ => None,
        }
    }
}
