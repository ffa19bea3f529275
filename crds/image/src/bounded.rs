//! Reading lists and annotations of a manifest within bounds of memory. IO: none.
//!
//! Text of a few bytes an entry is parsed to some hundred bytes, so the bound of the text is none of the memory.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use crate::signature::ANNOTATIONS;

/// The most entries of a list.
const MAX_ENTRIES: usize = 10_240;

/// Reads a list, or null.
///
/// # Errors
/// Fails where it has more entries than are read.
pub fn list<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<T>>, D::Error> {
    struct List<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
        type Value = Option<Vec<T>>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a list")
        }

        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            let mut list = Vec::new();
            while let Some(entry) = entries.next_element()? {
                if list.len() == MAX_ENTRIES {
                    return Err(A::Error::custom(format!("a list has more than {MAX_ENTRIES} entries")));
                }
                list.push(entry);
            }
            Ok(Some(list))
        }
    }

    deserializer.deserialize_any(List(PhantomData))
}

/// Reads annotations, and keeps those that are used here. The last one of a name counts.
///
/// # Errors
/// Fails where they are no annotations.
pub fn annotations<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, String)>, D::Error> {
    struct Annotations;

    impl<'de> Visitor<'de> for Annotations {
        type Value = Vec<(String, String)>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("annotations")
        }

        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            let mut kept: Vec<(String, String)> = Vec::new();
            while let Some(key) = entries.next_key::<String>()? {
                if !ANNOTATIONS.contains(&key.as_str()) {
                    entries.next_value::<IgnoredAny>()?;
                    continue;
                }
                let value = entries.next_value()?;
                kept.retain(|(other, _)| *other != key);
                kept.reserve_exact(1);
                kept.push((key, value));
            }
            Ok(kept)
        }
    }

    deserializer.deserialize_any(Annotations)
}
