//! Names in objects: those of programs, maps and sections reach statuses, logs and paths. What the spec names, or what
//! its programs need, is refused if its name is unfit for one of these, and the refusal quotes it in a form that is
//! safe to show. Anything else in the object has whatever name it likes, and is not listed.

use sockeye_crds::Reason;
use sockeye_ebpf::{Accepted, check::check};
use sockeye_ebpf_testing::{
    builder::{
        BtfBuilder, CODE, DATA, ElfBuilder, FUNC, OBJECT, PROGBITS, REL, exit, ext, instruction, mov0, relocation,
        words,
    },
    roundtrip::spec,
};

/// Names that no file on bpffs may have, or that are unsafe to show.
fn unfit() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> =
        [".", "..", "../../etc", "a/b", "a.b", "a b", "a\u{1b}[2J\u{1b}[1;31mb", "a\r\nb", "é"]
            .into_iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
    names.push("a\u{202e}b".into());
    names.push(vec![b'a'; 129]);
    names.push(vec![b'a'; 10_000]);
    names.push(b"\xff\xfe".to_vec());
    names
}

fn refused(bytes: &[u8]) -> String {
    let refusal = check(&spec(&["p0"]), bytes).unwrap_err();
    assert_eq!(refusal.reason, Reason::InvalidObject, "{refusal}");
    assert_safe(&refusal.message);
    refusal.message
}

fn assert_safe(text: &str) {
    let is_safe = |c: char| (' '..='~').contains(&c) || matches!(c, 'é' | '…' | '\u{fffd}');
    assert!(text.len() <= 2048 && text.chars().all(is_safe), "{text:?}");
}

fn accepted(bytes: &[u8]) -> Accepted {
    let accepted = check(&spec(&["p0"]), bytes).unwrap();
    accepted.notes.iter().for_each(|note| assert_safe(note));
    accepted
}

/// Adds the program `p0`, which loads the address of a symbol, and returns it by its section.
fn program_with(elf: &mut ElfBuilder, symbol: impl FnOnce(&mut ElfBuilder) -> u32) {
    let code = [instruction(0x18, 1, 0), instruction(0, 0, 0), mov0(), exit()].concat();
    let section = elf.section("sockops", PROGBITS, CODE, code);
    elf.symbol("p0", FUNC, section, (0, 32));
    let symbol = symbol(elf);
    elf.relocations(section, REL, relocation(0, symbol, false));
}

/// Adds a map with a legacy definition or one with BTF, and returns its symbol.
fn map(elf: &mut ElfBuilder, name: &[u8], is_legacy: bool) -> u32 {
    if is_legacy {
        let maps = elf.section("maps", PROGBITS, DATA, words(&[2, 4, 4, 1, 0]));
        return elf.symbol(name, OBJECT, maps, (0, 20));
    }
    let maps = elf.section(".maps", PROGBITS, DATA, vec![0; 32]);
    let symbol = elf.symbol(name, OBJECT, maps, (0, 32));
    let mut types = BtfBuilder::new();
    let [map, section, kind, entries] = [name, b".maps", b"type", b"max_entries"].map(|name: &[u8]| types.string(name));
    let (two, one) = (types.uint(2), types.uint(1));
    let composite = types.add(0, (4, 2), 16, &[kind, two, 0, entries, one, 64]);
    let variable = types.add(map, (14, 0), composite, &[1]);
    types.add(section, (15, 1), 32, &[variable, 0, 32]);
    elf.section(".BTF", PROGBITS, 0, types.build());
    symbol
}

#[test]
fn programs_with_unfit_names_are_not_listed_and_can_not_be_named() {
    for name in unfit() {
        let mut elf = ElfBuilder::new();
        elf.program("p0");
        elf.program(&name);
        let bytes = elf.build();
        let listed = accepted(&bytes).object.programs;
        assert_eq!(listed.iter().map(|program| program.name.as_str()).collect::<Vec<_>>(), ["p0"]);
        if let Ok(name) = str::from_utf8(&name) {
            let refusal = check(&spec(&[name]), &bytes).unwrap_err();
            assert!(matches!(refusal.reason, Reason::InvalidObject | Reason::ProgramNotFound), "{refusal}");
            assert_safe(&refusal.message);
        }
    }
}

#[test]
fn maps_with_unfit_names_are_refused_where_a_program_uses_them() {
    for (name, is_legacy) in unfit().into_iter().flat_map(|name| [(name.clone(), true), (name, false)]) {
        let mut elf = ElfBuilder::new();
        program_with(&mut elf, |elf| map(elf, &name, is_legacy));
        refused(&elf.build());

        let mut elf = ElfBuilder::new();
        elf.program("p0");
        map(&mut elf, &name, is_legacy);
        assert!(accepted(&elf.build()).object.maps.is_empty());
    }
}

