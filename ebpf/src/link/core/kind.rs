//! `RelocationKind`: the questions that a CO-RE relocation can ask (`enum bpf_core_relo_kind`).

use super::Reason;

/// A question about a type, a field or an enumerator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelocationKind {
    /// The offset of the field in bytes.
    ByteOffset,
    /// The size of the field in bytes.
    ByteSize,
    /// 1 if the field exists.
    FieldExists,
    /// 1 if the field is signed.
    Signed,
    /// The number of bits to shift to the left to read a bit field.
    LeftShift,
    /// The number of bits to shift to the right after that.
    RightShift,
    /// The ID of the type in the object's BTF.
    LocalTypeId,
    /// The ID of the type in the kernel's BTF.
    TargetTypeId,
    /// 1 if the type exists.
    TypeExists,
    /// The size of the type in bytes.
    TypeSize,
    /// 1 if the enumerator exists.
    EnumeratorExists,
    /// The value of the enumerator.
    EnumeratorValue,
    /// 1 if the type exists and its fields match.
    TypeMatches,
}

impl RelocationKind {
    /// All kinds, by their numbers.
    const ALL: [(Self, &'static str); 13] = [
        (Self::ByteOffset, "byte_off"),
        (Self::ByteSize, "byte_sz"),
        (Self::FieldExists, "field_exists"),
        (Self::Signed, "signed"),
        (Self::LeftShift, "lshift_u64"),
        (Self::RightShift, "rshift_u64"),
        (Self::LocalTypeId, "local_type_id"),
        (Self::TargetTypeId, "target_type_id"),
        (Self::TypeExists, "type_exists"),
        (Self::TypeSize, "type_size"),
        (Self::EnumeratorExists, "enumval_exists"),
        (Self::EnumeratorValue, "enumval_value"),
        (Self::TypeMatches, "type_matches"),
    ];

    pub(super) fn of(number: u32) -> Result<Self, Reason> {
        Self::ALL.get(number as usize).map(|(kind, _)| *kind).ok_or(Reason::Kind(number))
    }

    /// Returns the name that libbpf gives it.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("unknown", |(_, name)| name)
    }

    pub(super) const fn is_of_type(self) -> bool {
        matches!(self, Self::LocalTypeId | Self::TargetTypeId | Self::TypeExists | Self::TypeSize | Self::TypeMatches)
    }

    pub(super) const fn is_of_enumerator(self) -> bool {
        matches!(self, Self::EnumeratorExists | Self::EnumeratorValue)
    }
}
