//! `ValueType`: a type as the encoder of values needs it, and its name in C.

use super::{
    Btf, BtfError, KIND_ARRAY, KIND_ENUM, KIND_ENUM64, KIND_FLOAT, KIND_INT, KIND_PTR, KIND_STRUCT, KIND_UNION, Result,
    TRANSPARENT, Type, word,
};
use sockeye_crds::names::printable;

use crate::object::limits::MAX_TYPE_DEPTH;

/// A type without its typedefs and qualifiers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ValueType<'a> {
    /// The name of the outermost typedef, or of the type itself.
    pub(crate) name: &'a str,
    /// True if the name is a typedef's.
    is_alias: bool,
    /// True if a typedef, such as `__be16`, means network byte order.
    pub(crate) big_endian: bool,
    pub(crate) form: Form<'a>,
}

/// The form of a type.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form<'a> {
    /// An integer.
    Number { size: usize, signed: bool },
    /// `bool`
    Bool,
    /// `char`: a number by itself, text in an array.
    Char,
    /// An enum.
    Enum(Enumerators<'a>),
    /// A struct or union.
    Record(Record<'a>),
    /// An array.
    Array { element: u32, len: u32 },
    /// A type without encodable values.
    Other(&'static str),
}

/// An enum.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Enumerators<'a> {
    pub(crate) size: usize,
    pub(crate) signed: bool,
    stride: usize,
    entries: &'a [u8],
}

/// A struct or union.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    pub(crate) is_union: bool,
    /// True if the offsets contain the widths of bit fields.
    has_widths: bool,
    entries: &'a [u8],
}

/// A member of a struct or union.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member<'a> {
    /// The name. An anonymous struct or union has none; its members are set like the outer one's.
    pub(crate) name: &'a str,
    pub(crate) type_id: u32,
    /// The offset from the record's start, in bits.
    pub(crate) bit: u32,
    /// The width of a bit field.
    pub(crate) width: Option<u32>,
}

impl<'a> Btf<'a> {
    /// Resolves a type through its typedefs and qualifiers.
    pub(crate) fn value_type(&self, mut id: u32) -> Result<ValueType<'a>> {
        let (mut first, mut is_alias, mut big_endian) = ("", false, false);
        for _ in 0..MAX_TYPE_DEPTH {
            let one = self.get(id)?;
            let name = self.name(one.name)?;
            if first.is_empty() {
                first = name;
            }
            if !TRANSPARENT.contains(&one.kind) {
                return Ok(ValueType { name: first, is_alias, big_endian, form: Form::of(&one, name)? });
            }
            is_alias |= !first.is_empty();
            big_endian |= matches!(name, "__be16" | "__be32" | "__be64");
            id = one.size_or_type;
        }
        Err(BtfError("types refer to each other too deep"))
    }

    /// Returns the name of a type as C writes it.
    pub(crate) fn c_name(&self, id: u32) -> String {
        let Ok(ValueType { name, is_alias, form, .. }) = self.value_type(id) else {
            return "a type that is not known".to_owned();
        };
        let tag = match form {
            Form::Array { element, len } if name.is_empty() => {
                // C writes the lengths of nested arrays in another order; the message names the outer one only.
                return match self.value_type(element) {
                    Ok(ValueType { form: Form::Array { .. }, .. }) => format!("an array of {len} arrays"),
                    _ => format!("{}[{len}]", self.c_name(element)),
                };
            }
            Form::Other(what) => return what.to_owned(),
            _ if is_alias => "",
            Form::Enum(_) => "enum",
            Form::Record(Record { is_union: true, .. }) => "union",
            Form::Record(_) => "struct",
            _ => "",
        };
        let shown = printable(name);
        [tag, shown.trim_matches('"')].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
    }

    /// Returns the members of a struct or union.
    pub(crate) fn members<'s>(&'s self, record: &Record<'a>) -> impl Iterator<Item = Result<Member<'a>>> + use<'a, 's> {
        let has_widths = record.has_widths;
        record.entries.chunks_exact(12).map(move |entry| {
            let at = |at| word(entry, at).ok_or(BtfError("a struct is cut short"));
            let (name, type_id, offset) = (self.name(at(0)?)?, at(4)?, at(8)?);
            let (bit, width) = if has_widths { (offset & 0x00ff_ffff, offset >> 24) } else { (offset, 0) };
            Ok(Member { name, type_id, bit, width: (width > 0).then_some(width) })
        })
    }

    /// Returns an enum's names with their values as bits.
    pub(crate) fn enumerators<'s>(
        &'s self,
        of: &Enumerators<'a>,
    ) -> impl Iterator<Item = Result<(&'a str, u64)>> + use<'a, 's> {
        let stride = of.stride;
        of.entries.chunks_exact(stride).map(move |entry| {
            let at = |at| word(entry, at).ok_or(BtfError("an enum is cut short"));
            let high = if stride == 12 { u64::from(at(8)?) << 32 } else { 0 };
            Ok((self.name(at(0)?)?, high | u64::from(at(4)?)))
        })
    }
}

impl<'a> Form<'a> {
    fn of(one: &Type<'a>, name: &str) -> Result<Self> {
        const SIGNED: u32 = 1;
        const CHAR: u32 = 2;
        const BOOL: u32 = 4;
        let size = one.size_or_type as usize;
        Ok(match one.kind {
            KIND_INT => {
                let int = word(one.rest, 0).ok_or(BtfError("an integer is cut short"))?;
                let (encoding, offset, bits) = (int >> 24 & 0xf, int >> 16 & 0xff, int & 0xff);
                match size {
                    1 if encoding & BOOL != 0 => Self::Bool,
                    1 if encoding & CHAR != 0 || name == "char" => Self::Char,
                    1 | 2 | 4 | 8 | 16 if offset == 0 && bits as usize == 8 * size => {
                        Self::Number { size, signed: encoding & SIGNED != 0 }
                    }
                    _ => Self::Other("an integer of an odd size"),
                }
            }
            KIND_ENUM | KIND_ENUM64 if matches!(size, 1 | 2 | 4 | 8) => {
                let stride = if one.kind == KIND_ENUM { 8 } else { 12 };
                Self::Enum(Enumerators { size, signed: one.flag, stride, entries: one.rest })
            }
            KIND_STRUCT | KIND_UNION => {
                let is_union = one.kind == KIND_UNION;
                Self::Record(Record { is_union, has_widths: one.flag, entries: one.rest })
            }
            KIND_ARRAY => {
                let at = |at| word(one.rest, at).ok_or(BtfError("an array is cut short"));
                Self::Array { element: at(0)?, len: at(8)? }
            }
            KIND_PTR => Self::Other("a pointer"),
            KIND_FLOAT => Self::Other("a floating-point number"),
            _ => Self::Other("a type without values"),
        })
    }
}
