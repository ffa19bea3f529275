//! Makes the kernel's functions and variables that an object refers to (`.ksyms`), and the configuration values that it
//! reads (`.kconfig`), into variables that the kernel's BTF verifier takes (the second half of libbpf's
//! `bpf_object__collect_externs`).

use std::collections::HashSet;

use super::{Layout, buffer::Buffer};
use crate::btf::Kind;

/// `BTF_VAR_GLOBAL_ALLOCATED`
const GLOBAL: u32 = 1;
/// The size of a variable that stands for a symbol of the kernel's.
const INT: u32 = 4;

/// Makes externs into variables.
pub(super) fn allocate(buffer: &mut Buffer, layout: &Layout<'_>) {
    let sections = [b".ksyms".as_slice(), b".kconfig"].map(|name| buffer.view().find(name, Kind::Datasec));
    let [ksyms, kconfig] = sections.map(|section| section.map(|section| section.id));
    if let Some(id) = ksyms {
        allocate_symbols(buffer, id);
    }
    if let Some(id) = kconfig {
        allocate_config(buffer, id, layout);
    }
}

/// Makes each symbol a variable of four bytes. Functions become global ones, and one variable stands for them all in
/// the section.
fn allocate_symbols(buffer: &mut Buffer, id: u32) {
    let Some(section) = buffer.head(id) else { return };
    let vars: Vec<u32> = (0..section.vlen).map(|i| buffer.part(&section, 3 * i)).collect();
    let is_func = |id: &u32| buffer.head(*id).is_some_and(|one| one.kind == Kind::Func);
    let has_funcs = vars.iter().any(is_func);
    let int = buffer.view().types().find(|one| one.kind == Kind::Int && one.int().bits == 8 * INT);
    let int = int.map_or(0, |int| int.id);
    let dummy = has_funcs.then(|| {
        let name = buffer.string("dummy_ksym");
        (buffer.add(name, (Kind::Var, 0), int, &[GLOBAL]), name)
    });
    // Functions may share a prototype, however long.
    let mut named = HashSet::new();
    for (i, id) in vars.into_iter().enumerate() {
        let Some(one) = buffer.head(id) else { continue };
        match (one.kind, dummy) {
            (Kind::Func, Some((dummy, name))) => {
                if named.insert(one.size_or_type) {
                    name_params(buffer, one.size_or_type, name);
                }
                buffer.set_part(&section, 3 * i, dummy);
                buffer.set_info(&one, Kind::Func, one.flag, GLOBAL as usize);
            }
            (Kind::Var, _) => {
                buffer.set_part(&one, 0, GLOBAL);
                buffer.set_size_or_type(&one, int);
            }
            _ => {}
        }
        buffer.set_part(&section, 3 * i + 1, INT * i as u32);
        buffer.set_part(&section, 3 * i + 2, INT);
    }
    buffer.set_size_or_type(&section, INT * section.vlen as u32);
}

/// Gives the parameters of a prototype a name. Those of global functions must have one.
fn name_params(buffer: &mut Buffer, prototype: u32, name: u32) {
    let Some(prototype) = buffer.head(prototype).filter(|one| one.kind == Kind::FuncProto) else { return };
    for i in 0..prototype.vlen {
        if buffer.part(&prototype, 2 * i + 1) != 0 && buffer.part(&prototype, 2 * i) == 0 {
            buffer.set_part(&prototype, 2 * i, name);
        }
    }
}

fn allocate_config(buffer: &mut Buffer, id: u32, layout: &Layout<'_>) {
    let Some(section) = buffer.head(id) else { return };
    for i in 0..section.vlen {
        let var = buffer.part(&section, 3 * i);
        let offset = buffer.view().get(var).and_then(|var| layout.config.get(var.name()).copied());
        let Some((var, offset)) = buffer.head(var).zip(offset) else { continue };
        if var.kind == Kind::Var {
            buffer.set_part(&var, 0, GLOBAL);
            buffer.set_part(&section, 3 * i + 1, offset);
        }
    }
    buffer.set_size_or_type(&section, layout.config_size);
}
