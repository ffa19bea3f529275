//! `Object` on the shipped objects and the fixtures. `hostile` has the tests with damaged objects, `cases` those with
//! what users bring.
#![allow(clippy::unwrap_used, missing_docs)]

use sockeye_crds::{MapDefinition, ObjectInfo, ProgramType};
use sockeye_ebpf::{
    Object, ObjectError,
    object::image::ImageError,
    programs::{TCP_EVENTS, TCP_EVENTS_BTF, fixtures},
};
use sockeye_ebpf_testing::builder::{
    CODE, DATA, ElfBuilder, FUNC, OBJECT, PROGBITS, REL, instruction, mov0, relocation, words,
};

/// Returns what a status shows if all programs are named, and the maps that ask to be pinned.
fn info(bytes: &[u8]) -> (ObjectInfo, Vec<String>) {
    let object = Object::read(bytes).unwrap();
    let mut selection = object.select(object.programs().map(|(name, _)| name), []).unwrap();
    let info = object.info(&mut selection);
    (info, object.pin_requests(&selection).into_iter().map(str::to_owned).collect())
}

#[test]
fn tcp_events_is_read_in_both_forms() {
    for (bytes, definition) in [(TCP_EVENTS, MapDefinition::Legacy), (TCP_EVENTS_BTF, MapDefinition::Btf)] {
        let (info, pin_requests) = info(bytes);
        let [program] = &info.programs[..] else { panic!("{info:?}") };
        assert_eq!((program.name.as_str(), program.section.as_str()), ("my_prog", "sockops"));
        assert_eq!(program.program_type, Some(ProgramType::SockOps));
        let [map] = &info.maps[..] else { panic!("{info:?}") };
        assert_eq!((map.name.as_str(), map.map_type.as_str()), ("my_map", "Array"));
        assert_eq!((map.key_size_bytes, map.value_size_bytes, map.max_entries, map.flags), (4, 8, 10, 0));
        assert_eq!(map.definition, definition);
        assert_eq!(map.used_by, ["my_prog"]);
        assert_eq!(info.license, "Dual BSD/GPL");
        assert!(info.btf && pin_requests.is_empty());
    }
}

#[test]
fn subprograms_global_data_and_pin_requests_are_read() {
    let (info, pin_requests) = info(fixtures::GLOBALS);
    let maps: Vec<_> = info.maps.iter().map(|m| (m.name.as_str(), m.definition, m.used_by.join(","))).collect();
    use MapDefinition::{Btf, Data};
    assert_eq!(
        maps,
        [
            (".bss", Data, "on_connect".to_owned()),
            (".data", Data, "on_create".to_owned()),
            (".rodata", Data, "on_connect".to_owned()),
            ("shared", Btf, "on_connect,on_create".to_owned()),
            ("unused", Btf, String::new()),
        ]
    );
    assert_eq!(pin_requests, ["shared"]);
}

#[test]
fn only_what_is_selected_is_created_and_what_nobody_uses() {
    let object = Object::read(fixtures::GLOBALS).unwrap();
    let mut selection = object.select(["on_create"], []).unwrap();
    let info = object.info(&mut selection);
    assert_eq!(info.maps.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), [".data", "shared", "unused"]);
    assert_eq!(info.programs.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["on_connect", "on_create"]);
    let mut left_out = object.left_out(&selection);
    left_out.sort_unstable();
    assert_eq!(left_out, [".bss", ".rodata"]);
    let mut named = object.select(["on_create"], [".bss"]).unwrap();
    assert!(object.info(&mut named).maps.iter().any(|map| map.name == ".bss"));
}

#[test]
fn a_static_map_is_refused_only_where_it_is_used() {
    let object = Object::read(fixtures::STATIC).unwrap();
    let refused = object.select(["use"], []).unwrap_err().to_string();
    assert!(refused.contains("static") && refused.contains("use"), "{refused}");
    object.select([], []).unwrap();
}

#[test]
fn a_load_that_ends_with_its_function_is_refused() {
    for (rest, is_refused) in [(vec![], true), (instruction(0, 0, 0), false)] {
        let mut elf = ElfBuilder::new();
        let code = [mov0(), instruction(0x18, 1, 0), rest].concat();
        let size = code.len() as u64;
        let section = elf.section("sockops", PROGBITS, CODE, code);
        elf.symbol("p0", FUNC, section, (0, size));
        let maps = elf.section("maps", PROGBITS, DATA, words(&[2, 4, 4, 1, 0]));
        let map = elf.symbol("m", OBJECT, maps, (0, 20));
        elf.relocations(section, REL, relocation(8, map, false));
        let bytes = elf.build();
        let object = Object::read(&bytes).unwrap();
        let selected = object.select(["p0"], []).map_err(|error| error.to_string());
        assert_eq!(selected.is_err_and(|error| error.contains("first half of a load")), is_refused);
    }
}

#[test]
fn bytes_that_are_no_object_are_refused() {
    let refused = |bytes: &[u8]| match Object::read(bytes) {
        Err(ObjectError::Image(error)) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(b""), ImageError::NotElf);
    assert_eq!(refused(b"\x7fELF"), ImageError::CutOff);
    assert_eq!(refused(&vec![0; (1 << 20) + 1]), ImageError::TooLarge((1 << 20) + 1));
    let mut other = TCP_EVENTS.to_vec();
    other[18] = 62;
    assert_eq!(refused(&other), ImageError::Machine(62));
    for len in (0..TCP_EVENTS.len()).step_by(7) {
        assert!(Object::read(&TCP_EVENTS[..len]).is_err(), "cut to {len}");
    }
}
