//! Resolves the externs of an object: to values of the kernel's configuration, functions and variables of the kernel's
//! BTF, addresses of its symbols (libbpf's `bpf_object__resolve_externs`).
//!
//! Only externs that the selected programs use are resolved. The functions of modules need descriptors of their BTF,
//! which take CAP_SYS_ADMIN to open: they count as absent.

use std::collections::{BTreeMap, BTreeSet};

use super::{Kernel, LinkError, config::Values, core::are_compatible};
use crate::{
    btf::{KernelBtf, Kind, kernel::essential},
    object::{
        Object, Selection,
        externs::{Extern, ExternKind},
        maps::KCONFIG,
        references::Target,
    },
};

/// An extern as it was resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resolved {
    /// A value in the map of the kernel's configuration.
    Config { map: usize, offset: u32 },
    /// A function or variable of the kernel's BTF.
    Btf(u32),
    /// The address of a symbol.
    Address(u64),
    /// The kernel lacks it, and the object can do without.
    Absent,
}

/// All externs as they were resolved.
#[derive(Clone, Debug, Default)]
pub(super) struct Externs {
    pub(super) resolved: BTreeMap<usize, Resolved>,
    /// The content of the map of the kernel's configuration.
    pub(super) config: Vec<u8>,
}

/// Resolves the externs that the selection uses.
pub(super) fn resolve(
    object: &Object<'_>,
    selection: &Selection,
    kernel: &dyn Kernel,
    notes: &mut Vec<String>,
) -> Result<Externs, LinkError> {
    let used = used(object, selection);
    let mut externs = Externs::default();
    let map = object.map(KCONFIG).filter(|map| selection.maps.contains(map));
    let mut values = Values::new(object, map);
    let mut symbols: BTreeMap<&str, Vec<(usize, &str)>> = BTreeMap::new();
    for (index, function) in &used {
        let Some(one) = object.externs.get(*index) else { continue };
        let resolved = match one.kind {
            ExternKind::Config(config) => {
                values.want(*index, function);
                map.map_or(Resolved::Absent, |map| Resolved::Config { map, offset: config.offset })
            }
            ExternKind::Function { prototype } => by_type(object, one, (Kind::Func, prototype), function, kernel)?,
            ExternKind::Variable { type_id } => by_type(object, one, (Kind::Var, type_id), function, kernel)?,
            ExternKind::Address => {
                symbols.entry(one.name).or_default().push((*index, function));
                continue;
            }
            // The selection has refused these.
            ExternKind::Undefined | ExternKind::BadConfig => continue,
        };
        externs.resolved.insert(*index, resolved);
    }
    addresses(object, symbols, kernel, &mut externs)?;
    externs.config = values.fill(kernel, notes)?;
    Ok(externs)
}

/// Returns the externs that the selection uses, each with the name of a function that does.
fn used<'a>(object: &Object<'a>, selection: &Selection) -> BTreeMap<usize, &'a str> {
    let mut used = BTreeMap::new();
    for (function, references) in &selection.references {
        let name = object.functions.get(*function).map(|function| function.name).unwrap_or_default();
        for (_, target) in references {
            if let Target::Extern(index) | Target::ExternCall(index) = target {
                used.entry(*index).or_insert(name);
            }
        }
    }
    used
}

/// Finds a function or variable in the kernel's BTF.
fn by_type(
    object: &Object<'_>,
    one: &Extern<'_>,
    (kind, type_id): (Kind, u32),
    function: &str,
    kernel: &dyn Kernel,
) -> Result<Resolved, LinkError> {
    let what = if kind == Kind::Func { "it calls the kernel function" } else { "it reads the kernel's variable" };
    let types = match kernel.btf() {
        Ok(types) => types,
        Err(_) if one.is_weak => return Ok(Resolved::Absent),
        Err(why) => {
            let needs = format!("{what} {}", one.name);
            return Err(LinkError::NoKernelBtf { function: function.to_owned(), needs, why });
        }
    };
    let refuse =
        |why: String| LinkError::Symbol { function: function.to_owned(), what, name: one.name.to_owned(), why };
    // Only functions may have flavours, `___x`.
    let name = if kind == Kind::Func { essential(one.name.as_bytes()) } else { one.name.as_bytes() };
    let Some(found) = types.symbol(name, kind) else {
        return if one.is_weak {
            Ok(Resolved::Absent)
        } else {
            let of_module = "which this kernel does not have: its own BTF has none of that name, and functions and \
                             variables of modules can't be used";
            Err(refuse(of_module.to_owned()))
        };
    };
    if fits(object, type_id, types, found) {
        return Ok(Resolved::Btf(found));
    }
    // libbpf lets a weak function be absent that is of another type, not a weak variable.
    if one.is_weak && kind == Kind::Func {
        return Ok(Resolved::Absent);
    }
    Err(refuse("which this kernel declares otherwise than the object".to_owned()))
}

/// Returns whether the kernel's function or variable is of the type that the object declares.
fn fits(object: &Object<'_>, type_id: u32, types: &KernelBtf, found: u32) -> bool {
    let target = types.btf().get(found).map(|found| found.type_id());
    // Of a variable the type without modifiers counts; a function has none.
    let target = target.and_then(|target| types.btf().skip_modifiers(target)).map(|target| target.id);
    object.btf().zip(target).is_some_and(|(local, target)| are_compatible(local, type_id, types, target))
}

/// Finds the addresses of symbols without types.
fn addresses(
    object: &Object<'_>,
    symbols: BTreeMap<&str, Vec<(usize, &str)>>,
    kernel: &dyn Kernel,
    externs: &mut Externs,
) -> Result<(), LinkError> {
    if symbols.is_empty() {
        return Ok(());
    }
    let names: BTreeSet<&str> = symbols.keys().copied().collect();
    let found = kernel.addresses(&names);
    for (name, uses) in symbols {
        for (index, function) in uses {
            let is_weak = object.externs.get(index).is_some_and(|one| one.is_weak);
            let refuse = |why: &str| LinkError::Symbol {
                function: function.to_owned(),
                what: "it takes the address of",
                name: name.to_owned(),
                why: why.to_owned(),
            };
            let addresses = match &found {
                Ok(found) => found.get(name).map(Vec::as_slice).unwrap_or_default(),
                Err(why) => return Err(refuse(why)),
            };
            let resolved = match addresses {
                [] if is_weak => Resolved::Absent,
                [] => return Err(refuse("which this kernel does not have")),
                [0, ..] => {
                    return Err(refuse(
                        "which the kernel hides from the agent (kernel.kptr_restrict and CAP_SYSLOG): it would be 0",
                    ));
                }
                [first, rest @ ..] if rest.iter().all(|other| other == first) => Resolved::Address(*first),
                _ => return Err(refuse("and this kernel has several symbols of that name")),
            };
            externs.resolved.insert(index, resolved);
        }
    }
    Ok(())
}
