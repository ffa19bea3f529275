//! Names in objects: those of programs, maps and sections reach statuses, logs and paths. A name that is unfit for one
//! of these is refused, and the refusal quotes it in a form that is safe to show.

use sockeye_crds::Reason;
use sockeye_ebpf::{Object, ObjectError, check::check};
use sockeye_ebpf_testing::{
    builder::{BtfBuilder, CODE, DATA, ElfBuilder, FUNC, OBJECT, PROGBITS, exit, ext, mov0, words},
    roundtrip::spec,
};

/// Names that no file on bpffs may have, or that are unsafe to show.
fn unfit() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> =
        ["", ".", "..", "../../etc", "a/b", "a.b", "a b", "a\u{1b}[2J\u{1b}[1;31mb", "a\r\nb", "é"]
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
    let message = refusal.message;
    assert!(message.len() <= 2048 && message.chars().all(|c| (' '..='~').contains(&c) || c == 'é'), "{message:?}");
    message
}

#[test]
fn unfit_names_of_programs_are_refused() {
    for name in unfit() {
        let mut elf = ElfBuilder::new();
        elf.program("p0");
        elf.program(&name);
        refused(&elf.build());
    }
}

#[test]
fn unfit_names_of_maps_are_refused_in_both_forms() {
    for name in unfit() {
        let mut elf = ElfBuilder::new();
        elf.program("p0");
        let maps = elf.section("maps", PROGBITS, DATA, words(&[2, 4, 4, 1, 0]));
        elf.symbol(&name, OBJECT, maps, (0, 20));
        refused(&elf.build());

        let mut elf = ElfBuilder::new();
        elf.program("p0");
        let maps = elf.section(".maps", PROGBITS, DATA, vec![0; 32]);
        elf.symbol(&name, OBJECT, maps, (0, 32));
        let mut types = BtfBuilder::new();
        let [map, section, member] = [&name[..], b".maps", b"type"].map(|name| types.string(name));
        let one = types.uint(2);
        let composite = types.add(0, (4, 1), 8, &[member, one, 0]);
        let variable = types.add(map, (14, 0), composite, &[1]);
        types.add(section, (15, 1), 32, &[variable, 0, 32]);
        elf.section(".BTF", PROGBITS, 0, types.build());
        refused(&elf.build());
    }
}

#[test]
fn unfit_names_of_global_data_are_refused() {
    for name in [".data.a/../b", ".data.\u{1b}[2J", ".bss.\n", &format!(".data.{}", "x".repeat(200))] {
        let mut elf = ElfBuilder::new();
        elf.program("p0");
        elf.section(name, PROGBITS, DATA, vec![1; 8]);
        refused(&elf.build());
    }
    let mut elf = ElfBuilder::new();
    elf.program("p0");
    elf.section(".data.a.b", PROGBITS, DATA, vec![1; 8]);
    elf.section(".data.a_b", PROGBITS, DATA, vec![1; 8]);
    assert!(refused(&elf.build()).contains("pinned under the same name"));
}

#[test]
fn unfit_names_of_program_sections_are_refused() {
    for name in ["sockops/\u{1b}]0;title\u{7}", "sockops/\n", "sockops/é", &format!("sockops/{}", "x".repeat(128))] {
        let mut elf = ElfBuilder::new();
        let section = elf.section(name, PROGBITS, CODE, [mov0(), exit()].concat());
        elf.symbol("p0", FUNC, section, (0, 16));
        refused(&elf.build());
    }
}

#[test]
fn unfit_licences_are_refused() {
    for text in ["", "GPL\u{1b}[2J", "GPL\n", "GPL\0GPL", "é", &"x".repeat(129)] {
        let mut elf = ElfBuilder::new();
        elf.program("p0");
        let mut file = elf.build();
        let with_nul = [text.as_bytes(), b"\0"].concat();
        // Moves the licence, section 3, to the end of the file.
        let at = file.len() as u64;
        let header = u64::from_le_bytes(file[0x28..0x30].try_into().unwrap()) as usize + 3 * 64;
        file[header + 0x18..header + 0x20].copy_from_slice(&at.to_le_bytes());
        file[header + 0x20..header + 0x28].copy_from_slice(&(with_nul.len() as u64).to_le_bytes());
        file.extend(with_nul);
        assert!(refused(&file).contains("license"));
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
    let accepted = check(&spec(&["p0"]), &elf.build()).unwrap();
    let [note] = &accepted.notes[..] else { panic!("{:?}", accepted.notes) };
    assert!(note.len() <= 700 && note.contains("mmm0, ") && note.contains("pinned"), "{note}");
}

#[test]
fn linked_files_and_overlapping_functions_are_refused() {
    let mut elf = ElfBuilder::new();
    elf.program("p0");
    let mut file = elf.build();
    file[0x10] = 2;
    assert!(matches!(Object::read(&file), Err(ObjectError::Malformed(_))), "ET_EXEC");

    for (value, size, word) in [(0, 16, "same place"), (0, 8, "same place"), (8, 8, "over another"), (8, 16, "outside")]
    {
        let mut elf = ElfBuilder::new();
        let section = elf.program("p0");
        elf.symbol("p1", FUNC, section, (value, size));
        assert!(refused(&elf.build()).contains(word), "{value} {size}");
    }
}

#[test]
fn numbers_outside_aya_objs_enums_are_refused() {
    let mut types = BtfBuilder::new();
    let name = types.string("v");
    types.add(name, (14, 0), 0, &[3]);
    let mut elf = ElfBuilder::new();
    elf.program("p0");
    elf.section(".BTF", PROGBITS, 0, types.build());
    assert!(refused(&elf.build()).contains("linkage"));

    let mut elf = ElfBuilder::new();
    elf.program("p0");
    let maps = elf.section("maps", PROGBITS, DATA, words(&[2, 4, 4, 1, 0, 0, 2]));
    elf.symbol("m", OBJECT, maps, (0, 28));
    assert!(refused(&elf.build()).contains("pinning"));
}

#[test]
fn btf_ext_records_out_of_order_are_refused() {
    let mut types = BtfBuilder::new();
    let name = types.string("sockops");
    let types = types.build();
    for records in [[8, 0], [0, 0], [0, 4]] {
        let mut elf = ElfBuilder::new();
        elf.program("p0");
        elf.section(".BTF", PROGBITS, 0, types.clone());
        let records = vec![name, 2, records[0], 0, records[1], 0];
        elf.section(".BTF.ext", PROGBITS, 0, ext([(8, records), (16, vec![]), (16, vec![])]));
        assert!(refused(&elf.build()).contains("not in order"));
    }
}
