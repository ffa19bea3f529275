//! `Linker`: the instructions of a program with those of all functions that it calls.
//!
//! The functions are appended in libbpf's order (`bpf_object__reloc_code`): each where the walk over the instructions
//! first meets a call of it, followed by what it calls itself. The walk keeps a stack of its own, so no depth of calls
//! exhausts the thread's.

use std::collections::{BTreeMap, btree_map::Entry};

use super::{
    Features, Kernel, LinkError,
    core::Relocator,
    externs::Resolved,
    poisoned::{OfFunction, Poison},
};
use crate::{
    bytes::word,
    object::{Object, Selection, functions::INSTRUCTION, references::Target},
};

/// `BPF_JMP | BPF_CALL`
const CALL: u8 = 0x85;
/// `BPF_PSEUDO_MAP_FD`
const MAP_FD: u8 = 1;
/// `BPF_PSEUDO_MAP_VALUE`, and `BPF_PSEUDO_KFUNC_CALL` of a call
const MAP_VALUE: u8 = 2;
const KFUNC_CALL: u8 = 2;
/// `BPF_PSEUDO_BTF_ID`
const BTF_ID: u8 = 3;
/// `BPF_PSEUDO_FUNC`
const FUNC: u8 = 4;
/// libbpf's `POISON_CALL_KFUNC_BASE`: no helper has such a number.
const NO_KFUNC: u32 = 2_002_000_000;

/// The instructions that no verifier accepts, by function, in no order.
type PoisonByFunction<'a> = BTreeMap<usize, Vec<(usize, Poison<'a>)>>;

/// Links the programs of a selection.
pub(super) struct Linker<'o, 'a> {
    object: &'o Object<'a>,
    selection: &'o Selection,
    /// The instructions of each function that CO-RE relocations have changed.
    relocated: BTreeMap<usize, Vec<u8>>,
    /// The instructions that no verifier accepts, by function.
    poisoned: BTreeMap<usize, OfFunction<'a>>,
    has_tags: bool,
}

/// A program with all that it calls.
#[derive(Debug, Default)]
pub(super) struct Linked<'a> {
    pub(super) code: Vec<u8>,
    /// The functions, each with the index of its first instruction.
    pub(super) parts: Vec<(usize, usize)>,
    /// The references that are not calls, with the index of the instruction.
    references: Vec<(usize, Target)>,
    pub(super) maps: Vec<(usize, usize)>,
    /// The functions that have such instructions, each with the index of its first instruction.
    pub(super) poisoned: Vec<(usize, OfFunction<'a>)>,
}

/// A function whose references the walk follows.
struct Walk {
    function: usize,
    /// The index of its first instruction in the program.
    base: usize,
    /// The index of the reference to follow next.
    next: usize,
}

impl<'o, 'a> Linker<'o, 'a> {
    /// Relocates the functions of the selection against the kernel's types, and notes the calls of functions that the
    /// kernel lacks.
    pub(super) fn new(
        object: &'o Object<'a>,
        selection: &'o Selection,
        externs: &BTreeMap<usize, Resolved>,
        kernel: &dyn Kernel,
    ) -> Result<Self, LinkError> {
        let has_tags = kernel.features().btf_kinds.decl_tag;
        let mut linker = Self { object, selection, relocated: BTreeMap::new(), poisoned: BTreeMap::new(), has_tags };
        let mut poisoned = linker.relocate(kernel)?;
        linker.add_absent(externs, &mut poisoned);
        let in_order = |mut all: Vec<(usize, Poison<'a>)>| -> OfFunction<'a> {
            all.sort_by_key(|(at, _)| *at);
            all.into()
        };
        linker.poisoned = poisoned.into_iter().map(|(function, all)| (function, in_order(all))).collect();
        Ok(linker)
    }

    /// Relocates the functions. Returns the instructions that this has made invalid.
    fn relocate(&mut self, kernel: &dyn Kernel) -> Result<PoisonByFunction<'a>, LinkError> {
        let mut poisoned = PoisonByFunction::new();
        let Some(btf) = self.object.btf() else { return Ok(poisoned) };
        let mut relocator: Option<Relocator<'_>> = None;
        for block in self.object.ext.core_relos.sections() {
            let name = btf.strings().name(block.name_off);
            let Some(section) = str::from_utf8(name).ok().and_then(|name| self.object.image.section_named(name)) else {
                continue;
            };
            for relo in block.core_relos() {
                let offset = relo.insn_off as usize;
                // Linkers leave the records of weak functions that another one has overridden.
                let Some(index) = self.object.functions.at(section.index, offset) else { continue };
                if !self.selection.references.contains_key(&index) {
                    continue;
                }
                let Some(function) = self.object.functions.get(index) else { continue };
                if relocator.is_none() {
                    let types = kernel.btf().map_err(|why| LinkError::NoKernelBtf {
                        function: function.name.to_owned(),
                        needs: "it has CO-RE relocations".to_owned(),
                        why,
                    })?;
                    relocator = Some(Relocator::new(btf, types));
                }
                let Some(relocator) = &mut relocator else { continue };
                let at = offset - function.start;
                let code = self.relocated.entry(index).or_insert_with(|| function.code().unwrap_or_default().to_vec());
                // libbpf refuses what is not at the start of an instruction, as it does what has no instruction.
                let place = code.get_mut(at..).filter(|_| at.is_multiple_of(INSTRUCTION)).unwrap_or_default();
                let cause = relocator.relocate(&relo, place);
                let cause = cause.map_err(|error| LinkError::Core { function: function.name.to_owned(), error })?;
                if let Some(cause) = cause {
                    poisoned.entry(index).or_default().push((at / INSTRUCTION, Poison::Core(relo, cause)));
                }
            }
        }
        Ok(poisoned)
    }

