//! `RecordIndex`: the records about instructions in `.BTF.ext`, moved to where the instructions of a linked program are
//! (libbpf's `reloc_prog_func_and_line_info`).

use std::collections::BTreeMap;

use super::{Features, LinkError, Records, code::Linked};
use crate::{
    btf::ext::{Info, SectionInfo},
    bytes::word,
    object::{
        Object,
        functions::{Function, INSTRUCTION},
    },
};

/// The records by section.
#[derive(Default)]
pub(super) struct RecordIndex<'a> {
    functions: BTreeMap<usize, Block<'a>>,
    lines: BTreeMap<usize, Block<'a>>,
}

/// The records about a section.
struct Block<'a> {
    info: SectionInfo<'a>,
    is_sorted: bool,
}

impl<'a> RecordIndex<'a> {
    /// Indexes the records of an object, if the kernel takes them.
    pub(super) fn of(object: &Object<'a>, features: Features) -> Self {
        if !features.btf || !features.btf_kinds.func || object.btf().is_none() {
            return Self::default();
        }
        Self { functions: blocks(object, object.ext.func_info), lines: blocks(object, object.ext.line_info) }
    }

    /// Returns the function and line records of a linked program.
    ///
    /// The kernel wants a function record of each function or none at all. libbpf refuses a program if a function that
    /// it calls has none; here the program then has none.
    pub(super) fn of_program(
        &self,
        object: &Object<'a>,
        linked: &Linked<'_>,
        notes: &mut Vec<String>,
    ) -> Result<(Records, Records), LinkError> {
        let mut functions = collect(&self.functions, object, linked)?;
        let mut lines = collect(&self.lines, object, linked)?;
        for (records, what) in [(&mut functions, "function"), (&mut lines, "line")] {
            let Err(without) = records else { continue };
            if let Some(without) = without {
                let program = linked.parts.first().and_then(|(index, _)| object.functions.get(*index));
                notes.push(format!(
                    "program {} is loaded without {what} information: function {without} has none (compile with -g)",
                    program.map(|function| function.name).unwrap_or_default()
                ));
            }
            *records = Ok(Records::default());
        }
        Ok((functions.unwrap_or_default(), lines.unwrap_or_default()))
    }
}

/// Returns a note if the object's types or records can't be read, and it is loaded without, as libbpf does.
pub(super) fn unread(object: &Object<'_>) -> Option<String> {
    match (object.btf_fault(), object.ext_fault()) {
        (None, None) => None,
        (None, Some(fault)) => Some(format!("CO-RE relocations, functions and lines are not known: {fault}")),
        (Some(fault), None) => Some(format!("types are not known: {fault}")),
        (Some(fault), Some(_)) => Some(format!("types, CO-RE relocations, functions and lines are not known: {fault}")),
    }
}

/// Returns the first records of each section, as libbpf looks at no others.
fn blocks<'a>(object: &Object<'a>, info: Info<'a>) -> BTreeMap<usize, Block<'a>> {
    let mut blocks = BTreeMap::new();
    let Some(btf) = object.btf() else { return blocks };
    for info in info.sections() {
        let name = str::from_utf8(btf.strings().name(info.name_off)).unwrap_or_default();
        let Some(section) = object.image.section_named(name) else { continue };
        blocks.entry(section.index).or_insert_with(|| Block { info, is_sorted: info.raw().is_sorted_by_key(offset) });
    }
    blocks
}

fn offset(record: &[u8]) -> u32 {
    word(record, 0).unwrap_or_default()
}

/// Collects the records of all parts of a program. `Err` has the name of a part without records, or None if the program
/// itself has none.
fn collect(
    blocks: &BTreeMap<usize, Block<'_>>,
    object: &Object<'_>,
    linked: &Linked<'_>,
) -> Result<Result<Records, Option<String>>, LinkError> {
    let mut records = Records::default();
    for (i, (index, base)) in linked.parts.iter().enumerate() {
        let Some(function) = object.functions.get(*index) else { continue };
        let found = blocks.get(&function.section).map(|block| block.of(function)).transpose()?.flatten();
        let Some(found) = found else {
            return Ok(Err((i > 0).then(|| function.name.to_owned())));
        };
        let size = blocks.get(&function.section).map_or(0, |block| block.info.record_size);
        if i == 0 {
            records.size = size;
        }
        for record in found.chunks_exact(size.max(1)) {
            let at = offset(record) as usize / INSTRUCTION - function.start / INSTRUCTION + base;
            records.bytes.extend(u32::try_from(at).unwrap_or(u32::MAX).to_le_bytes());
            records.bytes.extend_from_slice(record.get(4..).unwrap_or_default());
        }
    }
    Ok(Ok(records))
}

impl<'a> Block<'a> {
    /// Returns the records about a function; None if there are none.
    fn of(&self, function: &Function<'_>) -> Result<Option<&'a [u8]>, LinkError> {
        if !self.is_sorted {
            let what = "the records about its section in .BTF.ext are not in order";
            return Err(LinkError::Info { function: function.name.to_owned(), what });
        }
        let size = self.info.record_size;
        let count = self.info.len();
        let before = |end: usize| {
            let at = |i: usize| self.info.records.get(i * size..).map_or(u32::MAX, offset) as usize;
            // The records are searched by their indices, as there is no slice of them.
            let (mut low, mut high) = (0, count);
            while low < high {
                let middle = low + (high - low) / 2;
                if at(middle) < end { low = middle + 1 } else { high = middle }
            }
            low
        };
        let end = function.start + function.code().map_or(0, <[u8]>::len);
        let found = self.info.records.get(before(function.start) * size..before(end) * size);
        Ok(found.filter(|found| !found.is_empty()))
    }
}
