//! `Functions`: the functions of an object, each known by its section and its offset there.
//!
//! Two functions can begin at one offset of different sections, so no address alone names one. A damaged function is
//! an error of whoever runs or calls it.

use std::collections::BTreeMap;

use crate::{
    bytes::word,
    object::image::{Image, Relocation, SymbolKind, Visibility},
};

/// The size of an instruction in bytes.
pub(crate) const INSTRUCTION: usize = 8;

/// The beginning of the call of a helper: `BPF_JMP | BPF_CALL`, and no source register.
const CALL_HELPER: [u8; 2] = [0x85, 0];

/// A function.
#[derive(Clone, Debug)]
pub(crate) struct Function<'a> {
    pub(crate) name: &'a str,
    /// The index of the section.
    pub(crate) section: usize,
    /// The name of the section without the `?` that keeps libbpf from loading the program by itself.
    pub(crate) section_name: &'a str,
    /// The offset in the section, in bytes.
    pub(crate) start: usize,
    /// True if other files see the function.
    pub(crate) is_global: bool,
    /// True if the function is `__hidden`: libbpf makes the BTF of such a subprogram static.
    pub(crate) is_hidden: bool,
    code: Result<&'a [u8], &'static str>,
}

impl<'a> Function<'a> {
    /// Returns the instructions, or the description of the fault that the function has.
    pub(crate) fn code(&self) -> Result<&'a [u8], &'static str> {
        self.code
    }

    /// Returns whether the kernel can run the function as a program: other files see it, and its section is none of
    /// subprograms.
    pub(crate) fn is_program(&self) -> bool {
        self.is_global && !is_text(self.section_name)
    }

    /// Lists the helpers that the function itself calls (`enum bpf_func_id`).
    pub(crate) fn helpers(&self) -> impl Iterator<Item = i32> {
        let instructions = self.code.unwrap_or_default().chunks_exact(INSTRUCTION);
        let calls = instructions.filter(|code| code.starts_with(&CALL_HELPER));
        calls.filter_map(|code| Some(word(code, 4)?.cast_signed()))
    }

    fn end(&self) -> usize {
        self.start + self.code.map_or(0, <[u8]>::len)
    }
}

/// Marks functions that lie over others as damaged. Several names of one function are not. So all functions together
/// have no more instructions than the file, but for such names.
fn refuse_overlaps(all: &mut [Function<'_>]) {
    let (mut section, mut start, mut end) = (0, 0, 0);
    for function in all {
        let is_other = function.section != section || function.start >= end;
        if function.code.is_err() {
            continue;
        }
        if is_other {
            (section, start, end) = (function.section, function.start, function.end());
        } else if (function.start, function.end()) != (start, end) {
            function.code = Err("it lies over another function");
        }
    }
}

/// Returns whether a section holds subprograms only: compilers put there what is in no section by the source.
fn is_text(section: &str) -> bool {
    section == ".text" || section.starts_with(".text.")
}

/// The functions of an object.
#[derive(Clone, Debug)]
pub(crate) struct Functions<'a> {
    /// All functions, ordered by section and offset.
    all: Vec<Function<'a>>,
    /// The relocations of each section with functions, ordered by offset.
    relocations: BTreeMap<usize, Vec<Relocation>>,
}

impl<'a> Functions<'a> {
    /// Finds the functions.
    pub(crate) fn read(image: &Image<'a>) -> Self {
        let mut all = Vec::new();
        for symbol in image.symbols().filter(|symbol| symbol.kind == SymbolKind::Function) {
            let Some(section) = symbol.section().and_then(|index| image.section(index)) else { continue };
            if !section.is_code() {
                continue;
            }
            let start = usize::try_from(symbol.offset).unwrap_or(usize::MAX);
            let end = usize::try_from(symbol.size).ok().and_then(|size| start.checked_add(size));
            let data = section.data().unwrap_or_default();
            let code = end.and_then(|end| data.get(start..end)).ok_or("it lies outside its section");
            let whole = |code: &&[u8]| {
                !code.is_empty() && code.len().is_multiple_of(INSTRUCTION) && start.is_multiple_of(INSTRUCTION)
            };
            all.push(Function {
                name: symbol.name(),
                section: section.index,
                section_name: section.name.strip_prefix('?').unwrap_or(section.name),
                start,
                is_global: symbol.is_global(),
                is_hidden: symbol.is_global() && symbol.visibility == Visibility::Hidden,
                code: code.and_then(|code| Some(code).filter(whole).ok_or("its instructions are not whole")),
            });
        }
        // Of two names of one function, lookups by place find the global one.
        all.sort_by(|a, b| (a.section, a.start, a.is_global, a.name).cmp(&(b.section, b.start, b.is_global, b.name)));
        refuse_overlaps(&mut all);
        let mut relocations = BTreeMap::new();
        for function in &all {
            relocations.entry(function.section).or_insert_with(|| {
                let mut of_section: Vec<Relocation> = image.relocations(function.section).collect();
                of_section.sort_by_key(|relocation| relocation.offset);
                of_section
            });
        }
        Self { all, relocations }
    }

    /// Returns all functions, ordered by section and offset.
    pub(crate) fn all(&self) -> &[Function<'a>] {
        &self.all
    }

    /// Returns a function.
    pub(crate) fn get(&self, index: usize) -> Option<&Function<'a>> {
        self.all.get(index)
    }

    /// Returns the index of the program of a name.
    pub(crate) fn program(&self, name: &str) -> Option<usize> {
        self.all.iter().position(|function| function.name == name && function.is_program())
    }

    /// Returns the index of the function that an instruction is in: libbpf's `find_prog_by_sec_insn`.
    pub(crate) fn at(&self, section: usize, offset: usize) -> Option<usize> {
        let after = self.all.partition_point(|function| (function.section, function.start) <= (section, offset));
        let index = after.checked_sub(1)?;
        let function = self.all.get(index)?;
        (function.section == section && offset < function.end()).then_some(index)
    }

    /// Returns the relocations in a function, ordered by offset.
    pub(crate) fn relocations(&self, function: &Function<'_>) -> &[Relocation] {
        let all = self.relocations.get(&function.section).map(Vec::as_slice).unwrap_or_default();
        let before = |offset: usize| all.partition_point(|relocation| relocation.offset < offset as u64);
        all.get(before(function.start)..before(function.end())).unwrap_or_default()
    }
}
