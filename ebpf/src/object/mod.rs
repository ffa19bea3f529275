//! `Object`: an ELF object for BPF as its bytes describe it: programs, maps, which program uses which map, licence. No
//! IO.
//!
//! The bytes may come from anyone. The reader bounds everything before it uses it, checks every access, and contains
//! its own panics. Objects that pass the reader reach aya-obj (`link`), which has no bounds. So the reader refuses
//! every object that could harm aya-obj in a way other than a panic:
//!
//! | object | effect in aya-obj | refused in |
//! |---|---|---|
//! | long names, shared by many symbols, sections or parts of .BTF.ext | fills memory | `elf`, `guard` |
//! | overlapping sections, a large .bss | fills memory | `elf` |
//! | records of .BTF.ext, copied for each function; callees, copied for each program | fills memory | `guard`,
//! `functions` |
//! | deeply nested calls, linked recursively | overflows the stack | `functions` |
//! | a map's pinning or a variable's linkage that a Rust enum lacks | is undefined behaviour | `maps`, `guard` |
//! | many types in CO-RE relocations, each searched among all of the kernel's | takes minutes | `guard` |
//!
//! | module | noun |
//! |---|---|
//! | `elf` | the file: its sections and symbols, within bounds |
//! | `guard` | what aya-obj must not see of BTF |
//! | `functions` | programs, the subprograms that they call, and the maps that they use |
//! | `maps` | the maps that the object defines |
//! | `slots` | the values that the object itself puts into its maps |
//! | `limits` | the limits on all of these |

pub(crate) mod elf;
mod error;
mod functions;
mod guard;
mod limits;
pub(crate) mod maps;
mod slots;

use std::collections::BTreeSet;

use sockeye_crds::{
    ObjectInfo, ProgramInfo,
    names::{is_pin_name, pin_name},
};

use self::{
    elf::{Elf, section_data},
    functions::Functions,
    guard::Facts,
    maps::Map,
};
pub use self::{error::ObjectError, slots::Slots};
use crate::{
    btf::{Btf, BtfError},
    contain::contain,
    kinds::section,
};

/// An ELF object for BPF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    info: ObjectInfo,
    /// Maps that the object asks to have pinned by their names. Sockeye ignores this.
    pub pin_requests: Vec<String>,
    /// True if the object has CO-RE relocations, which need the running kernel's BTF.
    pub needs_kernel_btf: bool,
    /// The values that the object itself puts into its maps.
    pub slots: Slots,
    /// File offsets of words that are zeroed before aya-obj sees the file; see [`slots`].
    pub(crate) hidden: Vec<usize>,
}

impl Object {
    /// Reads an object from its bytes.
    pub fn read(bytes: &[u8]) -> Result<Self, ObjectError> {
        contain(|| Self::read_within_bounds(bytes)).unwrap_or_else(|panicked| Err(ObjectError::Defect(panicked)))
    }

    fn read_within_bounds(bytes: &[u8]) -> Result<Self, ObjectError> {
        let elf = elf::open(bytes)?;
        let btf = section_data(&elf, ".BTF")?.map(Btf::parse).transpose()?;
        btf.as_ref().map(guard::check_types).transpose()?;
        let facts = match (section_data(&elf, ".BTF.ext")?, &btf) {
            (Some(data), Some(btf)) => Facts::read(data, btf)?,
            (Some(_), None) => return Err(BtfError::Malformed("there is .BTF.ext without .BTF").into()),
            (None, _) => Facts::default(),
        };
        let mut maps = maps::read(&elf, btf.as_ref())?;
        let functions = Functions::read(&elf, &facts)?;
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
            needs_kernel_btf: facts.needs_kernel_btf,
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

    /// Returns the content as statuses show it.
    pub const fn info(&self) -> &ObjectInfo {
        &self.info
    }

    /// Returns the content as statuses show it.
    pub fn into_info(self) -> ObjectInfo {
        self.info
    }
}

/// Returns whether text from the object is safe to show: one short line of printable ASCII.
fn is_plain(text: &[u8]) -> bool {
    (1..=128).contains(&text.len()) && text.iter().all(|byte| (b' '..=b'~').contains(byte))
}

/// Reads the licence as aya-obj does: from the "license" section, which ends with its only NUL. Without one it is GPL.
fn license(elf: &Elf<'_>) -> Result<String, ObjectError> {
    let Some(data) = section_data(elf, "license")? else { return Ok("GPL".to_owned()) };
    let text = data.strip_suffix(&[0]).filter(|text| is_plain(text));
    let text =
        text.ok_or(ObjectError::Malformed("its license section is no short line of ASCII that ends with NUL"))?;
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// Checks the "version" section, which only kernels before 5.0 used.
fn check_version(elf: &Elf<'_>) -> Result<(), ObjectError> {
    match section_data(elf, "version")? {
        Some(data) if data.len() != 4 => Err(ObjectError::Malformed("its version section is no number of four bytes")),
        _ => Ok(()),
    }
}

/// Checks all names: those that become paths must be valid and distinct pin names, and section names must be safe to
/// show in a status.
fn check_names(programs: &[ProgramInfo], maps: &[Map]) -> Result<(), ObjectError> {
    let mut pins = BTreeSet::new();
    for map in maps {
        let name = &map.info.name;
        // Only the names of global data, such as `.rodata`, may have dots.
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
