//! The record of the entries that a spec listed for one map, as bytes: the map's ID, the sizes of keys and values,
//! their number, then each key and the bits of its value that were named. No IO.

use crate::model::entries::AppliedEntries;

/// Distinguishes records from other maps that somebody may pin in their place.
const MAGIC: u32 = 0x736f_6b31;
/// The number of words before the entries.
const WORDS: usize = 5;

/// Returns the record of a map's entries.
pub(super) fn encode(map_id: u32, applied: &AppliedEntries) -> Vec<u8> {
    let (key_size, value_size) = applied.iter().next().map_or((0, 0), |(key, named)| (key.len(), named.len()));
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let words: [u32; WORDS] = [MAGIC, map_id, number(key_size), number(value_size), number(applied.len())];
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    for (key, named) in applied {
        bytes.extend(key);
        bytes.extend(named);
    }
    bytes
}

/// Reads a record. That of another map is empty, and so are bytes that are no record.
pub(super) fn decode(bytes: &[u8], map_id: u32) -> AppliedEntries {
    let (words, rest) = bytes.split_at(bytes.len().min(4 * WORDS));
    let words: Vec<u32> =
        words.chunks_exact(4).filter_map(|word| Some(u32::from_ne_bytes(*word.first_chunk()?))).collect();
    let [MAGIC, of_map, key_size, value_size, count] = words[..] else { return AppliedEntries::new() };
    let (key_size, row) = (key_size as usize, (key_size as usize).saturating_add(value_size as usize));
    if of_map != map_id || key_size == 0 {
        return AppliedEntries::new();
    }
    let rows = rest.chunks_exact(row).take(count as usize);
    rows.map(|row| row.split_at(key_size)).map(|(key, named)| (key.to_vec(), named.to_vec())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_belongs_to_one_map() {
        let applied: AppliedEntries = [(vec![1, 2, 3, 4], vec![0xff, 0]), (vec![9, 9, 9, 9], vec![1, 2])].into();
        for applied in [applied, AppliedEntries::new()] {
            let mut bytes = encode(7, &applied);
            bytes.extend([0; 13]);
            assert_eq!(decode(&bytes, 7), applied);
            assert_eq!(decode(&bytes, 8), AppliedEntries::new());
        }
        for odd in [&[][..], &[1, 2, 3], &[0; 64]] {
            assert_eq!(decode(odd, 0), AppliedEntries::new());
        }
    }
}
