//! `KernelBtf`: an index over the running kernel's BTF. It takes the bytes from the caller, mapped or read.
//!
//! libbpf reads all of it for each object: the offset and every name and ID of 130,000 types. Here one pass keeps the
//! offset of every sixteenth type and hashes the names that CO-RE relocations can ask for, a ninth of all. Functions
//! and variables are hashed when somebody first asks for one.

use std::{fmt, ops::Range, sync::OnceLock};

pub use super::names::essential;
use super::{
    Btf, BtfError, Kind, Strings, Type,
    btf::{info, parts},
    names::{Names, hash},
};
use crate::bytes::word;

/// The index keeps the offset of each type whose index is a multiple of `1 << SHIFT`.
const SHIFT: u32 = 4;
/// The most types that are looked at for one name. The kernel's BTF has some dozens of one name.
const MAX_OF_A_NAME: usize = 4096;

/// The bytes of BTF, owned or mapped.
pub type Bytes = Box<dyn AsRef<[u8]> + Send + Sync>;

/// The kernel's types, found by ID and by name.
pub struct KernelBtf {
    bytes: Bytes,
    types: Range<usize>,
    strings: Range<usize>,
    offsets: Vec<u32>,
    len: u32,
    pointer: u64,
    /// Types by their names without flavours.
    by_name: Names,
    /// Functions and variables by their names.
    symbols: OnceLock<Names>,
}

impl fmt::Debug for KernelBtf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelBtf").field("types", &self.len).field("memory", &self.memory()).finish()
    }
}

impl KernelBtf {
    /// Indexes BTF. Only its layout is checked: an access to a type that refers to something outside gives nothing.
    pub fn new(bytes: Bytes) -> Result<Self, BtfError> {
        let data = bytes.as_ref().as_ref();
        let (types, strings) = parts(data)?;
        let (btf, by_name) = Names::of(data, is_relocated, essential)?;
        let (len, pointer) = (btf.len, btf.guess_pointer());
        let offsets = btf.offsets.into_owned();
        Ok(Self { types, strings, offsets, len, pointer, by_name, symbols: OnceLock::new(), bytes })
    }

    /// Returns the types.
    pub fn btf(&self) -> Btf<'_> {
        let data = self.bytes.as_ref().as_ref();
        Btf {
            types: data.get(self.types.clone()).unwrap_or_default(),
            strings: Strings(data.get(self.strings.clone()).unwrap_or_default()),
            offsets: self.offsets.as_slice().into(),
            shift: SHIFT,
            len: self.len,
            pointer: self.pointer,
            version: [1, 0],
        }
    }

    /// Returns the types that a CO-RE relocation of a type of that name and kind may mean, in ascending order (libbpf's
    /// `bpf_core_add_cands`): names are compared without flavours, and enums of any width are of one kind.
    pub fn candidates(&self, name: &[u8], kind: Kind) -> Vec<u32> {
        let (btf, name) = (self.btf(), essential(name));
        let is = |one: &Type<'_>| {
            let same_kind = one.kind == kind || one.kind.is_any_enum() && kind.is_any_enum();
            same_kind && one.name().starts_with(name) && essential(one.name()) == name && one.name_off != 0
        };
        let ids = self.by_name.get(hash(name)).iter().take(MAX_OF_A_NAME).copied();
        ids.filter(|id| btf.get(*id).is_some_and(|one| is(&one))).collect()
    }

    /// Returns the first function or variable of that name (`btf__find_by_name_kind`).
    pub fn symbol(&self, name: &[u8], kind: Kind) -> Option<u32> {
        let btf = self.btf();
        let symbols = self.symbols.get_or_init(|| {
            let data = self.bytes.as_ref().as_ref();
            let names = Names::of(data, |kind| matches!(kind, Kind::Func | Kind::Var), |name| name);
            names.map_or_else(|_| Names::default(), |(_, names)| names)
        });
        let is = |id: &u32| btf.get(*id).is_some_and(|one| one.kind == kind && one.is_named(name));
        symbols.get(hash(name)).iter().take(MAX_OF_A_NAME).copied().find(is)
    }

    /// Returns the memory that the index takes beside the bytes, in bytes.
    pub fn memory(&self) -> usize {
        4 * self.offsets.capacity() + self.by_name.bytes() + self.symbols.get().map_or(0, Names::bytes)
    }
}

impl Names {
    /// Indexes the types of some kinds by a part of their names.
    fn of(data: &[u8], is: impl Fn(Kind) -> bool, part: fn(&[u8]) -> &[u8]) -> Result<(Btf<'_>, Self), BtfError> {
        let mut named = Vec::new();
        let btf = Btf::split(data, SHIFT, |id, head| {
            let name = word(head, 0).filter(|name| *name != 0 && Kind::of(info(head)).is_ok_and(&is));
            named.extend(name.map(|name| (name, id)));
        })?;
        for (name, _) in &mut named {
            *name = hash(part(btf.strings.name(*name)));
        }
        let names = Self::new(&named);
        Ok((btf, names))
    }
}

/// Returns whether a CO-RE relocation can find a type of that kind by its name. Those of other kinds, if any compiler
/// made them, match nothing in libbpf either.
const fn is_relocated(kind: Kind) -> bool {
    !matches!(kind, Kind::Func | Kind::Var | Kind::Datasec | Kind::DeclTag)
}
