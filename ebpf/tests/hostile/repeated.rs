//! Records about lines that each program repeats: a program that is linked has those of all functions that it calls.

use sockeye_ebpf_testing::builder::{BtfBuilder, ElfBuilder, PROGBITS, ext};

use crate::{
    bombs::{calling_program, text},
    poisoned::PROGRAMS,
};

/// So many lines of one instruction in a function that all programs call. Each program has a line of its own, too,
/// since one without has none at all.
pub fn lines(count: usize) -> Vec<u8> {
    let mut elf = ElfBuilder::new();
    let text = text(&mut elf, 1, 3);
    let mut types = BtfBuilder::new();
    let mut records = vec![types.string(".text"), count as u32];
    records.extend([0, 0, 0, 0].repeat(count));
    for i in 0..PROGRAMS {
        calling_program(&mut elf, &format!("p{i}"), text);
        records.extend([types.string(format!("sockops/p{i}")), 1, 0, 0, 0, 0]);
    }
    elf.section(".BTF", PROGBITS, 0, types.build());
    elf.section(".BTF.ext", PROGBITS, 0, ext([(8, vec![]), (16, records), (16, vec![])]));
    elf.build()
}
