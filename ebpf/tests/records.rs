//! Objects whose `.BTF` or `.BTF.ext` can't be read. As in libbpf, a program that needs no types is loaded without, and
//! a note says so; whatever needs types, and whatever libbpf refuses, is refused by name. tests/oracle compares such
//! objects with libbpf.
#![allow(clippy::unwrap_used, missing_docs)]

use sockeye_crds::{Reason, Refusal};
use sockeye_crds_testing::provoked;
use sockeye_ebpf::{
    Accepted, Object, check,
    link::{LinkError, MapRequest, Plan, ProgramKind, Request, core::Reason as CoreReason, link},
    values::settings::Settings,
};
use sockeye_ebpf_testing::{
    builder::{
        BtfBuilder, CODE, DATA, ElfBuilder, FUNC, NOBITS, OBJECT, PROGBITS, REL, call, exit, ext, instruction,
        relocation,
    },
    kernel::TableKernel,
    roundtrip::spec,
};

/// What the program `p0` uses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Uses {
    Nothing,
    /// A map with BTF.
    Map,
    /// A function of the kernel.
    Function,
    /// Nothing, and nobody uses the map that is there.
    NothingBesideMap,
}

/// Returns the types of an object with the map `m`, the kernel function `f` and the section `sockops`.
fn types() -> BtfBuilder {
    let mut types = BtfBuilder::new();
    let [map, maps] = ["m", ".maps"].map(|name| types.string(name));
    let [kind, entries, key, value] = ["type", "max_entries", "key_size", "value_size"].map(|name| types.string(name));
    let [function, ksyms] = ["f", ".ksyms"].map(|name| types.string(name));
    let (hash, one, four) = (types.uint(1), types.uint(1), types.uint(4));
    let members = [kind, hash, 0, entries, one, 64, key, four, 128, value, four, 192];
    let definition = types.add(0, (4, 4), 32, &members);
    let variable = types.add(map, (14, 0), definition, &[1]);
    types.add(maps, (15, 1), 32, &[variable, 0, 32]);
    let prototype = types.add(0, (13, 0), 0, &[]);
    let function = types.add(function, (12, 2), prototype, &[]);
    types.add(ksyms, (15, 1), 0, &[function, 0, 0]);
    types
}

/// Returns an object with these sections of types and of records, each with its type.
fn object(uses: Uses, btf: Option<(u32, Vec<u8>)>, ext: Option<(u32, Vec<u8>)>) -> Vec<u8> {
    let mut elf = ElfBuilder::new();
    let first = match uses {
        Uses::Map => [instruction(0x18, 1, 0), instruction(0, 0, 0)].concat(),
        Uses::Function => call(-1),
        // A relocation that asks whether something exists stands at a 1.
        Uses::Nothing | Uses::NothingBesideMap => instruction(0xb7, 0, 1),
    };
    let code = [first, exit()].concat();
    let size = code.len() as u64;
    let program = elf.section("sockops", PROGBITS, CODE, code);
    elf.symbol("p0", FUNC, program, (0, size));
    let symbol = match uses {
        Uses::Nothing => None,
        Uses::Function => Some(elf.symbol("f", 0x10, 0, (0, 0))),
        Uses::Map | Uses::NothingBesideMap => {
            let maps = elf.section(".maps", PROGBITS, DATA, vec![0; 32]);
            Some(elf.symbol("m", OBJECT, maps, (0, 32)))
        }
    };
    if let Some(symbol) = symbol.filter(|_| uses != Uses::NothingBesideMap) {
        elf.relocations(program, REL, relocation(0, symbol, uses == Uses::Function));
    }
    for (name, section) in [(".BTF", btf), (".BTF.ext", ext)] {
        if let Some((kind, bytes)) = section {
            elf.section(name, kind, 0, bytes);
        }
    }
    elf.build()
}

fn with_ext(uses: Uses, ext: Vec<u8>) -> Vec<u8> {
    object(uses, Some((PROGBITS, types().build())), Some((PROGBITS, ext)))
}

/// Returns records about lines that libbpf reads.
fn lines() -> Vec<u8> {
    ext([(8, vec![]), (16, vec![1, 1, 0, 0, 0, 1 << 10]), (16, vec![])])
}

