//! `Mutant`: a valid object, damaged at random in the places that readers depend on. A case number determines the
//! bytes, so that any failure can be reproduced.

use sockeye_ebpf::programs::{TCP_EVENTS, TCP_EVENTS_BTF, fixtures};

use crate::random::Rng;

/// A valid object and the programs that a spec for it names.
#[derive(Clone, Copy, Debug)]
pub struct Seed {
    /// The name of the source.
    pub name: &'static str,
    /// The bytes of the object.
    pub bytes: &'static [u8],
    /// The names of the programs to run.
    pub programs: &'static [&'static str],
}

const fn seed(name: &'static str, bytes: &'static [u8], programs: &'static [&'static str]) -> Seed {
    Seed { name, bytes, programs }
}

/// The objects that mutants are made from. The largest one and the legacy one are listed twice.
pub static SEEDS: [Seed; 9] = [
    seed("everything", fixtures::EVERYTHING, EVERYTHING),
    seed("tcp-events", TCP_EVENTS, &["my_prog"]),
    seed("globals", fixtures::GLOBALS, &["on_connect", "on_create"]),
    seed("everything", fixtures::EVERYTHING, EVERYTHING),
    seed("core", fixtures::CORE, &["read_rtt"]),
    seed("tcp-events-btf", TCP_EVENTS_BTF, &["my_prog"]),
    seed("twice", fixtures::TWICE, &["my_prog"]),
    seed("tcp-events", TCP_EVENTS, &["my_prog"]),
    seed("kinds", fixtures::KINDS, &["on_connect", "on_tcp"]),
];
const EVERYTHING: &[&str] = &["events", "connect", "egress"];

/// A damaged object.
#[derive(Clone, Debug)]
pub struct Mutant {
    /// The undamaged object.
    pub seed: Seed,
    /// The damaged bytes.
    pub bytes: Vec<u8>,
}

/// Returns the mutant of a case number.
pub fn mutant(case: u64) -> Mutant {
    let seed = SEEDS[(case % SEEDS.len() as u64) as usize];
    let mut rng = Rng(case);
    let mut bytes = seed.bytes.to_vec();
    for _ in 0..=rng.below(4) {
        mutate(&mut bytes, &mut rng);
    }
    Mutant { seed, bytes }
}

/// Damages an object once.
pub fn mutate(bytes: &mut Vec<u8>, rng: &mut Rng) {
    match rng.below(20) {
        0 | 1 => any_bytes(bytes, rng),
        2 => file_header(bytes, rng),
        3 | 4 => section_header(bytes, rng),
        5 => two_sections(bytes, rng),
        6 | 7 => symbol(bytes, rng),
        8 | 9 => relocation(bytes, rng),
        10 => words_of(bytes, rng, ".BTF", 24),
        11 | 12 => btf_type(bytes, rng),
        13 => words_of(bytes, rng, ".BTF.ext", 32),
        14 => words_of(bytes, rng, ".BTF.ext", usize::MAX),
        15 => words_of(bytes, rng, "maps", usize::MAX),
        16 => instruction(bytes, rng),
        17 => name(bytes, rng),
        18 => length(bytes, rng),
        _ => splice(bytes, rng),
    }
}

