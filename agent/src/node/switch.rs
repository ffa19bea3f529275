//! An object's switch on the node: what it says, and what it said before it was turned off. Does IO.

use std::os::fd::AsFd as _;

use sockeye_crds::names::{hex, parse_hex};
use sockeye_ebpf::kinds::map_type::ARRAY;

use super::layout;
use crate::{
    kernel::{Call as _, Fd, SysError, bpf, bpffs::Dir, info},
    model::switch::{MAX_SWITCH, ObservedSwitch},
};

/// The one key of a data section's map.
const KEY: [u8; 4] = [0; 4];

/// A switch.
pub struct Switch<'a> {
    dir: &'a Dir,
    map: &'a Fd,
    /// The map's ID. The note of another one says nothing about it.
    id: u32,
    value: Vec<u8>,
}

impl<'a> Switch<'a> {
    /// Reads the switch in a map; nothing if the map is no data section, or a long one.
    pub fn read(dir: &'a Dir, map: &'a Fd) -> Result<Option<Self>, SysError> {
        let found = info::map(map.as_fd())?;
        let size = found.value_size as usize;
        if (found.map_type, found.key_size, found.max_entries) != (ARRAY, 4, 1) || size > MAX_SWITCH {
            return Ok(None);
        }
        let mut value = vec![0; size];
        bpf::map_lookup(map.as_fd(), &KEY, &mut value).call(|| "BPF_MAP_LOOKUP_ELEM")?;
        Ok(Some(Self { dir, map, id: found.id, value }))
    }

    /// Returns what is observed of it.
    pub fn observed(&self) -> Result<ObservedSwitch, SysError> {
        let is_noted = self.dir.contains(&layout::switch())?;
        Ok(ObservedSwitch { is_zero: self.is_zero(), is_noted })
    }

    /// Clears it. What it says is noted first.
    pub fn turn_off(&self) -> Result<(), SysError> {
        if self.is_zero() {
            return Ok(());
        }
        let (note, path) = (format!("{}.{}", self.id, hex(&self.value)), layout::switch());
        self.dir.remove(&path)?;
        self.dir.make_note(&path, &note)?;
        self.write(&vec![0; self.value.len()])
    }

    /// Has it say again what it said, and removes the note.
    pub fn turn_on(&self) -> Result<(), SysError> {
        let path = layout::switch();
        if let Some(value) = self.dir.read_note(&path)?.and_then(|note| self.parse(&note)) {
            self.write(&value)?;
        }
        self.dir.remove(&path)
    }

    fn is_zero(&self) -> bool {
        self.value.iter().all(|byte| *byte == 0)
    }

    /// Reads a note, if it is of this very map.
    fn parse(&self, note: &str) -> Option<Vec<u8>> {
        let digits = note.strip_prefix(&format!("{}.", self.id))?;
        parse_hex(digits).filter(|value| value.len() == self.value.len())
    }

    fn write(&self, value: &[u8]) -> Result<(), SysError> {
        bpf::map_update(self.map.as_fd(), Some(&KEY), value)
    }
}
