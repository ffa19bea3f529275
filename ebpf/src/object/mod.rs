//! `Object`: an ELF object for BPF as its bytes alone tell it: programs, maps, which uses which, licence.
//!
//! Bounds come first, and every access is checked: the bytes may be anyone's. No IO, no panic, and none that gets out if
//! there were one. What passes here reaches aya-obj (`link`), so whatever could end that other than by a panic is refused:
//!
//! | in aya-obj | could | closed in |
//! |---|---|---|
//! | names, counted for each symbol, section, and part of .BTF.ext | fill memory | `elf`, `btf` |
//! | sections over each other, .bss | fill memory | `elf` |
//! | records of .BTF.ext copied for each function, and what is called for each program | fill memory | `btf_ext`, `code` |
//! | a call in a call in a call, by recursion | overflow the stack | `code` |
//! | numbers read into Rust enums: a map's pinning, a variable's linkage | be undefined | `maps`, `btf` |
//! | all the kernel's types searched for each type of a CO-RE relocation | take for ever | `btf_ext` |

pub mod btf;
pub(crate) mod elf;
mod error;
mod functions;
mod limits;
pub(crate) mod maps;
mod slots;

use std::collections::BTreeSet;

use sockeye_crds::{
    ObjectInfo, ProgramInfo,
    names::{is_pin_name, pin_name},
};

use self::{
    btf::{Btf, BtfError, ext::Ext},
    elf::{Elf, section_data},
    functions::Functions,
    maps::Map,
};
pub use self::{error::ObjectError, slots::Slots};
use crate::{contain::contain, kinds::section};

/// What an object holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    info: ObjectInfo,
    /// Maps that the ELF asks to have pinned by their names, which sockeye does not do.
    pub pin_requests: Vec<String>,
    /// Whether it needs the running kernel's BTF to be relocated.
    pub needs_kernel_btf: bool,
    /// What it puts into its maps itself.
    pub slots: Slots,
    /// Words of the file that aya-obj must not see; see [`Slots`].
    pub(crate) hidden: Vec<usize>,
}

impl Object {
    /// Reads it.
    pub fn read(bytes: &[u8]) -> Result<Self, ObjectError> {
        contain(|| Self::read_within_bounds(bytes)).unwrap_or_else(|panicked| Err(ObjectError::Defect(panicked)))
    }

    fn read_within_bounds(bytes: &[u8]) -> Result<Self, ObjectError> {
        let elf = elf::open(bytes)?;
        let btf = section_data(&elf, ".BTF")?.map(Btf::parse).transpose()?;
        let ext = match (section_data(&elf, ".BTF.ext")?, &btf) {
            (Some(data), Some(btf)) => Ext::parse(data, btf)?,
            (Some(_), None) => return Err(BtfError("there is .BTF.ext without .BTF").into()),
            (None, _) => Ext::default(),
        };
        let mut maps = maps::read(&elf, btf.as_ref())?;
        let functions = Functions::read(&elf, &ext)?;
        let mut programs = Vec::new();
        for (function, used) in functions.programs(&elf, &maps)? {
            programs.push(ProgramInfo {
                name: function.name.to_owned(),
                section: function.section_name.to_owned(),
                program_type: section::find(function.section_name).map(|row| row.program_type),
            });
            for (_, map) in maps.iter_mut().enumerate().filter(|(index, _)| used.contains(index)) {
                map.info.used_by.push(function.name.to_owned());
            }
        }
        programs.sort_by(|a, b| a.name.cmp(&b.name));
        check_names(&programs, &maps)?;
        let slots = slots::read(&elf, &mut maps, &programs)?;
        maps.iter_mut().for_each(|map| map.info.used_by.sort());
        check_version(&elf)?;
        Ok(Self {
            pin_requests: maps.iter().filter(|m| m.asks_to_be_pinned).map(|m| m.info.name.clone()).collect(),
            needs_kernel_btf: ext.needs_kernel_btf,
            hidden: slots::hidden(&elf, &maps),
            slots,
            info: ObjectInfo {
                programs,
                maps: maps.into_iter().map(|map| map.info).collect(),
                license: license(&elf)?,
                btf: btf.is_some(),
            },
        })
    }

    /// What it holds, as statuses show it.
    pub const fn info(&self) -> &ObjectInfo {
        &self.info
    }

    /// What it holds, as statuses show it.
    pub fn into_info(self) -> ObjectInfo {
        self.info
    }
}

/// Whether a text from the object may be shown as it is: one short line of ASCII.
fn is_plain(text: &[u8]) -> bool {
    (1..=128).contains(&text.len()) && text.iter().all(|byte| (b' '..=b'~').contains(byte))
}

/// The licence, as aya-obj takes it: the "license" section, which ends with its only NUL; GPL where there is none.
fn license(elf: &Elf<'_>) -> Result<String, ObjectError> {
    let Some(data) = section_data(elf, "license")? else { return Ok("GPL".to_owned()) };
    let text = data.strip_suffix(&[0]).filter(|text| is_plain(text));
    let text =
        text.ok_or(ObjectError::Malformed("its license section is no short line of ASCII that ends with NUL"))?;
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// The "version" section, which only kernels before 5.0 asked for.
fn check_version(elf: &Elf<'_>) -> Result<(), ObjectError> {
    match section_data(elf, "version")? {
        Some(data) if data.len() != 4 => Err(ObjectError::Malformed("its version section is no number of four bytes")),
        _ => Ok(()),
    }
}

/// Every name that reaches a path must be one that can be pinned, and no two may meet in one pin; a section's name reaches
/// the status.
fn check_names(programs: &[ProgramInfo], maps: &[Map]) -> Result<(), ObjectError> {
    let mut pins = BTreeSet::new();
    for map in maps {
        let name = &map.info.name;
        // The dots of `.rodata` and its like are the only ones.
        let pin = if map.info.definition.is_data() { pin_name(name) } else { name.clone() };
        if !is_pin_name(&pin) {
            return Err(ObjectError::Name(name.clone()));
        }
        if !pins.insert(pin) {
            return Err(ObjectError::Map { name: name.clone(), what: "another map is pinned under the same name" });
        }
    }
    let mut seen = BTreeSet::new();
    for ProgramInfo { name, section, .. } in programs {
        if !is_pin_name(name) {
            return Err(ObjectError::Name(name.clone()));
        }
        if !is_plain(section.as_bytes()) {
            return Err(ObjectError::Malformed("a program's section has a name that is not plain ASCII"));
        }
        if !seen.insert(name) {
            return Err(ObjectError::Function { name: name.clone(), what: "the object has two of that name" });
        }
    }
    Ok(())
}
