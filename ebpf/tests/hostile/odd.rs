//! CO-RE relocations that libbpf answers or refuses, not the operator: nothing in them is beyond a limit of sockeye's.

use sockeye_ebpf_testing::{
    builder::{BtfBuilder, CODE, ElfBuilder, FUNC, PROGBITS, exit, ext, instruction, mov0},
    process,
    roundtrip::roundtrip,
};

use crate::{NAMES, index_of, kernel};

#[test]
fn odd_core_relocations_are_cheap() {
    println!("{}", process::run("odd::odd", 0..ODD.len() as u64, NAMES));
}

type Odd = (fn(usize) -> Vec<u8>, usize);

/// Types of many kinds, many types, long paths.
const ODD: &[Odd] = &[
    (core_kinds, 2),
    (core_kinds, 4),
    (core_kinds, 12),
    (core_kinds, 19),
    (core_types, 128),
    (core_types, 5000),
    (core_depth, 64),
    (core_depth, 65),
    (core_depth, 100_000),
];

/// Runs in the child process of `odd_core_relocations_are_cheap`.
#[test]
#[ignore = "run by odd_core_relocations_are_cheap, in a process of its own"]
fn odd() {
    let kernel = kernel(true);
    process::work(|case| {
        let (make, size) = ODD[case as usize];
        index_of(&roundtrip(&make(size), &["p0"], &kernel))
    });
}

/// A program of so many moves of a 1, each asking whether that path exists in one of so many types called
/// `task_struct`, of that kind.
fn core(kind: u32, types_count: usize, count: usize, path: &str) -> Vec<u8> {
    let mut elf = ElfBuilder::new();
    let code = [instruction(0xb7, 1, 1).repeat(count), mov0(), exit()].concat();
    let size = code.len() as u64;
    let section = elf.section("sockops", PROGBITS, CODE, code);
    elf.symbol("p0", FUNC, section, (0, size));
    let mut types = BtfBuilder::new();
    let (section, path) = (types.string("sockops"), types.string(path));
    let (root, prio) = (types.string("task_struct"), types.string("prio"));
    let int = types.string("int");
    let int = types.add(int, (1, 0), 4, &[0x0100_0020]);
    let ids: Vec<u32> = (0..types_count).map(|_| types.add(root, (kind, 1), 4, &[prio, int, 0])).collect();
    let mut records = vec![section, count as u32];
    records.extend((0..count).flat_map(|i| [8 * i as u32, ids[i % ids.len()], path, 2]));
    elf.section(".BTF", PROGBITS, 0, types.build());
    elf.section(".BTF.ext", PROGBITS, 0, ext([(8, vec![]), (16, vec![]), (16, records)]));
    elf.build()
}

fn core_types(types: usize) -> Vec<u8> {
    core(4, types, types, "0:0")
}

fn core_kinds(kind: usize) -> Vec<u8> {
    core(kind as u32, 1, 1, "0")
}

pub fn core_relocations(count: usize) -> Vec<u8> {
    core(4, 128, count, "0:0")
}

/// A struct that contains itself, so that an access path can have any length. The relocation only asks whether the
/// field exists.
fn core_depth(parts: usize) -> Vec<u8> {
    let mut elf = ElfBuilder::new();
    let section = elf.section("sockops", PROGBITS, CODE, [instruction(0xb7, 1, 1), mov0(), exit()].concat());
    elf.symbol("p0", FUNC, section, (0, 24));
    let mut types = BtfBuilder::new();
    let (section, path) = (types.string("sockops"), types.string(vec!["0"; parts].join(":")));
    let (name, member) = (types.string("task_struct"), types.string("m".repeat(512)));
    let root = types.add(name, (4, 1), 4, &[member, 1, 0]);
    elf.section(".BTF", PROGBITS, 0, types.build());
    let records = vec![section, 1, 0, root, path, 2];
    elf.section(".BTF.ext", PROGBITS, 0, ext([(8, vec![]), (16, vec![]), (16, records)]));
    elf.build()
}
