//! `Object`: an ELF object for BPF as its bytes alone tell it: programs, maps, which uses which, licence.
//!
//! Bounds come first, and every access is checked: the bytes may be anyone's. No IO, no panic.

use std::collections::{BTreeMap, BTreeSet};

use object::{
    LittleEndian, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionIndex, SectionKind,
    SymbolKind, elf::EM_BPF, read::elf::FileHeader as _,
};
use sockeye_crds::{
    ObjectInfo, ProgramInfo,
    names::{MAX_OBJECT_BYTES, is_pin_name, pin_name},
};

use crate::{
    btf::{self, Btf, BtfError, word},
    elf::{Elf, ObjectError, at_most, section_data},
    maps::{self, Map},
    section,
};

/// So many programs are more than any object has.
const MAX_PROGRAMS: usize = 64;
/// So many maps are more than any object has (a program can use 64).
const MAX_MAPS: usize = 128;
const MAX_SECTIONS: usize = 4096;
const MAX_SYMBOLS: usize = 65_536;

/// What an object holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    info: ObjectInfo,
    /// Maps that the ELF asks to have pinned by their names, which sockeye does not do.
    pub pin_requests: Vec<String>,
    /// Whether it needs the running kernel's BTF to be relocated.
    pub needs_kernel_btf: bool,
}

impl Object {
    /// Reads it.
    pub fn read(bytes: &[u8]) -> Result<Self, ObjectError> {
        if bytes.len() > MAX_OBJECT_BYTES {
            return Err(ObjectError::TooLarge(bytes.len()));
        }
        let elf = Elf::parse(bytes).map_err(ObjectError::elf)?;
        let machine = elf.elf_header().e_machine(LittleEndian);
        if machine != EM_BPF {
            return Err(ObjectError::Machine(machine.0));
        }
        at_most("sections", elf.sections().count(), MAX_SECTIONS)?;
        at_most("symbols", elf.symbols().count(), MAX_SYMBOLS)?;

        let btf = section_data(&elf, ".BTF")?.map(Btf::parse).transpose()?;
        let needs_kernel_btf = match section_data(&elf, ".BTF.ext")? {
            Some(_) if btf.is_none() => return Err(BtfError("there is .BTF.ext without .BTF").into()),
            Some(ext) => btf::check_ext(ext)?,
            None => false,
        };
        let mut maps = maps::read(&elf, btf.as_ref())?;
        at_most("maps", maps.len(), MAX_MAPS)?;
        let functions = Functions::read(&elf)?;
        let mut programs = Vec::new();
        for function in functions.by_place.values().filter(|f| !f.is_text) {
            programs.push(ProgramInfo {
                name: function.name.to_owned(),
                section: function.section_name.to_owned(),
                program_type: section::find(function.section_name).map(|row| row.program_type),
            });
            for index in functions.uses(&elf, function, &maps)? {
                if let Some(map) = maps.get_mut(index) {
                    map.info.used_by.push(function.name.to_owned());
                }
            }
        }
        at_most("programs", programs.len(), MAX_PROGRAMS)?;
        programs.sort_by(|a, b| a.name.cmp(&b.name));
        check_names(&programs, &maps)?;
        maps.iter_mut().for_each(|map| map.info.used_by.sort());
        Ok(Self {
            pin_requests: maps.iter().filter(|m| m.asks_to_be_pinned).map(|m| m.info.name.clone()).collect(),
            needs_kernel_btf,
            info: ObjectInfo {
                programs,
                maps: maps.into_iter().map(|map| map.info).collect(),
                license: license(&elf)?,
                btf: btf.is_some(),
            },
        })
    }

    /// What it holds, as statuses show it.
    pub const fn info(&self) -> &ObjectInfo {
        &self.info
    }

    /// What it holds, as statuses show it.
    pub fn into_info(self) -> ObjectInfo {
        self.info
    }
}

/// The licence, as libbpf and aya take it: the "license" section up to its NUL; GPL where there is none.
fn license(elf: &Elf<'_>) -> Result<String, ObjectError> {
    let Some(data) = section_data(elf, "license")? else { return Ok("GPL".to_owned()) };
    let text = data.split(|&b| b == 0).next().unwrap_or_default();
    let clean = std::str::from_utf8(text).is_ok_and(|t| t.len() <= 128 && !t.chars().any(char::is_control));
    if !clean || data.last() != Some(&0) {
        return Err(ObjectError::Elf("its license section holds no NUL-terminated line".to_owned()));
    }
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// Every name that reaches a path must be one that can be pinned, and no two may meet in one pin.
fn check_names(programs: &[ProgramInfo], maps: &[Map]) -> Result<(), ObjectError> {
    let mut pins = BTreeSet::new();
    for map in maps {
        let name = &map.info.name;
        if !is_pin_name(&pin_name(name)) {
            return Err(ObjectError::Name(name.clone()));
        }
        if !pins.insert(pin_name(name)) {
            return Err(ObjectError::Map { name: name.clone(), what: "another map is pinned under the same name" });
        }
    }
    let mut seen = BTreeSet::new();
    for program in programs {
        if !is_pin_name(&program.name) {
            return Err(ObjectError::Name(program.name.clone()));
        }
        if !seen.insert(&program.name) {
            return Err(ObjectError::Function { name: program.name.clone(), what: "the object has two of that name" });
        }
    }
    Ok(())
}

/// Where a function is: its section and its address there.
type Place = (usize, u64);

struct Function<'a> {
    name: &'a str,
    section_name: &'a str,
    section: SectionIndex,
    address: u64,
    is_text: bool,
    code: &'a [u8],
}

