//! The fuzz target: takes bytes through everything that the operator and an agent do before the kernel sees an object.
//! libFuzzer searches for bytes that reach new code. Half of its mutations are those of the tests' mutants.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use sockeye_ebpf::{object::image::Image, programs::fixtures};
use sockeye_ebpf_testing::{
    kernel::TableKernel,
    mutate::{SEEDS, mutate},
    random::Rng,
    roundtrip::roundtrip_all_programs,
};

/// A kernel with all features, and one with none. They have the types of an object.
static KERNELS: LazyLock<[TableKernel; 2]> = LazyLock::new(|| {
    [true, false].map(|all| {
        let image = Image::parse(fixtures::EVERYTHING).ok();
        let types = image.and_then(|image| image.section_named(".BTF")?.data().ok().map(<[u8]>::to_vec));
        TableKernel::new(all, types)
    })
});

fuzz_target!(|bytes: &[u8]| {
    for kernel in KERNELS.iter() {
        roundtrip_all_programs(bytes, kernel);
    }
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut rng = Rng(u64::from(seed));
    let mut bytes = if size < 64 || rng.below(200) == 0 {
        SEEDS[rng.below(SEEDS.len())].bytes.to_vec()
    } else {
        data[..size].to_vec()
    };
    if bytes.len() > max_size || rng.below(2) == 0 {
        return fuzzer_mutate(data, size, max_size);
    }
    for _ in 0..=rng.below(3) {
        mutate(&mut bytes, &mut rng);
    }
    bytes.truncate(max_size);
    data[..bytes.len()].copy_from_slice(&bytes);
    bytes.len()
});
