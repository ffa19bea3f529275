//! `Btf`: the types in an object's `.BTF` (Documentation/bpf/btf.rst), as far as map definitions need them.
//! [`value_type`] has what is needed to encode values, [`ext`] the records of `.BTF.ext`.
//!
//! Every read is bounded by the section and every walk by a count, so damaged BTF gives an error, never a panic or an
//! endless loop. BTF that the kernel refuses, or that aya-obj fails on, is refused here.

pub(crate) mod ext;
pub(crate) mod value_type;

use std::{collections::BTreeMap, ffi::CStr};

use crate::object::limits::{MAX_LINKAGE, MAX_MAP_FIELDS, MAX_NAME, MAX_SECTIONS, MAX_TYPE_DEPTH, MAX_TYPES};

/// A fault in the BTF.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("BTF: {0}")]
pub struct BtfError(pub &'static str);

/// The types of an object.
#[derive(Debug)]
pub struct Btf<'a> {
    strings: &'a [u8],
    /// The type with ID n is at index n - 1; type 0 is void.
    types: Vec<Type<'a>>,
}

/// A type (`struct btf_type`) with the data that follows it.
#[derive(Clone, Copy, Debug)]
struct Type<'a> {
    name: u32,
    kind: u8,
    /// For an enum: its values are signed. For a struct: it has bit fields.
    flag: bool,
    vlen: usize,
    /// `size` or `type`, depending on the kind.
    size_or_type: u32,
    /// The offset in the section of the data that follows.
    at: usize,
    rest: &'a [u8],
}

/// A field of a map's definition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'a> {
    pub(crate) name: &'a str,
    pub(crate) type_id: u32,
    /// The offset from the definition's start, in bytes.
    pub(crate) offset: u32,
    /// The offset in the section of the word that refers to the field's name.
    pub(crate) named_at: usize,
}

const KIND_INT: u8 = 1;
const KIND_PTR: u8 = 2;
const KIND_ARRAY: u8 = 3;
const KIND_STRUCT: u8 = 4;
const KIND_UNION: u8 = 5;
const KIND_ENUM: u8 = 6;
const KIND_FWD: u8 = 7;
const KIND_TYPEDEF: u8 = 8;
const KIND_FUNC_PROTO: u8 = 13;
const KIND_VAR: u8 = 14;
const KIND_DATASEC: u8 = 15;
const KIND_FLOAT: u8 = 16;
const KIND_DECL_TAG: u8 = 17;
const KIND_ENUM64: u8 = 19;
/// The kinds typedef, volatile, const, restrict and type tag, which stand for the type that they refer to.
const TRANSPARENT: [u8; 5] = [KIND_TYPEDEF, 9, 10, 11, 18];

type Result<T> = std::result::Result<T, BtfError>;

/// Reads a little-endian word at an offset.
pub(crate) fn word(data: &[u8], at: usize) -> Option<u32> {
    let end = at.checked_add(4)?;
    data.get(at..end)?.try_into().ok().map(u32::from_le_bytes)
}

impl<'a> Btf<'a> {
    /// Reads a `.BTF` section.
    pub fn parse(data: &'a [u8]) -> Result<Self> {
        let field = |at| word(data, at).map(|w| w as usize).ok_or(BtfError("its header is cut short"));
        if data.get(..3) != Some(&[0x9f, 0xeb, 1]) {
            return Err(BtfError("it does not begin with the magic of little-endian version 1"));
        }
        let header = field(4)?;
        let part = |offset: usize, len: usize| {
            let start = header.checked_add(offset)?;
            data.get(start..start.checked_add(len)?)
        };
        let type_start = field(8)?;
        let types = part(type_start, field(12)?).ok_or(BtfError("its types lie outside the section"))?;
        let strings = part(field(16)?, field(20)?).ok_or(BtfError("its strings lie outside the section"))?;
        if header < 24 || strings.first() != Some(&0) || strings.last() != Some(&0) {
            return Err(BtfError("its strings do not begin and end with NUL"));
        }
        // Most types have a header of twelve bytes and some data after it.
        let mut btf = Self { strings, types: Vec::with_capacity((types.len() / 16).min(MAX_TYPES)) };
        let mut rest = types;
        while !rest.is_empty() {
            let (mut one, after) = Type::split(rest)?;
            one.at = header + type_start + (types.len() - rest.len()) + 12;
            if btf.types.len() >= MAX_TYPES {
                return Err(BtfError("it has too many types"));
            }
            btf.check(&one)?;
            btf.types.push(one);
            rest = after;
        }
        if btf.types.iter().filter(|t| t.kind == KIND_DATASEC).count() > MAX_SECTIONS {
            return Err(BtfError("it has too many data sections"));
        }
        Ok(btf)
    }

