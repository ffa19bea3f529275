//! `Functions`: the programs of an object, the subprograms in `.text` that they call, and the maps that they use.
//!
//! aya-obj links a copy of every callee into each program, with a recursion as deep as the calls. So the number of
//! functions and of linked instructions is bounded, functions must not overlap, and only those in `.text` can be
//! called. An instruction's target is determined as in aya-obj (`FunctionLinker::relocate`).

use std::collections::{BTreeMap, BTreeSet};

use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SymbolIndex, SymbolKind};

use crate::{
    btf::word,
    object::{
        elf::{Elf, Role},
        error::{ObjectError, at_most},
        guard::Facts,
        limits::{MAX_FUNCTIONS, MAX_LINKED, MAX_PROGRAMS, MAX_RECORDS},
        maps::Map,
    },
};

/// The place of a function: its section's index and its address in the section.
type Place = (usize, u64);

/// A function.
pub(crate) struct Function<'a> {
    pub(crate) name: &'a str,
    pub(crate) section_name: &'a str,
    place: Place,
    is_program: bool,
    code: &'a [u8],
}

/// The functions of an object.
pub(crate) struct Functions<'a> {
    /// All functions, ordered by place.
    all: Vec<Function<'a>>,
    by_place: BTreeMap<Place, usize>,
    /// Relocations by the place of the instruction: the symbol, and the number of bits to fill.
    relocations: BTreeMap<Place, (SymbolIndex, u8)>,
    /// The sections that have functions.
    sections: BTreeSet<usize>,
}

/// The maps and functions that a function's instructions refer to, as indices.
#[derive(Default)]
struct Uses {
    maps: BTreeSet<usize>,
    functions: BTreeSet<usize>,
}

