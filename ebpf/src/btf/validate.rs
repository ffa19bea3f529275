//! The checks that libbpf makes of BTF before it uses it (`btf_validate_type`): names and IDs lie within their
//! sections. The kernel checks far more.

use super::{Btf, BtfError, Kind, Type};

impl<'a> Btf<'a> {
    /// Reads a `.BTF` section, and checks all types.
    pub fn parse(data: &'a [u8]) -> Result<Self, BtfError> {
        let btf = Self::split(data, 0, |_, _| ())?;
        btf.types().try_for_each(|one| check(&btf, &one))?;
        Ok(btf)
    }
}

fn check(btf: &Btf<'_>, one: &Type<'_>) -> Result<(), BtfError> {
    let fault = |what| Err(BtfError::Type { id: one.id, what });
    let names = btf.strings.0.len();
    let named = |offset: u32| (offset as usize) < names;
    let known = |id: u32| id < btf.len();
    if !named(one.name_off) {
        return fault("its name lies outside the strings");
    }
    let refers = match one.kind {
        Kind::Ptr
        | Kind::Typedef
        | Kind::Volatile
        | Kind::Const
        | Kind::Restrict
        | Kind::Var
        | Kind::DeclTag
        | Kind::TypeTag
        | Kind::Func => known(one.type_id()),
        Kind::Array => one.array().is_some_and(|array| known(array.element) && known(array.index)),
        Kind::Struct | Kind::Union => one.members().all(|member| known(member.type_id)),
        Kind::FuncProto => one.params().all(|param| known(param.type_id)),
        Kind::Datasec => one.vars().all(|var| known(var.type_id)),
        Kind::Void | Kind::Int | Kind::Fwd | Kind::Float | Kind::Enum | Kind::Enum64 => true,
    };
    if !refers {
        return fault("it refers to a type that is not there");
    }
    let parts_named = match one.kind {
        Kind::Struct | Kind::Union => one.members().all(|member| named(member.name_off)),
        Kind::Enum | Kind::Enum64 => one.enumerators().all(|value| named(value.name_off)),
        Kind::FuncProto => one.params().all(|param| named(param.name_off)),
        _ => true,
    };
    if !parts_named {
        return fault("the name of one of its parts lies outside the strings");
    }
    if one.kind == Kind::Func && btf.get(one.type_id()).is_none_or(|proto| proto.kind != Kind::FuncProto) {
        return fault("it is a function without prototype");
    }
    Ok(())
}
