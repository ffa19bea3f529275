//! `Object::read` on the shipped objects and the fixtures. `hostile` has the tests with damaged objects.
#![allow(clippy::unwrap_used, missing_docs)]

use sockeye_crds::{MapDefinition, ProgramType};
use sockeye_ebpf::{
    Object, ObjectError,
    programs::{TCP_EVENTS, TCP_EVENTS_BTF, fixtures},
};

#[test]
fn tcp_events_is_read_in_both_forms() {
    for (bytes, definition) in [(TCP_EVENTS, MapDefinition::Legacy), (TCP_EVENTS_BTF, MapDefinition::Btf)] {
        let object = Object::read(bytes).unwrap();
        let info = object.info();
        let [program] = &info.programs[..] else { panic!("{info:?}") };
        assert_eq!((program.name.as_str(), program.section.as_str()), ("my_prog", "sockops"));
        assert_eq!(program.program_type, Some(ProgramType::SockOps));
        let [map] = &info.maps[..] else { panic!("{info:?}") };
        assert_eq!((map.name.as_str(), map.map_type.as_str()), ("my_map", "Array"));
        assert_eq!((map.key_size_bytes, map.value_size_bytes, map.max_entries, map.flags), (4, 8, 10, 0));
        assert_eq!(map.definition, definition);
        assert_eq!(map.used_by, ["my_prog"]);
        assert_eq!(info.license, "Dual BSD/GPL");
        assert!(info.btf && !object.needs_kernel_btf && object.pin_requests.is_empty());
    }
}

#[test]
fn subprograms_global_data_and_pin_requests_are_read() {
    let object = Object::read(fixtures::GLOBALS).unwrap();
    let maps: Vec<_> =
        object.info().maps.iter().map(|m| (m.name.as_str(), m.definition, m.used_by.join(","))).collect();
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
    assert_eq!(object.pin_requests, ["shared"]);
}

/// aya-obj loads the objects, so it must read the same maps from the same bytes.
#[test]
fn aya_obj_reads_the_same_maps() {
    use fixtures::{CORE, EVERYTHING, GLOBALS, REFUSED, RESHAPED, TWICE};
    let all = [TCP_EVENTS, TCP_EVENTS_BTF, GLOBALS, REFUSED, RESHAPED, TWICE, CORE, EVERYTHING];
    for bytes in all {
        let ours = Object::read(bytes).unwrap();
        let theirs = aya_obj::Object::parse(bytes).unwrap();
        assert_eq!(ours.info().maps.len(), theirs.maps.len());
        for map in &ours.info().maps {
            let other = &theirs.maps[&map.name];
            let sizes = [other.key_size(), other.value_size(), other.max_entries(), other.map_flags()].map(i64::from);
            assert_eq!([map.key_size_bytes, map.value_size_bytes, map.max_entries, map.flags], sizes, "{}", map.name);
            assert_eq!(map.map_type, sockeye_ebpf::kinds::map_type::name(other.map_type()));
        }
        assert!(ours.info().programs.iter().all(|p| theirs.programs.contains_key(&p.name)));
        assert_eq!(ours.needs_kernel_btf, theirs.has_btf_relocations());
    }
}

#[test]
fn only_objects_with_core_relocations_need_the_kernels_btf() {
    assert!(Object::read(fixtures::CORE).unwrap().needs_kernel_btf);
    assert!(!Object::read(fixtures::GLOBALS).unwrap().needs_kernel_btf);
}

#[test]
fn a_static_map_is_refused() {
    let refused = Object::read(fixtures::STATIC).unwrap_err().to_string();
    assert!(refused.contains("static") && refused.contains("use"), "{refused}");
}

#[test]
fn bytes_that_are_no_object_are_refused() {
    assert!(matches!(Object::read(b""), Err(ObjectError::NotElf)));
    assert!(matches!(Object::read(b"\x7fELF"), Err(ObjectError::Elf(_))));
    assert!(matches!(Object::read(&vec![0; (1 << 20) + 1]), Err(ObjectError::TooLarge(_))));
    let mut other = TCP_EVENTS.to_vec();
    other[18] = 62;
    assert_eq!(Object::read(&other), Err(ObjectError::Machine(62)));
    for len in (0..TCP_EVENTS.len()).step_by(7) {
        assert!(Object::read(&TCP_EVENTS[..len]).is_err(), "cut to {len}");
    }
}
