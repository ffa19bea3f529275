//! Reads the references of a function's instructions: by relocations and by calls within a section.
//!
//! The rules are those of libbpf's `bpf_program__record_reloc` and `bpf_object__reloc_code`. Unlike libbpf, a function
//! may call functions of any section with code, since section and offset together tell which.

use sockeye_crds::names::printable;

use crate::{
    bytes::{half, word},
    object::{
        Object,
        functions::{Function, INSTRUCTION},
        image::{Place, Relocation, Symbol, SymbolKind},
        references::{Reference, ReferenceError, Target},
    },
};

/// `BPF_JMP | BPF_CALL`
const CALL: u8 = 0x85;
/// `BPF_LD | BPF_IMM | BPF_DW`, the first half of an instruction of 16 bytes.
const LOAD: u8 = 0x18;
/// `BPF_PSEUDO_CALL`
const PSEUDO_CALL: u8 = 1;
/// `BPF_PSEUDO_FUNC`
const PSEUDO_FUNC: u8 = 4;

impl Object<'_> {
    /// Returns the references of a function, ordered by instruction.
    pub(crate) fn references(&self, function: &Function<'_>) -> Vec<Reference> {
        let code = function.code().unwrap_or_default();
        let mut relocations = self.functions.relocations(function).iter().peekable();
        let unread = self.image.has_unread_relocations(function.section);
        let mut references = Vec::new();
        for (i, instruction) in code.chunks_exact(INSTRUCTION).enumerate() {
            let offset = (function.start + i * INSTRUCTION) as u64;
            let mut here = Vec::new();
            while let Some(relocation) = relocations.next_if(|next| next.offset < offset + INSTRUCTION as u64) {
                here.push(*relocation);
            }
            let target = match here[..] {
                _ if unread => Some(Err(ReferenceError::Unread)),
                [] => self.unrelocated(function, i, instruction),
                [_] if is_load(instruction) && (i + 1) * INSTRUCTION == code.len() => {
                    Some(Err(ReferenceError::Half(i)))
                }
                [relocation] if relocation.offset == offset => Some(self.relocated(i, instruction, relocation)),
                [_] => Some(Err(ReferenceError::Opcode(i, 0))),
                _ => Some(Err(ReferenceError::Two(i))),
            };
            references.extend(target.map(|target| Reference { instruction: i, target }));
            if unread {
                break;
            }
        }
        references
    }

    /// Returns what an instruction without a relocation refers to: a function of the same section, if anything.
    fn unrelocated(
        &self,
        function: &Function<'_>,
        i: usize,
        instruction: &[u8],
    ) -> Option<Result<Target, ReferenceError>> {
        if is_load(instruction) && source(instruction) == PSEUDO_FUNC {
            return Some(Err(ReferenceError::Unnamed(i)));
        }
        if !is_call(instruction) {
            return None;
        }
        let next = (function.start + (i + 1) * INSTRUCTION) as i64;
        let to = next.checked_add(i64::from(immediate(instruction)) * INSTRUCTION as i64);
        Some(self.function_at(i, function.section, to).map(Target::Call))
    }

    /// Returns what an instruction with a relocation refers to.
    fn relocated(&self, i: usize, instruction: &[u8], relocation: Relocation) -> Result<Target, ReferenceError> {
        let code = instruction.first().copied().unwrap_or_default();
        if !matches!(code, CALL | LOAD) {
            return Err(ReferenceError::Opcode(i, code));
        }
        let symbol = self.image.symbol(relocation.symbol).ok_or(ReferenceError::NoSymbol(i))?;
        if symbol.is_extern() {
            let found = *self.extern_symbols.get(&symbol.index).ok_or(ReferenceError::NoSymbol(i))?;
            return Ok(if code == CALL { Target::ExternCall(found) } else { Target::Extern(found) });
        }
        let section = match symbol.place {
            Place::Section(section) => section,
            Place::Undefined => return Err(ReferenceError::NoSymbol(i)),
            Place::Special(_) => return Err(ReferenceError::Common(symbol.name().to_owned())),
        };
        let base = i64::try_from(symbol.offset).map_err(|_| ReferenceError::NoSymbol(i))?;
        if code == CALL {
            // A call of a static function names the section, and contains the distance in instructions from its start.
            let distance = (i64::from(immediate(instruction)) + 1) * INSTRUCTION as i64;
            let opcode = is_call(instruction).then_some(()).ok_or(ReferenceError::Opcode(i, code));
            return opcode.and_then(|()| self.function_at(i, section, base.checked_add(distance))).map(Target::Call);
        }
        if self.image.section(section).is_some_and(|section| section.is_code()) {
            // As in calls, but in bytes.
            let to = base.checked_add(immediate(instruction).into());
            return self.function_at(i, section, to).map(Target::Address);
        }
        self.loaded(i, section, &symbol)
    }

    /// Returns the map or the global data that a load of an address refers to.
    fn loaded(&self, i: usize, section: usize, symbol: &Symbol<'_>) -> Result<Target, ReferenceError> {
        let places = &self.places;
        let name = self.image.section(section).map(|section| section.name).unwrap_or_default();
        if let Some(map) = places.data.get(&section) {
            let offset = u32::try_from(symbol.offset).map_err(|_| ReferenceError::NoSymbol(i))?;
            return Ok(Target::Data { map: *map, offset });
        }
        if places.sections.contains(&section) {
            // A relocation that names only the section does not tell which of its maps is meant.
            let map = places.maps.get(&(section, symbol.offset)).filter(|_| symbol.kind != SymbolKind::Section);
            return map.map(|map| Target::Map(*map)).ok_or_else(|| ReferenceError::StaticMap(name.to_owned()));
        }
        Err(match name {
            ".jumptables" => ReferenceError::JumpTable,
            name if name.starts_with(".addr_space") || name.starts_with(".arena") => {
                ReferenceError::Arena(name.to_owned())
            }
            section => {
                let what = match symbol.name() {
                    "" => format!("what instruction {i} refers to"),
                    name => format!("its variable {}", printable(name)),
                };
                ReferenceError::NoMap { what, section: printable(section) }
            }
        })
    }

    fn function_at(&self, i: usize, section: usize, offset: Option<i64>) -> Result<usize, ReferenceError> {
        let at = offset.and_then(|at| usize::try_from(at).ok());
        let found = at.and_then(|at| self.functions.at(section, at));
        // libbpf takes a call into the middle of a function for one of its beginning.
        let begins = |index: &usize| self.functions.get(*index).map(|function| function.start) == at;
        found.filter(begins).ok_or_else(|| {
            let name = self.image.section(section).map(|section| section.name).unwrap_or_default();
            ReferenceError::NoFunction(i, format!("section {name}, offset {}", offset.unwrap_or_default()))
        })
    }
}

/// Returns whether an instruction calls a function of the object: libbpf's `insn_is_subprog_call`.
fn is_call(instruction: &[u8]) -> bool {
    // The second byte has the source register above the destination register.
    instruction.first() == Some(&CALL)
        && instruction.get(1) == Some(&(PSEUDO_CALL << 4))
        && half(instruction, 2) == Some(0)
}

/// Returns whether an instruction is the first half of one that loads an address.
fn is_load(instruction: &[u8]) -> bool {
    instruction.first() == Some(&LOAD)
}

fn source(instruction: &[u8]) -> u8 {
    instruction.get(1).map_or(0, |registers| registers >> 4)
}

fn immediate(instruction: &[u8]) -> i32 {
    word(instruction, 4).unwrap_or_default().cast_signed()
}
