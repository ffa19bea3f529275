//! `Names`: the IDs of types by the hash of their names.

/// The length of a type's name without its flavour: what follows the last three underscores between other characters
/// (libbpf's `bpf_core_essential_name_len`).
pub fn essential(name: &[u8]) -> &[u8] {
    // Most names have no three underscores in a row, and some end in digits after one.
    let flavour = name.windows(5).rposition(|at| at[0] != b'_' && at[1..4] == *b"___" && at[4] != b'_');
    flavour.and_then(|at| name.get(..=at)).unwrap_or(name)
}

/// Type IDs by the hash of a name. Different names can share a hash.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// The index at which the IDs of each hash begin, and the end of the last.
    starts: Vec<u32>,
    /// The IDs, those of each hash in ascending order.
    ids: Vec<u32>,
}

impl Names {
    /// Sorts IDs by their hashes. They must come in ascending order.
    pub(super) fn new(hashed: &[(u32, u32)]) -> Self {
        let buckets = hashed.len().next_power_of_two();
        let mask = u32::try_from(buckets - 1).unwrap_or(u32::MAX);
        let mut starts = vec![0u32; buckets + 1];
        let bucket = |hash: u32| (hash & mask) as usize;
        for (hash, _) in hashed {
            starts[bucket(*hash) + 1] += 1;
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        let (mut ids, mut next) = (vec![0; hashed.len()], starts.clone());
        for (hash, id) in hashed {
            let place = &mut next[bucket(*hash)];
            ids[*place as usize] = *id;
            *place += 1;
        }
        Self { starts, ids }
    }

    /// Returns the IDs whose names may have this hash, in ascending order.
    pub(super) fn get(&self, hash: u32) -> &[u32] {
        let mask = self.starts.len().saturating_sub(2);
        let bucket = hash as usize & mask;
        let bounds = self.starts.get(bucket).zip(self.starts.get(bucket + 1));
        bounds.and_then(|(start, end)| self.ids.get(*start as usize..*end as usize)).unwrap_or_default()
    }

    /// Returns the memory that the index takes, in bytes.
    pub(super) const fn bytes(&self) -> usize {
        4 * (self.starts.capacity() + self.ids.capacity())
    }
}

/// Hashes a name. Whoever writes hostile BTF can make names collide, so the work over the IDs of one hash must be
/// bounded; the kernel's own names are spread well.
pub(super) fn hash(name: &[u8]) -> u32 {
    const PRIME: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hash = name.len() as u64;
    let (words, rest) = name.as_chunks::<8>();
    for word in words {
        hash = (hash.rotate_left(5) ^ u64::from_le_bytes(*word)).wrapping_mul(PRIME);
    }
    let tail = rest.iter().fold(0, |tail, byte| tail << 8 | u64::from(*byte));
    hash = (hash.rotate_left(5) ^ tail).wrapping_mul(PRIME);
    (hash >> 32) as u32 ^ hash as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flavour_is_what_follows_the_last_three_underscores() {
        let names = [
            ("task_struct", "task_struct"),
            ("task_struct___mine", "task_struct"),
            ("task_struct___mine___too", "task_struct___mine"),
            ("___mine", "___mine"),
            ("task____mine", "task____mine"),
            ("task___", "task___"),
            ("a___b", "a"),
            ("", ""),
            ("x", "x"),
        ];
        for (name, expected) in names {
            assert_eq!(essential(name.as_bytes()), expected.as_bytes(), "{name}");
        }
    }

    #[test]
    fn ids_are_found_in_order() {
        let hashed: Vec<(u32, u32)> = (1..=1000).map(|id| (hash(format!("n{}", id % 100).as_bytes()), id)).collect();
        let names = Names::new(&hashed);
        for n in 0..100 {
            let found = names.get(hash(format!("n{n}").as_bytes()));
            let expected: Vec<u32> = (1..=1000).filter(|id| id % 100 == n).collect();
            assert!(found.is_sorted() && expected.iter().all(|id| found.contains(id)), "{n}: {found:?}");
            assert!(found.len() < 100, "the hash spreads names badly");
        }
        assert_eq!(Names::new(&[]).get(7), &[] as &[u32]);
        assert_eq!(Names::default().get(7), &[] as &[u32]);
    }
}