/// Returns types, and a relocation of the section of that name at that offset, which asks whether a struct exists.
fn relocated(section: &str, offset: u32) -> (Vec<u8>, Vec<u8>) {
    let mut types = types();
    let [section, path, name] = [section, "0", "task_struct"].map(|text| types.string(text));
    let root = types.add(name, (4, 0), 4, &[]);
    (types.build(), ext([(8, vec![]), (16, vec![]), (16, vec![section, 1, offset, root, path, 8])]))
}

/// Returns all kinds of damage to `.BTF.ext` after which libbpf goes on without it (`btf_ext_parse`).
fn damaged() -> Vec<(&'static str, Vec<u8>)> {
    let mut all = Vec::new();
    let mut damage = |what, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = lines();
        change(&mut bytes);
        all.push((what, bytes));
    };
    let put =
        |at: usize, value: u32| move |bytes: &mut Vec<u8>| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    damage("nothing", &|bytes| bytes.clear());
    damage("no magic", &put(0, 0x0001_0000));
    damage("another version", &put(0, 0x0002_eb9f));
    damage("flags", &put(0, 0x0101_eb9f));
    damage("a header alone", &|bytes| bytes.truncate(32));
    damage("a short header", &put(4, 16));
    damage("a long header", &put(4, 4096));
    damage("lines at an odd offset", &put(16, 2));
    damage("lines outside", &put(16, 4096));
    damage("lines beyond the end", &put(20, 4096));
    damage("lines cut short", &put(20, 2));
    damage("small records", &put(32, 12));
    damage("odd records", &put(32, 17));
    damage("no record of a section", &put(40, 0));
    damage("too many records", &put(40, 2));
    damage("no section", &put(20, 4));
    damage("relocations outside", &|bytes| {
        put(24, 0)(bytes);
        put(28, 4096)(bytes);
    });
    all
}

fn checked(bytes: &[u8]) -> Result<Accepted, Refusal> {
    check(&spec(&["p0"]), bytes)
}

#[track_caller]
fn assert_refused(what: &str, bytes: &[u8], words: &[&str]) {
    let Err(refusal) = checked(bytes) else { panic!("{what}: it is accepted") };
    assert_eq!(refusal.reason, Reason::InvalidObject, "{what}: {refusal}");
    provoked(refusal.reason, &refusal.message);
    words.iter().for_each(|word| assert!(refusal.message.contains(word), "{what}: nothing of {word:?} in: {refusal}"));
}

