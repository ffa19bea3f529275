//! `Decoded`: the bytes of a value with their type, which serialize as what they mean. No IO.
//!
//! | type | JSON |
//! |---|---|
//! | integers, bit fields | a number; beyond 64 bits its decimal digits as text |
//! | `__be16`, `__be32`, `__be64` | the number that the bytes are in network order |
//! | `bool` | a Boolean; a byte that is neither 0 nor 1 its number |
//! | enums | the name of the value, or its number if it has none |
//! | `float`, `double` | a number, or `NaN`, `Infinity` or `-Infinity` as text; longer ones as bytes |
//! | pointers | text: hexadecimal, after `0x` |
//! | `char[N]` | text up to the first NUL, if it is UTF-8 and can be printed; else a list of numbers |
//! | other arrays | a list |
//! | structs, unions | an object with the fields that lie within the bytes; those of anonymous ones in their place |
//! | data sections | an object of the variables |
//! | `void`, functions, structs that are only declared | null |
//!
//! It is the inverse of [`Encoder`](super::encode::Encoder), except that an object of a union has all its members.
//! Bytes that no field covers are not shown.
//!
//! Types and bytes may come from anyone, so all that is written for one or more values is within a [`Budget`].

use serde::{
    Serialize, Serializer,
    ser::{SerializeMap as _, SerializeSeq as _},
};
use serde_json::Value;
use sockeye_crds::{names::hex, program::Format};

use super::{
    bits::{bits_of, mask, number, slice_bits},
    budget::{Budget, COST, DecodeError},
    format,
    shape::{EnumName, Field, Node, Shape},
};

impl Shape {
    /// Decodes bytes. A record of a ring may have fewer bytes than its type, which then lacks fields, or more, which
    /// belong to an array of length 0 at its end.
    ///
    /// # Errors
    /// Fails if the bytes end within a number, or the budget is spent.
    pub fn decode(&self, bytes: &[u8], budget: &Budget) -> Result<Value, DecodeError> {
        let decoded = self.with(bytes, budget)?;
        serde_json::to_value(decoded).map_err(|_| DecodeError::TooLarge)
    }

    /// Returns bytes that serialize as what they mean: without a tree of values in memory, and with fields in the
    /// type's order.
    ///
    /// # Errors
    /// Fails if the bytes end within a number. Serialization fails only if the budget is spent.
    pub fn with<'a>(&'a self, bytes: &'a [u8], budget: &'a Budget) -> Result<Decoded<'a>, DecodeError> {
        let (given, needed) = (bytes.len(), self.size());
        if given < needed && !matches!(self.node(), Node::Array { .. } | Node::Record { .. }) {
            return Err(DecodeError::TooShort { given, needed });
        }
        let own = if self.is_open() { None } else { bytes.get(..needed) };
        Ok(Decoded { shape: self, bytes: own.unwrap_or(bytes), budget })
    }
}

/// Bytes with their type.
#[derive(Clone, Copy, Debug)]
pub struct Decoded<'a> {
    shape: &'a Shape,
    /// All bytes that belong to the value, and not more, unless an array of length 0 goes on.
    bytes: &'a [u8],
    budget: &'a Budget,
}

impl Serialize for Decoded<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self { shape, bytes, budget } = *self;
        budget.spend(COST)?;
        match shape.node() {
            Node::Integer { signed, big_endian, .. } => integer(bits_of(bytes, *big_endian), bytes.len(), *signed, to),
            Node::Bits { signed, offset, bits, .. } => {
                number(slice_bits(bytes, *offset, *bits).unwrap_or_default(), *bits, *signed, to)
            }
            Node::Bool => match bytes.first() {
                Some(&byte @ 2..) => to.serialize_u8(byte),
                byte => to.serialize_bool(byte == Some(&1)),
            },
            Node::Char => integer(bits_of(bytes, false), 1, true, to),
            Node::Enum { size, signed, names } => {
                let bits = (bits_of(bytes, false), 8 * *size as u32);
                enumerator(bits, (*size, *signed, names), budget, to)
            }
            Node::Float { .. } => float(bytes, to),
            Node::Pointer { .. } => to.serialize_str(&format!("{:#x}", bits_of(bytes, false))),
            Node::Array { element, .. } if matches!(element.node(), Node::Char) => characters(bytes, budget, to),
            Node::Array { element, each, len } => self.items(element, *each, *len, to),
            Node::Record { fields, .. } => self.fields(fields, to),
            Node::Formatted { of, format: Format::Enum | Format::Pod } => {
                Decoded { shape: of, bytes, budget }.serialize(to)
            }
            Node::Formatted { of, format } => format::write(*format, of, (bytes, budget), to),
            Node::Nothing => to.serialize_unit(),
        }
    }
}

