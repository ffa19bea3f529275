//! Exception callbacks: the functions that programs' exceptions end in. A program names its own by a tag of its BTF
//! (`__exception_cb(NAME)`; libbpf's `bpf_prog_assign_exc_cb`).

use std::collections::BTreeMap;

use crate::{
    btf::{Btf, Kind},
    object::functions::Functions,
};

/// The beginning of the tag, before the function's name.
const TAG: &[u8] = b"exception_callback:";
/// `BTF_FUNC_GLOBAL`
const GLOBAL: u32 = 1;

/// Returns the exception callback of each program that names one. A program that names several has none here: the
/// verifier refuses it for that.
pub(super) fn read(btf: &Btf<'_>, functions: &Functions<'_>) -> BTreeMap<usize, usize> {
    let mut callbacks: BTreeMap<usize, Option<usize>> = BTreeMap::new();
    let tags = btf.types().filter(|one| one.kind == Kind::DeclTag && one.component() == -1);
    for (tag, name) in tags.filter_map(|tag| Some((tag, tag.name().strip_prefix(TAG)?))) {
        let of = btf.get(tag.type_id()).filter(|of| of.kind == Kind::Func && of.linkage() == GLOBAL);
        let program = of.and_then(|of| str::from_utf8(of.name()).ok()).and_then(|name| functions.program(name));
        let callback = functions.all().iter().position(|function| {
            function.name.as_bytes() == name && function.is_global && !function.is_hidden && !function.is_program()
        });
        let (Some(program), Some(callback)) = (program, callback) else { continue };
        callbacks.entry(program).and_modify(|known| *known = None).or_insert(Some(callback));
    }
    callbacks.into_iter().filter_map(|(program, callback)| Some((program, callback?))).collect()
}