impl<'a> Functions<'a> {
    /// Reads the functions.
    pub(crate) fn read(elf: &Elf<'a>, facts: &Facts<'_>) -> Result<Self, ObjectError> {
        let mut code = BTreeMap::new();
        let mut relocations = BTreeMap::new();
        for section in elf.sections() {
            let role = Role::of(&section)?;
            if !matches!(role, Role::Program | Role::Text) {
                continue;
            }
            let name = section.name().map_err(ObjectError::elf)?;
            let before = relocations.len();
            for (offset, relocation) in section.relocations() {
                if let RelocationTarget::Symbol(symbol) = relocation.target() {
                    relocations.insert((section.index().0, offset), (symbol, relocation.size()));
                }
            }
            let records = facts.records.get(name).copied().unwrap_or_default() + relocations.len() - before;
            code.insert(section.index().0, (name, role, section.data().map_err(ObjectError::elf)?, records));
        }
        let mut by_place = BTreeMap::new();
        for symbol in elf.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text) {
            let Some(section) = symbol.section_index().map(|section| section.0) else { continue };
            let Some((section_name, role, data, _)) = code.get(&section) else { continue };
            let name = symbol.name().map_err(ObjectError::elf)?;
            let bad = |what| ObjectError::Function { name: name.to_owned(), what };
            let start = usize::try_from(symbol.address()).map_err(|_| bad("it lies outside its section"))?;
            let end = usize::try_from(symbol.size()).ok().and_then(|size| start.checked_add(size));
            let code = end.and_then(|end| data.get(start..end)).ok_or_else(|| bad("it lies outside its section"))?;
            if code.is_empty() || code.len() % 8 != 0 || start % 8 != 0 {
                return Err(bad("its instructions are not whole"));
            }
            let place = (section, symbol.address());
            let function = Function { name, section_name, place, is_program: *role == Role::Program, code };
            if by_place.insert(place, function).is_some() {
                return Err(bad("another one begins at the same place"));
            }
            at_most("functions", by_place.len(), MAX_FUNCTIONS)?;
        }
        let all: Vec<Function<'a>> = by_place.into_values().collect();
        let by_place = all.iter().enumerate().map(|(index, function)| (function.place, index)).collect();
        let sections = all.iter().map(|function| function.place.0).collect();
        for (function, next) in all.iter().zip(all.iter().skip(1)) {
            if function.place.0 == next.place.0 && function.place.1 + function.code.len() as u64 > next.place.1 {
                return Err(ObjectError::Function { name: next.name.to_owned(), what: "it lies over another one" });
            }
        }
        at_most("programs", all.iter().filter(|function| function.is_program).count(), MAX_PROGRAMS)?;
        let work = all.iter().filter_map(|function| code.get(&function.place.0)).map(|(.., records)| records).sum();
        at_most("lines and relocations, by function", work, MAX_RECORDS)?;
        Ok(Self { all, by_place, relocations, sections })
    }

    /// Returns the programs with the maps that each uses, by itself or in subprograms, as indices into `maps`.
    pub(crate) fn programs(
        &self,
        elf: &Elf<'_>,
        maps: &[Map],
    ) -> Result<Vec<(&Function<'a>, BTreeSet<usize>)>, ObjectError> {
        let mut map_places: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for (index, map) in maps.iter().enumerate() {
            map_places.entry((map.section.0, map.address)).or_default().push(index);
        }
        let uses = self.all.iter().map(|function| self.uses(elf, function, &map_places));
        let uses = uses.collect::<Result<Vec<Uses>, ObjectError>>()?;
        let mut programs = Vec::new();
        let mut linked = 0;
        for (index, program) in self.all.iter().enumerate().filter(|(_, function)| function.is_program) {
            let mut used = BTreeSet::new();
            let mut seen = BTreeSet::new();
            let mut open = vec![index];
            while let Some(index) = open.pop() {
                let (Some(function), Some(uses)) = (self.all.get(index), uses.get(index)) else { continue };
                if seen.insert(index) {
                    linked += function.code.len() / 8;
                    used.extend(&uses.maps);
                    open.extend(&uses.functions);
                }
            }
            at_most("instructions, each program with all that it calls", linked, MAX_LINKED)?;
            programs.push((program, used));
        }
        Ok(programs)
    }

    fn uses(
        &self,
        elf: &Elf<'_>,
        function: &Function<'_>,
        maps: &BTreeMap<(usize, Option<u64>), Vec<usize>>,
    ) -> Result<Uses, ObjectError> {
        let bad = |what| ObjectError::Function { name: function.name.to_owned(), what };
        let (section, start) = function.place;
        let mut uses = Uses::default();
        for (i, instruction) in function.code.chunks_exact(8).enumerate() {
            let offset = start + 8 * i as u64;
            let immediate = i64::from(word(instruction, 4).unwrap_or_default().cast_signed());
            let is_call = instruction.starts_with(&[0x85, 0x10, 0, 0]);
            let mut callee = is_call.then(|| (section, offset.checked_add_signed(8 * (immediate + 1))));
            if let Some(&(symbol, size)) = self.relocations.get(&(section, offset)) {
                let symbol = elf.symbol_by_index(symbol).map_err(ObjectError::elf)?;
                let (kind, address, target) = (symbol.kind(), symbol.address(), symbol.section_index().map(|at| at.0));
                if kind == SymbolKind::Text || target.is_some_and(|target| self.sections.contains(&target)) {
                    let target = target.ok_or_else(|| bad("it calls a function that is not in the object"))?;
                    let to = match (kind, size) {
                        (SymbolKind::Text, _) => Some(address),
                        // A call contains the distance from the section's start in instructions, an address in bytes.
                        (SymbolKind::Section, 32) => address.checked_add_signed(8 * (immediate + 1)),
                        (SymbolKind::Section, 64) => address.checked_add_signed(immediate),
                        _ => return Err(bad("it refers to code in a way that is not known")),
                    };
                    callee = Some((target, to));
                } else if is_call && target.is_none() {
                    return Err(bad("it calls a function that is not in the object"));
                } else if let Some(target) = target {
                    // Such a relocation does not name the map, so no loader could find it. Global data has no address.
                    if kind == SymbolKind::Section && maps.contains_key(&(target, Some(address))) {
                        return Err(bad("it uses a map that is static: define the map without `static`"));
                    }
                    let named = [None, Some(address)].into_iter().filter_map(|address| maps.get(&(target, address)));
                    uses.maps.extend(named.flatten());
                }
            }
            let Some((section, to)) = callee else { continue };
            let index = to.and_then(|to| self.by_place.get(&(section, to))).copied();
            let in_text = |index: &usize| self.all.get(*index).is_some_and(|callee| !callee.is_program);
            let index = index.filter(in_text).ok_or_else(|| bad("it calls what is no function in .text"))?;
            uses.functions.insert(index);
        }
        Ok(uses)
    }
}
