//! BTF made fit for kernels, compared byte for byte with what libbpf passes to BPF_BTF_LOAD (tests/oracle/record).
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use object::{Object as _, ObjectSection as _, ObjectSymbol as _, elf, read::elf::ElfFile64};
use sockeye_ebpf::{
    btf::{
        Btf, Ext, Kind,
        fit::{BtfFeatures, Fit, Layout, Variable},
    },
    programs::{TCP_EVENTS_BTF, fixtures},
};

type Elf<'a> = ElfFile64<'a, object::LittleEndian>;

/// The names of features in tables.
const FEATURES: [&str; 8] = [
    "btf_func",
    "btf_global_func",
    "btf_datasec",
    "btf_float",
    "btf_decl_tag",
    "btf_type_tag",
    "btf_enum64",
    "btf_qmark_datasec",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Builds the recorder. None where libbpf or a compiler can't be had, which is said.
fn recorder() -> Option<PathBuf> {
    let built = Command::new("tests/oracle/build.sh").arg("record").current_dir(root()).output().unwrap();
    if !built.status.success() {
        println!("NOT COMPARED WITH LIBBPF: {}", String::from_utf8_lossy(&built.stderr));
        assert!(env::var_os("CI").is_none(), "CI must compare with libbpf");
        return None;
    }
    Some(String::from_utf8(built.stdout).unwrap().trim().into())
}

/// Compiles the program with everything in it.
fn types(dir: &Path) -> Vec<u8> {
    let clang = env::var("SOCKEYE_CLANG").unwrap_or_else(|_| "clang-16".to_owned());
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fit/types.bpf.c");
    let include = format!("/usr/include/{}-linux-gnu", env::consts::ARCH);
    let object = dir.join("types.o");
    let args = ["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-idirafter", &include, "-c", source, "-o"];
    assert!(Command::new(clang).args(args).arg(&object).status().unwrap().success());
    fs::read(object).unwrap()
}

/// Returns the bytes that libbpf loads, if it takes the object.
fn recorded(
    recorder: &Path,
    dir: &Path,
    object: &[u8],
    (features, knows_tags): (&BtfFeatures, bool),
) -> Option<Vec<u8>> {
    let (path, table) = (dir.join("object.o"), dir.join("table"));
    fs::write(&path, object).unwrap();
    let all = fs::read_to_string(root().join("tests/oracle/tables/7.2")).unwrap();
    let others = all.lines().filter(|line| !FEATURES.iter().any(|name| line.starts_with(&format!("feature {name} "))));
    let mut features = *features;
    let ours = FEATURES.map(|name| format!("feature {name} {}", u8::from(*features.by_name(name).unwrap())));
    let ours = ours.into_iter().chain([format!("feature arg_ctx_tag {}", u8::from(knows_tags))]);
    fs::write(&table, others.map(str::to_owned).chain(ours).collect::<Vec<_>>().join("\n") + "\n").unwrap();
    let out = Command::new(recorder).args([&path, &table]).arg("/sys/kernel/btf/vmlinux").output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let btf = text.lines().find_map(|line| line.strip_prefix("btf "));
    assert!(btf.is_some() || text.starts_with("refused"), "{text}{}", String::from_utf8_lossy(&out.stderr));
    let byte = |two: &[u8]| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap();
    Some(btf?.as_bytes().chunks(2).map(byte).collect())
}

/// The offsets of configuration values, as libbpf orders them: by alignment, size and name.
fn config<'a>(btf: &Btf<'a>) -> (BTreeMap<&'a [u8], u32>, u32) {
    let mut values = Vec::new();
    for var in btf.find(b".kconfig", Kind::Datasec).into_iter().flat_map(|section| section.vars().collect::<Vec<_>>()) {
        let one = btf.get(var.type_id).unwrap();
        let (size, align) = (btf.resolve_size(one.type_id()).unwrap(), btf.align_of(one.type_id()).unwrap());
        values.push((u32::MAX - align, size, one.name(), align));
    }
    values.sort_unstable();
    let mut end = 0u32;
    let place = |(_, size, name, align)| {
        let offset = end.next_multiple_of(align);
        end = offset + size;
        (name, offset)
    };
    let offsets = values.into_iter().map(place).collect();
    (offsets, end)
}

fn layout<'a>(elf: &Elf<'a>, btf: &Btf<'a>) -> Layout<'a> {
    let mut layout = Layout::default();
    for section in elf.sections() {
        layout.sections.insert(section.name_bytes().unwrap(), section.size() as u32);
    }
    let text = elf.section_by_name(".text").map(|text| text.index());
    for symbol in elf.symbols().filter(|symbol| symbol.is_global() && !symbol.is_undefined()) {
        let raw = symbol.elf_symbol();
        let is_hidden = matches!(raw.st_other & 3, elf::STV_HIDDEN | elf::STV_INTERNAL);
        let name = symbol.name_bytes().unwrap();
        if raw.st_type() == elf::STT_OBJECT {
            layout.variables.insert(name, Variable { offset: symbol.address() as u32, is_hidden });
        }
        if raw.st_type() == elf::STT_FUNC && is_hidden && symbol.section_index() == text {
            layout.hidden.insert(name);
        }
    }
    let (offsets, size) = config(btf);
    layout.config.extend(offsets);
    layout.config_size = size;
    layout
}

