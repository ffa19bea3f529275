//! Tells whether two types may stand for each other: for the fields of an access (libbpf's
//! `bpf_core_fields_are_compat`), and for a relocation that asks about the type itself (`__bpf_core_types_are_compat`).

use super::{Reason, budget::Budget};
use crate::btf::{Btf, Kind, Type, kernel::essential};

/// The most types after each other, such as pointers to pointers, that libbpf compares.
const MAX_CHAIN: usize = 32;
/// The most function prototypes within each other.
pub(super) const MAX_LEVEL: u32 = 32;

/// Two sets of types that are compared: the object's and the kernel's.
pub(super) struct Pair<'b, 'l, 't> {
    pub(super) local: &'b Btf<'l>,
    pub(super) target: &'b Btf<'t>,
    pub(super) budget: &'b mut Budget,
}

/// Returns whether a relocation of one kind of type may find the other (`btf_kind_core_compat`).
pub(super) const fn are_of_one_kind(local: Kind, target: Kind) -> bool {
    local as u8 == target as u8 || local.is_any_enum() && target.is_any_enum()
}

impl<'l, 't> Pair<'_, 'l, 't> {
    /// Returns both types without modifiers.
    pub(super) fn skip(&mut self, local: u32, target: u32) -> Result<(Type<'l>, Type<'t>), Reason> {
        Ok((self.skip_local(local)?, self.skip_target(target)?))
    }

    fn skip_local(&mut self, id: u32) -> Result<Type<'l>, Reason> {
        let (one, count) = self.local.skip_counted(id).ok_or(Reason::Candidate)?;
        self.budget.take(count).map(|()| one)
    }

    pub(super) fn skip_target(&mut self, id: u32) -> Result<Type<'t>, Reason> {
        let (one, count) = self.target.skip_counted(id).ok_or(Reason::Candidate)?;
        self.budget.take(count).map(|()| one)
    }

    /// Returns whether a field of the object's may be read where the kernel has that one.
    pub(super) fn are_fields(&mut self, mut local: u32, mut target: u32) -> Result<bool, Reason> {
        // libbpf follows arrays of arrays as far as they go; the kernel refuses more than 32.
        for _ in 0..4 * MAX_CHAIN {
            let (one, other) = self.skip(local, target)?;
            if one.kind.is_composite() && other.kind.is_composite() {
                return Ok(true);
            }
            if !are_of_one_kind(one.kind, other.kind) {
                return Ok(false);
            }
            match (one.kind, one.array().zip(other.array())) {
                (_, Some((one, other))) => (local, target) = (one.element, other.element),
                (Kind::Ptr | Kind::Float, _) => return Ok(true),
                (Kind::Fwd | Kind::Enum | Kind::Enum64, _) => {
                    let (one, other) = (essential(one.name()), essential(other.name()));
                    return Ok(one.is_empty() || other.is_empty() || one == other);
                }
                (Kind::Int, _) => return Ok(one.int().offset == 0 && other.int().offset == 0),
                _ => return Ok(false),
            }
        }
        Err(Reason::Candidate)
    }

    /// Returns whether a type of the object's is the kernel's one of that name.
    pub(super) fn are_types(&mut self, mut local: u32, mut target: u32, level: u32) -> Result<bool, Reason> {
        let both = self.local.get(local).zip(self.target.get(target)).ok_or(Reason::Candidate)?;
        if !are_of_one_kind(both.0.kind, both.1.kind) {
            return Ok(false);
        }
        for _ in 0..MAX_CHAIN {
            let (one, other) = self.skip(local, target)?;
            if !are_of_one_kind(one.kind, other.kind) {
                return Ok(false);
            }
            (local, target) = match one.kind {
                Kind::Void | Kind::Struct | Kind::Union | Kind::Enum | Kind::Fwd | Kind::Enum64 => return Ok(true),
                Kind::Int => return Ok(one.int().offset == 0 && other.int().offset == 0),
                Kind::Ptr => (one.type_id(), other.type_id()),
                Kind::Array => match one.array().zip(other.array()) {
                    Some((one, other)) => (one.element, other.element),
                    None => return Ok(false),
                },
                Kind::FuncProto => {
                    if !self.are_params(&one, &other, level)? {
                        return Ok(false);
                    }
                    let (one, other) = self.skip(one.type_id(), other.type_id())?;
                    (one.id, other.id)
                }
                _ => return Ok(false),
            };
        }
        Err(Reason::Candidate)
    }

    fn are_params(&mut self, one: &Type<'l>, other: &Type<'t>, level: u32) -> Result<bool, Reason> {
        if one.vlen() != other.vlen() {
            return Ok(false);
        }
        for (one, other) in one.params().zip(other.params()) {
            let below = level.checked_sub(1).ok_or(Reason::Candidate)?;
            let (one, other) = self.skip(one.type_id, other.type_id)?;
            if !self.are_types(one.id, other.id, below)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
