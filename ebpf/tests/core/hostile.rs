//! Hostile types: whatever the bytes, reading them, fitting them to a kernel and relocating instructions end within a
//! second, with little memory, and without a panic. Bombs are types that cost as much of these as possible.
//!
//! The cases run in a child process, so that one that overflows the stack or fills memory is a failure with a number.

use std::{fs, sync::OnceLock};

use sockeye_ebpf::{
    btf::{
        Btf, Ext, KernelBtf, Kind,
        ext::CoreRelo,
        fit::{BtfFeatures, Fit, Layout, Variable},
    },
    link::core::{Reason, Relocator},
};
use sockeye_ebpf_testing::{
    builder::{BtfBuilder, ext, words},
    process::{self, ENDS},
    random::Rng,
};

use crate::{Case, is_long};

/// The possible results of a case.
const NAMES: [&str; ENDS] = ["relocated", "refused as BTF", "refused as a relocation", "refused for its work"];

/// Changes some words of the types or of the strings.
fn damage(bytes: &mut [u8], rng: &mut Rng) {
    for _ in 0..rng.below(2) * rng.below(6) {
        // Half of the changes are in the first types, so that what follows is read differently.
        let most = if rng.below(2) == 0 { bytes.len() } else { bytes.len().min(400) };
        let at = 4 * rng.below(most / 4);
        let Some(place) = bytes.get_mut(at..at + 4) else { continue };
        let old = u32::from_le_bytes(place.try_into().unwrap());
        let new = match rng.below(7) {
            0 => old ^ 1 << rng.below(32),
            1 => old.wrapping_add(rng.below(9) as u32).wrapping_sub(4),
            2 => rng.below(64) as u32,
            3 => (rng.below(24) as u32) << 24 | rng.below(6) as u32,
            4 => old ^ 1 << 31,
            5 => [u32::MAX, 1 << 31, 0xffff, 1 << 20][rng.below(4)],
            _ => rng.below(usize::MAX) as u32,
        };
        place.copy_from_slice(&new.to_le_bytes());
    }
}

/// Touches everything that a reader of types may ask.
fn read(btf: &Btf<'_>) -> usize {
    let mut read = 0;
    for one in btf.types() {
        let parts = [
            one.members().filter(|part| part.name() == b"m1").count(),
            one.enumerators().filter(|part| part.value == 1).count(),
            one.params().filter(|part| part.text() == "x").count(),
            one.vars().filter(|part| btf.get(part.type_id).is_some()).count(),
        ];
        let sizes = btf.resolve_size(one.id).is_some() || btf.align_of(one.id).is_some();
        let skipped = btf.skip_modifiers(one.id).is_some_and(|one| one.int().bits == 8);
        read += parts.iter().sum::<usize>() + usize::from(sizes) + usize::from(skipped);
    }
    read
}

/// Fits the types to a kernel. What comes out must be BTF again.
fn fit_to_kernel(btf: &Btf<'_>, rng: &mut Rng) {
    let mut layout = Layout { config_size: rng.below(usize::MAX) as u32, ..Layout::default() };
    let mut bit = || rng.below(3) > 0;
    for one in btf.types().take(1000) {
        let offset = one.id.wrapping_mul(0x0123_4567);
        if bit() {
            layout.sections.insert(one.name(), offset);
        }
        layout.variables.insert(one.name(), Variable { offset, is_hidden: bit() });
        layout.config.insert(one.name(), offset);
        if bit() {
            layout.hidden.insert(one.name());
        }
    }
    let features = BtfFeatures {
        func: bit(),
        global_func: bit(),
        datasec: bit(),
        float: bit(),
        decl_tag: bit(),
        type_tag: bit(),
        enum64: bit(),
        qmark_datasec: bit(),
    };
    let mut fit = Fit::new(btf, &layout);
    let mut funcs: Vec<u32> = btf.types().filter(|one| one.kind == Kind::Func).map(|one| one.id).take(512).collect();
    for prog_type in 0..16 {
        fit.retype_contexts(prog_type, &mut funcs);
    }
    let fitted = fit.finish(&layout, &features);
    Btf::parse(&fitted).unwrap_or_else(|error| panic!("{error}: {features:?}"));
}

/// Takes an object through everything, and returns the index of the result.
fn take(local: &[u8], kernel: &KernelBtf, relos: &[(CoreRelo, [u8; 16])], rng: &mut Rng) -> usize {
    let Ok(btf) = Btf::parse(local) else { return 1 };
    read(&btf);
    fit_to_kernel(&btf, rng);
    let mut relocator = Relocator::new(&btf, kernel);
    let mut result = 0;
    for (relo, code) in relos {
        let mut code = *code;
        let done = relocator.relocate(relo, &mut code);
        if matches!(done, Ok(Some(_))) {
            let subject = relocator.subject(relo);
            assert!(subject.spec.len() < 400 && !subject.spec.chars().any(char::is_control), "{subject:?}");
        }
        result = match done {
            Err(error) if error.reason == Reason::Work => return 3,
            Err(error) => {
                assert!(error.to_string().len() < 600, "{error}");
                2
            }
            Ok(_) => result,
        };
    }
    result
}