/// Compares the BTF of an object with libbpf's. Returns whether libbpf takes the object.
fn compare(recorder: &Path, name: &str, object: &[u8], features: &BtfFeatures) -> bool {
    compare_with(recorder, name, object, (features, &[]))
}

/// The programs that may call functions with tagged contexts: the type of each, and the types of its functions.
type Programs = [(u32, Vec<u32>)];

/// Compares the BTF of an object with libbpf's, on a kernel that does not know the tags of contexts if programs are
/// given.
fn compare_with(recorder: &Path, name: &str, object: &[u8], (features, programs): (&BtfFeatures, &Programs)) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let elf = Elf::parse(object).unwrap();
    let btf = Btf::parse(elf.section_by_name(".BTF").unwrap().data().unwrap()).unwrap();
    let layout = layout(&elf, &btf);
    let mut fit = Fit::new(&btf, &layout);
    for (prog_type, funcs) in programs {
        let mut types = funcs.clone();
        fit.retype_contexts(*prog_type, &mut types);
        assert!(types.iter().zip(funcs).filter(|(after, before)| after > before).count() == 2, "{types:?} {funcs:?}");
    }
    let ours = fit.finish(&layout, features);
    let Some(mut theirs) = recorded(recorder, dir.path(), object, (features, programs.is_empty())) else {
        return false;
    };
    // libbpf passes on headers of other lengths, unless it adds types.
    let header = u32::from_le_bytes(theirs[4..8].try_into().unwrap()) as usize;
    theirs.drain(24..header);
    theirs[4] = 24;
    if ours == theirs {
        return true;
    }
    let (one, other) = (Btf::parse(&ours).unwrap(), Btf::parse(&theirs).unwrap());
    for (one, other) in one.types().zip(other.types()) {
        assert_eq!(format!("{one:?} {}", one.text()), format!("{other:?} {}", other.text()), "{name}, {features:?}");
    }
    panic!("{name}, {features:?}: {} and {} types, or other strings", one.len(), other.len());
}

/// The features of a number: each of its bits is one.
fn features(number: u32) -> BtfFeatures {
    let mut features = BtfFeatures::ALL;
    for (bit, name) in FEATURES.iter().enumerate() {
        *features.by_name(name).unwrap() = number >> bit & 1 == 0;
    }
    features
}

#[test]
fn types_are_loaded_as_by_libbpf() {
    let Some(recorder) = recorder() else { return };
    let dir = tempfile::tempdir().unwrap();
    let types = types(dir.path());
    for number in 0..256 {
        assert!(compare(&recorder, "types", &types, &features(number)));
    }
    let others = [
        ("everything", fixtures::EVERYTHING),
        ("globals", fixtures::GLOBALS),
        ("core", fixtures::CORE),
        ("kinds", fixtures::KINDS),
        ("tcp-events-btf", TCP_EVENTS_BTF),
    ];
    for (name, object) in others {
        for number in (0..256).step_by(5) {
            assert!(compare(&recorder, name, object, &features(number)), "{name}");
        }
    }
}

#[test]
fn types_of_every_compiler_are_loaded_as_by_libbpf() {
    let Some(recorder) = recorder() else { return };
    let (mut taken, mut refused) = (0, 0);
    for folder in fs::read_dir(root().join("tests/objects/built")).unwrap() {
        for object in fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = object.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            if Elf::parse(bytes.as_slice()).unwrap().section_by_name(".BTF").is_none() {
                continue;
            }
            for number in [0, 0x40, 0xf8, 0xff] {
                let is_taken = compare(&recorder, &path.to_string_lossy(), &bytes, &features(number));
                *(if is_taken { &mut taken } else { &mut refused }) += 1;
            }
        }
    }
    println!("{taken} are equal, libbpf refuses {refused}");
    assert!(taken > 200, "{taken}");
}

#[test]
fn tagged_contexts_are_retyped_as_by_libbpf() {
    let Some(recorder) = recorder() else { return };
    let dir = tempfile::tempdir().unwrap();
    let types = types(dir.path());
    let elf = Elf::parse(types.as_slice()).unwrap();
    let data = |name| elf.section_by_name(name).unwrap().data().unwrap();
    let (btf, ext) = (Btf::parse(data(".BTF")).unwrap(), Ext::parse(data(".BTF.ext")).unwrap());
    let func = |name: &str| {
        let records = ext.func_info.sections().flat_map(|section| section.func_infos().collect::<Vec<_>>());
        let mut ids = records.map(|record| record.type_id);
        ids.find(|id| btf.get(*id).is_some_and(|func| func.is_named(name.as_bytes()))).unwrap()
    };
    let other = ["other_program", "of_context", "of_hidden_context"].map(func).to_vec();
    let program = ["program", "own", "visible", "of_context", "of_typed_context"].map(func).to_vec();
    // The types of programs: sock_ops, cgroup_skb.
    let programs = [(13, other), (8, program)];
    // Kernels without types of functions get no function information, so libbpf leaves the functions alone.
    for number in [0, 0x40, 0xf8, 0xfe] {
        assert!(compare_with(&recorder, "types", &types, (&features(number), &programs)));
    }
}
