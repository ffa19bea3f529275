//! `Btf`: types in BPF Type Format (Documentation/bpf/btf.rst), an object's or the kernel's, borrowed from their bytes.
//! No IO.
//!
//! [`Btf::parse`] refuses what libbpf refuses (`btf_new`) and nothing more. Everything after it is bounded for every
//! input: an access outside a section gives nothing, a walk from type to type ends after a fixed number of steps.
//!
//! | module | noun |
//! |---|---|
//! | `kind`, `types` | a type and its parts |
//! | `resolve` | a type without modifiers, its size and alignment |
//! | [`kernel`] | the kernel's types by name |
//! | [`fit`](mod@fit) | an object's types made fit for a kernel |
//! | [`ext`] | the records in `.BTF.ext` |
//! | `value_type` | types as the encoder of values needs them |

mod error;
pub mod ext;
pub mod fit;
pub mod kernel;
mod kind;
mod names;
mod resolve;
mod types;
mod validate;
pub(crate) mod value_type;

use std::{borrow::Cow, ops::Range};

pub use self::{
    error::BtfError,
    ext::Ext,
    kernel::KernelBtf,
    kind::Kind,
    types::{Array, Enumerator, Int, Member, Param, SectionVar, Strings, Type},
};

/// The longest name that the kernel takes, in bytes (`KSYM_NAME_LEN`).
pub const MAX_NAME: usize = 512;
/// Bytes of the string section: libbpf's `BTF_MAX_STR_OFFSET`, and one.
const MAX_STRINGS: usize = 0x0800_0000;

/// Types in BTF.
#[derive(Clone, Debug)]
pub struct Btf<'a> {
    types: &'a [u8],
    strings: Strings<'a>,
    /// The offset in `types` of every `1 << shift`-th type, from type 1 on.
    offsets: Cow<'a, [u32]>,
    shift: u32,
    /// The number of types, `void` included.
    len: u32,
    /// The size of a pointer.
    pointer: u64,
    /// The version of the format, and flags.
    version: [u8; 2],
}

/// Reads a little-endian word at an offset.
pub(crate) fn word(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

impl<'a> Btf<'a> {
    /// Reads a `.BTF` section.
    pub fn parse(data: &'a [u8]) -> Result<Self, BtfError> {
        let btf = Self::split(data, 0, |_, _| ())?;
        validate::validate(&btf)?;
        Ok(btf)
    }

    /// Finds the types of a section, and shows the head of each. The offset of each `1 << shift`-th is kept.
    fn split(data: &'a [u8], shift: u32, mut see: impl FnMut(u32, &[u8; 12])) -> Result<Self, BtfError> {
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
fn info(head: &[u8; 12]) -> u32 {
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
fn parts(data: &[u8]) -> Result<(Range<usize>, Range<usize>), BtfError> {
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
