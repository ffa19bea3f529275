//! `Loadable`: an object made ready for the kernel, by aya-obj: parsed, relocated against the kernel's types, its maps'
//! descriptors and its calls filled in. No IO.
//!
//! Only through here do bytes reach aya-obj, which has no bounds and panics on damage. [`Object::read`] goes first, always:
//! the bytes may have been checked by another version of sockeye, or by nobody, and to read them again costs a tenth of what
//! the load does. What it lets pass can end aya-obj by a panic only, and each step is contained. A child process with limits
//! would hold more, but cost more than the load itself.

pub(crate) mod alias;

use std::{
    collections::{BTreeMap, HashSet},
    os::fd::RawFd,
};

use aya_obj::{
    Features, Function, Map, Program,
    btf::{Btf, BtfFeatures},
};
use sockeye_crds::names::line;

use crate::{
    contain::contain,
    object::{Object, ObjectError, Slots},
};

/// Why an object can't be made ready.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The reader refuses it.
    #[error(transparent)]
    Refused(#[from] ObjectError),
    /// aya-obj refuses it, or gave up.
    #[error("{step}: {what}")]
    Step {
        /// In which step.
        step: &'static str,
        /// Its words, on one line.
        what: String,
        /// Whether it panicked.
        panicked: bool,
    },
}

/// An object on its way into the kernel.
pub struct Loadable {
    object: aya_obj::Object,
    slots: Slots,
}

impl Loadable {
    /// Reads the bytes.
    pub fn read(bytes: &[u8]) -> Result<Self, LinkError> {
        let object = Object::read(bytes)?;
        let mut bytes = alias::rename(bytes, object.info().programs.iter().map(|program| program.section.as_str()))?;
        let Object { slots, hidden, .. } = object;
        for at in hidden {
            // Offset 0 among the strings is the empty name.
            at.checked_add(4).and_then(|end| bytes.to_mut().get_mut(at..end)).unwrap_or_default().fill(0);
        }
        let object = step("parsing", || aya_obj::Object::parse(&bytes))?;
        Ok(Self { object, slots })
    }

    /// Sets global variables: by the section that is their map, where and what.
    pub fn set_globals(&mut self, globals: &BTreeMap<String, Vec<(usize, Vec<u8>)>>) {
        for (map, values) in globals {
            let Some(map) = self.object.maps.get_mut(map) else { continue };
            for (offset, value) in values {
                let place = offset.checked_add(value.len()).and_then(|end| map.data_mut().get_mut(*offset..end));
                // The reader has seen the same section: the place is there.
                if let Some(place) = place {
                    place.copy_from_slice(value);
                }
            }
        }
    }

    /// What it puts into its maps itself.
    pub const fn slots(&self) -> &Slots {
        &self.slots
    }

    /// Whether it needs the running kernel's types.
    pub fn needs_kernel_btf(&self) -> bool {
        self.object.has_btf_relocations()
    }

    /// Its own BTF, as a kernel with these features takes it.
    pub fn btf(&mut self, features: &BtfFeatures) -> Result<Option<Vec<u8>>, LinkError> {
        step("BTF", || self.object.fixup_and_sanitize_btf(features).map(|btf| btf.map(Btf::to_bytes)))
    }

    /// Relocates it against the kernel's types.
    pub fn relocate_types(&mut self, kernel: &Btf) -> Result<(), LinkError> {
        step("relocation against the kernel's BTF", || self.object.relocate_btf(kernel))
    }

    /// The maps it defines, by name.
    pub fn take_maps(&mut self) -> Vec<(String, Map)> {
        self.object.maps.drain().collect()
    }

    /// Fills in the maps' descriptors, and links what programs call into them.
    pub fn link<'a>(
        &mut self,
        maps: impl Iterator<Item = (&'a str, RawFd, &'a Map)>,
        features: &Features,
    ) -> Result<(), LinkError> {
        let code: HashSet<usize> = self.object.functions.keys().map(|(section, _)| *section).collect();
        step("relocation of maps", || self.object.relocate_maps(maps, &code))?;
        step("relocation of calls", || self.object.relocate_calls(&code))?;
        step("sanitizing", || {
            self.object.sanitize_functions(features);
            Ok::<_, ObjectError>(())
        })
    }

    /// The program of that name, and its instructions.
    pub fn program(&self, name: &str) -> Option<(&Program, &Function)> {
        let program = self.object.programs.get(name)?;
        Some((program, self.object.functions.get(&program.function_key())?))
    }
}

fn step<T, E: std::error::Error>(step: &'static str, work: impl FnOnce() -> Result<T, E>) -> Result<T, LinkError> {
    // An error quotes names of the object: they are made fit to be shown here, and dropped here too.
    let done = contain(|| work().map_err(|error| words(&error)));
    done.unwrap_or_else(|panicked| Err((format!("{panicked}: the object is damaged"), true)))
        .map_err(|(what, panicked)| LinkError::Step { step, what, panicked })
}

fn words(error: &dyn std::error::Error) -> (String, bool) {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    (line(&text, 512), false)
}
