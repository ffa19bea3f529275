//! `Page` and `Cursor`: a page of a map's entries as bytes, and where the next one begins. Values.

use sockeye_crds::names::{hex, parse_hex};

/// The last keys of a page that a cursor remembers: the walk goes on behind the last one that the map still has.
const MAX_KEYS: usize = 8;
/// The most bytes of these keys.
const MAX_KEY_BYTES: usize = 1024;

/// A page of the entries of a map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The entries.
    pub entries: Vec<RawEntry>,
    /// The beginning of the next page; absent on the last one.
    pub next: Option<Cursor>,
    /// True if the walk began anew, because the map no longer has any key of the cursor's.
    pub restarted: bool,
}

/// An entry as bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawEntry {
    /// The key; empty where the map has none.
    pub key: Vec<u8>,
    /// The value as the kernel gives it: in a per-CPU map one for each possible processor, padded. Absent if the kernel
    /// does not tell.
    pub value: Option<Vec<u8>>,
}

/// The beginning of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// At an index.
    Slot(u32),
    /// At a bucket of a hash, after so many of its entries.
    Bucket {
        /// The position that the kernel gave.
        position: u32,
        /// The entries from there on that came before.
        skip: u32,
    },
    /// After the last of these keys that the map still has.
    After(Vec<Vec<u8>>),
}

impl Cursor {
    /// Returns the cursor behind these keys, the last of which counts most.
    pub fn after(keys: &[Vec<u8>]) -> Self {
        let mut bytes = 0;
        let fits = |key: &&Vec<u8>| {
            bytes += key.len();
            bytes <= MAX_KEY_BYTES
        };
        // One key at least, whatever its size.
        let count = keys.iter().rev().take(MAX_KEYS).take_while(fits).count().max(1);
        Self::After(keys.iter().skip(keys.len().saturating_sub(count)).cloned().collect())
    }

    /// Returns the cursor as text.
    pub fn text(&self) -> String {
        match self {
            Self::Slot(index) => format!("s{index}"),
            Self::Bucket { position, skip } => format!("b{position}.{skip}"),
            Self::After(keys) => format!("k{}", keys.iter().map(|key| hex(key)).collect::<Vec<_>>().join(".")),
        }
    }

    /// Reads a cursor of a map whose keys have this size.
    pub fn parse(text: &str, key_size: usize) -> Option<Self> {
        let kind = text.chars().next()?;
        let rest = text.get(kind.len_utf8()..)?;
        match kind {
            's' => rest.parse().ok().map(Self::Slot),
            'b' => {
                let (position, skip) = rest.split_once('.')?;
                Some(Self::Bucket { position: position.parse().ok()?, skip: skip.parse().ok()? })
            }
            'k' => {
                let keys: Option<Vec<Vec<u8>>> = rest.split('.').map(parse_hex).collect();
                let is_right = |keys: &Vec<Vec<u8>>| {
                    keys.len() <= MAX_KEYS && keys.iter().all(|key| key.len() == key_size && key_size > 0)
                };
                keys.filter(is_right).map(Self::After)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cursor(key_size: usize) -> impl Strategy<Value = Cursor> {
        let keys = prop::collection::vec(prop::collection::vec(any::<u8>(), key_size), 1..=MAX_KEYS);
        prop_oneof![
            any::<u32>().prop_map(Cursor::Slot),
            any::<(u32, u32)>().prop_map(|(position, skip)| Cursor::Bucket { position, skip }),
            keys.prop_map(Cursor::After),
        ]
    }

    proptest! {
        #[test]
        fn a_cursor_is_read_as_it_was_written(
            (size, cursor) in (1..40_usize).prop_flat_map(|size| (Just(size), cursor(size)))
        ) {
            prop_assert_eq!(Cursor::parse(&cursor.text(), size), Some(cursor));
        }

        #[test]
        fn no_text_is_a_cursor_with_keys_of_another_size(text in ".{0,40}", size in 0..20_usize) {
            if let Some(Cursor::After(keys)) = Cursor::parse(&text, size) {
                prop_assert!(keys.iter().all(|key| key.len() == size));
            }
        }

        #[test]
        fn a_cursor_keeps_the_last_keys_and_fits_a_request(size in 1..600_usize, count in 1..100_usize) {
            let keys: Vec<Vec<u8>> = (0..count).map(|n| vec![n as u8; size]).collect();
            let cursor = Cursor::after(&keys);
            prop_assert!(cursor.text().len() <= 2 * MAX_KEY_BYTES.max(size) + MAX_KEYS);
            let Cursor::After(kept) = cursor else { panic!() };
            prop_assert_eq!(kept.last(), keys.last());
            prop_assert!(keys.ends_with(&kept));
        }
    }
}
