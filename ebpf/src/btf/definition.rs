//! What map definitions and data sections need of BTF.

use std::collections::BTreeMap;

use super::{Btf, BtfError, Kind};

/// The greatest number of fields that a map's definition may have. libbpf knows about a dozen.
const MAX_FIELDS: usize = 64;

type Result<T> = std::result::Result<T, BtfError>;

/// A field of a map's definition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'a> {
    pub(crate) name: &'a str,
    pub(crate) type_id: u32,
    /// The offset from the definition's start, in bytes.
    pub(crate) offset: u32,
    /// The offset in the section of the word that refers to the field's name.
    pub(crate) named_at: usize,
}

impl<'a> Btf<'a> {
    /// Returns the variables of a data section, at most `most`, by name with their type IDs.
    pub fn variables(&self, section: &str, most: usize) -> Result<BTreeMap<&'a str, u32>> {
        let mut found = BTreeMap::new();
        let mut left = most;
        let of_section =
            |datasec: &super::Type<'a>| datasec.kind == Kind::Datasec && datasec.is_named(section.as_bytes());
        for datasec in self.types().filter(of_section) {
            let many = || BtfError::Malformed("a data section has too many variables");
            left = left.checked_sub(datasec.vlen()).ok_or_else(many)?;
            for entry in datasec.vars() {
                let var = self.known(entry.type_id)?;
                if var.kind != Kind::Var {
                    return Err(BtfError::Malformed("a data section holds something else than a variable"));
                }
                found.insert(utf8(var.name())?, var.type_id());
            }
        }
        Ok(found)
    }

    /// Returns the fields of a map's definition, in order.
    pub(crate) fn fields(&self, id: u32) -> Result<Vec<Field<'a>>> {
        let composite = self.resolve(id)?;
        if composite.kind != Kind::Struct {
            return Err(BtfError::Malformed("a map's definition is no struct"));
        }
        if composite.vlen() > MAX_FIELDS {
            return Err(BtfError::Malformed("a map's definition has too many fields"));
        }
        let members = composite.members().enumerate().map(|(i, member)| {
            let named_at = self.start + composite.at + 12 + 12 * i;
            let name = utf8(member.name())?;
            Ok(Field { name, type_id: member.type_id, offset: member.bit_offset / 8, named_at })
        });
        members.collect()
    }

    /// Reads a number that libbpf's `__uint` declares: the length of an array that the type points to.
    pub fn uint(&self, id: u32) -> Result<u32> {
        let array = self.resolve(self.pointed(id)?)?.array();
        array.map(|array| array.len).ok_or(BtfError::Malformed("a map's field is not written with __uint"))
    }

    /// Returns the type that a pointer points to.
    pub fn pointed(&self, id: u32) -> Result<u32> {
        let pointer = self.resolve(id)?;
        let pointed = (pointer.kind == Kind::Ptr).then(|| pointer.type_id());
        pointed.ok_or(BtfError::Malformed("a map's field is no pointer"))
    }

    /// Returns the element type of an array.
    pub fn element(&self, id: u32) -> Result<u32> {
        let array = self.resolve(id)?.array();
        array
            .map(|array| array.element)
            .ok_or(BtfError::Malformed("a map's inner definition is not written with __array"))
    }

    /// Returns the size of a key's or value's type in bytes.
    pub fn size(&self, id: u32) -> Result<u32> {
        self.resolve_size(id).ok_or(BtfError::Malformed("a key or value has no size, is too large, or nested too deep"))
    }

    fn known(&self, id: u32) -> Result<super::Type<'a>> {
        self.get(id).ok_or(BtfError::Malformed("a type is referred to that is not there"))
    }

    pub(super) fn resolve(&self, id: u32) -> Result<super::Type<'a>> {
        self.skip_modifiers(id).ok_or(BtfError::Malformed("types refer to each other too deep"))
    }
}

/// Returns a name as text.
pub(super) fn utf8(name: &[u8]) -> Result<&str> {
    if name.len() > super::MAX_NAME {
        return Err(BtfError::Malformed("a name is longer than 512 bytes"));
    }
    std::str::from_utf8(name).map_err(|_| BtfError::Malformed("a name is not UTF-8"))
}
