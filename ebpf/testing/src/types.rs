//! Takes the bytes of a `.BTF` section through all that is done with one: as an object's types, which are read, made
//! fit for kernels and relocated, and as a kernel's, in which names are searched. The fuzz target fails if this panics.

use std::collections::{HashMap, HashSet};

use sockeye_ebpf::{
    btf::{
        Btf, KernelBtf, Kind, Type,
        ext::CoreRelo,
        fit::{BtfFeatures, Fit, Layout, Variable},
    },
    link::core::Relocator,
};

use crate::random::Rng;

/// The types that are relocated, and the functions whose parameters may become contexts.
const MOST: usize = 32;
/// `BPF_PROG_TYPE_SOCK_OPS`, `BPF_PROG_TYPE_CGROUP_SKB`
const PROGRAM_TYPES: [u32; 2] = [13, 8];
/// `r1 = 1`, `r1 = *(u32 *)(r2 + 0)`, `r1 = 1 ll`
const INSTRUCTIONS: [[u8; 16]; 3] = [
    [0xb7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    [0x61, 0x21, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    [0x18, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
];

/// Takes the bytes through. Returns whether they are types that libbpf reads.
pub fn take_types(bytes: &[u8]) -> bool {
    let kernel = KernelBtf::new(Box::new(bytes.to_vec())).ok();
    let Ok(btf) = Btf::parse(bytes) else {
        kernel.iter().for_each(|kernel| search(kernel, &kernel.btf()));
        return false;
    };
    btf.types().for_each(|one| read(&btf, &one));
    // The default is a kernel that knows nothing of BTF but the oldest kinds.
    for features in [BtfFeatures::ALL, BtfFeatures::default()] {
        make_fit(&btf, &features);
    }
    if let Some(kernel) = &kernel {
        search(kernel, &btf);
        relocate(&btf, kernel);
    }
    true
}

/// Damages one word at random. Types consist of words.
pub fn mutate_word(bytes: &mut [u8], rng: &mut Rng) {
    let (len, at) = (bytes.len(), 4 * rng.below(bytes.len() / 4));
    let Some(word) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<4>()) else { return };
    let value = rng.number(u32::from_le_bytes(*word).into(), len);
    *word = (value as u32).to_le_bytes();
}

/// Reads all that a type says.
fn read(btf: &Btf<'_>, one: &Type<'_>) {
    let _ = (one.text().len(), one.size(), one.type_id(), one.linkage(), one.int(), one.component(), one.kind_flag());
    let _ = (btf.skip_modifiers(one.id), btf.resolve_size(one.id), btf.align_of(one.id));
    let named = one.members().map(|member| member.text().len());
    let named = named.chain(one.enumerators().map(|value| value.text().len()));
    let named = named.chain(one.params().map(|param| param.text().len()));
    assert!(named.chain(one.vars().map(|_| 0)).chain(one.array().map(|_| 0)).count() <= 1 << 16);
}

/// Makes the types fit for a kernel. The result must be types again, with the same IDs.
fn make_fit(btf: &Btf<'_>, features: &BtfFeatures) {
    let layout = layout(btf);
    let mut fit = Fit::new(btf, &layout);
    let functions: Vec<u32> = btf.types().filter(|one| one.kind == Kind::Func).map(|one| one.id).take(MOST).collect();
    for program_type in PROGRAM_TYPES {
        fit.retype_contexts(program_type, &mut functions.clone());
    }
    let bytes = fit.finish(&layout, features);
    let again = Btf::parse(&bytes).unwrap();
    assert!(again.len() >= btf.len(), "{} types became {}", btf.len(), again.len());
}

/// Returns what the file of these types might say.
fn layout<'a>(btf: &Btf<'a>) -> Layout<'a> {
    let of_kind = |kind: Kind| btf.types().filter(move |one| one.kind == kind);
    let configs = of_kind(Kind::Datasec).filter(|one| one.is_named(b".kconfig"));
    let configs: Vec<Type<'_>> =
        configs.flat_map(|section| section.vars().filter_map(|var| btf.get(var.type_id)).collect::<Vec<_>>()).collect();
    Layout {
        sections: of_kind(Kind::Datasec).map(|one| (one.name(), one.size().wrapping_add(one.id % 8))).collect(),
        variables: of_kind(Kind::Var)
            .map(|one| (one.name(), Variable { offset: 8 * one.id, is_hidden: one.id % 2 == 0 }))
            .collect::<HashMap<_, _>>(),
        config_size: 8 * configs.len() as u32,
        config: configs.iter().zip(0..).map(|(one, at)| (one.name(), 8 * at)).collect(),
        hidden: of_kind(Kind::Func).filter(|one| one.id % 2 == 0).map(|one| one.name()).collect::<HashSet<_>>(),
    }
}

/// Searches the kernel's types for the names of others.
fn search(kernel: &KernelBtf, names: &Btf<'_>) {
    for one in names.types().take(MOST) {
        let found = kernel.candidates(one.name(), one.kind);
        assert!(found.iter().all(|id| kernel.btf().get(*id).is_some()));
        kernel.symbol(one.name(), one.kind);
    }
}

/// Asks all questions that a relocation can ask.
fn relocate(btf: &Btf<'_>, kernel: &KernelBtf) {
    let path = |text: &[u8]| (0..1 << 16).find(|offset| btf.strings().is(*offset, text));
    let paths: Vec<u32> = [b"0".as_slice(), b"0:0"].into_iter().filter_map(path).collect();
    let mut relocator = Relocator::new(btf, kernel);
    for type_id in 1..btf.len().min(MOST as u32) {
        for (kind, access_str_off) in (0..13).flat_map(|kind| paths.iter().map(move |path| (kind, *path))) {
            let relo = CoreRelo { insn_off: 0, type_id, access_str_off, kind };
            let mut code = INSTRUCTIONS[(type_id + kind) as usize % INSTRUCTIONS.len()];
            if let Err(error) = relocator.relocate(&relo, &mut code) {
                assert!(error.to_string().len() < 4096);
            }
        }
    }
}
