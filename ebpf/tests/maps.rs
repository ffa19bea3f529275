//! Definitions of maps as compilers write them: every attribute reaches the kernel, or is refused by name where a
//! program uses the map.
#![allow(clippy::unwrap_used, missing_docs)]

use sockeye_ebpf::{
    Object,
    link::{MapAttributes, MapRequest, PlannedMap, ProgramKind, Request, link},
    values::settings::Settings,
};
use sockeye_ebpf_testing::{
    builder::{CODE, DATA, ElfBuilder, FUNC, OBJECT, PROGBITS, REL, exit, instruction, mov0, relocation, words},
    cases::compiled,
    kernel::TableKernel,
};

/// Compiles a program that uses the map `m`.
fn with_map(definition: &str) -> Vec<u8> {
    compiled(&format!(
        "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n\
         #ifndef __ulong\n#define __ulong(name, val) enum {{ name##__value = val }} name\n#endif\n\
         {definition}\n\
         SEC(\"sockops\") int p(struct bpf_sock_ops *ops) {{ int k = 0; return !!bpf_map_lookup_elem(&m, &k); }}\n\
         char LICENSE[] SEC(\"license\") = \"GPL\";\n"
    ))
}

fn typed(fields: &str) -> Vec<u8> {
    with_map(&format!("struct {{ {fields} }} m SEC(\".maps\");"))
}

/// Links the program `p` and returns its maps' attributes by name.
fn maps(bytes: &[u8], max_entries: Option<u32>) -> Result<Vec<(String, MapAttributes, Option<MapAttributes>)>, String> {
    let object = Object::read(bytes).map_err(|error| error.to_string())?;
    let mut selection = object.select(["p"], []).map_err(|error| error.to_string())?;
    let info = object.info(&mut selection);
    let names = info.maps.iter().map(|map| (map.name.as_str(), MapRequest { max_entries }));
    let request = Request { programs: [("p", ProgramKind::default())].into(), maps: names.collect() };
    let settings = Settings::default();
    let plan = link(&object, &request, &settings, &TableKernel::new(true, None)).map_err(|error| error.to_string())?;
    let maps = plan.maps.into_iter();
    Ok(maps.map(|PlannedMap { name, attributes, inner, .. }| (name.to_owned(), attributes, inner)).collect())
}

fn one(bytes: &[u8]) -> MapAttributes {
    let maps = maps(bytes, None).unwrap();
    maps.into_iter().find(|(name, ..)| name == "m").unwrap().1
}

#[test]
fn every_attribute_reaches_the_kernel() {
    let all = one(&typed(
        "__uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 7); __uint(map_flags, 5); __uint(numa_node, 1); \
         __ulong(map_extra, 0x100000002ULL); __type(key, int); __uint(key_size, 4); __type(value, long); \
         __uint(pinning, 1);",
    ));
    let MapAttributes { map_type, key_size, value_size, max_entries, flags, numa_node, extra, types } = all;
    assert_eq!((map_type, key_size, value_size, max_entries), (1, 4, 8, 7));
    assert_eq!((flags, numa_node, extra), (5, 1, 0x1_0000_0002));
    assert!(types.is_some_and(|(key, value)| key != 0 && value != 0));
}

#[test]
fn sizes_are_fixed_as_libbpf_fixes_them() {
    let ring = one(&typed("__uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 5000);"));
    assert_eq!(ring.max_entries, 8192);
    let events =
        one(&typed("__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY); __uint(key_size, 4); __uint(value_size, 4);"));
    assert_eq!((events.max_entries, events.types), (4, None), "one entry for each processor, and no types");
    let sized = maps(&typed("__uint(type, BPF_MAP_TYPE_HASH); __type(key, int); __type(value, int);"), Some(3));
    assert_eq!(sized.unwrap()[0].1.max_entries, 3);
}

#[test]
fn maps_of_maps_have_the_shape_of_their_inner_ones() {
    let bytes = with_map(
        "struct inner { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 2); __type(key, int); __type(value, \
         long); };\nstruct { __uint(type, BPF_MAP_TYPE_HASH_OF_MAPS); __uint(max_entries, 2); __type(key, int); \
         __array(values, struct inner); } m SEC(\".maps\");",
    );
    let maps = maps(&bytes, None).unwrap();
    let (_, outer, inner) = &maps[0];
    assert_eq!((outer.map_type, outer.value_size, outer.types), (13, 4, None));
    let inner = inner.as_ref().unwrap();
    assert_eq!((inner.map_type, inner.value_size, inner.max_entries), (2, 8, 2));
}