/// Links the object as the operator accepts it, and looks at the plan.
#[track_caller]
fn linked<T>(what: &str, bytes: &[u8], look: impl FnOnce(Result<Plan<'_>, LinkError>) -> T) -> T {
    let accepted = checked(bytes).unwrap_or_else(|refusal| panic!("{what}: {refusal}"));
    let object = Object::read(bytes).unwrap();
    let kind = ProgramKind { prog_type: 13, attach_type: 3 };
    let request = Request {
        programs: [("p0", kind)].into(),
        maps: accepted.object.maps.iter().map(|map| (map.name.as_str(), MapRequest::default())).collect(),
    };
    let settings = Settings::default();
    look(link(&object, &request, &settings, &TableKernel::new(true, Some(types().build()))))
}

#[track_caller]
fn assert_noted(what: &str, bytes: &[u8], begin: &str) {
    linked(what, bytes, |plan| {
        let plan = plan.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(plan.programs.len() == 1 && plan.maps.is_empty(), "{what}");
        assert!(matches!(&plan.notes[..], [note] if note.starts_with(begin)), "{what}: {:?}", plan.notes);
    });
}

#[test]
fn a_program_that_needs_no_types_is_loaded_without_damaged_records_and_that_is_noted() {
    for (what, ext) in damaged() {
        assert_noted(
            what,
            &with_ext(Uses::Nothing, ext.clone()),
            "CO-RE relocations, functions and lines are not known",
        );
        assert_noted(what, &with_ext(Uses::NothingBesideMap, ext), "CO-RE relocations, functions and lines are");
    }
}

#[test]
fn sound_records_or_none_are_no_note() {
    for ext in [None, Some((PROGBITS, lines()))] {
        for uses in [Uses::Nothing, Uses::Map, Uses::Function] {
            let bytes = object(uses, Some((PROGBITS, types().build())), ext.clone());
            linked("sound", &bytes, |plan| assert!(plan.unwrap().notes.is_empty()));
        }
    }
}

#[test]
fn what_needs_types_is_refused_by_name_where_the_records_are_damaged() {
    for (what, ext) in damaged() {
        assert_refused(
            what,
            &with_ext(Uses::Map, ext.clone()),
            &["map \"m\"", "CO-RE relocations", "build the object anew"],
        );
        assert_refused(
            what,
            &with_ext(Uses::Function, ext),
            &["function \"p0\": it uses \"f\"", "build the object anew"],
        );
    }
}

#[test]
fn damaged_types_are_noted_or_refused_as_damaged_records_are() {
    let damaged = || Some((PROGBITS, types().build()[..40].to_vec()));
    assert_noted("no records", &object(Uses::Nothing, damaged(), None), "types are not known: BTF: ");
    let records = || Some((PROGBITS, lines()));
    let both = "types, CO-RE relocations, functions and lines are not known: BTF: ";
    assert_noted("records", &object(Uses::Nothing, damaged(), records()), both);
    assert_refused(
        "map",
        &object(Uses::Map, damaged(), None),
        &["\"m\": its definition is in BTF, which can't be read"],
    );
    assert_refused("function", &object(Uses::Function, damaged(), None), &["function \"p0\": it uses \"f\""]);
    let without = object(Uses::Nothing, None, records());
    assert_noted("no types", &without, "CO-RE relocations, functions and lines are not known: BTF: there are no types");
    assert_refused("map", &object(Uses::Map, None, records()), &["map \"m\"", "compile it with -g"]);
}

#[test]
fn what_libbpf_refuses_whoever_needs_types_is_refused() {
    let (btf, records) = (types().build(), lines());
    let whole = object(Uses::Nothing, Some((PROGBITS, btf.clone())), Some((PROGBITS, records.clone())));
    for section in [".BTF", ".BTF.ext"] {
        let words = [&format!("section {section:?} lies outside the file"), "build it anew"];
        assert_refused(section, &moved_outside(whole.clone(), section), &words);
    }
    let without_bits = object(Uses::Nothing, Some((PROGBITS, btf.clone())), Some((NOBITS, records)));
    assert_refused(".BTF.ext", &without_bits, &["section \".BTF.ext\" holds no bytes"]);
    let without_bits = object(Uses::Nothing, Some((NOBITS, btf)), None);
    assert_refused(".BTF", &without_bits, &["section \".BTF\" holds no bytes"]);
    let (btf, records) = relocated("", 0);
    let nameless = object(Uses::Nothing, Some((PROGBITS, btf)), Some((PROGBITS, records)));
    assert_refused("no name", &nameless, &["CO-RE relocations", "without a name"]);
}

/// Has a section's header say that its bytes are beyond the end of the file.
fn moved_outside(mut bytes: Vec<u8>, section: &str) -> Vec<u8> {
    let index = Object::read(&bytes).unwrap().image().section_named(section).unwrap().index;
    let table = u64::from_le_bytes(bytes[0x28..0x30].try_into().unwrap()) as usize;
    let field = table + 64 * index + 0x18;
    bytes[field..field + 8].copy_from_slice(&(1u64 << 40).to_le_bytes());
    bytes
}

#[test]
fn a_relocation_that_is_at_no_instruction_is_refused() {
    // The program has two instructions; what is in no function is a remnant of one that a linker has dropped.
    for (offset, is_refused) in [(0, false), (1, true), (4, true), (16, false), (20, false)] {
        let (btf, records) = relocated("sockops", offset);
        let bytes = object(Uses::Nothing, Some((PROGBITS, btf)), Some((PROGBITS, records)));
        linked("relocation", &bytes, |plan| match plan {
            Ok(_) => assert!(!is_refused, "{offset}"),
            Err(LinkError::Core { error, .. }) => {
                assert!(is_refused && error.reason == CoreReason::Instruction, "{offset}: {error}");
            }
            Err(error) => panic!("{offset}: {error}"),
        });
    }
}