fn cases() -> u64 {
    if is_long() { 1_000_000 } else { 20_000 }
}

#[test]
fn every_damaged_type_is_read_or_refused() {
    let tally = process::run("hostile::damaged", 0..cases(), NAMES);
    println!("{tally}");
    assert!(tally.ends[..3].iter().all(|count| *count > cases() / 100), "all results must occur: {tally}");
}

/// Runs in the child process of `every_damaged_type_is_read_or_refused`.
#[test]
#[ignore = "run by every_damaged_type_is_read_or_refused, in a process of its own"]
fn damaged() {
    process::work(|number| {
        let mut rng = Rng(number ^ 0xdead_beef);
        let Case { mut local, mut kernel, relos } = Case::new(number % 2000);
        let records: Vec<u32> =
            relos.iter().flat_map(|(relo, _)| [8, relo.type_id, relo.access_str_off, relo.kind]).collect();
        let head = vec![1, relos.len() as u32];
        let mut records = ext([(8, vec![]), (16, vec![]), (16, [head, records].concat())]);
        damage(&mut local, &mut rng);
        damage(&mut kernel, &mut rng);
        damage(&mut records, &mut rng);
        // Damaged kernels are refused as a whole, or read with what is left of them.
        let Ok(index) = KernelBtf::new(Box::new(kernel)) else { return 1 };
        read(&index.btf());
        let read = Ext::parse(&records).unwrap_or_default();
        let read = read.core_relos.sections().flat_map(|section| section.core_relos().collect::<Vec<_>>());
        let relos: Vec<(CoreRelo, [u8; 16])> = read.zip(relos.iter().map(|(_, code)| *code).cycle()).collect();
        take(&local, &index, &relos, &mut rng)
    });
}

