//! `Ext`: the records of `.BTF.ext` about instructions: function and line information, and CO-RE relocations.
//!
//! aya-obj copies all records of a section for each function in it, and searches all of the kernel's types for each
//! type in a relocation. So the number of records is bounded. They must be in order, as the kernel requires.

use std::collections::{BTreeMap, BTreeSet};

use super::{Btf, BtfError, word};
use crate::object::limits::{MAX_ACCESS_DEPTH, MAX_CORE_RELOCATIONS, MAX_CORE_TYPES, MAX_SECTIONS};

/// `BPF_CORE_TYPE_ID_LOCAL`, the kind of relocation that needs no type of the kernel's and so no type name.
const TYPE_ID_LOCAL: u32 = 6;
/// `BPF_CORE_ENUMVAL_VALUE`, the last kind of relocation that aya-obj knows.
const LAST_KIND: u32 = 11;

/// The facts from `.BTF.ext` that the rest of the reader needs.
#[derive(Debug, Default)]
pub(crate) struct Ext<'a> {
    /// True if there are CO-RE relocations.
    pub(crate) needs_kernel_btf: bool,
    /// The number of function and line records by ELF section.
    pub(crate) records: BTreeMap<&'a str, usize>,
}

type Result<T> = std::result::Result<T, BtfError>;

/// A part of `.BTF.ext`. [`Part::ALL`] has the place of its offset in the header and the minimum size of a record.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Functions,
    Lines,
    Relocations,
}

impl Part {
    const ALL: [(Self, usize, usize); 3] =
        [(Self::Functions, 8, 8), (Self::Lines, 16, 16), (Self::Relocations, 24, 16)];
}

impl<'a> Ext<'a> {
    /// Reads the section.
    pub(crate) fn parse(data: &[u8], btf: &Btf<'a>) -> Result<Self> {
        if data.get(..3) != Some(&[0x9f, 0xeb, 1]) {
            return Err(BtfError(".BTF.ext does not begin with the magic of little-endian version 1"));
        }
        let field = |at| word(data, at).map(|w| w as usize).ok_or(BtfError("the header of .BTF.ext is cut short"));
        let header = field(4)?;
        if header != 24 && header < 32 {
            return Err(BtfError("the header of .BTF.ext has a size that is not known"));
        }
        let mut ext = Self::default();
        for (part, at, least) in Part::ALL {
            if at >= header {
                continue;
            }
            let (offset, len) = (field(at)?, field(at + 4)?);
            let start = header.checked_add(offset).ok_or(BtfError(".BTF.ext lies outside the section"))?;
            let bytes = start.checked_add(len).and_then(|end| data.get(start..end));
            let bytes = bytes.ok_or(BtfError(".BTF.ext lies outside the section"))?;
            if len > 0 {
                ext.read(part, bytes, least, btf)?;
            }
        }
        Ok(ext)
    }

    /// Reads a part: the size of a record, then for each ELF section the offset of its name, the number of records, and
    /// the records.
    fn read(&mut self, part: Part, bytes: &[u8], least: usize, btf: &Btf<'a>) -> Result<()> {
        let short = BtfError("a part of .BTF.ext is cut short");
        let size = word(bytes, 0).ok_or(short.clone())? as usize;
        if size < least || size > 256 || !size.is_multiple_of(4) {
            return Err(BtfError(".BTF.ext has records of an impossible size"));
        }
        let mut rest = bytes.get(4..).unwrap_or_default();
        let mut sections = 0;
        let mut relocated = CoreRelocations::default();
        while !rest.is_empty() {
            let name = btf.name(word(rest, 0).ok_or(short.clone())?)?;
            let count = word(rest, 4).ok_or(short.clone())? as usize;
            let end = count.checked_mul(size).and_then(|len| len.checked_add(8)).ok_or(short.clone())?;
            let records = rest.get(8..end).ok_or(short.clone())?;
            rest = rest.get(end..).unwrap_or_default();
            sections += 1;
            if count == 0 || sections > MAX_SECTIONS {
                return Err(BtfError("a part of .BTF.ext has no records, or too many sections"));
            }
            match part {
                Part::Functions | Part::Lines => {
                    check_order(records, size)?;
                    *self.records.entry(name).or_default() += count;
                }
                Part::Relocations => relocated.add(records, size, btf)?,
            }
        }
        self.needs_kernel_btf |= part == Part::Relocations;
        Ok(())
    }
}

/// Checks that the records, each of which begins with an instruction's offset, are in ascending order.
fn check_order(records: &[u8], size: usize) -> Result<()> {
    let mut least = 0;
    for record in records.chunks_exact(size) {
        let at = word(record, 0).filter(|at| *at >= least && at % 8 == 0);
        least = at.and_then(|at| at.checked_add(8)).ok_or(BtfError("the records of .BTF.ext are not in order"))?;
    }
    Ok(())
}

/// The CO-RE relocations read so far (`struct bpf_core_relo`).
#[derive(Default)]
struct CoreRelocations {
    count: usize,
    types: BTreeSet<u32>,
}

impl CoreRelocations {
    fn add(&mut self, records: &[u8], size: usize, btf: &Btf<'_>) -> Result<()> {
        for record in records.chunks_exact(size) {
            let at = |i: usize| word(record, 4 * i).unwrap_or(u32::MAX);
            let (id, access, kind) = (at(1), btf.name(at(2))?, at(3));
            if kind > LAST_KIND {
                return Err(BtfError("a CO-RE relocation is of a kind that is not known"));
            }
            if access.split(':').count() > MAX_ACCESS_DEPTH {
                return Err(BtfError("a CO-RE relocation reaches too deep"));
            }
            let name = btf.name_of(id)?;
            if kind != TYPE_ID_LOCAL {
                // Three underscores begin a flavour suffix, which is not part of the kernel type's name.
                let nameless = name.split("___").next().is_none_or(str::is_empty);
                if nameless || !btf.is_found_by_name(id)? {
                    return Err(BtfError("a CO-RE relocation is of a type that has no name to find it by"));
                }
                self.types.insert(id);
            }
            self.count += 1;
            if self.count > MAX_CORE_RELOCATIONS || self.types.len() > MAX_CORE_TYPES {
                return Err(BtfError("there are too many CO-RE relocations"));
            }
        }
        Ok(())
    }
}
