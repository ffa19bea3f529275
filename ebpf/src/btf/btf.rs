//! `Btf`: the types of a section, found by ID or one after the other.

use std::{borrow::Cow, ops::Range};

use super::{BtfError, Kind, Strings, Type};
use crate::bytes::word;

/// Bytes of the string section: libbpf's `BTF_MAX_STR_OFFSET`, and one.
const MAX_STRINGS: usize = 0x0800_0000;

/// Types in BTF.
#[derive(Clone, Debug)]
pub struct Btf<'a> {
    pub(super) types: &'a [u8],
    pub(super) strings: Strings<'a>,
    /// The offset in `types` of every `1 << shift`-th type, from type 1 on.
    pub(super) offsets: Cow<'a, [u32]>,
    pub(super) shift: u32,
    /// The number of types, `void` included.
    pub(super) len: u32,
    /// The size of a pointer.
    pub(super) pointer: u64,
    /// The version of the format, and flags.
    pub(super) version: [u8; 2],
}

impl<'a> Btf<'a> {
    /// Finds the types of a section, and shows the head of each. The offset of each `1 << shift`-th is kept.
    pub(super) fn split(data: &'a [u8], shift: u32, mut see: impl FnMut(u32, &[u8; 12])) -> Result<Self, BtfError> {
        let (types, strings) = parts(data)?;
        let [types, strings] = [types, strings].map(|part| data.get(part).unwrap_or_default());
        let mask = (1u32 << shift) - 1;
        // Most types take some twenty bytes and more.
        let mut offsets = Vec::with_capacity((types.len() / 20) >> shift);
        let (mut rest, mut len) = (types, 1u32);
        while let Some(head) = rest.first_chunk::<12>() {
            if (len - 1) & mask == 0 {
                let at = u32::try_from(types.len() - rest.len());
                offsets.push(at.map_err(|_| BtfError::Malformed("it is too large"))?);
            }
            see(len, head);
            rest = rest.get(size(head)..).filter(|after| after.len() < rest.len()).ok_or_else(|| fault(head, len))?;
            len += 1;
        }
        if !rest.is_empty() {
            return Err(BtfError::Type { id: len, what: "it is cut short" });
        }
        offsets.shrink_to_fit();
        let version = [2, 3].map(|at| data.get(at).copied().unwrap_or_default());
        Ok(Self { types, strings: Strings(strings), offsets: offsets.into(), shift, len, pointer: 8, version })
    }

    /// Returns the number of types, which is one more than the last ID: type 0 is `void` (`btf__type_cnt`).
    #[expect(clippy::len_without_is_empty, reason = "void is always there")]
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Returns the string section.
    pub const fn strings(&self) -> Strings<'a> {
        self.strings
    }

    /// Returns a type by its ID.
    pub fn get(&self, id: u32) -> Option<Type<'a>> {
        let Some(index) = id.checked_sub(1) else { return Some(Type::void()) };
        if id >= self.len {
            return None;
        }
        let mut at = *self.offsets.get((index >> self.shift) as usize)? as usize;
        for _ in (index >> self.shift << self.shift)..index {
            at += size(self.types.get(at..)?.first_chunk()?);
        }
        self.at(id, at)
    }

    /// Returns all types but `void`, in order.
    pub fn types(&self) -> impl Iterator<Item = Type<'a>> {
        let mut at = 0;
        (1..self.len).map_while(move |id| {
            let one = self.at(id, at)?;
            at += 12 + one.rest.len();
            Some(one)
        })
    }

    /// Returns the first type of that name and kind (`btf__find_by_name_kind`).
    pub fn find(&self, name: &[u8], kind: Kind) -> Option<Type<'a>> {
        self.types().find(|one| one.kind == kind && one.is_named(name))
    }

    /// Reads the type at an offset.
    fn at(&self, id: u32, at: usize) -> Option<Type<'a>> {
        let head: &[u8; 12] = self.types.get(at..)?.first_chunk()?;
        let [name_off, info, size_or_type] = [0, 4, 8].map(|at| word(head, at).unwrap_or_default());
        let kind = Kind::of(info).ok()?;
        let rest = self.types.get(at + 12..at + 12 + kind.tail((info & 0xffff) as usize))?;
        Some(Type { id, kind, name_off, info, size_or_type, at, rest, strings: self.strings })
    }
}

/// Returns the size of a type with all that follows it, 0 if its kind is not known.
fn size(head: &[u8; 12]) -> usize {
    Kind::size(info(head))
}

/// Returns the info word of a type.
pub(super) fn info(head: &[u8; 12]) -> u32 {
    word(head, 4).unwrap_or_default()
}

/// Returns why a type can't be read.
fn fault(head: &[u8; 12], id: u32) -> BtfError {
    match Kind::of(info(head)) {
        Ok(_) => BtfError::Type { id, what: "it is cut short" },
        Err(kind) => BtfError::Kind { id, kind },
    }
}

/// Returns where the types and the strings of a section are (`btf_parse_hdr`, `btf_parse_str_sec`).
pub(super) fn parts(data: &[u8]) -> Result<(Range<usize>, Range<usize>), BtfError> {
    if data.get(..2) != Some(&[0x9f, 0xeb]) {
        return Err(BtfError::Malformed("it does not begin with the magic of little-endian BTF"));
    }
    let field = |at| word(data, at).map(|word| word as usize).ok_or(BtfError::Malformed("its header is cut short"));
    let (header, type_off, type_len) = (field(4)?, field(8)?, field(12)?);
    let (string_off, string_len) = (field(16)?, field(20)?);
    let part = |offset: usize, len: usize| {
        let start = header.checked_add(offset)?;
        let end = start.checked_add(len).filter(|end| *end <= data.len())?;
        Some(start..end)
    };
    if header < 24 || type_off % 4 != 0 || type_off.saturating_add(type_len) > string_off {
        return Err(BtfError::Malformed("its parts are not laid out as they must be"));
    }
    let types = part(type_off, type_len).ok_or(BtfError::Malformed("its types lie outside the section"))?;
    let strings = part(string_off, string_len).ok_or(BtfError::Malformed("its strings lie outside the section"))?;
    let text = data.get(strings.clone()).unwrap_or_default();
    if text.first() != Some(&0) || text.last() != Some(&0) || text.len() > MAX_STRINGS {
        return Err(BtfError::Malformed("its strings do not begin and end with NUL"));
    }
    Ok((types, strings))
}