#[test]
fn what_no_map_can_be_is_refused_by_name_where_a_program_uses_it() {
    let array = "__uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, int); __type(value, int);";
    for (fields, words) in [
        (format!("{array} __uint(max_entires, 2);"), "its field \"max_entires\" is not known"),
        (format!("{array} __uint(key_size, 8);"), "contradicts"),
        (format!("{array} int numa_node;"), "its field \"numa_node\" is not written as __uint"),
        (format!("{array} __uint(pinning, 7);"), "pinning that is not known"),
        (array.replace("__uint(type, BPF_MAP_TYPE_ARRAY);", ""), "says no type"),
        (array.replace("__type(value, int)", "__type(value, struct nowhere)"), "its value is of a type without size"),
        (format!("{array} __array(values, int);"), "values"),
        (
            "__uint(type, 33); __uint(map_flags, 1024); __uint(max_entries, 1); __ulong(map_extra, 1ULL << 44);".into(),
            "maps of type Arena need memory",
        ),
    ] {
        let refused = maps(&typed(&fields), None).unwrap_err();
        assert!(refused.contains("map \"m\"") && refused.contains(words), "{fields}: {refused}");
    }
    let unused = compiled(
        "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n\
         struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(odd, 1); } m SEC(\".maps\");\n\
         SEC(\"sockops\") int p(void *ops) { return 1; }\n",
    );
    assert!(maps(&unused, None).unwrap().is_empty());
}

/// Writes an object with a legacy definition of these words, which the program `p` uses.
fn legacy(definition: &[u32], more: &[(&str, &[u32])]) -> Vec<u8> {
    let mut elf = ElfBuilder::new();
    let code = [instruction(0x18, 1, 0), instruction(0, 0, 0), mov0(), exit()].concat();
    let program = elf.section("sockops", PROGBITS, CODE, code);
    elf.symbol("p", FUNC, program, (0, 32));
    let size = 4 * definition.len() as u64;
    let all = more.iter().fold(words(definition), |all, (_, definition)| [all, words(definition)].concat());
    let section = elf.section("maps", PROGBITS, DATA, all);
    let symbol = elf.symbol("m", OBJECT, section, (0, size));
    for (i, (name, _)) in more.iter().enumerate() {
        elf.symbol(name, OBJECT, section, (size * (i as u64 + 1), size));
    }
    elf.relocations(program, REL, relocation(0, symbol, false));
    elf.build()
}

#[test]
fn legacy_definitions_of_every_layout_are_read() {
    let pins = |bytes: &[u8]| {
        let object = Object::read(bytes).unwrap();
        let selection = object.select(["p"], []).unwrap();
        !object.pin_requests(&selection).is_empty()
    };
    // libbpf's five words; aya's seven, with pinning by name; the kernel samples' seven, with a NUMA node.
    for (definition, numa_node, is_pinned) in
        [(&[2, 4, 8, 10, 0][..], 0, false), (&[2, 4, 8, 10, 0, 0, 1], 0, true), (&[2, 4, 8, 10, 4, 0, 1], 1, false)]
    {
        let bytes = legacy(definition, &[]);
        let map = one(&bytes);
        assert_eq!((map.map_type, map.key_size, map.value_size, map.max_entries), (2, 4, 8, 10));
        assert_eq!((map.numa_node, pins(&bytes), map.types), (numa_node, is_pinned, None));
    }
    // iproute2's nine: the inner map is named by its id.
    let inner = [2, 4, 8, 10, 0, 42, 0, 0, 0];
    let bytes = legacy(&[12, 4, 4, 2, 0, 0, 2, 42, 0], &[("inner", &inner)]);
    let maps = maps(&bytes, None).unwrap();
    let (_, outer, shape) = maps.iter().find(|(name, ..)| name == "m").unwrap();
    assert_eq!(outer.map_type, 12);
    assert_eq!(shape.as_ref().map(|shape| (shape.map_type, shape.value_size)), Some((2, 8)));
    assert!(pins(&bytes), "iproute2's global namespace is a pinning");
}

#[test]
fn data_maps_have_the_types_of_their_sections() {
    let bytes = compiled(
        "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n\
         int seen = 3; static volatile int own; const volatile int limit = 5;\n\
         SEC(\"sockops\") int p(void *ops) { own += limit; return seen; }\n",
    );
    let maps = maps(&bytes, None).unwrap();
    let flags = |name: &str| {
        let (_, map, _) = maps.iter().find(|(map, ..)| map == name).unwrap();
        assert!(map.types.is_some_and(|(key, value)| key == 0 && value != 0), "{name}");
        map.flags
    };
    // BPF_F_MMAPABLE for what is visible from outside, BPF_F_RDONLY_PROG for constants.
    assert_eq!((flags(".data"), flags(".bss"), flags(".rodata")), (0x400, 0, 0x480));
}
