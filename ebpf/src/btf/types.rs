//! `Type`: one type with what follows it, borrowed from the section. No access can fail: what is not there is empty.

use std::{borrow::Cow, fmt};

use super::Kind;
use crate::bytes::word;

/// The longest name that the kernel takes, in bytes (`KSYM_NAME_LEN`).
pub const MAX_NAME: usize = 512;

/// The string section. Offsets outside it name the empty string.
#[derive(Clone, Copy)]
pub struct Strings<'a>(pub(crate) &'a [u8]);

impl fmt::Debug for Strings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl<'a> Strings<'a> {
    /// Returns the string at an offset, whatever its length. None if the offset lies outside the section.
    pub fn get(self, offset: u32) -> Option<&'a [u8]> {
        let tail = self.0.get(offset as usize..).filter(|tail| !tail.is_empty())?;
        Some(until_nul(tail))
    }

    /// Returns the name at an offset, cut after [`MAX_NAME`] bytes and one more. So a longer one equals no name that a
    /// kernel takes, and reading the names of all types stays cheap if they share one long end.
    pub fn name(self, offset: u32) -> &'a [u8] {
        let tail = self.0.get(offset as usize..).unwrap_or_default();
        until_nul(tail.get(..=MAX_NAME).unwrap_or(tail))
    }

    /// Returns whether the string at an offset is this text, at a cost that only depends on the text.
    pub fn is(self, offset: u32, text: &[u8]) -> bool {
        let tail = self.0.get(offset as usize..).unwrap_or_default();
        tail.strip_prefix(text).is_some_and(|rest| matches!(rest.first(), None | Some(0)))
    }

    /// Returns the name at an offset for a message.
    pub fn text(self, offset: u32) -> Cow<'a, str> {
        String::from_utf8_lossy(self.name(offset))
    }
}

fn until_nul(tail: &[u8]) -> &[u8] {
    let end = std::ffi::CStr::from_bytes_until_nul(tail).map_or(tail.len(), std::ffi::CStr::count_bytes);
    tail.get(..end).unwrap_or(tail)
}

/// A type (`struct btf_type`).
#[derive(Clone, Copy, Debug)]
pub struct Type<'a> {
    /// The type's ID.
    pub id: u32,
    /// The kind.
    pub kind: Kind,
    /// The offset of the name in the strings.
    pub name_off: u32,
    /// The word `info`: kind, flag and number of parts.
    pub(crate) info: u32,
    /// `size` or `type`, depending on the kind.
    pub(crate) size_or_type: u32,
    /// The offset in the type section.
    pub(crate) at: usize,
    pub(crate) rest: &'a [u8],
    pub(crate) strings: Strings<'a>,
}

impl<'a> Type<'a> {
    /// Returns type 0.
    pub(crate) const fn void() -> Self {
        let strings = Strings(&[]);
        Self { id: 0, kind: Kind::Void, name_off: 0, info: 0, size_or_type: 0, at: 0, rest: &[], strings }
    }

    /// Returns the name, see [`Strings::name`].
    pub fn name(&self) -> &'a [u8] {
        self.strings.name(self.name_off)
    }

    /// Returns whether the name is this text.
    pub fn is_named(&self, name: &[u8]) -> bool {
        self.strings.is(self.name_off, name)
    }

    /// Returns the name for a message.
    pub fn text(&self) -> Cow<'a, str> {
        self.strings.text(self.name_off)
    }

    /// Returns the size in bytes that the type itself says, if it is of a kind that has one.
    pub const fn size(&self) -> u32 {
        self.size_or_type
    }

    /// Returns the type that this one refers to, if it is of a kind that does.
    pub const fn type_id(&self) -> u32 {
        self.size_or_type
    }

    /// Returns the number of parts, or a function's linkage (`BTF_INFO_VLEN`).
    pub const fn vlen(&self) -> usize {
        (self.info & 0xffff) as usize
    }

    /// Returns the flag: values are signed (enums), offsets contain the widths of bit fields (structs and unions), it
    /// is a union (forward declarations), it is an attribute (tags).
    pub const fn kind_flag(&self) -> bool {
        self.info >> 31 == 1
    }

    /// Returns the linkage of a function or variable. `BTF_FUNC_STATIC` and `BTF_VAR_STATIC` are 0,
    /// `BTF_FUNC_GLOBAL` and `BTF_VAR_GLOBAL_ALLOCATED` 1, the two `EXTERN` 2.
    pub fn linkage(&self) -> u32 {
        match self.kind {
            Kind::Func => self.info & 0xffff,
            Kind::Var => self.word(0),
            _ => 0,
        }
    }

    /// Returns how an integer is encoded.
    pub fn int(&self) -> Int {
        let word = if self.kind == Kind::Int { self.word(0) } else { 0 };
        Int { encoding: word >> 24 & 0xf, offset: word >> 16 & 0xff, bits: word & 0xff }
    }

    /// Returns the element and the length of an array.
    pub fn array(&self) -> Option<Array> {
        let is = self.kind == Kind::Array;
        is.then(|| Array { element: self.word(0), index: self.word(4), len: self.word(8) })
    }

    /// Returns the members of a struct or union.
    pub fn members(&self) -> impl ExactSizeIterator<Item = Member<'a>> + use<'a> {
        let one = *self;
        self.parts(self.kind.is_composite()).map(move |part| one.read_member(part))
    }

    /// Returns the member at an index.
    pub fn member(&self, index: usize) -> Option<Member<'a>> {
        self.parts(self.kind.is_composite()).nth(index).map(|part| self.read_member(part))
    }

    fn read_member(&self, part: &[u8]) -> Member<'a> {
        let offset = at(part, 8);
        let (bit_offset, width) = if self.kind_flag() { (offset & 0x00ff_ffff, offset >> 24) } else { (offset, 0) };
        Member { name_off: at(part, 0), type_id: at(part, 4), bit_offset, width, strings: self.strings }
    }

    /// Returns the enumerators of an enum of any width.
    pub fn enumerators(&self) -> impl ExactSizeIterator<Item = Enumerator<'a>> + use<'a> {
        let one = *self;
        self.parts(self.kind.is_any_enum()).map(move |part| one.read_enumerator(part))
    }

    /// Returns the enumerator at an index.
    pub fn enumerator(&self, index: usize) -> Option<Enumerator<'a>> {
        self.parts(self.kind.is_any_enum()).nth(index).map(|part| self.read_enumerator(part))
    }

    fn read_enumerator(&self, part: &[u8]) -> Enumerator<'a> {
        let low = at(part, 4);
        let value = match (self.kind, self.kind_flag()) {
            (Kind::Enum64, _) => u64::from(at(part, 8)) << 32 | u64::from(low),
            (_, true) => i64::from(low.cast_signed()).cast_unsigned(),
            (_, false) => low.into(),
        };
        Enumerator { name_off: at(part, 0), value, strings: self.strings }
    }

    /// Returns the parameters of a function prototype.
    pub fn params(&self) -> impl ExactSizeIterator<Item = Param<'a>> + use<'a> {
        let strings = self.strings;
        self.parts(self.kind == Kind::FuncProto).map(move |part| Param {
            name_off: at(part, 0),
            type_id: at(part, 4),
            strings,
        })
    }

    /// Returns the variables of a data section.
    pub fn vars(&self) -> impl ExactSizeIterator<Item = SectionVar> + use<'a> {
        self.parts(self.kind == Kind::Datasec).map(|part| SectionVar {
            type_id: at(part, 0),
            offset: at(part, 4),
            size: at(part, 8),
        })
    }

    /// Returns the index of the part that a declaration tag is about: a member or parameter, or -1 for the whole.
    pub fn component(&self) -> i32 {
        if self.kind == Kind::DeclTag { self.word(0).cast_signed() } else { -1 }
    }

    fn word(&self, offset: usize) -> u32 {
        at(self.rest, offset)
    }

    fn parts(&self, is: bool) -> std::slice::ChunksExact<'a, u8> {
        if is { self.rest.chunks_exact(self.kind.stride().max(1)) } else { [].chunks_exact(1) }
    }
}

