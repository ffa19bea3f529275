//! Gives the parameters that carry the tag `arg:ctx` the type that the verifier expects of a context, for kernels that
//! do not know the tag (libbpf's `bpf_program_fixup_func_info`). Programs of several types may call a function, so each
//! program gets a copy of it.

use std::collections::{HashMap, HashSet};

use super::buffer::{Buffer, Head};
use crate::btf::Kind;

/// `BTF_FUNC_GLOBAL`
const GLOBAL: u32 = 1;
/// The most parameters of a function that is copied. No BPF function has more than five.
const MAX_PARAMS: usize = 64;
/// The tag.
const TAG: &[u8] = b"arg:ctx";

/// The structs that contexts are, by type of program (libbpf's `global_ctx_map`), as far as sockeye runs them.
const CONTEXTS: [(u32, &str); 13] = [
    (1, "__sk_buff"),
    (8, "__sk_buff"),
    (9, "bpf_sock"),
    (13, "bpf_sock_ops"),
    (14, "__sk_buff"),
    (15, "bpf_cgroup_dev_ctx"),
    (16, "sk_msg_md"),
    (18, "bpf_sock_addr"),
    (21, "sk_reuseport_md"),
    (22, "__sk_buff"),
    (23, "bpf_sysctl"),
    (25, "bpf_sockopt"),
    (30, "bpf_sk_lookup"),
];

/// A tag on a parameter of a global function.
#[derive(Clone, Copy, Debug)]
pub(super) struct ContextTag {
    func: u32,
    param: usize,
    name_off: u32,
}

/// Finds the tags, each once.
pub(super) fn tags(buffer: &Buffer) -> Vec<ContextTag> {
    let view = buffer.view();
    let tags = view.types().filter(|one| one.kind == Kind::DeclTag && one.is_named(TAG));
    let of_global = tags.filter(|tag| {
        let func = view.get(tag.type_id());
        func.is_some_and(|func| func.kind == Kind::Func && func.linkage() == GLOBAL)
    });
    let tag = |tag: crate::btf::Type<'_>| {
        let param = usize::try_from(tag.component()).ok()?;
        Some(ContextTag { func: tag.type_id(), param, name_off: tag.name_off })
    };
    let mut seen = HashSet::new();
    of_global.filter_map(tag).filter(|tag| seen.insert((tag.func, tag.param))).collect()
}

/// Copies the functions of a program that have such parameters, and puts the copies into its list of functions.
pub(super) fn retype(buffer: &mut Buffer, tags: &[ContextTag], prog_type: u32, funcs: &mut [u32]) {
    let Some((_, context)) = CONTEXTS.iter().find(|(row, _)| *row == prog_type) else { return };
    let mut places = HashMap::new();
    for (place, func) in funcs.iter().enumerate() {
        places.entry(*func).or_insert(place);
    }
    let mut pointer = None;
    for tag in tags {
        let Some(func) = places.get(&tag.func).and_then(|place| funcs.get_mut(*place)) else { continue };
        if !param_type(buffer, tag.func, tag.param).is_some_and(|param| is_void_pointer(buffer, param)) {
            continue;
        }
        if *func == tag.func {
            let Some(copy) = copy(buffer, tag.func) else { continue };
            *func = copy;
        }
        let pointer = *pointer.get_or_insert_with(|| {
            let name = buffer.string(context);
            let context = buffer.add(name, (Kind::Struct, 0), 0, &[]);
            buffer.add(0, (Kind::Ptr, 0), context, &[])
        });
        buffer.add(tag.name_off, (Kind::DeclTag, 0), *func, &[tag.param as u32]);
        if let Some(prototype) = prototype(buffer, *func) {
            buffer.set_part(&prototype, 2 * tag.param + 1, pointer);
        }
    }
}

fn prototype(buffer: &Buffer, func: u32) -> Option<Head> {
    let prototype = buffer.head(buffer.head(func)?.size_or_type)?;
    (prototype.kind == Kind::FuncProto && prototype.vlen <= MAX_PARAMS).then_some(prototype)
}

fn param_type(buffer: &Buffer, func: u32, param: usize) -> Option<u32> {
    let prototype = prototype(buffer, func).filter(|prototype| param < prototype.vlen)?;
    Some(buffer.part(&prototype, 2 * param + 1))
}

/// Returns whether a parameter of that type is a pointer to `void`. libbpf leaves any other as it is, right ones and
/// wrong ones (`need_func_arg_type_fixup`).
fn is_void_pointer(buffer: &Buffer, param: u32) -> bool {
    let view = buffer.view();
    let pointer = view.skip_modifiers(param).filter(|one| one.kind == Kind::Ptr);
    let pointed = pointer.and_then(|pointer| view.skip_modifiers(pointer.type_id()));
    pointed.is_some_and(|one| one.kind == Kind::Void)
}

/// Copies a function with its prototype.
fn copy(buffer: &mut Buffer, func: u32) -> Option<u32> {
    let (head, old) = (buffer.head(func)?, prototype(buffer, func)?);
    let params: Vec<u32> = (0..2 * old.vlen).map(|i| buffer.part(&old, i)).collect();
    let prototype = buffer.add(0, (Kind::FuncProto, old.vlen), old.size_or_type, &params);
    Some(buffer.add(head.name_off, (Kind::Func, GLOBAL as usize), prototype, &[]))
}
