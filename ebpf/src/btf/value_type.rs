//! `ValueType`: a type as the encoder of values needs it, and its name in C.

use super::{Btf, BtfError, Int, Kind, MAX_NAME, Type};
use sockeye_crds::names::printable;

/// Typedefs and qualifiers before a type that values are given for.
const MAX_DEPTH: usize = 32;

type Result<T> = std::result::Result<T, BtfError>;

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
    one: Type<'a>,
}

/// A struct or union.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    pub(crate) is_union: bool,
    one: Type<'a>,
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
        for _ in 0..MAX_DEPTH {
            let one = self.get(id).ok_or(BtfError::Malformed("a type is referred to that is not there"))?;
            let name = utf8(one.name())?;
            if first.is_empty() {
                first = name;
            }
            if !one.kind.is_transparent() {
                return Ok(ValueType { name: first, is_alias, big_endian, form: Form::of(&one, name) });
            }
            is_alias |= !first.is_empty();
            big_endian |= matches!(name, "__be16" | "__be32" | "__be64");
            id = one.type_id();
        }
        Err(BtfError::Malformed("types refer to each other too deep"))
    }

    /// Returns the size of a value's type in bytes.
    pub(crate) fn size(&self, id: u32) -> Result<u32> {
        self.resolve_size(id).ok_or(BtfError::Malformed("a type has no size, is too large, or nested too deep"))
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
    pub(crate) fn members(&self, record: &Record<'a>) -> impl Iterator<Item = Result<Member<'a>>> + use<'a> {
        record.one.members().map(|member| {
            let width = (member.width > 0).then_some(member.width);
            Ok(Member { name: utf8(member.name())?, type_id: member.type_id, bit: member.bit_offset, width })
        })
    }

    /// Returns an enum's names with their values as bits.
    pub(crate) fn enumerators(&self, of: &Enumerators<'a>) -> impl Iterator<Item = Result<(&'a str, u64)>> + use<'a> {
        of.one.enumerators().map(|one| Ok((utf8(one.name())?, one.value)))
    }
}

impl<'a> Form<'a> {
    fn of(one: &Type<'a>, name: &str) -> Self {
        let size = one.size() as usize;
        match one.kind {
            Kind::Int => {
                let Int { encoding, offset, bits } = one.int();
                match size {
                    1 if encoding & Int::BOOL != 0 => Self::Bool,
                    1 if encoding & Int::CHAR != 0 || name == "char" => Self::Char,
                    1 | 2 | 4 | 8 | 16 if offset == 0 && bits as usize == 8 * size => {
                        Self::Number { size, signed: encoding & Int::SIGNED != 0 }
                    }
                    _ => Self::Other("an integer of an odd size"),
                }
            }
            Kind::Enum | Kind::Enum64 if matches!(size, 1 | 2 | 4 | 8) => {
                Self::Enum(Enumerators { size, signed: one.kind_flag(), one: *one })
            }
            Kind::Struct | Kind::Union => Self::Record(Record { is_union: one.kind == Kind::Union, one: *one }),
            Kind::Ptr => Self::Other("a pointer"),
            Kind::Float => Self::Other("a floating-point number"),
            _ => match one.array() {
                Some(array) => Self::Array { element: array.element, len: array.len },
                None => Self::Other("a type without values"),
            },
        }
    }
}

/// Returns a name as text.
fn utf8(name: &[u8]) -> Result<&str> {
    if name.len() > MAX_NAME {
        return Err(BtfError::Malformed("a name is longer than 512 bytes"));
    }
    std::str::from_utf8(name).map_err(|_| BtfError::Malformed("a name is not UTF-8"))
}
