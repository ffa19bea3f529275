//! `Ext`: the records of `.BTF.ext` about instructions: function and line information, and CO-RE relocations.
//!
//! The records are borrowed and not looked at until somebody asks for a section's. Longer records than known ones, and
//! parts that this version does not know, are accepted. What libbpf refuses (`btf_ext_parse`) is refused: libbpf then
//! goes on as if the object had no `.BTF.ext`.

use super::BtfError;
use crate::bytes::word;

/// The parts of `.BTF.ext`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ext<'a> {
    /// Function information ([`FuncInfo`]).
    pub func_info: Info<'a>,
    /// Line information ([`LineInfo`]).
    pub line_info: Info<'a>,
    /// CO-RE relocations ([`CoreRelo`]).
    pub core_relos: Info<'a>,
}

/// The records of one kind: for each section of the file, its name and its records.
#[derive(Clone, Copy, Debug, Default)]
pub struct Info<'a> {
    record_size: usize,
    data: &'a [u8],
}

/// The records about one section of the file.
#[derive(Clone, Copy, Debug)]
pub struct SectionInfo<'a> {
    /// The offset of the section's name in the strings of `.BTF`.
    pub name_off: u32,
    /// The size of a record in bytes.
    pub record_size: usize,
    /// The records.
    pub records: &'a [u8],
}

/// `struct bpf_func_info`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FuncInfo {
    /// The offset of the function in its section, in bytes.
    pub insn_off: u32,
    /// The function's type.
    pub type_id: u32,
}

/// `struct bpf_line_info`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineInfo {
    /// The offset of the instruction in its section, in bytes.
    pub insn_off: u32,
    /// The offset of the file's name in the strings.
    pub file_name_off: u32,
    /// The offset of the line's text in the strings.
    pub line_off: u32,
    /// The line's number times 1024, plus the column.
    pub line_col: u32,
}

impl LineInfo {
    /// Returns the number of the line (`BPF_LINE_INFO_LINE_NUM`).
    pub const fn line(&self) -> u32 {
        self.line_col >> 10
    }

    /// Returns the column (`BPF_LINE_INFO_LINE_COL`).
    pub const fn column(&self) -> u32 {
        self.line_col & 0x3ff
    }
}

/// `struct bpf_core_relo`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoreRelo {
    /// The offset of the instruction in its section, in bytes.
    pub insn_off: u32,
    /// The type that the access starts at.
    pub type_id: u32,
    /// The offset of the access path in the strings.
    pub access_str_off: u32,
    /// `enum bpf_core_relo_kind`
    pub kind: u32,
}

impl<'a> Ext<'a> {
    /// Reads a `.BTF.ext` section.
    pub fn parse(data: &'a [u8]) -> Result<Self, BtfError> {
        match data.get(..4) {
            Some([0x9f, 0xeb, 1, 0]) => {}
            _ => return Err(BtfError::Malformed(".BTF.ext does not begin with the magic of little-endian version 1")),
        }
        let short = BtfError::Malformed("the header of .BTF.ext is cut short");
        let header = word(data, 4).ok_or_else(|| short.clone())? as usize;
        if header < 24 || header >= data.len() {
            return Err(short);
        }
        let part = |at: usize, least: usize| -> Result<Info<'a>, BtfError> {
            let (offset, len) = (word(data, at).ok_or_else(|| short.clone())?, word(data, at + 4));
            Info::read(data, header, (offset as usize, len.ok_or_else(|| short.clone())? as usize), least)
        };
        let (func_info, line_info) = (part(8, 8)?, part(16, 16)?);
        let core_relos = if header < 32 { Info::default() } else { part(24, 16)? };
        Ok(Self { func_info, line_info, core_relos })
    }
}

impl<'a> Info<'a> {
    fn read(data: &'a [u8], header: usize, (offset, len): (usize, usize), least: usize) -> Result<Self, BtfError> {
        if len == 0 {
            return Ok(Self::default());
        }
        let start = header.checked_add(offset).filter(|_| offset.is_multiple_of(4));
        let part = start.and_then(|start| data.get(start..start.checked_add(len)?));
        let part = part.ok_or(BtfError::Malformed("a part of .BTF.ext lies outside the section"))?;
        let size = word(part, 0).ok_or(BtfError::Malformed("a part of .BTF.ext is cut short"))? as usize;
        if size < least || !size.is_multiple_of(4) {
            return Err(BtfError::Malformed(".BTF.ext has records of an impossible size"));
        }
        let info = Self { record_size: size, data: part.get(4..).unwrap_or_default() };
        let held: usize = info.sections().map(|section| 8 + section.records.len()).sum();
        if held == 0 || held != info.data.len() {
            return Err(BtfError::Malformed("a part of .BTF.ext is cut short, or a section in it has no records"));
        }
        Ok(info)
    }

    /// Returns whether there are no records.
    pub const fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Returns the size of a record in bytes, 0 if there are none.
    pub const fn record_size(&self) -> usize {
        self.record_size
    }

    /// Returns the records by section, in the order of the file. A section can be there several times.
    pub fn sections(&self) -> impl Iterator<Item = SectionInfo<'a>> + use<'a> {
        let (record_size, mut rest) = (self.record_size, self.data);
        std::iter::from_fn(move || {
            let (name_off, count) = (word(rest, 0)?, word(rest, 4)? as usize);
            let end = count.checked_mul(record_size)?.checked_add(8)?;
            let records = rest.get(8..end).filter(|records| !records.is_empty())?;
            rest = rest.get(end..)?;
            Some(SectionInfo { name_off, record_size, records })
        })
    }
}

impl<'a> SectionInfo<'a> {
    /// Returns the number of records.
    pub fn len(&self) -> usize {
        self.records.len().checked_div(self.record_size).unwrap_or_default()
    }

    /// Returns whether there are no records, which [`Ext::parse`] refuses.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the records as bytes.
    pub fn raw(&self) -> std::slice::ChunksExact<'a, u8> {
        self.records.chunks_exact(self.record_size.max(1))
    }

    /// Returns the records as function information.
    pub fn func_infos(&self) -> impl ExactSizeIterator<Item = FuncInfo> + use<'a> {
        self.raw().map(|record| FuncInfo { insn_off: at(record, 0), type_id: at(record, 4) })
    }

    /// Returns the records as line information.
    pub fn line_infos(&self) -> impl ExactSizeIterator<Item = LineInfo> + use<'a> {
        self.raw().map(|record| LineInfo {
            insn_off: at(record, 0),
            file_name_off: at(record, 4),
            line_off: at(record, 8),
            line_col: at(record, 12),
        })
    }

    /// Returns the records as CO-RE relocations.
    pub fn core_relos(&self) -> impl ExactSizeIterator<Item = CoreRelo> + use<'a> {
        self.raw().map(|record| CoreRelo {
            insn_off: at(record, 0),
            type_id: at(record, 4),
            access_str_off: at(record, 8),
            kind: at(record, 12),
        })
    }
}

fn at(record: &[u8], offset: usize) -> u32 {
    word(record, offset).unwrap_or_default()
}