fn at(part: &[u8], offset: usize) -> u32 {
    word(part, offset).unwrap_or_default()
}

/// The encoding of an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Int {
    /// Bits of [`Int::SIGNED`], [`Int::CHAR`], [`Int::BOOL`].
    pub encoding: u32,
    /// The offset of the value from the integer's start, in bits. Old compilers encoded bit fields so.
    pub offset: u32,
    /// The width in bits.
    pub bits: u32,
}

impl Int {
    /// `BTF_INT_SIGNED`
    pub const SIGNED: u32 = 1;
    /// `BTF_INT_CHAR`
    pub const CHAR: u32 = 2;
    /// `BTF_INT_BOOL`
    pub const BOOL: u32 = 4;
}

/// An array (`struct btf_array`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Array {
    /// The type of the elements.
    pub element: u32,
    /// The type of indices.
    pub index: u32,
    /// The number of elements.
    pub len: u32,
}

/// A member of a struct or union (`struct btf_member`).
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// The offset of the name in the strings. 0 for an anonymous struct or union.
    pub name_off: u32,
    /// The member's type.
    pub type_id: u32,
    /// The offset from the start of the struct, in bits (`btf_member_bit_offset`).
    pub bit_offset: u32,
    /// The width of a bit field in bits, 0 for any other member (`btf_member_bitfield_size`).
    pub width: u32,
    strings: Strings<'a>,
}

/// An enumerator (`struct btf_enum`, `struct btf_enum64`).
#[derive(Clone, Copy, Debug)]
pub struct Enumerator<'a> {
    /// The offset of the name in the strings.
    pub name_off: u32,
    /// The value. That of a signed enum is sign-extended.
    pub value: u64,
    strings: Strings<'a>,
}

/// A parameter of a function (`struct btf_param`).
#[derive(Clone, Copy, Debug)]
pub struct Param<'a> {
    /// The offset of the name in the strings. Declarations have names for none.
    pub name_off: u32,
    /// The parameter's type. 0 for the end of a variadic function's parameters.
    pub type_id: u32,
    strings: Strings<'a>,
}

/// A variable of a data section (`struct btf_var_secinfo`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectionVar {
    /// The variable's type: a `Var`, or a `Func` of `.ksyms`.
    pub type_id: u32,
    /// The offset from the section's start. Compilers leave it 0, linkers fill it in.
    pub offset: u32,
    /// The size in bytes.
    pub size: u32,
}

macro_rules! named {
    ($($part:ident),*) => {$(
        impl<'a> $part<'a> {
            /// Returns the name, see [`Strings::name`].
            pub fn name(&self) -> &'a [u8] {
                self.strings.name(self.name_off)
            }

            /// Returns whether the name is this text.
            pub fn is_named(&self, name: &[u8]) -> bool {
                self.strings.is(self.name_off, name)
            }

            /// Returns the name for a message.
            pub fn text(&self) -> Cow<'a, str> {
                self.strings.text(self.name_off)
            }
        }
    )*};
}
named!(Member, Enumerator, Param);