    /// Checks a type without looking at others.
    fn check(&self, one: &Type<'a>) -> Result<()> {
        self.name(one.name)?;
        let stride = match one.kind {
            KIND_STRUCT | KIND_UNION | KIND_ENUM64 => 12,
            KIND_ENUM | KIND_FUNC_PROTO => 8,
            KIND_VAR if word(one.rest, 0).is_none_or(|linkage| linkage > MAX_LINKAGE) => {
                return Err(BtfError("a variable has a linkage that is not known"));
            }
            _ => return Ok(()),
        };
        for part in one.rest.chunks_exact(stride) {
            self.name(word(part, 0).unwrap_or(u32::MAX))?;
        }
        Ok(())
    }

    /// Returns the variables of a data section, at most `most`, by name with their type IDs.
    pub fn variables(&self, section: &str, most: usize) -> Result<BTreeMap<&'a str, u32>> {
        let mut found = BTreeMap::new();
        let mut left = most;
        for datasec in self.types.iter().filter(|t| t.kind == KIND_DATASEC) {
            if self.name(datasec.name)? != section {
                continue;
            }
            left = left.checked_sub(datasec.vlen).ok_or(BtfError("a data section has too many variables"))?;
            for entry in datasec.rest.chunks_exact(12) {
                let id = word(entry, 0).ok_or(BtfError("a data section is cut short"))?;
                let var = self.get(id)?;
                if var.kind != KIND_VAR {
                    return Err(BtfError("a data section holds something else than a variable"));
                }
                found.insert(self.name(var.name)?, var.size_or_type);
            }
        }
        Ok(found)
    }

    /// Returns the fields of a map's definition, in order.
    pub(crate) fn fields(&self, id: u32) -> Result<Vec<Field<'a>>> {
        let composite = self.resolve(id)?;
        if composite.kind != KIND_STRUCT {
            return Err(BtfError("a map's definition is no struct"));
        }
        if composite.vlen > MAX_MAP_FIELDS {
            return Err(BtfError("a map's definition has too many fields"));
        }
        let field = |(i, m): (usize, &'a [u8])| {
            let at = |at| word(m, at).ok_or(BtfError("a struct is cut short"));
            let named_at = composite.at + 12 * i;
            Ok(Field { name: self.name(at(0)?)?, type_id: at(4)?, offset: at(8)? / 8, named_at })
        };
        composite.rest.chunks_exact(12).enumerate().map(field).collect()
    }

    /// Reads a number that libbpf's `__uint` declares: the length of an array that the type points to.
    pub fn uint(&self, id: u32) -> Result<u32> {
        let pointed = self.pointed(id)?;
        let array = self.resolve(pointed)?;
        match array.kind {
            KIND_ARRAY => word(array.rest, 8).ok_or(BtfError("an array is cut short")),
            _ => Err(BtfError("a map's field is not written with __uint")),
        }
    }

    /// Returns the type that a pointer points to.
    pub fn pointed(&self, id: u32) -> Result<u32> {
        let pointer = self.resolve(id)?;
        if pointer.kind == KIND_PTR { Ok(pointer.size_or_type) } else { Err(BtfError("a map's field is no pointer")) }
    }

    /// Returns the element type of an array.
    pub fn element(&self, id: u32) -> Result<u32> {
        let array = self.resolve(id)?;
        match array.kind {
            KIND_ARRAY => word(array.rest, 0).ok_or(BtfError("an array is cut short")),
            _ => Err(BtfError("a map's inner definition is not written with __array")),
        }
    }

    /// Returns the size of a type in bytes.
    pub fn size(&self, id: u32) -> Result<u32> {
        let mut count = 1u64;
        let mut id = id;
        for _ in 0..MAX_TYPE_DEPTH {
            let one = self.resolve(id)?;
            let size = match one.kind {
                KIND_INT | KIND_STRUCT | KIND_UNION | KIND_ENUM | KIND_ENUM64 | KIND_FLOAT => {
                    u64::from(one.size_or_type)
                }
                KIND_PTR => 8,
                KIND_ARRAY => {
                    let short = BtfError("an array is cut short");
                    count = count.saturating_mul(u64::from(word(one.rest, 8).ok_or(short.clone())?));
                    id = word(one.rest, 0).ok_or(short)?;
                    continue;
                }
                _ => return Err(BtfError("a key or value has a type without size")),
            };
            return u32::try_from(count.saturating_mul(size)).map_err(|_| BtfError("a key or value is too large"));
        }
        Err(BtfError("arrays are nested too deep"))
    }

    fn get(&self, id: u32) -> Result<Type<'a>> {
        let index = usize::try_from(id).ok().and_then(|id| id.checked_sub(1));
        index.and_then(|i| self.types.get(i)).copied().ok_or(BtfError("a type is referred to that is not there"))
    }

    fn resolve(&self, mut id: u32) -> Result<Type<'a>> {
        for _ in 0..MAX_TYPE_DEPTH {
            let one = self.get(id)?;
            if !TRANSPARENT.contains(&one.kind) {
                return Ok(one);
            }
            id = one.size_or_type;
        }
        Err(BtfError("types refer to each other too deep"))
    }

    /// Returns the name of a type.
    pub(crate) fn name_of(&self, id: u32) -> Result<&'a str> {
        self.get(id).and_then(|one| self.name(one.name))
    }

    /// Returns whether a type is of a kind that names tell apart. A kernel has tens of thousands of types of each other
    /// kind.
    pub(crate) fn is_found_by_name(&self, id: u32) -> Result<bool> {
        let named = [KIND_INT, KIND_STRUCT, KIND_UNION, KIND_ENUM, KIND_FWD, KIND_TYPEDEF, KIND_ENUM64];
        Ok(named.contains(&self.get(id)?.kind))
    }

    /// Returns the name at an offset in the strings.
    pub(crate) fn name(&self, offset: u32) -> Result<&'a str> {
        let tail = self.strings.get(offset as usize..).ok_or(BtfError("a name lies outside the strings"))?;
        let head = tail.get(..=MAX_NAME).unwrap_or(tail);
        let name = CStr::from_bytes_until_nul(head).map_err(|_| BtfError("a name is longer than 512 bytes"))?;
        name.to_str().map_err(|_| BtfError("a name is not UTF-8"))
    }
}

impl<'a> Type<'a> {
    /// Splits off the first type.
    fn split(data: &'a [u8]) -> Result<(Self, &'a [u8])> {
        let short = || BtfError("a type is cut short");
        let info = word(data, 4).ok_or_else(short)?;
        let (kind, vlen) = ((info >> 24 & 0x1f) as u8, (info & 0xffff) as usize);
        let follows = match kind {
            KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
            KIND_ARRAY => 12,
            KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => 12 * vlen,
            KIND_ENUM | KIND_FUNC_PROTO => 8 * vlen,
            KIND_PTR | KIND_FWD..=12 | KIND_FLOAT | 18 => 0,
            _ => return Err(BtfError("it has a kind of type that is not known")),
        };
        let rest = data.get(12..12 + follows).ok_or_else(short)?;
        let one = Self {
            name: word(data, 0).ok_or_else(short)?,
            kind,
            flag: info >> 31 == 1,
            vlen,
            at: 0,
            size_or_type: word(data, 8).ok_or_else(short)?,
            rest,
        };
        Ok((one, data.get(12 + follows..).unwrap_or_default()))
    }
}