    /// Adds the calls of functions that the kernel lacks.
    fn add_absent(&self, externs: &BTreeMap<usize, Resolved>, poisoned: &mut PoisonByFunction<'a>) {
        for (function, references) in &self.selection.references {
            for (at, target) in references {
                let Target::ExternCall(index) = target else { continue };
                if matches!(externs.get(index), Some(Resolved::Btf(_))) {
                    continue;
                }
                let name = self.object.externs.get(*index).map(|one| one.name).unwrap_or_default();
                poisoned.entry(*function).or_default().push((*at, Poison::Function(name)));
            }
        }
    }

    /// Links a program.
    pub(super) fn link(&self, program: usize) -> Linked<'a> {
        let mut linked = Linked::default();
        let mut placed = BTreeMap::new();
        self.append(program, &mut linked, &mut placed);
        if self.has_tags
            && let Some(callback) = self.object.exception_callback(program)
        {
            self.append(callback, &mut linked, &mut placed);
        }
        linked
    }

    /// Appends a function and all that it calls, except what is there.
    fn append(&self, function: usize, linked: &mut Linked<'a>, placed: &mut BTreeMap<usize, usize>) {
        let mut open = Vec::new();
        self.place(function, linked, placed, &mut open);
        while let Some(Walk { function, base, next }) = open.last_mut() {
            let references = self.selection.references.get(function).map(Vec::as_slice).unwrap_or_default();
            let Some((instruction, target)) = references.get(*next).copied() else {
                open.pop();
                continue;
            };
            *next += 1;
            let at = *base + instruction;
            match target {
                Target::Call(callee) | Target::Address(callee) => {
                    let to = match placed.get(&callee) {
                        Some(to) => *to,
                        None => self.place(callee, linked, placed, &mut open),
                    };
                    // Both lie within the code, which is far smaller than 2 GiB.
                    let distance = to as i64 - at as i64 - 1;
                    set_immediate(&mut linked.code, at, distance as i32 as u32);
                    if matches!(target, Target::Address(_)) {
                        set_source(&mut linked.code, at, FUNC);
                    }
                }
                other => linked.references.push((at, other)),
            }
        }
    }

    /// Appends the instructions of a function, if it is not there, and opens it for the walk. Returns the index of its
    /// first instruction.
    fn place(
        &self,
        function: usize,
        linked: &mut Linked<'a>,
        placed: &mut BTreeMap<usize, usize>,
        open: &mut Vec<Walk>,
    ) -> usize {
        let base = linked.code.len() / INSTRUCTION;
        match placed.entry(function) {
            Entry::Occupied(entry) => return *entry.get(),
            Entry::Vacant(entry) => entry.insert(base),
        };
        let code = self.object.functions.get(function).and_then(|function| function.code().ok()).unwrap_or_default();
        linked.code.extend_from_slice(self.relocated.get(&function).map_or(code, Vec::as_slice));
        linked.parts.push((function, base));
        linked.poisoned.extend(self.poisoned.get(&function).map(|all| (base, OfFunction::clone(all))));
        open.push(Walk { function, base, next: 0 });
        base
    }
}