#[test]
fn data_with_unfit_names_is_refused_where_a_program_uses_it() {
    for name in [".data.a/../b", ".data.\u{1b}[2J", ".data.\n", &format!(".data.{}", "x".repeat(200))] {
        let mut elf = ElfBuilder::new();
        program_with(&mut elf, |elf| {
            let data = elf.section(name, PROGBITS, DATA, vec![1; 8]);
            elf.symbol("v", OBJECT, data, (0, 8))
        });
        refused(&elf.build());
        let mut elf = ElfBuilder::new();
        elf.program("p0");
        elf.section(name, PROGBITS, DATA, vec![1; 8]);
        assert!(accepted(&elf.build()).object.maps.is_empty());
    }
    let mut elf = ElfBuilder::new();
    elf.program("p0");
    elf.section(".data.a.b", PROGBITS, DATA, vec![1; 8]);
    elf.section(".data.a_b", PROGBITS, DATA, vec![1; 8]);
    assert_eq!(accepted(&elf.build()).object.maps.len(), 2, "each has a pin of its own");
}

#[test]
fn sections_with_unfit_names_are_shown_in_a_safe_form() {
    for name in ["sockops/\u{1b}]0;title\u{7}", "sockops/\n", "sockops/é", &format!("sockops/{}", "x".repeat(300))] {
        let mut elf = ElfBuilder::new();
        let section = elf.section(name, PROGBITS, CODE, [mov0(), exit()].concat());
        elf.symbol("p0", FUNC, section, (0, 16));
        let listed = accepted(&elf.build()).object.programs;
        let [program] = &listed[..] else { panic!("{listed:?}") };
        assert!(program.section.starts_with("sockops/") && program.section.len() <= 256);
        assert_safe(&program.section);
    }
}

#[test]
fn any_licence_is_accepted_up_to_its_first_nul_and_shown_in_a_safe_form() {
    for (text, shown) in [
        ("", ""),
        ("GPL\u{1b}[2J", "GPL?[2J"),
        ("GPL\n", "GPL?"),
        ("GPL\0GPL", "GPL"),
        ("GPL\0\0\0", "GPL"),
        ("é", "é"),
    ] {
        let mut elf = ElfBuilder::new();
        elf.program("p0");
        let mut file = elf.build();
        // Moves the licence, section 3, to the end of the file.
        let at = file.len() as u64;
        let header = u64::from_le_bytes(file[0x28..0x30].try_into().unwrap()) as usize + 3 * 64;
        file[header + 0x18..header + 0x20].copy_from_slice(&at.to_le_bytes());
        file[header + 0x20..header + 0x28].copy_from_slice(&(text.len() as u64).to_le_bytes());
        file.extend(text.as_bytes());
        assert_eq!(accepted(&file).object.license, shown);
    }
}

#[test]
fn pin_requests_in_legacy_definitions_give_one_bounded_note() {
    let mut elf = ElfBuilder::new();
    elf.program("p0");
    let count = 100;
    let maps = elf.section("maps", PROGBITS, DATA, words(&[2, 4, 4, 1, 0, 0, 1]).repeat(count));
    for i in 0..count {
        elf.symbol(format!("{}{i}", "m".repeat(100)), OBJECT, maps, (28 * i as u64, 28));
    }
    let notes = accepted(&elf.build()).notes;
    let [note] = &notes[..] else { panic!("{notes:?}") };
    assert!(note.len() <= 700 && note.contains("mmm0, ") && note.contains("pinned"), "{note}");
}

#[test]
fn overlapping_functions_are_refused_where_one_of_them_is_run() {
    for (value, size, word) in [(0, 8, "over another"), (8, 8, "over another"), (8, 16, "outside"), (4, 8, "not whole")]
    {
        let mut elf = ElfBuilder::new();
        let section = elf.program("p0");
        elf.symbol("p1", FUNC, section, (value, size));
        let bytes = elf.build();
        let refusal = check(&spec(&["p1"]), &bytes).or_else(|_| check(&spec(&["p0"]), &bytes)).map(|_| ());
        let both = [check(&spec(&["p0"]), &bytes), check(&spec(&["p1"]), &bytes)];
        let refusals: Vec<String> = both.into_iter().filter_map(Result::err).map(|refusal| refusal.message).collect();
        assert!(refusal.is_ok() && refusals.len() == 1 && refusals[0].contains(word), "{value} {size}: {refusals:?}");
    }
    // Two names of one function.
    let mut elf = ElfBuilder::new();
    let section = elf.program("p0");
    elf.symbol("p1", FUNC, section, (0, 16));
    check(&spec(&["p0", "p1"]), &elf.build()).unwrap();
}

#[test]
fn records_out_of_order_are_refused_by_the_linker() {
    use sockeye_ebpf::link::LinkError;
    use sockeye_ebpf_testing::{
        kernel::TableKernel,
        roundtrip::{Outcome, roundtrip},
    };
    let mut types = BtfBuilder::new();
    let name = types.string("sockops");
    let types = types.build();
    for (records, is_refused) in [([8, 0], true), ([0, 8], false)] {
        let mut elf = ElfBuilder::new();
        elf.program("p0");
        elf.section(".BTF", PROGBITS, 0, types.clone());
        let records = vec![name, 2, records[0], 0, records[1], 0];
        elf.section(".BTF.ext", PROGBITS, 0, ext([(8, records), (16, vec![]), (16, vec![])]));
        let outcome = roundtrip(&elf.build(), &["p0"], &TableKernel::new(true, None));
        assert_eq!(matches!(outcome, Outcome::Unlinked(LinkError::Info { .. })), is_refused, "{outcome:?}");
    }
}
