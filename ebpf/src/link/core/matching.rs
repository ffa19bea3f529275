//! Tells whether a type of the object's matches the kernel's in all that it says (libbpf's `__bpf_core_types_match`):
//! integers by size and sign, structs member by member, enums by the names of their values.

use super::{
    Reason,
    compat::{MAX_LEVEL, Pair},
};
use crate::btf::{Int, Kind, Type, kernel::essential};

/// The most types after each other that libbpf compares.
const MAX_CHAIN: usize = 32;

/// How far a comparison has come.
#[derive(Clone, Copy)]
struct State {
    /// Below a pointer, structs need only be of the same name and kind.
    behind_pointer: bool,
    /// The structs and prototypes that may still be within each other.
    level: u32,
}

impl<'l, 't> Pair<'_, 'l, 't> {
    /// Returns whether the types match. Their own names are known to.
    pub(super) fn do_match(&mut self, local: u32, target: u32) -> Result<bool, Reason> {
        self.compare(local, target, State { behind_pointer: false, level: MAX_LEVEL })
    }

    fn compare(&mut self, mut local: u32, mut target: u32, mut state: State) -> Result<bool, Reason> {
        if state.level == 0 {
            return Err(Reason::Candidate);
        }
        for _ in 0..MAX_CHAIN {
            let (one, other) = self.skip(local, target)?;
            if !self.are_named_alike(one.name_off, other.name_off)? {
                return Ok(false);
            }
            let same = one.kind == other.kind;
            (local, target) = match one.kind {
                Kind::Void => return Ok(same),
                Kind::Fwd => return Ok(is_declared(&one, &other, state.behind_pointer)),
                Kind::Enum | Kind::Enum64 => return self.have_enumerators(&one, &other),
                Kind::Struct | Kind::Union if state.behind_pointer => {
                    let is_union = one.kind == Kind::Union;
                    return Ok(same || other.kind == Kind::Fwd && other.kind_flag() == is_union);
                }
                Kind::Struct | Kind::Union => {
                    return if same { self.have_members(&one, &other, state) } else { Ok(false) };
                }
                Kind::Int => {
                    let signed = |one: Int| one.encoding & Int::SIGNED;
                    return Ok(same && one.size() == other.size() && signed(one.int()) == signed(other.int()));
                }
                Kind::Ptr if same => {
                    state.behind_pointer = true;
                    (one.type_id(), other.type_id())
                }
                Kind::Array => match one.array().zip(other.array()) {
                    Some((one, other)) if one.len == other.len => (one.element, other.element),
                    _ => return Ok(false),
                },
                Kind::FuncProto if same && one.vlen() == other.vlen() => {
                    for (one, other) in one.params().zip(other.params()) {
                        if !self.compare(one.type_id, other.type_id, state.below())? {
                            return Ok(false);
                        }
                    }
                    (one.type_id(), other.type_id())
                }
                _ => return Ok(false),
            };
        }
        Err(Reason::Candidate)
    }

    /// Returns whether two names are the same without flavours, or both empty (`bpf_core_names_match`).
    fn are_named_alike(&mut self, local: u32, target: u32) -> Result<bool, Reason> {
        let (local, target) = (self.local.strings().name(local), self.target.strings().name(target));
        self.budget.take(1 + (local.len() + target.len()) / 16)?;
        Ok(if target.is_empty() { local.is_empty() } else { essential(local) == essential(target) })
    }

    /// Returns whether the kernel's enum has all names of the object's (`bpf_core_enums_match`).
    fn have_enumerators(&mut self, one: &Type<'l>, other: &Type<'t>) -> Result<bool, Reason> {
        if !other.kind.is_any_enum() || one.size() != other.size() || one.vlen() > other.vlen() {
            return Ok(false);
        }
        for local in one.enumerators() {
            let mut is_there = false;
            for target in other.enumerators() {
                is_there = self.are_named_alike(local.name_off, target.name_off)?;
                if is_there {
                    break;
                }
            }
            if !is_there {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns whether the kernel's struct has all members of the object's (`bpf_core_composites_match`).
    fn have_members(&mut self, one: &Type<'l>, other: &Type<'t>, state: State) -> Result<bool, Reason> {
        if one.vlen() > other.vlen() {
            return Ok(false);
        }
        for local in one.members() {
            let mut is_there = false;
            for target in other.members() {
                is_there = self.are_named_alike(local.name_off, target.name_off)?
                    && self.compare(local.type_id, target.type_id, state.below())?;
                if is_there {
                    break;
                }
            }
            if !is_there {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl State {
    const fn below(self) -> Self {
        Self { level: self.level - 1, ..self }
    }
}

/// Returns whether a forward declaration of the object's matches: another one, or below a pointer the struct or union.
fn is_declared(one: &Type<'_>, other: &Type<'_>, behind_pointer: bool) -> bool {
    let is_union = one.kind_flag();
    match other.kind {
        Kind::Fwd => is_union == other.kind_flag(),
        Kind::Struct => behind_pointer && !is_union,
        Kind::Union => behind_pointer && is_union,
        _ => false,
    }
}
