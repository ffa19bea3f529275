//! `Answer`: the value that the instruction has, and the one that it gets (libbpf's `bpf_core_calc_relo`).

use super::{Reason, kind::RelocationKind, spec::Spec};
use crate::btf::{Btf, Int, Kind, Member, Type};

/// An answer to a relocation (`struct bpf_core_relo_res`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// The value that the compiler has written, by the object's types.
    pub(super) original: Value,
    /// The value by the kernel's types. None if the kernel does not have what is asked for.
    pub(super) new: Option<Value>,
    /// True if a load or store may be made one of the new size: of pointers, and of unsigned integers.
    pub(super) can_resize: bool,
    /// The offset of the field from its root's start, by the kernel's types.
    pub(super) bit_offset: u32,
}

impl Answer {
    /// Returns whether two candidates give the same answer.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let value = |answer: &Self| answer.new.map(|new| new.value);
        self.bit_offset == other.bit_offset && value(self) == value(other)
    }
}

/// A value by one of the two sets of types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) value: u64,
    /// False if compilers and kernels may differ in the value, so that the one in the instruction is not checked.
    pub(super) is_certain: bool,
    /// The size of what is loaded or stored at an offset, 0 if the relocation is of no such kind.
    pub(super) size: u32,
    /// The type of what is loaded or stored.
    type_id: u32,
}

