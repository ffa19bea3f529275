//! The entries of maps: what a spec lists, what it listed before, and what a map holds. Values.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

use aya_obj::generated::bpf_map_type;
use sockeye_ebpf::values::settings::{Settings, prefix_length};

use super::{
    desired::Desired,
    kernel::Machine,
    map_shape::MapShape,
    per_cpu::{PerCpuLayout, is_per_cpu},
};

/// The entries that a revision lists, by the maps' names in the ELF.
pub type ListedMaps = BTreeMap<String, ListedMap>;

/// The entries that a revision lists for one map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedMap {
    /// The name of the map's pin.
    pub pin: String,
    /// True if they are kept in sync; otherwise they fill a map that is created.
    pub sync: bool,
    /// The entries, each key once.
    pub entries: Vec<ListedEntry>,
}

/// One entry that a revision lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedEntry {
    /// The key. Of a trie's key the bits beyond its prefix are clear.
    pub key: Vec<u8>,
    /// The value for every slot, without padding.
    pub value: Vec<u8>,
    /// The bits of the value that the spec names. Programs own the others.
    pub named: Vec<u8>,
}

/// Returns the entries that a revision lists, from its settings as bytes: those of the maps whose content is compared
/// with the spec's, which have keys and a pin.
pub fn listed_maps(desired: &Desired, settings: &mut Settings) -> ListedMaps {
    let mut maps = ListedMaps::new();
    for spec in desired.settings.iter().filter(|spec| spec.has_entries() && spec.is_pinned()) {
        let Some(map) = desired.maps.get(&spec.name).filter(|map| !map.of_load) else { continue };
        if MapForm::of(map.shape.map_type).is_none() {
            continue;
        }
        let entries = settings.entries.remove(&spec.name).unwrap_or_default();
        let named = settings.named.remove(&spec.name).unwrap_or_default();
        let entry = |((key, value), named)| ListedEntry { key, value, named };
        let entries = entries.into_iter().zip(named).map(entry).collect();
        let pin = map.pin_name.clone();
        maps.insert(spec.name.clone(), ListedMap { pin, sync: spec.is_synced(), entries });
    }
    maps
}

/// The keys that the spec listed when entries were last written, each with the bits of the value that it named.
pub type AppliedEntries = HashMap<Vec<u8>, Vec<u8>>;

/// The part of a map's content that a comparison needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveEntries {
    /// The values of the keys that are or were listed, as the kernel gives them: all slots.
    pub values: HashMap<Vec<u8>, Vec<u8>>,
    /// The number of all entries, also those of others.
    pub count: usize,
}

/// The kinds of maps whose content is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapForm {
    /// A hash: keys are equal or not.
    Hash,
    /// An array: every key exists always.
    Array,
    /// A trie of prefixes: a look-up finds the longest that matches.
    Trie,
}

impl MapForm {
    /// Returns the kind of a map type (`enum bpf_map_type`), if its content is compared. An LRU is not: the kernel
    /// removes entries of it by itself.
    pub fn of(map_type: u32) -> Option<Self> {
        use bpf_map_type::*;
        match bpf_map_type::try_from(map_type).ok()? {
            BPF_MAP_TYPE_HASH | BPF_MAP_TYPE_PERCPU_HASH => Some(Self::Hash),
            BPF_MAP_TYPE_ARRAY | BPF_MAP_TYPE_PERCPU_ARRAY => Some(Self::Array),
            BPF_MAP_TYPE_LPM_TRIE => Some(Self::Trie),
            _ => None,
        }
    }
}

/// The shape of a map's entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryShape {
    /// The kind.
    pub form: MapForm,
    /// The size of a key in bytes.
    pub key_size: usize,
    /// The size of one slot's value in bytes, without padding.
    pub value_size: usize,
    /// The highest number of entries.
    pub max_entries: usize,
    /// The number of possible CPUs, if each of them has a value: in a per-CPU map.
    pub cpus: Option<usize>,
}

impl EntryShape {
    /// Returns the shape of a map's entries, if its content is compared.
    pub fn of(map: &MapShape, machine: &Machine) -> Option<Self> {
        Some(Self {
            form: MapForm::of(map.map_type)?,
            key_size: map.key_size as usize,
            value_size: map.value_size as usize,
            max_entries: map.max_entries as usize,
            cpus: is_per_cpu(map.map_type).then_some(machine.cpus as usize),
        })
    }

    /// Returns the layout of an entry's values, if the map is per-CPU.
    pub fn per_cpu(&self) -> Option<PerCpuLayout> {
        self.cpus.map(|cpus| PerCpuLayout { value_size: self.value_size, cpus })
    }

    /// Returns the distance of two slots.
    pub fn stride(&self) -> usize {
        self.per_cpu().map_or(self.value_size, |layout| layout.stride())
    }