impl Linked<'_> {
    /// Gives the instructions their maps and externs (libbpf's `bpf_object__relocate_data`), and calls only helpers
    /// that the kernel has (`bpf_object__sanitize_prog`). `places` has the place of each map in the plan.
    pub(super) fn give(
        &mut self,
        externs: &BTreeMap<usize, Resolved>,
        places: &BTreeMap<usize, usize>,
        features: Features,
    ) {
        for (at, target) in std::mem::take(&mut self.references) {
            match target {
                Target::Map(map) => self.give_map(at, map, MAP_FD, places),
                Target::Data { map, offset } => {
                    let offset = offset.wrapping_add(immediate(&self.code, at));
                    self.give_map(at, map, MAP_VALUE, places);
                    set_immediate(&mut self.code, at + 1, offset);
                }
                Target::Extern(index) => match externs.get(&index).copied() {
                    Some(Resolved::Config { map, offset }) => {
                        self.give_map(at, map, MAP_VALUE, places);
                        set_immediate(&mut self.code, at + 1, offset);
                    }
                    Some(Resolved::Btf(id)) => {
                        set_source(&mut self.code, at, BTF_ID);
                        self.set_wide(at, id.into());
                    }
                    Some(Resolved::Address(address)) => self.set_wide(at, address),
                    Some(Resolved::Absent) | None => self.set_wide(at, 0),
                },
                Target::ExternCall(index) => match externs.get(&index).copied() {
                    Some(Resolved::Btf(id)) => {
                        set_source(&mut self.code, at, KFUNC_CALL);
                        set_offset(&mut self.code, at, 0);
                        set_immediate(&mut self.code, at, id);
                    }
                    _ => self.give_no_function(at, index),
                },
                Target::Call(_) | Target::Address(_) => {}
            }
        }
        if !features.probe_read_kern {
            self.downgrade_helpers();
        }
    }

    fn give_map(&mut self, at: usize, map: usize, source: u8, places: &BTreeMap<usize, usize>) {
        set_source(&mut self.code, at, source);
        set_immediate(&mut self.code, at, 0);
        self.maps.extend(places.get(&map).map(|place| (at, *place)));
    }

    /// Makes a call of a function that the kernel lacks one that the verifier refuses if it can be reached (libbpf's
    /// `poison_kfunc_call`).
    fn give_no_function(&mut self, at: usize, index: usize) {
        if let Some(head) = self.code.get_mut(at * INSTRUCTION..at * INSTRUCTION + 4) {
            head.copy_from_slice(&[CALL, 0, 0, 0]);
        }
        let number = NO_KFUNC.saturating_add(u32::try_from(index).unwrap_or_default());
        set_immediate(&mut self.code, at, number);
    }

    /// Sets the immediate of an instruction of 16 bytes.
    fn set_wide(&mut self, at: usize, value: u64) {
        set_immediate(&mut self.code, at, value as u32);
        set_immediate(&mut self.code, at + 1, (value >> 32) as u32);
    }

    /// Has kernels without `bpf_probe_read_kernel` and its like read by `bpf_probe_read`.
    fn downgrade_helpers(&mut self) {
        const PROBE_READ: u32 = 4;
        const PROBE_READ_STR: u32 = 45;
        for at in 0..self.code.len() / INSTRUCTION {
            let is_helper_call = self.code.get(at * INSTRUCTION..).is_some_and(|code| code.starts_with(&[CALL, 0]));
            let helper = match immediate(&self.code, at) {
                // BPF_FUNC_probe_read_user, BPF_FUNC_probe_read_kernel, and the same with _str
                112 | 113 => PROBE_READ,
                114 | 115 => PROBE_READ_STR,
                _ => continue,
            };
            if is_helper_call {
                set_immediate(&mut self.code, at, helper);
            }
        }
    }
}

fn immediate(code: &[u8], at: usize) -> u32 {
    word(code, at * INSTRUCTION + 4).unwrap_or_default()
}

fn set_immediate(code: &mut [u8], at: usize, value: u32) {
    if let Some(place) = code.get_mut(at * INSTRUCTION + 4..at * INSTRUCTION + 8) {
        place.copy_from_slice(&value.to_le_bytes());
    }
}

fn set_source(code: &mut [u8], at: usize, source: u8) {
    if let Some(registers) = code.get_mut(at * INSTRUCTION + 1) {
        *registers = *registers & 0xf | source << 4;
    }
}

fn set_offset(code: &mut [u8], at: usize, offset: u16) {
    if let Some(place) = code.get_mut(at * INSTRUCTION + 2..at * INSTRUCTION + 4) {
        place.copy_from_slice(&offset.to_le_bytes());
    }
}
