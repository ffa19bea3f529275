//! `Spec`: where an access leads, in the object's types or in the kernel's (libbpf's `struct bpf_core_spec`).
//!
//! The raw path has each step of the access string: members by index, also those of anonymous structs, and elements of
//! arrays. The accessors are the steps that mean something in another version of the type: named members and elements.

use std::fmt::Write as _;

use super::{Reason, kind::RelocationKind};
use crate::btf::{Btf, Kind, MAX_NAME, Type, ext::CoreRelo};

/// The most steps of a path (`BPF_CORE_SPEC_MAX_LEN`).
pub(super) const MAX_STEPS: usize = 64;

/// A step by name or by an array's index (`struct bpf_core_accessor`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Accessor {
    /// The struct or union, or the type of the array's element.
    pub(super) type_id: u32,
    /// The index of the member, enumerator or element.
    pub(super) index: u32,
    /// The offset of the name in the strings. None for an element.
    pub(super) name_off: Option<u32>,
}

/// The path of an access through types.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    pub(super) kind: RelocationKind,
    /// The type that the access starts at, with its typedefs.
    pub(super) root: u32,
    pub(super) accessors: Vec<Accessor>,
    pub(super) raw: Vec<i32>,
    /// The offset of the field from the root's start. It wraps, as libbpf's does.
    pub(super) bit_offset: u32,
}

impl Spec {
    pub(super) const fn new(kind: RelocationKind, root: u32) -> Self {
        Self { kind, root, accessors: Vec::new(), raw: Vec::new(), bit_offset: 0 }
    }

    /// Reads a relocation's access in the object's types (libbpf's `bpf_core_parse_spec`).
    pub(super) fn parse(btf: &Btf<'_>, relo: &CoreRelo, kind: RelocationKind) -> Result<Self, Reason> {
        let path = Some(btf.strings().name(relo.access_str_off)).filter(|path| path.len() <= MAX_NAME);
        let path = path.ok_or(Reason::Record)?;
        let mut spec = Self::new(kind, relo.type_id);
        if kind.is_of_type() {
            return if path == b"0" { Ok(spec) } else { Err(Reason::Record) };
        }
        spec.raw = raw_path(path)?;
        let root = btf.skip_modifiers(relo.type_id).ok_or(Reason::Record)?;
        let first = *spec.raw.first().ok_or(Reason::Record)?;
        let mut start = Accessor { type_id: root.id, index: first.cast_unsigned(), name_off: None };
        if kind.is_of_enumerator() {
            let index = usize::try_from(first).ok().filter(|_| spec.raw.len() == 1);
            let found = index.and_then(|index| root.enumerator(index)).ok_or(Reason::Record)?;
            start.name_off = Some(found.name_off);
            spec.accessors.push(start);
            return Ok(spec);
        }
        spec.accessors.push(start);
        spec.advance(btf, root.id, first)?;
        let mut id = root.id;
        for i in 1..spec.raw.len() {
            id = spec.step(btf, id, spec.raw.get(i).copied().unwrap_or_default())?;
        }
        Ok(spec)
    }

    /// Takes one step of the raw path from a type, and returns the type that it leads to.
    fn step(&mut self, btf: &Btf<'_>, id: u32, index: i32) -> Result<u32, Reason> {
        let from = btf.skip_modifiers(id).ok_or(Reason::Record)?;
        if let Some(array) = from.array() {
            let element = btf.skip_modifiers(array.element).ok_or(Reason::Record)?;
            let last = self.accessors.last().ok_or(Reason::Record)?;
            if !is_flexible(btf, last, array.len) && index.cast_unsigned() >= array.len {
                return Err(Reason::Record);
            }
            self.accessors.push(Accessor { type_id: element.id, index: index.cast_unsigned(), name_off: None });
            self.advance(btf, element.id, index)?;
            return Ok(element.id);
        }
        let member = usize::try_from(index).ok().and_then(|index| from.member(index)).ok_or(Reason::Record)?;
        self.bit_offset = self.bit_offset.wrapping_add(member.bit_offset);
        if member.name_off != 0 {
            if member.name().is_empty() {
                return Err(Reason::Record);
            }
            let name_off = Some(member.name_off);
            self.accessors.push(Accessor { type_id: from.id, index: index.cast_unsigned(), name_off });
        }
        Ok(member.type_id)
    }

