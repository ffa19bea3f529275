//! Fills in what compilers leave to others: the sizes of data sections and the places of variables (libbpf's
//! `bpf_object_fixup_btf`), and makes hidden variables and functions static.

use std::collections::HashSet;

use super::{Layout, buffer::Buffer};
use crate::btf::Kind;

/// `BTF_VAR_STATIC`, `BTF_FUNC_STATIC`
const STATIC: u32 = 0;
/// `BTF_VAR_GLOBAL_ALLOCATED`, `BTF_FUNC_GLOBAL`
const GLOBAL: u32 = 1;

/// Completes all data sections. libbpf refuses the object where a symbol or a section is missing; here the data section
/// stays as it is, and if the kernel refuses it, nobody may need it.
pub(super) fn complete(buffer: &mut Buffer, layout: &Layout<'_>) {
    for id in 1..buffer.len() {
        if buffer.head(id).is_some_and(|one| one.kind == Kind::Datasec) {
            complete_section(buffer, id, layout);
        }
    }
}

fn complete_section(buffer: &mut Buffer, id: u32, layout: &Layout<'_>) -> Option<()> {
    let mut section = buffer.head(id)?;
    let name = buffer.view().get(id)?.name().to_vec();
    if name == b".kconfig" || name == b".ksyms" {
        buffer.sort_vars(&section);
        return Some(());
    }
    // Linkers have filled in both, compilers neither.
    let fills_in = section.size_or_type == 0;
    if fills_in {
        section.size_or_type = *layout.sections.get(name.as_slice()).filter(|size| **size > 0)?;
        buffer.set_size_or_type(&section, section.size_or_type);
    }
    for i in 0..section.vlen {
        let var_id = buffer.part(&section, 3 * i);
        let var = buffer.head(var_id).filter(|var| var.kind == Kind::Var)?;
        // Others are static already, or defined elsewhere.
        if matches!(buffer.part(&var, 0), 0 | 2) {
            continue;
        }
        let symbol = *layout.variables.get(buffer.view().get(var_id)?.name())?;
        if fills_in {
            buffer.set_part(&section, 3 * i + 1, symbol.offset);
        }
        if symbol.is_hidden {
            buffer.set_part(&var, 0, STATIC);
        }
    }
    buffer.sort_vars(&section);
    Some(())
}

/// Makes hidden functions static: the verifier then checks each of their calls with what the caller knows.
pub(super) fn hide_functions(buffer: &mut Buffer, layout: &Layout<'_>) {
    let mut left: HashSet<&[u8]> = layout.hidden.iter().copied().collect();
    let mut found = Vec::new();
    for one in buffer.view().types() {
        if left.is_empty() {
            break;
        }
        if one.kind == Kind::Func && one.linkage() == GLOBAL && left.remove(one.name()) {
            found.push(one.id);
        }
    }
    for id in found {
        if let Some(one) = buffer.head(id) {
            buffer.set_info(&one, Kind::Func, false, STATIC as usize);
        }
    }
}
