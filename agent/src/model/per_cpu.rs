//! Per-CPU maps: which they are, and how the values of an entry lie in the bytes that the kernel reads. Pure.
//!
//! There is one value for each possible CPU, and each is padded to eight bytes, also where there is one CPU
//! (`bpf_map_value_size` in kernel/bpf/syscall.c).

use sockeye_ebpf::kinds::map_type::{LRU_PERCPU_HASH, PERCPU_ARRAY, PERCPU_CGROUP_STORAGE, PERCPU_HASH};

/// Returns whether an entry of a map of this type (`enum bpf_map_type`) has a value for each possible CPU.
pub const fn is_per_cpu(map_type: u32) -> bool {
    matches!(map_type, PERCPU_HASH | PERCPU_ARRAY | LRU_PERCPU_HASH | PERCPU_CGROUP_STORAGE)
}

/// Returns the values in the bytes of an entry, without padding.
pub fn split(bytes: &[u8], value_size: usize) -> impl Iterator<Item = &[u8]> {
    bytes.chunks_exact(stride(value_size).max(1)).filter_map(move |value| value.get(..value_size))
}

const fn stride(value_size: usize) -> usize {
    value_size.next_multiple_of(8)
}

/// The layout of the values of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerCpuLayout {
    /// The size of one value in bytes, without padding.
    pub value_size: usize,
    /// The number of values: of possible CPUs.
    pub cpus: usize,
}

impl PerCpuLayout {
    /// Returns the distance of two values in bytes.
    pub const fn stride(&self) -> usize {
        stride(self.value_size)
    }

    /// Returns the number of bytes of all values.
    pub const fn bytes(&self) -> usize {
        self.cpus * self.stride()
    }

    /// Returns the bytes that give every CPU the same value.
    pub fn repeat(&self, value: &[u8]) -> Vec<u8> {
        let mut padded = value.to_vec();
        padded.resize(self.stride(), 0);
        padded.repeat(self.cpus)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_padded_even_for_one_cpu() {
        let layout = |cpus| PerCpuLayout { value_size: 4, cpus };
        assert_eq!([1, 2].map(|cpus| layout(cpus).bytes()), [8, 16]);
        let bytes = layout(2).repeat(&[1, 2, 3, 4]);
        assert_eq!(bytes, [1, 2, 3, 4, 0, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0]);
        assert_eq!(split(&bytes, 4).collect::<Vec<_>>(), [[1, 2, 3, 4], [1, 2, 3, 4]]);
    }
}
