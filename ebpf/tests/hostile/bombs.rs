//! Bombs: objects that cost as much time, memory and stack as possible. Each must be cheap, whether it is accepted
//! or refused. Larger ones made aya-obj overflow the stack (18,000 nested calls), fill 800 MB (900 overlapping
//! sections) or search for 21 s (3,000 types).

use sockeye_crds::Reason;
use sockeye_ebpf_testing::{
    builder::{
        BtfBuilder, CODE, CREL, DATA, ElfBuilder, FUNC, OBJECT, PROGBITS, REL, SECTION, call, exit, ext, instruction,
        mov0, relocation, words,
    },
    process,
    roundtrip::{Outcome, roundtrip},
};

use crate::{
    NAMES, index_of, kernel,
    odd::core_relocations,
    poisoned::{self, PROGRAMS},
    repeated,
};

/// A bomb: its name, its constructor, the largest size that is accepted, and a size that is refused. The latter is 0 if
/// the maximum size of an object is the limit.
type Bomb = (&'static str, fn(usize) -> Vec<u8>, usize, usize);

const BOMBS: &[Bomb] = &[
    ("symbols that share one long name", symbol_names, 600_000, 0),
    ("sections that share one long name", section_names, 600_000, 0),
    ("sections over each other", overlapping, 1000, 0),
    ("sections", sections, 14_000, 0),
    (".bss", zeroed, 900, 0),
    ("a call in a call in a call", call_chain, 12_000, 0),
    ("programs that call the same", linked, 32_700, 33_000),
    ("lines, for each function", lines, 50_000, 0),
    ("lines of one instruction in all programs", repeated::lines, 50_000, 0),
    ("programs that call programs", programs_in_programs, 1000, 0),
    ("relocations", relocations, 60_000, 0),
    ("relocations of one byte", compact_relocations, 0, 900_000),
    ("CO-RE relocations", core_relocations, 15_000, 0),
    ("poisoned relocations in all programs", poisoned::relocations, 30_000, 0),
    ("poisoned calls in all programs", poisoned::calls, 30_000, 0),
    ("types with long names", type_names, 1000, 0),
    ("data sections with long names", data_sections, 80_000, 0),
    ("sections of .BTF.ext with long names", ext_names, 60_000, 0),
    ("parameters", parameters, 65_535, 0),
    ("maps of many fields", map_fields, 64, 0),
    ("maps", maps, 8000, 0),
    ("maps in use", maps_in_use, 128, 129),
    ("externs", externs, 10_000, 0),
    ("two names of one function", aliases, 30_000, 0),
    ("a licence", license, 900_000, 0),
];

/// The bombs of which all programs are run.
const MANY: [&str; 4] = [
    "programs that call the same",
    "lines of one instruction in all programs",
    "poisoned relocations in all programs",
    "poisoned calls in all programs",
];

#[test]
fn objects_at_a_limit_are_cheap_and_beyond_it_refused() {
    // Each bomb runs in a process of its own, so that the peak of memory is that bomb's.
    for (index, (name, _, at, beyond)) in BOMBS.iter().enumerate() {
        for (case, size) in (2 * index as u64..).zip([at, beyond]).filter(|(_, size)| **size > 0) {
            println!("{name}, {size}: {}", process::run("bombs::bomb", case..case + 1, NAMES));
        }
    }
}

/// Runs in the child process of `objects_at_a_limit_are_cheap_and_beyond_it_refused`.
#[test]
#[ignore = "run by objects_at_a_limit_are_cheap_and_beyond_it_refused, in a process of its own"]
fn bomb() {
    process::work(|case| {
        let (name, make, at, beyond) = BOMBS[case as usize / 2];
        let is_beyond = case % 2 == 1;
        let bytes = make(if is_beyond { beyond } else { at });
        assert!(bytes.len() <= 1 << 20, "{name} has {} bytes: it would be refused for that alone", bytes.len());
        let count = if MANY.contains(&name) { PROGRAMS } else { 1 };
        let programs: Vec<String> = (0..count).map(|i| format!("p{i}")).collect();
        let outcome = roundtrip(&bytes, &programs.iter().map(String::as_str).collect::<Vec<_>>(), &kernel(true));
        let expected = if is_beyond { Outcome::Refused(Reason::InvalidObject) } else { Outcome::Ready };
        assert_eq!(outcome, expected, "{name}");
        index_of(&outcome)
    });
}

fn with_program(change: impl FnOnce(&mut ElfBuilder)) -> Vec<u8> {
    let mut elf = ElfBuilder::new();
    elf.program("p0");
    change(&mut elf);
    elf.build()
}

fn with_types(types: BtfBuilder) -> Vec<u8> {
    with_program(|elf| {
        elf.section(".BTF", PROGBITS, 0, types.build());
    })
}

fn symbol_names(len: usize) -> Vec<u8> {
    with_program(|elf| {
        let name = elf.string("a".repeat(len));
        for _ in 0..16_000 {
            elf.symbol_named_at(name, 0, 0, (0, 0));
        }
    })
}

fn section_names(len: usize) -> Vec<u8> {
    with_program(|elf| {
        let name = elf.string("a".repeat(len));
        for _ in 0..1000 {
            elf.section_named_at(name, PROGBITS, 0, vec![0]);
        }
    })
}

fn sections(count: usize) -> Vec<u8> {
    with_program(|elf| {
        for _ in 0..count {
            elf.section("", PROGBITS, 0, vec![0]);
        }
    })
}

fn overlapping(count: usize) -> Vec<u8> {
    let mut file = with_program(|elf| {
        elf.section(".rodata", PROGBITS, DATA, vec![1; 900_000]);
        for i in 1..count {
            elf.section(format!(".data.{i}"), PROGBITS, DATA, vec![1]);
        }
    });
    let table = u64::from_le_bytes(file[0x28..0x30].try_into().unwrap()) as usize;
    let header = |i: usize| table + 64 * i + 0x18..table + 64 * i + 0x28;
    // Section 5 is .rodata. The headers of the sections after it get the same bytes.
    let place = file[header(5)].to_vec();
    for i in 6..5 + count {
        file[header(i)].copy_from_slice(&place);
    }
    file
}

fn zeroed(count: usize) -> Vec<u8> {
    with_program(|elf| {
        for i in 0..count {
            elf.empty_section(&format!(".bss.{i}"), 1 << 20);
        }
    })
}

/// Adds a program whose first instruction calls into `.text`, and which then returns.
pub fn calling_program(elf: &mut ElfBuilder, name: &str, text: u32) {
    let section = elf.section(format!("sockops/{name}"), PROGBITS, CODE, [call(-1), mov0(), exit()].concat());
    elf.symbol(name, FUNC, section, (0, 24));
    elf.relocations(section, REL, relocation(0, text, true));
}

/// `count` functions in `.text` of so many instructions each; all but the last call the next one. Gives `.text`'s
/// symbol.
pub fn text(elf: &mut ElfBuilder, count: usize, each: usize) -> u32 {
    let body = |last: bool| {
        let mut code = if last { mov0() } else { call(each as i32 - 1) };
        code.extend(mov0().repeat(each - 2));
        [code, exit()].concat()
    };
    let code: Vec<u8> = (0..count).flat_map(|i| body(i + 1 == count)).collect();
    let section = elf.section(".text", PROGBITS, CODE, code);
    for i in 0..count {
        elf.symbol(format!("f{i}"), FUNC, section, ((8 * each * i) as u64, 8 * each as u64));
    }
    elf.symbol("", SECTION, section, (0, 0))
}

fn call_chain(count: usize) -> Vec<u8> {
    let mut elf = ElfBuilder::new();
    let text = text(&mut elf, count, 3);
    calling_program(&mut elf, "p0", text);
    elf.build()
}

fn linked(instructions: usize) -> Vec<u8> {
    let mut elf = ElfBuilder::new();
    let text = text(&mut elf, 10, instructions / 10);
    for i in 0..32 {
        calling_program(&mut elf, &format!("p{i}"), text);
    }
    add_lines(&mut elf, instructions / 4);
    elf.build()
}

fn lines(records: usize) -> Vec<u8> {
    let mut elf = ElfBuilder::new();
    let text = text(&mut elf, 500, 5);
    calling_program(&mut elf, "p0", text);
    add_lines(&mut elf, records);
    elf.build()
}

/// Adds a line record for each of the first instructions of `.text`.
fn add_lines(elf: &mut ElfBuilder, count: usize) {
    let mut types = BtfBuilder::new();
    let name = types.string(".text");
    let mut records = vec![name, count as u32];
    records.extend((0..count as u32).flat_map(|i| [8 * i, 0, 0, 0]));
    elf.section(".BTF", PROGBITS, 0, types.build());
    elf.section(".BTF.ext", PROGBITS, 0, ext([(8, vec![]), (16, records), (16, vec![])]));
}

/// Programs that all call each other. Linking each into the others would double the size each time.
fn programs_in_programs(calls: usize) -> Vec<u8> {
    let mut elf = ElfBuilder::new();
    let body: Vec<u8> = [(0..calls).flat_map(|_| call(-1)).collect(), mov0(), exit()].concat();
    let size = body.len();
    let section = elf.section("sockops", PROGBITS, CODE, body.repeat(32));
    let symbols: Vec<u32> =
        (0..32).map(|i| elf.symbol(format!("p{i}"), FUNC, section, ((size * i) as u64, size as u64))).collect();
    let table = (0..32 * calls).flat_map(|i| {
        let (program, call) = (i / calls, i % calls);
        relocation((size * program + 8 * call) as u64, symbols[call % 32], true)
    });
    let table = table.collect();
    elf.relocations(section, REL, table);
    elf.build()
}

fn relocations(count: usize) -> Vec<u8> {
    with_program(|elf| {
        let map = elf.section("maps", PROGBITS, DATA, words(&[2, 4, 4, 1, 0]));
        let map = elf.symbol("m", OBJECT, map, (0, 20));
        // The relocations are beyond the program, which has two instructions.
        let table = (0..count as u64).flat_map(|i| relocation(16 + 8 * i, map, false)).collect();
        elf.relocations(4, REL, table);
    })
}

fn compact_relocations(count: usize) -> Vec<u8> {
    // Each relocation only advances the offset by one; the first also names a symbol.
    let mut header = Vec::new();
    let mut number = (count as u64) << 3;
    while number >= 0x80 {
        header.push(number as u8 | 0x80);
        number >>= 7;
    }
    header.push(number as u8);
    header.extend([0x41, 1]);
    header.resize(header.len() + count - 1, 0x40);
    with_program(|elf| {
        elf.relocations(4, CREL, header);
    })
}

fn type_names(len: usize) -> Vec<u8> {
    let mut types = BtfBuilder::new();
    let name = types.string("t".repeat(len));
    for _ in 0..85_000 {
        types.add(name, (8, 0), 0, &[]);
    }
    with_types(types)
}

fn data_sections(count: usize) -> Vec<u8> {
    let mut types = BtfBuilder::new();
    let name = types.string("a/".repeat(256));
    for _ in 0..count {
        types.add(name, (15, 0), 1, &[]);
    }
    with_types(types)
}

fn ext_names(count: usize) -> Vec<u8> {
    let mut types = BtfBuilder::new();
    let name = types.string("s".repeat(512));
    // The names are ends of one long string.
    let records = (0..count as u32).flat_map(|i| [name + i % 512, 1, 0, 0]).collect();
    let ext = ext([(8, records), (16, vec![]), (16, vec![])]);
    with_program(|elf| {
        elf.section(".BTF", PROGBITS, 0, types.build());
        elf.section(".BTF.ext", PROGBITS, 0, ext);
    })
}

fn parameters(count: usize) -> Vec<u8> {
    let mut types = BtfBuilder::new();
    let int = types.string("int");
    let int = types.add(int, (1, 0), 4, &[0x0100_0020]);
    types.add(0, (13, count as u32), 0, &[0, int].repeat(count));
    with_types(types)
}

fn with_maps(count: usize, fields: usize) -> Vec<u8> {
    let mut types = BtfBuilder::new();
    let names = ["type", "key_size", "value_size", "max_entries"].map(|name| types.string(name));
    let other = types.string("o".repeat(512));
    let one = types.uint(1);
    let four = types.uint(4);
    let members = [one, four, four, one].into_iter().zip(names).flat_map(|(id, name)| [name, id, 0]);
    let members: Vec<u32> = members.chain((4..fields).flat_map(|_| [other, one, 0])).collect();
    let map = types.add(0, (4, fields as u32), 32, &members);
    let vars: Vec<u32> = (0..count as u32)
        .flat_map(|i| {
            let name = types.string(format!("m{i}"));
            [types.add(name, (14, 0), map, &[1]), 32 * i, 32]
        })
        .collect();
    let section = types.string(".maps");
    types.add(section, (15, count as u32), 32 * count as u32, &vars);
    with_program(|elf| {
        let section = elf.section(".maps", PROGBITS, DATA, vec![0; 32 * count]);
        for i in 0..count {
            elf.symbol(format!("m{i}"), OBJECT, section, (32 * i as u64, 32));
        }
        elf.section(".BTF", PROGBITS, 0, types.build());
    })
}

fn map_fields(fields: usize) -> Vec<u8> {
    with_maps(128, fields)
}

fn maps(count: usize) -> Vec<u8> {
    with_maps(count, 4)
}

/// A program that loads the addresses of so many maps.
fn maps_in_use(count: usize) -> Vec<u8> {
    let mut elf = ElfBuilder::new();
    let load = [instruction(0x18, 1, 0), instruction(0, 0, 0)].concat();
    let code = [load.repeat(count), mov0(), exit()].concat();
    let size = code.len() as u64;
    let program = elf.section("sockops", PROGBITS, CODE, code);
    elf.symbol("p0", FUNC, program, (0, size));
    let section = elf.section("maps", PROGBITS, DATA, words(&[2, 4, 4, 1, 0]).repeat(count));
    let symbols: Vec<u32> =
        (0..count).map(|i| elf.symbol(format!("m{i}"), OBJECT, section, (20 * i as u64, 20))).collect();
    let table = symbols.iter().enumerate().flat_map(|(i, symbol)| relocation(16 * i as u64, *symbol, false));
    let table = table.collect();
    elf.relocations(program, REL, table);
    elf.build()
}

/// So many undefined functions, which nobody calls.
fn externs(count: usize) -> Vec<u8> {
    let mut types = BtfBuilder::new();
    let section = types.string(".ksyms");
    let proto = types.add(0, (13, 0), 0, &[]);
    let vars: Vec<u32> = (0..count)
        .flat_map(|i| {
            let name = types.string(format!("e{i}"));
            [types.add(name, (12, 2), proto, &[]), 0, 0]
        })
        .collect();
    types.add(section, (15, count as u32), 0, &vars);
    with_program(|elf| {
        for i in 0..count {
            elf.symbol(format!("e{i}"), 0x10, 0, (0, 0));
        }
        elf.section(".BTF", PROGBITS, 0, types.build());
    })
}

/// So many names of one long function.
fn aliases(count: usize) -> Vec<u8> {
    let mut elf = ElfBuilder::new();
    let code = [mov0().repeat(1000), exit()].concat();
    let size = code.len() as u64;
    let section = elf.section("sockops", PROGBITS, CODE, code);
    elf.symbol("p0", FUNC, section, (0, size));
    let name = elf.string("p1");
    for _ in 0..count {
        elf.symbol_named_at(name, FUNC, section, (0, size));
    }
    elf.build()
}

fn license(len: usize) -> Vec<u8> {
    let mut elf = ElfBuilder::new();
    elf.program("p0");
    let mut text = vec![b'a'; len];
    text.push(0);
    let mut file = elf.build();
    // Moves the licence, the first section after the tables, to the end of the file.
    let at = file.len() as u64;
    let table = u64::from_le_bytes(file[0x28..0x30].try_into().unwrap()) as usize + 3 * 64;
    file[table + 0x18..table + 0x20].copy_from_slice(&at.to_le_bytes());
    file[table + 0x20..table + 0x28].copy_from_slice(&(text.len() as u64).to_le_bytes());
    file.extend(text);
    file
}
