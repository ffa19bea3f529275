//! `Buffer`: types that can be changed. Their IDs stay, and so do the offsets of their names.

use crate::{
    btf::{Btf, Kind, MAX_NAME, Strings, Type},
    bytes::word,
};

/// Types with their strings.
#[derive(Clone, Debug)]
pub(super) struct Buffer {
    types: Vec<u8>,
    strings: Vec<u8>,
    offsets: Vec<u32>,
    version: [u8; 2],
}

impl Buffer {
    /// Copies types.
    pub(super) fn new(btf: &Btf<'_>) -> Self {
        Self {
            types: btf.types.to_vec(),
            strings: btf.strings.0.to_vec(),
            offsets: btf.types().map(|one| u32::try_from(one.at).unwrap_or(u32::MAX)).collect(),
            version: btf.version,
        }
    }

    /// Returns the types as they are now.
    pub(super) fn view(&self) -> Btf<'_> {
        Btf {
            types: &self.types,
            strings: Strings(&self.strings),
            offsets: self.offsets.as_slice().into(),
            shift: 0,
            len: self.len(),
            pointer: 8,
            version: self.version,
        }
    }

    /// Returns the number of types, `void` included.
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.offsets.len()).map_or(u32::MAX, |len| len.saturating_add(1))
    }

    /// Returns a type without what borrows from the buffer: its own words.
    pub(super) fn head(&self, id: u32) -> Option<Head> {
        let Type { kind, name_off, info, size_or_type, at, .. } = self.view().get(id)?;
        Some(Head { kind, name_off, flag: info >> 31 == 1, vlen: (info & 0xffff) as usize, size_or_type, at })
    }

    /// Reads a word of the parts that follow a type.
    pub(super) fn part(&self, head: &Head, index: usize) -> u32 {
        word(&self.types, head.at + 12 + 4 * index).unwrap_or_default()
    }

    /// Changes a word of the parts that follow a type.
    pub(super) fn set_part(&mut self, head: &Head, index: usize, value: u32) {
        self.set(head.at + 12 + 4 * index, value);
    }

    /// Changes what a type is. Its parts stay.
    pub(super) fn set_info(&mut self, head: &Head, kind: Kind, flag: bool, vlen: usize) {
        let info = (kind as u32) << 24 | (vlen as u32 & 0xffff) | u32::from(flag) << 31;
        self.set(head.at + 4, info);
    }

    /// Changes the size of a type, or the type that it refers to.
    pub(super) fn set_size_or_type(&mut self, head: &Head, value: u32) {
        self.set(head.at + 8, value);
    }

    /// Changes the name of a type.
    pub(super) fn set_name(&mut self, head: &Head, name_off: u32) {
        self.set(head.at, name_off);
    }

    fn set(&mut self, at: usize, value: u32) {
        if let Some(place) = at.checked_add(4).and_then(|end| self.types.get_mut(at..end)) {
            place.copy_from_slice(&value.to_le_bytes());
        }
    }

    /// Sorts the variables of a data section by their offsets.
    pub(super) fn sort_vars(&mut self, head: &Head) {
        let start = head.at + 12;
        let Some(vars) = self.types.get_mut(start..start + 12 * head.vlen) else { return };
        let mut sorted: Vec<[u8; 12]> = vars.as_chunks::<12>().0.to_vec();
        sorted.sort_by_key(|var| word(var, 4));
        vars.copy_from_slice(sorted.as_flattened());
    }

    /// Replaces characters of a name, for everyone who uses it.
    pub(super) fn replace_in_name(&mut self, offset: u32, is_bad: impl Fn(usize, u8) -> bool) {
        let tail = self.strings.get_mut(offset as usize..).unwrap_or_default();
        for (i, byte) in tail.iter_mut().enumerate().take(MAX_NAME).take_while(|(_, byte)| **byte != 0) {
            if is_bad(i, *byte) {
                *byte = b'_';
            }
        }
    }

    /// Returns the offset of a string, which is added if it is not there.
    pub(super) fn string(&mut self, text: &str) -> u32 {
        let whole = [b"\0", text.as_bytes(), b"\0"].concat();
        let found = self.strings.windows(whole.len()).position(|window| window == whole);
        let at = found.map_or(self.strings.len(), |at| at + 1);
        if found.is_none() {
            self.strings.extend_from_slice(whole.get(1..).unwrap_or_default());
        }
        u32::try_from(at).unwrap_or_default()
    }

    /// Adds a type with what follows it, and returns its ID.
    pub(super) fn add(&mut self, name_off: u32, (kind, vlen): (Kind, usize), size_or_type: u32, parts: &[u32]) -> u32 {
        let id = self.len();
        self.offsets.push(u32::try_from(self.types.len()).unwrap_or(u32::MAX));
        let head = [name_off, (kind as u32) << 24 | (vlen as u32 & 0xffff), size_or_type];
        for word in head.iter().chain(parts) {
            self.types.extend(word.to_le_bytes());
        }
        id
    }

    /// Returns the bytes of the section, with a header of 24 bytes.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        let Self { types, strings, offsets: _, version } = self;
        let [type_len, string_len] = [&types, &strings].map(|part| u32::try_from(part.len()).unwrap_or(u32::MAX));
        let mut bytes = Vec::with_capacity(24 + types.len() + strings.len());
        bytes.extend([0x9f, 0xeb]);
        bytes.extend(version);
        for word in [24, 0, type_len, type_len, string_len] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(types);
        bytes.extend(strings);
        bytes
    }
}

/// The words of a type.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) name_off: u32,
    pub(super) flag: bool,
    pub(super) vlen: usize,
    pub(super) size_or_type: u32,
    at: usize,
}