impl<'a> Decoded<'a> {
    /// Writes the items that lie within the bytes.
    fn items<S: Serializer>(&self, element: &Shape, each: usize, len: usize, to: S) -> Result<S::Ok, S::Error> {
        let Self { bytes, budget, .. } = *self;
        // Items without a size take nothing, however many they are.
        let len = bytes.len().checked_div(each).unwrap_or(len);
        budget.check(len.saturating_mul(COST))?;
        let mut list = to.serialize_seq(Some(len))?;
        for i in 0..len {
            let bytes = bytes.get(i * each..(i + 1) * each).unwrap_or_default();
            list.serialize_element(&Decoded { shape: element, bytes, budget })?;
        }
        list.end()
    }

    fn fields<S: Serializer>(&self, fields: &'a [Field], to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        for field in fields {
            let Some(value) = self.field(field) else { continue };
            self.budget.spend(field.name.len())?;
            map.serialize_key(&*field.name)?;
            match value {
                Part::Whole(decoded) => map.serialize_value(&decoded)?,
                Part::Bits(bits) => map.serialize_value(&bits)?,
            }
        }
        map.end()
    }

    /// Returns a field, if it lies within the bytes; of an array or a struct at least the beginning.
    fn field(&self, field: &'a Field) -> Option<Part<'a>> {
        let Self { bytes, budget, shape } = *self;
        if let Some(width) = field.width {
            let bits = slice_bits(bytes, field.bit, width)?;
            return Some(Part::Bits(BitField { bits: (bits, width), shape: &field.shape, budget }));
        }
        let (start, size) = (field.bit as usize / 8, field.shape.size());
        let rest = bytes.get(start..)?;
        // The padding at the end of a struct is no array.
        let goes_on = field.is_open && bytes.len() > shape.size();
        let has_parts = matches!(field.shape.node(), Node::Array { .. } | Node::Record { .. });
        let bytes = match rest.get(..size) {
            _ if goes_on => rest,
            Some(own) => own,
            None if has_parts && !rest.is_empty() => rest,
            None => return None,
        };
        Some(Part::Whole(Decoded { shape: &field.shape, bytes, budget }))
    }
}

/// A field's value.
enum Part<'a> {
    Whole(Decoded<'a>),
    Bits(BitField<'a>),
}

/// The bits of a bit field, and their number.
struct BitField<'a> {
    bits: (u128, u32),
    shape: &'a Shape,
    budget: &'a Budget,
}

impl Serialize for BitField<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self { bits: (bits, width), shape, budget } = *self;
        match shape.node() {
            Node::Bool if bits <= 1 => to.serialize_bool(bits == 1),
            Node::Enum { size, signed, names } => enumerator(self.bits, (*size, *signed, names), budget, to),
            Node::Integer { signed, .. } | Node::Bits { signed, .. } => number(bits, width, *signed, to),
            Node::Formatted { of, format: Format::Enum } => Self { shape: of, ..*self }.serialize(to),
            Node::Formatted { of, format } => format::write_bits(*format, of, self.bits, to),
            _ => number(bits, width, false, to),
        }
    }
}

/// An enum's size, whether its values are signed, and their names.
type Enum<'a> = (usize, bool, &'a [EnumName]);

fn integer<S: Serializer>(bits: u128, size: usize, signed: bool, to: S) -> Result<S::Ok, S::Error> {
    number(bits, 8 * size as u32, signed, to)
}

/// Writes the name of an enum's value, or its number.
fn enumerator<S: Serializer>(
    (bits, width): (u128, u32),
    (size, signed, names): Enum<'_>,
    budget: &Budget,
    to: S,
) -> Result<S::Ok, S::Error> {
    // A bit field has fewer bits than the values of its enum.
    let is_negative = signed && (1..=64).contains(&width) && bits >> (width - 1) & 1 == 1;
    let value = if is_negative { (bits | !mask(width)) & mask(8 * size as u32) } else { bits };
    let found =
        u64::try_from(value).ok().and_then(|value| names.binary_search_by_key(&value, |(value, _)| *value).ok());
    match found.and_then(|at| names.get(at)) {
        // A value of one byte may have a name of 512.
        Some((_, name)) => {
            budget.spend(name.len())?;
            to.serialize_str(name)
        }
        None => number(bits, width, signed, to),
    }
}

fn float<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
    let number = match *bytes {
        [a, b, c, d] => f64::from(f32::from_le_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => f64::from_le_bytes([a, b, c, d, e, f, g, h]),
        _ => return to.serialize_str(&hex(bytes)),
    };
    match number {
        _ if number.is_nan() => to.serialize_str("NaN"),
        f64::INFINITY => to.serialize_str("Infinity"),
        f64::NEG_INFINITY => to.serialize_str("-Infinity"),
        _ => to.serialize_f64(number),
    }
}

/// Writes characters as text up to the first NUL, or as numbers.
fn characters<S: Serializer>(bytes: &[u8], budget: &Budget, to: S) -> Result<S::Ok, S::Error> {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    let is_printable = |text: &&str| text.chars().all(|one| !one.is_control() || matches!(one, '\t' | '\n' | '\r'));
    if let Some(text) = str::from_utf8(text).ok().filter(is_printable) {
        budget.spend(text.len())?;
        return to.serialize_str(text);
    }
    budget.spend(bytes.len().saturating_mul(COST))?;
    to.collect_seq(bytes.iter().map(|byte| byte.cast_signed()))
}
