//! Global data: each section of it is an array of one element (libbpf's `bpf_object__init_global_data_maps`).

use std::collections::{BTreeMap, BTreeSet};

use super::{Definition, Map, MapError, MapForm};
use crate::{
    btf::{Btf, Kind},
    kinds::map_type::{ARRAY, F_MMAPABLE},
    object::{
        externs::{Extern, ExternKind},
        image::{Image, Section, SymbolKind, Visibility},
    },
};

/// `BPF_F_RDONLY_PROG`
const F_RDONLY_PROG: u32 = 1 << 7;
/// `BTF_VAR_STATIC`
const STATIC: u32 = 0;
/// `BTF_VAR_GLOBAL_ALLOCATED`
const GLOBAL: u32 = 1;
/// The name of the map with the kernel's configuration, and of its data section.
pub(crate) const KCONFIG: &str = ".kconfig";

/// Returns what data a section holds. Empty sections hold none.
fn form(section: &Section<'_>) -> Option<MapForm> {
    let is = |name: &str| section.name.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    if section.size == 0 || section.is_code() {
        return None;
    }
    match (section.has_bits(), section.is_zeroed()) {
        (true, _) if is(".data") => Some(MapForm::Data),
        (true, _) if is(".rodata") => Some(MapForm::Rodata),
        (_, true) if is(".bss") => Some(MapForm::Bss),
        _ => None,
    }
}

/// Reads the sections with data, in the file's order.
pub(super) fn read<'a>(image: &Image<'a>, btf: Option<&Btf<'a>>) -> Vec<Map<'a>> {
    let sections = image.sections().iter().filter_map(|section| Some((section, form(section)?)));
    let mut maps: Vec<Map<'a>> = sections.map(|(section, form)| map(section, form)).collect();
    if let Some(btf) = btf.filter(|_| !maps.is_empty()) {
        let types = Types::of(image, btf);
        for map in &mut maps {
            types.give(map);
        }
    }
    maps
}

fn map<'a>(section: &Section<'a>, form: MapForm) -> Map<'a> {
    let size = u32::try_from(section.size).ok().filter(|size| *size <= i32::MAX.cast_unsigned());
    let data = section.data();
    let fault = match (size, &data) {
        (None, _) => Some(MapError::TooLarge(section.size)),
        (_, Err(_)) => Some(MapError::Outside),
        _ => None,
    };
    Map { fault, section: section.index, data: data.unwrap_or_default(), ..of(section.name, form, size.unwrap_or(0)) }
}

fn of(name: &str, form: MapForm, value_size: u32) -> Map<'_> {
    let flags = if form.is_constant() { F_RDONLY_PROG } else { 0 };
    let definition =
        Definition { map_type: ARRAY, key_size: 4, value_size, max_entries: 1, flags, ..Definition::default() };
    Map { name, form, section: 0, offset: 0, definition, data: &[], slots: Vec::new(), fault: None }
}

/// Returns the map with the kernel's configuration, if the object reads any. It covers all such externs of the object,
/// whoever reads them, since that determines where each one lies.
pub(super) fn kconfig<'a>(btf: Option<&Btf<'a>>, externs: &[Extern<'a>]) -> Option<Map<'a>> {
    let ends = externs.iter().filter_map(|one| match one.kind {
        ExternKind::Config(config) => Some(config.offset.saturating_add(config.size)),
        _ => None,
    });
    let size = ends.max()?;
    let mut map = of(KCONFIG, MapForm::Kconfig, size);
    map.fault = (size > 1 << 20).then(|| MapError::TooLarge(size.into()));
    // libbpf makes all of these variables global (`bpf_object__collect_externs`).
    if let Some(section) = btf.and_then(|btf| btf.find(KCONFIG.as_bytes(), Kind::Datasec)) {
        map.definition.value_type = section.id;
        map.definition.flags |= F_MMAPABLE;
    }
    Some(map)
}

/// The types of data sections.
struct Types<'b, 'a> {
    btf: &'b Btf<'a>,
    /// The first type of each name that is a section's.
    by_name: BTreeMap<&'a [u8], u32>,
    /// The names of variables that are `__hidden`, which count as static.
    hidden: BTreeSet<&'a [u8]>,
}

impl<'b, 'a> Types<'b, 'a> {
    fn of(image: &Image<'a>, btf: &'b Btf<'a>) -> Self {
        let mut by_name = BTreeMap::new();
        for one in btf.types().filter(|one| one.name().first() == Some(&b'.')) {
            by_name.entry(one.name()).or_insert(one.id);
        }
        let hidden = image.symbols().filter(|symbol| {
            symbol.is_global() && symbol.kind == SymbolKind::Object && symbol.visibility == Visibility::Hidden
        });
        Self { btf, by_name, hidden: hidden.map(|symbol| symbol.name().as_bytes()).collect() }
    }

    /// Gives a map the type of its section, and lets processes map it into their memory if one of its variables is
    /// global (libbpf's `map_is_mmapable`).
    fn give(&self, map: &mut Map<'_>) {
        let Some(one) = self.by_name.get(map.name.as_bytes()).and_then(|id| self.btf.get(*id)) else { return };
        map.definition.value_type = one.id;
        let is_exposed = one.vars().filter_map(|entry| self.btf.get(entry.type_id)).any(|variable| {
            let hidden = variable.linkage() == GLOBAL && self.hidden.contains(variable.name());
            variable.kind == Kind::Var && variable.linkage() != STATIC && !hidden
        });
        if is_exposed {
            map.definition.flags |= F_MMAPABLE;
        }
    }
}