/// Answers a relocation by what was found in the kernel, if anything was.
pub(super) fn answer(
    (local, original): (&Btf<'_>, &Spec),
    (target, found): (&Btf<'_>, Option<&Spec>),
) -> Result<Answer, Reason> {
    let original_value = value(local, original)?;
    let new = match found {
        Some(found) => Some(value(target, found)?),
        None => missing(original.kind).map(|value| Value { value, ..Value::default() }),
    };
    let can_resize = new.is_none_or(|new| {
        let types = local.get(original_value.type_id).zip(target.get(new.type_id));
        original_value.size == new.size || types.is_some_and(|(one, other)| are_resizable(&one, &other))
    });
    Ok(Answer { original: original_value, new, can_resize, bit_offset: found.map_or(0, |found| found.bit_offset) })
}

/// Returns the answer where the kernel has no such thing, if there is one.
const fn missing(kind: RelocationKind) -> Option<u64> {
    match kind {
        RelocationKind::FieldExists | RelocationKind::EnumeratorExists => Some(0),
        kind if kind.is_of_type() => Some(0),
        _ => None,
    }
}

fn are_resizable(one: &Type<'_>, other: &Type<'_>) -> bool {
    let unsigned = |one: &Type<'_>| one.kind == Kind::Int && one.int().encoding != Int::SIGNED;
    one.kind == Kind::Ptr && other.kind == Kind::Ptr || unsigned(one) && unsigned(other)
}

const fn certain(value: u64) -> Value {
    Value { value, is_certain: true, size: 0, type_id: 0 }
}

fn value(btf: &Btf<'_>, spec: &Spec) -> Result<Value, Reason> {
    match spec.kind {
        RelocationKind::FieldExists
        | RelocationKind::TypeExists
        | RelocationKind::TypeMatches
        | RelocationKind::EnumeratorExists => Ok(certain(1)),
        // Linkers renumber types without changing instructions.
        RelocationKind::LocalTypeId | RelocationKind::TargetTypeId => {
            Ok(Value { is_certain: false, ..certain(spec.root.into()) })
        }
        RelocationKind::TypeSize => Ok(certain(btf.resolve_size(spec.root).ok_or(Reason::Question)?.into())),
        RelocationKind::EnumeratorValue => enumerator(btf, spec),
        RelocationKind::ByteOffset
        | RelocationKind::ByteSize
        | RelocationKind::Signed
        | RelocationKind::LeftShift
        | RelocationKind::RightShift => field(btf, spec),
    }
}

/// Returns the value of an enumerator. libbpf takes those of 32 bits for signed ones.
fn enumerator(btf: &Btf<'_>, spec: &Spec) -> Result<Value, Reason> {
    let accessor = spec.accessors.first().ok_or(Reason::Record)?;
    let of = btf.get(accessor.type_id).ok_or(Reason::Record)?;
    let one = of.enumerator(accessor.index as usize).ok_or(Reason::Record)?;
    let narrow = || i64::from((one.value as u32).cast_signed()).cast_unsigned();
    Ok(certain(if of.kind == Kind::Enum { narrow() } else { one.value }))
}

/// Answers a question about a field (libbpf's `bpf_core_calc_field_relo`).
fn field(btf: &Btf<'_>, spec: &Spec) -> Result<Value, Reason> {
    let last = spec.accessors.last().ok_or(Reason::Record)?;
    if last.name_off.is_none() {
        let size = || btf.resolve_size(last.type_id).ok_or(Reason::Question);
        return match spec.kind {
            RelocationKind::ByteOffset => at(btf, spec.bit_offset / 8, last.type_id),
            RelocationKind::ByteSize => Ok(certain(size()?.into())),
            _ => Err(Reason::Question),
        };
    }
    let member = btf.get(last.type_id).and_then(|of| of.member(last.index as usize)).ok_or(Reason::Record)?;
    let of = btf.skip_modifiers(member.type_id).ok_or(Reason::Record)?;
    let place = Place::of(btf, spec.bit_offset, &member, &of)?;
    let by_layout = |value| Value { is_certain: !place.is_bit_field, ..certain(value) };
    match spec.kind {
        RelocationKind::ByteOffset if place.is_bit_field => Ok(by_layout(place.byte.into())),
        RelocationKind::ByteOffset => at(btf, place.byte, of.id),
        RelocationKind::ByteSize => Ok(by_layout(place.size.into())),
        RelocationKind::LeftShift => Ok(by_layout(place.left_shift().into())),
        RelocationKind::RightShift => Ok(certain(64u32.wrapping_sub(place.bits).into())),
        RelocationKind::Signed => {
            let is_signed = match of.kind {
                Kind::Int => of.int().encoding & Int::SIGNED != 0,
                kind => kind.is_any_enum() && of.kind_flag(),
            };
            Ok(certain(is_signed.into()))
        }
        _ => Err(Reason::Question),
    }
}

/// Returns an offset, with the size of what is loaded or stored there: of an array, one element.
fn at(btf: &Btf<'_>, byte: u32, type_id: u32) -> Result<Value, Reason> {
    let mut element = btf.skip_modifiers(type_id).ok_or(Reason::Question)?;
    // Sizes are resolved within 32 steps, so there is no use in following more arrays.
    for _ in 0..32 {
        let Some(array) = element.array() else { break };
        element = btf.skip_modifiers(array.element).ok_or(Reason::Question)?;
    }
    let size = btf.resolve_size(element.id).ok_or(Reason::Question)?;
    Ok(Value { value: byte.into(), is_certain: true, size, type_id })
}

/// The place of a field.
struct Place {
    /// The first byte to load.
    byte: u32,
    /// The number of bytes to load.
    size: u32,
    /// The first bit of the field.
    bit: u32,
    /// The number of bits of the field.
    bits: u32,
    is_bit_field: bool,
}

impl Place {
    fn of(btf: &Btf<'_>, bit: u32, member: &Member<'_>, of: &Type<'_>) -> Result<Self, Reason> {
        let bits = member.width;
        if bits == 0 {
            let size = btf.resolve_size(of.id).ok_or(Reason::Question)?;
            return Ok(Self { byte: bit / 8, size, bit, bits: size.wrapping_mul(8), is_bit_field: false });
        }
        // The smallest aligned integer that has all of the field.
        let mut size = of.size();
        loop {
            let byte = (bit / 8).checked_div(size).ok_or(Reason::Question)?.wrapping_mul(size);
            let end = bit.wrapping_add(bits).wrapping_sub(byte.wrapping_mul(8));
            if end <= size.wrapping_mul(8) {
                return Ok(Self { byte, size, bit, bits, is_bit_field: true });
            }
            if size >= 8 {
                return Err(Reason::Question);
            }
            size *= 2;
        }
    }

    const fn left_shift(&self) -> u32 {
        let end = self.bit.wrapping_add(self.bits).wrapping_sub(self.byte.wrapping_mul(8));
        64u32.wrapping_sub(end)
    }
}
