//! The object's BTF as the kernel takes it.

use super::{Features, PlannedProgram};
use crate::{
    btf::fit::{Fit, Layout, Variable},
    bytes::word,
    object::{
        Object,
        externs::ExternKind,
        image::{SymbolKind, Visibility},
    },
};

/// Returns the bytes of the object's BTF for a kernel. None if the object has none, or the kernel takes none. Functions
/// of the programs may get other types.
pub(super) fn write(object: &Object<'_>, programs: &mut [PlannedProgram<'_>], features: Features) -> Option<Vec<u8>> {
    let btf = object.btf().filter(|_| features.btf)?;
    let layout = layout(object);
    let mut fit = Fit::new(btf, &layout);
    for program in programs.iter_mut().filter(|program| !features.arg_ctx_tag && !program.functions.is_empty()) {
        let records = &mut program.functions;
        let size = records.size.max(1);
        let types = records.bytes.chunks_exact(size).map(|record| word(record, 4).unwrap_or_default());
        let mut types: Vec<u32> = types.collect();
        fit.retype_contexts(program.prog_type, &mut types);
        for (record, id) in records.bytes.chunks_exact_mut(size).zip(types) {
            if let Some(place) = record.get_mut(4..8) {
                place.copy_from_slice(&id.to_le_bytes());
            }
        }
    }
    Some(fit.finish(&layout, &features.btf_kinds))
}

/// Returns what the file says that the types leave open.
fn layout<'o>(object: &'o Object<'_>) -> Layout<'o> {
    let mut layout = Layout::default();
    for section in object.image.sections().iter().skip(1) {
        let size = u32::try_from(section.size).unwrap_or(u32::MAX);
        layout.sections.entry(section.name.as_bytes()).or_insert(size);
    }
    let variables = object.image.symbols().filter(|symbol| symbol.is_global() && symbol.kind == SymbolKind::Object);
    for symbol in variables {
        layout.variables.entry(symbol.name().as_bytes()).or_insert(Variable {
            offset: u32::try_from(symbol.offset).unwrap_or(u32::MAX),
            is_hidden: symbol.visibility == Visibility::Hidden,
        });
    }
    for one in &object.externs {
        if let ExternKind::Config(config) = one.kind {
            layout.config.insert(one.name.as_bytes(), config.offset);
            layout.config_size = layout.config_size.max(config.offset.saturating_add(config.size));
        }
    }
    let hidden = object.functions.all().iter().filter(|function| function.is_hidden && !function.is_program());
    layout.hidden = hidden.map(|function| function.name.as_bytes()).collect();
    layout
}
