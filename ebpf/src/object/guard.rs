//! `Facts`: the facts from BTF that the reader needs, and what it refuses of BTF to protect aya-obj.
//!
//! aya-obj copies all records of a section for each function in it, and searches all of the kernel's types for each
//! type in a relocation. So the number of records is bounded. They must be in order, as the kernel requires.

use std::collections::{BTreeMap, BTreeSet};

use super::limits::{MAX_ACCESS_DEPTH, MAX_CORE_RELOCATIONS, MAX_CORE_TYPES, MAX_LINKAGE, MAX_SECTIONS, MAX_TYPES};
use crate::btf::{
    Btf, BtfError, Kind, MAX_NAME, Type,
    ext::{CoreRelo, Ext, Info},
};

/// `BPF_CORE_TYPE_ID_LOCAL`, the kind of relocation that needs no type of the kernel's and so no type name.
const TYPE_ID_LOCAL: u32 = 6;
/// `BPF_CORE_ENUMVAL_VALUE`, the last kind of relocation that aya-obj knows.
const LAST_KIND: u32 = 11;

type Result<T> = std::result::Result<T, BtfError>;

/// The facts from `.BTF.ext` that the rest of the reader needs.
#[derive(Debug, Default)]
pub(crate) struct Facts<'a> {
    /// True if there are CO-RE relocations.
    pub(crate) needs_kernel_btf: bool,
    /// The number of function and line records by ELF section.
    pub(crate) records: BTreeMap<&'a str, usize>,
}

const fn fault(what: &'static str) -> BtfError {
    BtfError::Malformed(what)
}

/// Refuses types that could harm aya-obj.
pub(crate) fn check_types(btf: &Btf<'_>) -> Result<()> {
    let mut sections = 0;
    for one in btf.types() {
        name(one.name())?;
        one.members().try_for_each(|part| name(part.name()).map(drop))?;
        one.enumerators().try_for_each(|part| name(part.name()).map(drop))?;
        one.params().try_for_each(|part| name(part.name()).map(drop))?;
        if one.kind == Kind::Var && one.linkage() > MAX_LINKAGE {
            return Err(fault("a variable has a linkage that is not known"));
        }
        sections += usize::from(one.kind == Kind::Datasec);
    }
    if sections > MAX_SECTIONS {
        return Err(fault("it has too many data sections"));
    }
    if btf.len() as usize > MAX_TYPES {
        return Err(fault("it has too many types"));
    }
    Ok(())
}

fn name(name: &[u8]) -> Result<&str> {
    if name.len() > MAX_NAME {
        return Err(fault("a name is longer than 512 bytes"));
    }
    std::str::from_utf8(name).map_err(|_| fault("a name is not UTF-8"))
}

impl<'a> Facts<'a> {
    /// Reads a `.BTF.ext` section.
    pub(crate) fn read(data: &[u8], btf: &Btf<'a>) -> Result<Self> {
        let ext = Ext::parse(data)?;
        let mut facts = Self::default();
        for info in [&ext.func_info, &ext.line_info] {
            facts.count(info, btf)?;
        }
        let mut relocated = CoreRelocations::default();
        check_size(&ext.core_relos)?;
        for section in ext.core_relos.sections() {
            name(btf.strings().name(section.name_off))?;
            section.core_relos().try_for_each(|relo| relocated.add(&relo, btf))?;
        }
        facts.needs_kernel_btf = !ext.core_relos.is_empty();
        Ok(facts)
    }

    fn count(&mut self, info: &Info<'_>, btf: &Btf<'a>) -> Result<()> {
        check_size(info)?;
        for section in info.sections() {
            let name = name(btf.strings().name(section.name_off))?;
            let mut least = 0;
            for record in section.func_infos() {
                let at = Some(record.insn_off).filter(|at| *at >= least && at.is_multiple_of(8));
                let next = at.and_then(|at| at.checked_add(8));
                least = next.ok_or(fault("the records of .BTF.ext are not in order"))?;
            }
            *self.records.entry(name).or_default() += section.len();
        }
        Ok(())
    }
}

fn check_size(info: &Info<'_>) -> Result<()> {
    if info.record_size() > 256 || info.sections().nth(MAX_SECTIONS).is_some() {
        return Err(fault("a part of .BTF.ext has records of an impossible size, or too many sections"));
    }
    Ok(())
}

/// The CO-RE relocations read so far.
#[derive(Default)]
struct CoreRelocations {
    count: usize,
    types: BTreeSet<u32>,
}

impl CoreRelocations {
    fn add(&mut self, relo: &CoreRelo, btf: &Btf<'_>) -> Result<()> {
        let access = name(btf.strings().name(relo.access_str_off))?;
        if relo.kind > LAST_KIND {
            return Err(fault("a CO-RE relocation is of a kind that is not known"));
        }
        if access.split(':').count() > MAX_ACCESS_DEPTH {
            return Err(fault("a CO-RE relocation reaches too deep"));
        }
        let root = btf.get(relo.type_id).filter(|root| root.kind != Kind::Void);
        let root = root.ok_or(fault("a type is referred to that is not there"))?;
        if relo.kind != TYPE_ID_LOCAL {
            check_root(&root)?;
            self.types.insert(relo.type_id);
        }
        self.count += 1;
        if self.count > MAX_CORE_RELOCATIONS || self.types.len() > MAX_CORE_TYPES {
            return Err(fault("there are too many CO-RE relocations"));
        }
        Ok(())
    }
}

/// Refuses a root that names do not tell apart. A kernel has tens of thousands of types of each such kind.
fn check_root(root: &Type<'_>) -> Result<()> {
    // Three underscores begin a flavour suffix, which is not part of the kernel type's name.
    let nameless = name(root.name())?.split("___").next().is_none_or(str::is_empty);
    let named = matches!(
        root.kind,
        Kind::Int | Kind::Struct | Kind::Union | Kind::Enum | Kind::Fwd | Kind::Typedef | Kind::Enum64
    );
    if nameless || !named {
        return Err(fault("a CO-RE relocation is of a type that has no name to find it by"));
    }
    Ok(())
}