/// A bomb: its name, and its types with relocations that start at some of them.
type Bomb = (&'static str, fn() -> (BtfBuilder, Vec<CoreRelo>));

const BOMBS: &[Bomb] = &[
    ("many relocations of a large struct", many),
    ("deep paths", deep),
    ("a struct that matches itself", nested),
    ("prototypes of prototypes", prototypes),
    ("long names of members", long_names),
    ("typedefs of typedefs", typedefs),
    ("arrays of arrays", arrays),
    ("many types of one name", one_name),
    ("functions that share a prototype", shared_prototype),
    ("data sections with one long name", sections),
    ("many enumerators", enumerators),
    ("tagged parameters", tags),
];

fn relo(type_id: u32, access_str_off: u32, kind: u32) -> CoreRelo {
    CoreRelo { insn_off: 0, type_id, access_str_off, kind }
}

/// The relocations that an object of the largest size can have.
const MANY: usize = 60_000;

fn many() -> (BtfBuilder, Vec<CoreRelo>) {
    let mut types = BtfBuilder::new();
    let (name, field, path) = (types.string("task_struct"), types.string("thread"), types.string("0:0"));
    let inner = types.add(0, (4, 0), 4, &[]);
    let root = types.add(name, (4, 1), 4, &[field, inner, 0]);
    (types, vec![relo(root, path, 1); MANY])
}

fn deep() -> (BtfBuilder, Vec<CoreRelo>) {
    let mut types = BtfBuilder::new();
    let (name, field) = (types.string("task_struct"), types.string("m".repeat(500)));
    let path = types.string(["0"; 64].join(":"));
    let root = types.add(name, (4, 1), 4, &[field, 1, 0]);
    (types, vec![relo(root, path, 1); MANY])
}

fn nested() -> (BtfBuilder, Vec<CoreRelo>) {
    let mut types = BtfBuilder::new();
    let (name, path) = (types.string("bomb"), types.string("0"));
    let field = types.string("m");
    let members: Vec<u32> = (0..100).flat_map(|_| [field, 1, 0]).collect();
    let root = types.add(name, (4, 100), 4, &members);
    (types, vec![relo(root, path, 12); 100])
}

fn prototypes() -> (BtfBuilder, Vec<CoreRelo>) {
    let mut types = BtfBuilder::new();
    let (name, path) = (types.string("bomb_t"), types.string("0"));
    let params: Vec<u32> = [0, 1].repeat(200);
    types.add(0, (13, 200), 1, &params);
    let root = types.add(name, (8, 0), 1, &[]);
    (types, [8, 12].map(|kind| relo(root, path, kind)).repeat(100))
}

fn long_names() -> (BtfBuilder, Vec<CoreRelo>) {
    let mut types = BtfBuilder::new();
    let (name, path) = (types.string("task_struct"), types.string("0"));
    let long = types.string(format!("{}x", "a___".repeat(200_000)));
    let int = types.add(long, (1, 0), 4, &[32]);
    let members: Vec<u32> = (0..200).flat_map(|i| [long + i, int, 0]).collect();
    let root = types.add(name, (4, 200), 4, &members);
    (types, vec![relo(root, path, 12); 1000])
}

fn typedefs() -> (BtfBuilder, Vec<CoreRelo>) {
    let mut types = BtfBuilder::new();
    let (name, path) = (types.string("pid_t"), types.string("0"));
    for id in 1..=50_000 {
        types.add(name, (8, 0), if id == 1 { 50_000 } else { id - 1 }, &[]);
    }
    (types, (1..=50_000).map(|id| relo(id, path, 8)).collect())
}

fn arrays() -> (BtfBuilder, Vec<CoreRelo>) {
    let mut types = BtfBuilder::new();
    let (name, field, path) = (types.string("task_struct"), types.string("comm"), types.string("0:0:0:0:0:0"));
    types.add(0, (3, 0), 0, &[1, 1, 1]);
    let root = types.add(name, (4, 1), 4, &[field, 1, 0]);
    (types, vec![relo(root, path, 0); MANY])
}

fn one_name() -> (BtfBuilder, Vec<CoreRelo>) {
    let mut types = BtfBuilder::new();
    let (name, path) = (types.string("task_struct"), types.string("0"));
    let ids: Vec<u32> = (0..40_000).map(|_| types.add(name, (4, 0), 4, &[])).collect();
    (types, ids.iter().map(|id| relo(*id, path, 8)).collect())
}

fn shared_prototype() -> (BtfBuilder, Vec<CoreRelo>) {
    let mut types = BtfBuilder::new();
    let (name, section) = (types.string("f"), types.string(".ksyms"));
    let int = types.add(name, (1, 0), 4, &[32]);
    let prototype = types.add(0, (13, 30_000), 0, &[0, int].repeat(30_000));
    let func = types.add(name, (12, 2), prototype, &[]);
    types.add(section, (15, 60_000), 0, &[func, 0, 0].repeat(60_000));
    (types, Vec::new())
}

fn sections() -> (BtfBuilder, Vec<CoreRelo>) {
    let mut types = BtfBuilder::new();
    let name = types.string("?.".repeat(200_000));
    for _ in 0..40_000 {
        types.add(name, (15, 0), 0, &[]);
    }
    (types, Vec::new())
}

fn enumerators() -> (BtfBuilder, Vec<CoreRelo>) {
    let mut types = BtfBuilder::new();
    let (name, path, value) = (types.string("bomb_enum"), types.string("0"), types.string("V"));
    let other = types.string("W");
    let values: Vec<u32> = (0..50_000).flat_map(|i| [if i == 49_999 { other } else { value }, 1]).collect();
    let root = types.add(name, (6, 50_000), 4, &values);
    let last = types.string("49999");
    (types, [relo(root, path, 12), relo(root, last, 11)].repeat(1000))
}

fn tags() -> (BtfBuilder, Vec<CoreRelo>) {
    let mut types = BtfBuilder::new();
    let (name, tag) = (types.string("f"), types.string("arg:ctx"));
    let pointer = types.add(0, (2, 0), 0, &[]);
    let prototype = types.add(0, (13, 64), 0, &[name, pointer].repeat(64));
    let funcs: Vec<u32> = (0..512).map(|_| types.add(name, (12, 1), prototype, &[])).collect();
    for i in 0..60_000 {
        types.add(tag, (17, 0), funcs[i % 512], &[i as u32 / 512 % 64]);
    }
    (types, Vec::new())
}

/// The running kernel's types.
fn kernel() -> &'static KernelBtf {
    static KERNEL: OnceLock<KernelBtf> = OnceLock::new();
    KERNEL.get_or_init(|| {
        let bytes = fs::read("/sys/kernel/btf/vmlinux").unwrap_or_else(|error| {
            println!("NOT RELOCATED against the kernel's types: {error}");
            BtfBuilder::new().build()
        });
        KernelBtf::new(Box::new(bytes)).unwrap()
    })
}

#[test]
fn bombs_are_cheap() {
    for (index, (name, _)) in BOMBS.iter().enumerate() {
        // Against the kernel's types, and against their own.
        for case in 2 * index as u64..2 * index as u64 + 2 {
            println!("{name}: {}", process::run("hostile::bomb", case..case + 1, NAMES));
        }
    }
}

/// Runs in the child process of `bombs_are_cheap`.
#[test]
#[ignore = "run by bombs_are_cheap, in a process of its own"]
fn bomb() {
    let real = kernel();
    process::work(|case| {
        let (name, make) = BOMBS[case as usize / 2];
        let (types, relos) = make();
        let bytes = types.build();
        assert!(bytes.len() + 16 * relos.len() <= 3 << 20, "{name}: no object is so large");
        let own = KernelBtf::new(Box::new(bytes.clone())).unwrap();
        // A move of a constant that fits each answer is not known, so a load of none is asked for.
        let code: [u8; 16] = words(&[0xb7, 0, 0xb7, 0]).try_into().unwrap();
        let relos: Vec<(CoreRelo, [u8; 16])> = relos.into_iter().map(|relo| (relo, code)).collect();
        let index = if case % 2 == 0 { real } else { &own };

        take(&bytes, index, &relos, &mut Rng(case))
    });
}