/// The functions of an object: programs, and subprograms in `.text`.
struct Functions<'a> {
    by_place: BTreeMap<Place, Function<'a>>,
    /// Relocations by section and offset: the symbol they name.
    relocations: BTreeMap<Place, object::SymbolIndex>,
}

impl<'a> Functions<'a> {
    fn read(elf: &Elf<'a>) -> Result<Self, ObjectError> {
        let mut functions = Self { by_place: BTreeMap::new(), relocations: BTreeMap::new() };
        let mut code = BTreeMap::new();
        for section in elf.sections().filter(|section| section.kind() == SectionKind::Text && section.size() > 0) {
            let name = section.name().map_err(ObjectError::elf)?;
            code.insert(section.index().0, (name, section.data().map_err(ObjectError::elf)?));
            for (offset, relocation) in section.relocations() {
                if let RelocationTarget::Symbol(symbol) = relocation.target() {
                    functions.relocations.insert((section.index().0, offset), symbol);
                }
            }
        }
        for symbol in elf.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text) {
            let Some((section, (section_name, data))) =
                symbol.section_index().and_then(|i| code.get(&i.0).map(|c| (i, c)))
            else {
                continue;
            };
            let name = symbol.name().map_err(ObjectError::elf)?;
            let bad = |what| ObjectError::Function { name: name.to_owned(), what };
            let start = usize::try_from(symbol.address()).map_err(|_| bad("it lies outside its section"))?;
            let end = usize::try_from(symbol.size()).ok().and_then(|size| start.checked_add(size));
            let code = end.and_then(|end| data.get(start..end)).ok_or_else(|| bad("it lies outside its section"))?;
            if code.is_empty() || code.len() % 8 != 0 || start % 8 != 0 {
                return Err(bad("its instructions are not whole"));
            }
            let is_text = section_name.starts_with(".text");
            let function = Function { name, section_name, section, address: symbol.address(), is_text, code };
            functions.by_place.insert((section.0, symbol.address()), function);
        }
        Ok(functions)
    }

    /// The maps that a program's instructions name, its subprograms' with it, as indices into `maps`.
    fn uses(&self, elf: &Elf<'_>, program: &Function<'_>, maps: &[Map]) -> Result<BTreeSet<usize>, ObjectError> {
        let mut used = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut open = vec![(program.section.0, program.address)];
        while let Some(place) = open.pop() {
            let Some(function) = self.by_place.get(&place).filter(|_| seen.insert(place)) else { continue };
            for (i, instruction) in function.code.chunks_exact(8).enumerate() {
                let offset = function.address + 8 * i as u64;
                let immediate = word(instruction, 4).unwrap_or_default().cast_signed();
                let is_call =
                    instruction.first() == Some(&0x85) && instruction.get(1).is_some_and(|regs| regs >> 4 == 1);
                let Some(symbol) = self.relocations.get(&(function.section.0, offset)) else {
                    if is_call {
                        open.extend(relative(offset, immediate).map(|to| (function.section.0, to)));
                    }
                    continue;
                };
                let symbol = elf.symbol_by_index(*symbol).map_err(ObjectError::elf)?;
                let Some(section) = symbol.section_index() else { continue };
                let matches = |map: &Map| map.section == section && map.address.is_none_or(|a| a == symbol.address());
                used.extend(maps.iter().enumerate().filter(|(_, map)| matches(map)).map(|(index, _)| index));
                // A call names the section and holds the distance, or names the function; so does a callback's address.
                let to_section = symbol.kind() == SymbolKind::Section;
                let base = if to_section && is_call { relative(0, immediate) } else { Some(symbol.address()) };
                open.extend(base.map(|to| (section.0, to)));
                if to_section && !is_call {
                    open.extend(u64::try_from(immediate).ok().map(|to| (section.0, to)));
                }
            }
        }
        Ok(used)
    }
}

/// Where a call goes: as many instructions on from the next one as its immediate says.
fn relative(offset: u64, immediate: i32) -> Option<u64> {
    i64::try_from(offset).ok()?.checked_add(8 * (i64::from(immediate) + 1)).and_then(|to| u64::try_from(to).ok())
}