    /// Returns the size of an entry's value in all slots.
    pub fn value_bytes(&self) -> usize {
        self.per_cpu().map_or(self.value_size, |layout| layout.bytes())
    }

    /// Returns the bytes that give every slot the same value.
    pub fn all_slots<'a>(&self, value: &'a [u8]) -> Cow<'a, [u8]> {
        self.per_cpu().map_or(Cow::Borrowed(value), |layout| Cow::Owned(layout.repeat(value)))
    }
}

/// The changes to a map's entries, in the order in which they are to be made: writes, then deletions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntryChanges {
    /// The entries to write.
    pub writes: Vec<EntryWrite>,
    /// The keys to delete.
    pub deletes: Vec<Vec<u8>>,
}

/// The bytes in front of the prefix in a trie's key (`struct bpf_lpm_trie_key`): its length in bits.
const PREFIX_LENGTH: usize = 4;

impl EntryChanges {
    /// Returns whether there is nothing to change.
    pub const fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.deletes.is_empty()
    }

    /// Returns the keys to delete in steps. In a trie no prefix of a step lies within another one of it, and those
    /// around it come before it. Host bits are clear.
    pub fn delete_steps(&self, form: MapForm) -> Vec<Vec<&[u8]>> {
        let mut keys: Vec<&[u8]> = self.deletes.iter().map(Vec::as_slice).collect();
        if form != MapForm::Trie {
            return vec![keys];
        }
        keys.sort_by_key(|key| (key.get(PREFIX_LENGTH..), prefix_length(key)));
        let (mut steps, mut around): (Vec<Vec<&[u8]>>, Vec<&[u8]>) = Default::default();
        for key in keys {
            while around.pop_if(|outer| !is_within(key, outer)).is_some() {}
            if steps.len() == around.len() {
                steps.push(Vec::new());
            }
            if let Some(step) = steps.get_mut(around.len()) {
                step.push(key);
            }
            around.push(key);
        }
        steps
    }
}

/// Returns whether a trie's prefix lies within another one.
fn is_within(inner: &[u8], outer: &[u8]) -> bool {
    let bits = prefix_length(outer);
    let [inner_bytes, outer_bytes] = [inner, outer].map(|key| key.get(PREFIX_LENGTH..).unwrap_or_default());
    let (whole, rest) = (bits / 8, bits % 8);
    let first = |bytes: &[u8]| bytes.get(whole).map_or(0, |byte| byte >> (8 - rest));
    bits <= prefix_length(inner)
        && inner_bytes.get(..whole) == outer_bytes.get(..whole)
        && (rest == 0 || first(inner_bytes) == first(outer_bytes))
}

/// An entry to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryWrite {
    /// The key.
    pub key: Vec<u8>,
    /// The value for every slot, without padding.
    pub value: Vec<u8>,
    /// The bits to write, if the others are to stay as they are in the map. Absent where the whole value is written.
    pub named: Option<Vec<u8>>,
    /// True if the map has the key: its entry is replaced.
    pub replaces: bool,
}

/// The state of one map's entries on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryCounts {
    /// True if they are kept in sync.
    pub sync: bool,
    /// The entries that the spec lists.
    pub listed: usize,
    /// Those of them that the map has, with the listed value.
    pub in_place: usize,
    /// Entries that the spec listed before and that are still to be deleted.
    pub stale: usize,
}

impl EntryCounts {
    /// Returns whether the map's content is the spec's.
    pub const fn is_current(&self) -> bool {
        self.in_place == self.listed && self.stale == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_per_cpu_map_are_padded_even_for_one_cpu() {
        let shape = |cpus| EntryShape { form: MapForm::Hash, key_size: 4, value_size: 4, max_entries: 1, cpus };
        assert_eq!([None, Some(1), Some(2)].map(|cpus| shape(cpus).value_bytes()), [4, 8, 16]);
    }

    #[test]
    fn prefixes_are_deleted_before_those_within_them() {
        let key = |length: u32, bytes: [u8; 4]| [&length.to_ne_bytes()[..], &bytes[..]].concat();
        let [all, wide, narrow, host, beside] = [
            key(0, [0; 4]),
            key(9, [10, 128, 0, 0]),
            key(17, [10, 128, 128, 0]),
            key(32, [10, 128, 128, 1]),
            key(9, [10, 0, 0, 0]),
        ];
        let deletes = [&host, &beside, &narrow, &all, &wide].map(Clone::clone).to_vec();
        let changes = EntryChanges { deletes, ..EntryChanges::default() };
        assert_eq!(
            changes.delete_steps(MapForm::Trie),
            [vec![&all[..]], vec![&beside[..], &wide[..]], vec![&narrow[..]], vec![&host[..]]]
        );
        assert_eq!(changes.delete_steps(MapForm::Hash).concat().len(), 5);
        assert!(EntryChanges::default().delete_steps(MapForm::Trie).is_empty());
    }
}
