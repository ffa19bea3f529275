//! The reader against the shipped objects, the fixtures, and damage.
#![cfg(feature = "fixtures")]
#![allow(clippy::unwrap_used, missing_docs)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use sockeye_crds::{MapDefinition, ProgramType};
use sockeye_ebpf::{
    Object, ObjectError,
    programs::{TCP_EVENTS, TCP_EVENTS_BTF, fixtures},
};

#[test]
fn the_seed_in_both_forms() {
    for (bytes, definition) in [(TCP_EVENTS, MapDefinition::Legacy), (TCP_EVENTS_BTF, MapDefinition::Btf)] {
        let object = Object::read(bytes).unwrap();
        let info = object.info();
        let [program] = &info.programs[..] else { panic!("{info:?}") };
        assert_eq!((program.name.as_str(), program.section.as_str()), ("my_prog", "sockops"));
        assert_eq!(program.program_type, Some(ProgramType::SockOps));
        let [map] = &info.maps[..] else { panic!("{info:?}") };
        assert_eq!((map.name.as_str(), map.map_type.as_str()), ("my_map", "Array"));
        assert_eq!((map.key_size, map.value_size, map.max_entries, map.flags), (4, 8, 10, 0));
        assert_eq!(map.definition, definition);
        assert_eq!(map.used_by, ["my_prog"]);
        assert_eq!(info.license, "Dual BSD/GPL");
        assert!(info.btf && !object.needs_kernel_btf && object.pin_requests.is_empty());
    }
}

#[test]
fn subprograms_global_data_and_pin_requests() {
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

/// What aya-obj makes of the same bytes must agree: it is what loads them.
#[test]
fn aya_reads_the_same_maps() {
    use fixtures::{CORE, GLOBALS, REFUSED, RESHAPED, TWICE};
    let all = [TCP_EVENTS, TCP_EVENTS_BTF, GLOBALS, REFUSED, RESHAPED, TWICE, CORE];
    for bytes in all {
        let ours = Object::read(bytes).unwrap();
        let theirs = aya_obj::Object::parse(bytes).unwrap();
        assert_eq!(ours.info().maps.len(), theirs.maps.len());
        for map in &ours.info().maps {
            let other = &theirs.maps[&map.name];
            let sizes = [other.key_size(), other.value_size(), other.max_entries(), other.map_flags()].map(i64::from);
            assert_eq!([map.key_size, map.value_size, map.max_entries, map.flags], sizes, "{}", map.name);
            assert_eq!(map.map_type, sockeye_ebpf::map_type::name(other.map_type()));
        }
        assert!(ours.info().programs.iter().all(|p| theirs.programs.contains_key(&p.name)));
        assert_eq!(ours.needs_kernel_btf, theirs.has_btf_relocations());
    }
}

#[test]
fn only_core_relocations_need_the_kernels_types() {
    assert!(Object::read(fixtures::CORE).unwrap().needs_kernel_btf);
    assert!(!Object::read(fixtures::GLOBALS).unwrap().needs_kernel_btf);
}

#[test]
fn what_is_no_object() {
    assert!(matches!(Object::read(b""), Err(ObjectError::Elf(_))));
    assert!(matches!(Object::read(&vec![0; (1 << 20) + 1]), Err(ObjectError::TooLarge(_))));
    let mut other = TCP_EVENTS.to_vec();
    other[18] = 62;
    assert_eq!(Object::read(&other), Err(ObjectError::Machine(62)));
    for len in (0..TCP_EVENTS.len()).step_by(7) {
        assert!(Object::read(&TCP_EVENTS[..len]).is_err(), "cut to {len}");
    }
}

/// A small generator, so that a failure can be made again from its number.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The reader never panics, whatever the damage. aya-obj may, on what the reader lets pass: the agent has a panic boundary for
/// that; the count is printed (`--nocapture`).
#[test]
fn damage_is_an_error_and_never_a_panic() {
    let seeds = [TCP_EVENTS, TCP_EVENTS_BTF, fixtures::GLOBALS];
    let (mut accepted, mut panics) = (0, 0);
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    for case in 0..30_000u64 {
        let mut state = case;
        let mut bytes = seeds[(case % 3) as usize].to_vec();
        for _ in 0..=splitmix(&mut state) % 4 {
            let at = (splitmix(&mut state) % bytes.len() as u64) as usize;
            bytes[at] = match splitmix(&mut state) % 3 {
                0 => 0xff,
                1 => bytes[at] ^ (1 << (splitmix(&mut state) % 8)),
                _ => splitmix(&mut state) as u8,
            };
        }
        let read = catch_unwind(AssertUnwindSafe(|| Object::read(&bytes).is_ok()));
        let Ok(ok) = read else { panic!("case {case} panicked") };
        if ok {
            accepted += 1;
            panics += i32::from(catch_unwind(AssertUnwindSafe(|| drop(aya_obj::Object::parse(&bytes)))).is_err());
        }
    }
    std::panic::set_hook(hook);
    println!("of 30000 damaged objects {accepted} were accepted; aya-obj panicked on {panics} of these");
    assert!(accepted > 1000, "the damage must leave some objects readable, or nothing is shown");
}
