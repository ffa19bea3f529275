//! Replaces what a kernel does not know by what it does (libbpf's `bpf_object__sanitize_btf`).

use super::{
    BtfFeatures,
    buffer::{Buffer, Head},
};
use crate::btf::Kind;

/// Replaces what a kernel with these features does not know.
pub(super) fn sanitize(buffer: &mut Buffer, features: &BtfFeatures) {
    let mut placeholder = None;
    for id in 1..buffer.len() {
        let Some(one) = buffer.head(id) else { continue };
        match one.kind {
            Kind::Var if !features.datasec => into_int(buffer, &one),
            Kind::DeclTag if !features.decl_tag => into_int(buffer, &one),
            Kind::Datasec if !features.datasec => into_struct(buffer, &one),
            Kind::Datasec if !features.qmark_datasec => {
                buffer.replace_in_name(one.name_off, |i, byte| i == 0 && byte == b'?');
            }
            Kind::FuncProto if !features.func => {
                buffer.set_info(&one, Kind::Enum, false, one.vlen);
                buffer.set_size_or_type(&one, 4);
            }
            Kind::Func if !features.func => buffer.set_info(&one, Kind::Typedef, false, 0),
            Kind::Func if !features.global_func => buffer.set_info(&one, Kind::Func, false, 0),
            Kind::Float if !features.float => {
                buffer.set_name(&one, 0);
                buffer.set_info(&one, Kind::Struct, false, 0);
            }
            Kind::TypeTag if !features.type_tag => {
                buffer.set_name(&one, 0);
                buffer.set_info(&one, Kind::Const, false, 0);
            }
            Kind::Enum if !features.enum64 => buffer.set_info(&one, Kind::Enum, false, one.vlen),
            Kind::Enum64 if !features.enum64 => {
                let placeholder = *placeholder.get_or_insert_with(|| {
                    let name = buffer.string("enum64_placeholder");
                    buffer.add(name, (Kind::Int, 0), 1, &[8])
                });
                into_union(buffer, &one, placeholder);
            }
            _ => {}
        }
    }
}

/// Makes a variable or tag an integer of one byte: no variable is smaller.
fn into_int(buffer: &mut Buffer, one: &Head) {
    const BITS: u32 = 8;
    buffer.set_info(one, Kind::Int, false, 0);
    buffer.set_size_or_type(one, 1);
    buffer.set_part(one, 0, BITS);
}

/// Makes a data section a struct with its variables as members.
fn into_struct(buffer: &mut Buffer, one: &Head) {
    buffer.replace_in_name(one.name_off, |_, byte| matches!(byte, b'.' | b'?'));
    buffer.set_info(one, Kind::Struct, false, one.vlen);
    for at in (0..one.vlen).map(|i| 3 * i) {
        let (var, offset) = (buffer.part(one, at), buffer.part(one, at + 1));
        let name = buffer.head(var).map_or(0, |var| var.name_off);
        buffer.set_part(one, at, name);
        buffer.set_part(one, at + 1, var);
        buffer.set_part(one, at + 2, offset.wrapping_mul(8));
    }
}

/// Makes an enum of 64 bits a union with its enumerators as members.
fn into_union(buffer: &mut Buffer, one: &Head, placeholder: u32) {
    buffer.set_info(one, Kind::Union, false, one.vlen);
    for at in (0..one.vlen).map(|i| 3 * i) {
        buffer.set_part(one, at + 1, placeholder);
        buffer.set_part(one, at + 2, 0);
    }
}
