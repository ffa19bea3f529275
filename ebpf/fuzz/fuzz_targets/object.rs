//! The fuzz target: takes bytes through everything that the operator and an agent do before the kernel sees an object.
//! libFuzzer searches for bytes that reach new code. Half of its mutations are those of the tests' mutants.
#![no_main]

use std::sync::LazyLock;

use aya_obj::{Object, btf::Btf};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use sockeye_ebpf::programs::fixtures;
use sockeye_ebpf_testing::{
    mutate::{SEEDS, mutate},
    random::Rng,
    roundtrip::{features, roundtrip_all_programs},
};

/// The types of an object, used as if they were a kernel's.
static TYPES: LazyLock<Option<Btf>> = LazyLock::new(|| Object::parse(fixtures::EVERYTHING).ok()?.btf);

fuzz_target!(|bytes: &[u8]| {
    for known in [true, false] {
        roundtrip_all_programs(bytes, TYPES.as_ref(), &features(known));
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
