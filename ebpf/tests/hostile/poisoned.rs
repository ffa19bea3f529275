//! Instructions that no verifier accepts, since the kernel lacks what they ask for: as many as an object can have, in a
//! function that all of its programs call. Whoever keeps words for each, for each program, fills memory.

use sockeye_ebpf::{
    Object,
    link::{Invalid, Plan, ProgramKind, Request, link},
    values::settings::Settings,
};
use sockeye_ebpf_testing::builder::{
    BtfBuilder, CODE, ElfBuilder, FUNC, PROGBITS, REL, SECTION, call, exit, ext, mov0, relocation,
};

use crate::{
    bombs::{calling_program, text},
    small_kernel,
};

/// The number of programs that call the function.
pub const PROGRAMS: usize = 32;
/// A name as long as the linker reads.
const LONG: usize = 500;

fn calling_programs(elf: &mut ElfBuilder, text: u32) {
    for i in 0..PROGRAMS {
        calling_program(elf, &format!("p{i}"), text);
    }
}

/// Relocations of a field of a struct that no kernel has.
pub fn relocations(count: usize) -> Vec<u8> {
    let mut elf = ElfBuilder::new();
    let symbol = text(&mut elf, 1, count + 2);
    calling_programs(&mut elf, symbol);
    let mut types = BtfBuilder::new();
    let [section, path, int] = [".text", "0:0", "int"].map(|text| types.string(text));
    let [root, member] = ["s", "m"].map(|letter| types.string(letter.repeat(LONG)));
    let int = types.add(int, (1, 0), 4, &[0x0100_0020]);
    let root = types.add(root, (4, 1), 4, &[member, int, 0]);
    let mut records = vec![section, count as u32];
    records.extend((0..count as u32).flat_map(|i| [8 * i, root, path, 0]));
    elf.section(".BTF", PROGBITS, 0, types.build());
    elf.section(".BTF.ext", PROGBITS, 0, ext([(8, vec![]), (16, vec![]), (16, records)]));
    elf.build()
}

/// Calls of an optional function that no kernel has.
pub fn calls(count: usize) -> Vec<u8> {
    let mut elf = ElfBuilder::new();
    let code = [call(-1).repeat(count), mov0(), exit()].concat();
    let size = code.len() as u64;
    let section = elf.section(".text", PROGBITS, CODE, code);
    elf.symbol("f0", FUNC, section, (0, size));
    let symbol = elf.symbol("", SECTION, section, (0, 0));
    calling_programs(&mut elf, symbol);
    // A weak symbol of no type.
    let absent = elf.symbol("a".repeat(LONG), 0x20, 0, (0, 0));
    let table = (0..count as u64).flat_map(|i| relocation(8 * i, absent, true)).collect();
    elf.relocations(section, REL, table);
    let mut types = BtfBuilder::new();
    let [name, ksyms] = [&"a".repeat(LONG), ".ksyms"].map(|name| types.string(name));
    let proto = types.add(0, (13, 0), 0, &[]);
    let function = types.add(name, (12, 2), proto, &[]);
    types.add(ksyms, (15, 1), 0, &[function, 0, 0]);
    elf.section(".BTF", PROGBITS, 0, types.build());
    elf.build()
}

fn linked(bytes: &[u8], look: impl FnOnce(Plan<'_>)) {
    let object = Object::read(bytes).unwrap();
    let names: Vec<String> = (0..PROGRAMS).map(|i| format!("p{i}")).collect();
    let kind = ProgramKind { prog_type: 13, attach_type: 3 };
    let request = Request { programs: names.iter().map(|name| (name.as_str(), kind)).collect(), ..Request::default() };
    let settings = Settings::default();
    look(link(&object, &request, &settings, &small_kernel(true)).unwrap());
}

type Check = fn(Invalid) -> bool;

#[test]
fn each_poisoned_instruction_has_its_words_in_each_program() {
    let is_relocation = |invalid| matches!(invalid, Invalid::Core(subject, _) if subject.field.starts_with("mmm"));
    let is_call = |invalid| matches!(invalid, Invalid::Function(name) if name.len() == LONG);
    let all: [(Vec<u8>, Check); 2] = [(relocations(10), is_relocation), (calls(10), is_call)];
    for (bytes, is_right) in all {
        linked(&bytes, |plan| {
            assert_eq!(plan.programs.len(), PROGRAMS);
            for program in &plan.programs {
                let places: Vec<usize> = program.poisoned.places().collect();
                // Each program has three instructions, then the function.
                assert_eq!(places, (3..13).collect::<Vec<_>>());
                assert!(places.into_iter().all(|at| is_right(program.poisoned.get(at).unwrap())));
                assert_eq!([0, 2, 13, 14].map(|at| program.poisoned.get(at)), [const { None }; 4]);
            }
        });
    }
}
