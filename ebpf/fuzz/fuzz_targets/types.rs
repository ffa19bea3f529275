//! The fuzz target of types alone: a `.BTF` section as an object's and as the kernel's. In whole objects, most
//! mutations hit something else. A third of the mutations change a word, of which types consist.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use sockeye_ebpf::object::image::Image;
use sockeye_ebpf_testing::{
    mutate::SEEDS,
    random::Rng,
    types::{mutate_word, take_types},
};

/// The types of the valid objects.
static TYPES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let images = SEEDS.iter().filter_map(|seed| Image::parse(seed.bytes).ok());
    images.filter_map(|image| image.section_named(".BTF")?.data().ok().map(<[u8]>::to_vec)).collect()
});

fuzz_target!(|bytes: &[u8]| {
    take_types(bytes);
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut rng = Rng(u64::from(seed));
    let mut bytes =
        if size < 24 || rng.below(200) == 0 { TYPES[rng.below(TYPES.len())].clone() } else { data[..size].to_vec() };
    if bytes.len() > max_size || rng.below(3) > 0 {
        return fuzzer_mutate(data, size, max_size);
    }
    for _ in 0..=rng.below(3) {
        mutate_word(&mut bytes, &mut rng);
    }
    data[..bytes.len()].copy_from_slice(&bytes);
    bytes.len()
});