    /// Adds the size of so many elements to the offset.
    pub(super) fn advance(&mut self, btf: &Btf<'_>, id: u32, count: i32) -> Result<(), Reason> {
        let size = btf.resolve_size(id).ok_or(Reason::Question)?;
        let bits = count.cast_unsigned().wrapping_mul(size).wrapping_mul(8);
        self.bit_offset = self.bit_offset.wrapping_add(bits);
        Ok(())
    }

    /// Writes the access as libbpf does (`bpf_core_format_spec`).
    pub(super) fn text(&self, btf: &Btf<'_>) -> String {
        let Self { kind, root, accessors, raw, bit_offset } = self;
        let root = btf.get(*root).unwrap_or_else(Type::void);
        let name = root.text();
        let name = if name.is_empty() { "<anon>" } else { &name };
        let mut text = format!("<{}> [{}] {} {name}", kind.name(), root.id, root.kind.name());
        if kind.is_of_enumerator() {
            let value = self.enumerator(btf).map(|(one, value)| format!("::{one} = {value}"));
            text.push_str(&value.unwrap_or_default());
        } else if !kind.is_of_type() {
            text.push_str(&Self::accesses(btf, accessors, true));
            let path: Vec<String> = raw.iter().map(i32::to_string).collect();
            let (bytes, bits) = (bit_offset / 8, bit_offset % 8);
            let _ = write!(text, " ({} @ offset {bytes}", path.join(":"));
            text.push_str(&if bits == 0 { ")".to_owned() } else { format!(".{bits})") });
        }
        text
    }

    /// Writes the field or enumerator alone, without its type.
    pub(super) fn field(&self, btf: &Btf<'_>) -> String {
        if self.kind.is_of_enumerator() {
            return self.enumerator(btf).map(|(name, _)| name).unwrap_or_default();
        }
        Self::accesses(btf, &self.accessors, false).trim_start_matches('.').to_owned()
    }

    fn accesses(btf: &Btf<'_>, accessors: &[Accessor], with_first: bool) -> String {
        let mut text = String::new();
        for (i, accessor) in accessors.iter().enumerate().take_while(|(i, _)| *i < MAX_STEPS) {
            match accessor.name_off {
                Some(name_off) => text.extend([".", &btf.strings().text(name_off)]),
                None if i > 0 || accessor.index > 0 && with_first => text.push_str(&format!("[{}]", accessor.index)),
                None => {}
            }
            if text.len() > MAX_NAME {
                break;
            }
        }
        text
    }

    /// Returns the name of the enumerator and its value as C prints it.
    fn enumerator(&self, btf: &Btf<'_>) -> Option<(String, String)> {
        let accessor = self.accessors.first()?;
        let of = btf.get(accessor.type_id)?;
        let one = of.enumerator(accessor.index as usize)?;
        let value = match (of.kind, of.kind_flag()) {
            (Kind::Enum64, false) => one.value.to_string(),
            (Kind::Enum, false) => (one.value as u32).to_string(),
            _ => one.value.cast_signed().to_string(),
        };
        Some((one.text().into_owned(), value))
    }
}

/// Reads `0:1:2`.
fn raw_path(path: &[u8]) -> Result<Vec<i32>, Reason> {
    let path = std::str::from_utf8(path).map_err(|_| Reason::Record)?;
    let steps = path.split(':').take(MAX_STEPS + 1).map(|step| step.parse().map_err(|_| Reason::Record));
    let steps = steps.collect::<Result<Vec<i32>, Reason>>()?;
    if steps.len() > MAX_STEPS { Err(Reason::Record) } else { Ok(steps) }
}

/// Returns whether an array that an accessor leads to is a flexible one, which has any number of elements: the last
/// member of its struct, without a length (libbpf's `is_flex_arr`).
pub(super) fn is_flexible(btf: &Btf<'_>, last: &Accessor, len: u32) -> bool {
    let is_last = || btf.get(last.type_id).is_some_and(|of| last.index as usize + 1 == of.vlen());
    last.name_off.is_some() && len == 0 && is_last()
}