fn get(bytes: &[u8], at: usize, width: usize) -> u64 {
    let all = at.checked_add(width).and_then(|end| bytes.get(at..end)).unwrap_or_default();
    all.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn put(bytes: &mut [u8], at: usize, width: usize, value: u64) {
    let place = at.checked_add(width).and_then(|end| bytes.get_mut(at..end)).unwrap_or_default();
    place.copy_from_slice(&value.to_le_bytes()[..place.len()]);
}

fn change(bytes: &mut [u8], at: usize, width: usize, rng: &mut Rng) {
    let value = rng.number(get(bytes, at, width), bytes.len());
    put(bytes, at, width, value);
}

/// A section as its header describes it.
#[derive(Clone, Copy)]
struct Section {
    header: usize,
    kind: u64,
    offset: usize,
    size: usize,
}

/// Returns the sections whose headers are within the file. Their bytes may not be.
fn sections(bytes: &[u8]) -> Vec<Section> {
    let (table, count) = (get(bytes, 0x28, 8) as usize, get(bytes, 0x3c, 2) as usize);
    let headers = (0..count.min(256)).filter_map(|i| table.checked_add(64 * i));
    let headers = headers.filter(|header| header.checked_add(64).is_some_and(|end| end <= bytes.len()));
    let section = |header: usize| {
        let field = |at: usize, width| get(bytes, header + at, width);
        Section { header, kind: field(4, 4), offset: field(0x18, 8) as usize, size: field(0x20, 8) as usize }
    };
    headers.map(section).collect()
}

fn named(bytes: &[u8], name: &str) -> Option<Section> {
    let all = sections(bytes);
    let names = *all.get(get(bytes, 0x3e, 2) as usize)?;
    all.into_iter().find(|section| {
        let at = names.offset.checked_add(get(bytes, section.header, 4) as usize);
        let text = at.and_then(|at| bytes.get(at..)).unwrap_or_default();
        text.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
    })
}

fn of_kind(bytes: &[u8], rng: &mut Rng, kinds: &[u64]) -> Option<Section> {
    let all: Vec<Section> = sections(bytes).into_iter().filter(|s| kinds.contains(&s.kind) && s.size > 0).collect();
    (!all.is_empty()).then(|| rng.pick(&all))
}

fn any_bytes(bytes: &mut [u8], rng: &mut Rng) {
    for _ in 0..=rng.below(4) {
        let width = rng.pick(&[1, 1, 2, 4, 8]);
        let at = rng.below(bytes.len());
        change(bytes, at, width, rng);
    }
}

fn file_header(bytes: &mut [u8], rng: &mut Rng) {
    let (at, width) = rng.pick(&[(4, 1), (5, 1), (0x10, 2), (0x12, 2), (0x28, 8), (0x3a, 2), (0x3c, 2), (0x3e, 2)]);
    change(bytes, at, width, rng);
}

fn section_header(bytes: &mut [u8], rng: &mut Rng) {
    let all = sections(bytes);
    if all.is_empty() {
        return;
    }
    let fields = [(0, 4), (4, 4), (8, 8), (0x10, 8), (0x18, 8), (0x20, 8), (0x28, 4), (0x2c, 4), (0x30, 8), (0x38, 8)];
    let (at, width) = rng.pick(&fields);
    let header = rng.pick(&all).header;
    if at == 4 && rng.below(2) == 0 {
        // PROGBITS, SYMTAB, STRTAB, RELA, NOBITS, REL, SYMTAB_SHNDX, CREL
        return put(bytes, header + 4, 4, rng.pick(&[1, 2, 3, 4, 8, 9, 18, 0x4000_0014]));
    }
    change(bytes, header + at, width, rng);
}

/// Swaps two section headers, or copies one over the other.
fn two_sections(bytes: &mut [u8], rng: &mut Rng) {
    let all = sections(bytes);
    if all.is_empty() {
        return;
    }
    let (one, other) = (rng.pick(&all).header, rng.pick(&all).header);
    // The whole header, or only the place of the bytes.
    let (from, width) = rng.pick(&[(0, 64), (0x18, 16), (4, 60)]);
    for at in (from..from + width).step_by(4) {
        let (a, b) = (get(bytes, one + at, 4), get(bytes, other + at, 4));
        put(bytes, one + at, 4, b);
        if width == 64 {
            put(bytes, other + at, 4, a);
        }
    }
}

fn symbol(bytes: &mut [u8], rng: &mut Rng) {
    let Some(table) = of_kind(bytes, rng, &[2]) else { return };
    let at = table.offset.wrapping_add(24 * rng.below(table.size / 24));
    let (field, width) = rng.pick(&[(0, 4), (4, 1), (4, 1), (5, 1), (6, 2), (6, 2), (8, 8), (8, 8), (16, 8)]);
    if field == 4 {
        // Local, global or weak; no type, object, function, section or file.
        let info = rng.pick(&[0u64, 0x10, 0x20]) | rng.below(5) as u64;
        return put(bytes, at.wrapping_add(4), 1, info);
    }
    if field == 6 {
        let index = rng.below(sections(bytes).len() + 1) as u64;
        return put(bytes, at.wrapping_add(6), 2, index);
    }
    change(bytes, at.wrapping_add(field), width, rng);
}

fn relocation(bytes: &mut [u8], rng: &mut Rng) {
    let Some(table) = of_kind(bytes, rng, &[9, 4]) else { return };
    let each = if table.kind == 4 { 24 } else { 16 };
    let at = table.offset.wrapping_add(each * rng.below(table.size / each));
    match rng.below(4) {
        0 => put(bytes, at, 8, 8 * rng.below(128) as u64),
        1 => put(bytes, at.wrapping_add(12), 4, rng.below(64) as u64),
        2 => put(bytes, at.wrapping_add(8), 4, rng.pick(&[0, 1, 2, 3, 4, 10, 255])),
        _ => change(bytes, at.wrapping_add(rng.pick(&[0, 8, 12])), rng.pick(&[4, 8]), rng),
    }
}

/// Changes words of a section, within its first `most` bytes.
fn words_of(bytes: &mut [u8], rng: &mut Rng, name: &str, most: usize) {
    let Some(section) = named(bytes, name) else { return };
    for _ in 0..=rng.below(3) {
        let at = section.offset.wrapping_add(4 * rng.below(section.size.min(most) / 4));
        change(bytes, at, 4, rng);
    }
}

/// Changes a word of a type, half of the time to a plausible value.
fn btf_type(bytes: &mut [u8], rng: &mut Rng) {
    let Some(section) = named(bytes, ".BTF") else { return };
    let header = |at: usize| get(bytes, section.offset.wrapping_add(at), 4) as usize;
    let (start, len) = (header(4).wrapping_add(header(8)), header(12));
    let mut at = section.offset.wrapping_add(start);
    let end = at.saturating_add(len).min(bytes.len());
    let mut types = Vec::new();
    while at < end {
        let info = get(bytes, at.wrapping_add(4), 4);
        let rest = match info >> 24 & 31 {
            1 | 14 | 17 => 4,
            3 => 12,
            4 | 5 | 15 | 19 => 12 * (info & 0xffff) as usize,
            6 | 13 => 8 * (info & 0xffff) as usize,
            _ => 0,
        };
        types.push((at, info, rest));
        at = at.saturating_add(12 + rest);
    }
    if types.is_empty() {
        return;
    }
    let (at, info, rest) = rng.pick(&types);
    let field = at.wrapping_add(4 * rng.below(3 + rest / 4));
    match rng.below(6) {
        0 => put(bytes, at.wrapping_add(4), 4, (rng.below(21) << 24) as u64 | info & 0xffff),
        1 => put(bytes, at.wrapping_add(4), 4, info & !0xffff | rng.below(5) as u64),
        2 => put(bytes, at.wrapping_add(4), 4, info ^ 1 << 31),
        3 => put(bytes, field, 4, rng.below(types.len() + 2) as u64),
        _ => change(bytes, field, 4, rng),
    }
}

fn instruction(bytes: &mut [u8], rng: &mut Rng) {
    let code =
        sections(bytes).into_iter().filter(|s| s.kind == 1 && get(bytes, s.header + 8, 8) & 4 != 0 && s.size > 0);
    let code: Vec<Section> = code.collect();
    if code.is_empty() {
        return;
    }
    let section = rng.pick(&code);
    let at = section.offset.wrapping_add(8 * rng.below(section.size / 8));
    match rng.below(4) {
        // Calls, an address, moves, a load, a store, an atomic, jumps, an exit.
        0 => put(bytes, at, 1, rng.pick(&[0x85, 0x85, 0x18, 0xb7, 0xbf, 0x79, 0x7b, 0xdb, 0x05, 0x15, 0x95, 0x00])),
        1 => put(bytes, at.wrapping_add(1), 1, rng.pick(&[0x00, 0x10, 0x20, 0x11, 0x21, 0xff])),
        2 => put(bytes, at.wrapping_add(4), 4, rng.number(0, section.size / 8)),
        _ => change(bytes, at.wrapping_add(rng.pick(&[0, 2, 4])), rng.pick(&[1, 2, 4]), rng),
    }
}

/// Names that are unsafe in a terminal, a path or a message.
const NAMES: [&[u8]; 8] =
    [b"..", b"../../x", b".", b"a.b", b"\x1b[2J", b"\n\r\t", b"\xff\xfe\xc0", "\u{202e}\u{0}".as_bytes()];

fn name(bytes: &mut [u8], rng: &mut Rng) {
    let table = if rng.below(3) == 0 { named(bytes, ".BTF") } else { of_kind(bytes, rng, &[3]) };
    let Some(table) = table else { return };
    let at = table.offset.wrapping_add(rng.below(table.size));
    for (i, byte) in rng.pick(&NAMES).iter().enumerate() {
        put(bytes, at.wrapping_add(i), 1, u64::from(*byte));
    }
}

fn length(bytes: &mut Vec<u8>, rng: &mut Rng) {
    match rng.below(3) {
        0 => bytes.truncate(rng.below(bytes.len())),
        1 => bytes.resize(bytes.len() + rng.below(4096), rng.pick(&[0, 0xff, 0x41])),
        _ => drop(bytes.drain(..rng.below(bytes.len()).min(64))),
    }
}

/// Replaces a section's bytes by another object's.
fn splice(bytes: &mut Vec<u8>, rng: &mut Rng) {
    let donor = rng.pick(&SEEDS).bytes;
    let (all, theirs) = (sections(bytes), sections(donor));
    if all.is_empty() {
        return;
    }
    let (section, other) = (rng.pick(&all), rng.pick(&theirs));
    let Some(new) = other.offset.checked_add(other.size).and_then(|end| donor.get(other.offset..end)) else { return };
    let end = bytes.len() as u64;
    bytes.extend_from_slice(new);
    put(bytes, section.header + 0x18, 8, end);
    put(bytes, section.header + 0x20, 8, new.len() as u64);
    if rng.below(2) == 0 {
        put(bytes, section.header + 4, 4, other.kind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_number_reproduces_its_bytes() {
        let all: Vec<Vec<u8>> = (0..2000).map(|case| mutant(case).bytes).collect();
        assert!((0..2000).all(|case| mutant(case as u64).bytes == all[case]));
        let changed = all.iter().enumerate().filter(|(case, bytes)| **bytes != SEEDS[case % SEEDS.len()].bytes);
        assert!(changed.count() > 1900, "damage that changes nothing tests nothing");
    }

    #[test]
    fn every_kind_of_damage_changes_the_object() {
        let mut rng = Rng(0);
        let seed = fixtures::EVERYTHING;
        let kinds: [fn(&mut Vec<u8>, &mut Rng); 7] = [
            |bytes, rng| section_header(bytes, rng),
            |bytes, rng| symbol(bytes, rng),
            |bytes, rng| relocation(bytes, rng),
            |bytes, rng| words_of(bytes, rng, ".BTF.ext", 32),
            |bytes, rng| btf_type(bytes, rng),
            |bytes, rng| instruction(bytes, rng),
            |bytes, rng| name(bytes, rng),
        ];
        for (i, kind) in kinds.into_iter().enumerate() {
            let changed = (0..100).filter(|_| {
                let mut bytes = seed.to_vec();
                kind(&mut bytes, &mut rng);
                bytes != seed
            });
            assert!(changed.count() > 60, "kind {i}");
        }
        assert!(named(TCP_EVENTS, "maps").is_some_and(|section| section.size == 28 || section.size == 20));
    }
}
