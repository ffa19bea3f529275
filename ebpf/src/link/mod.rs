//! `Loadable`: an object that aya-obj makes ready for the kernel: it parses the object, relocates it against the
//! kernel's types, fills in the maps' descriptors, and links calls. No IO.
//!
//! Bytes reach aya-obj only through this module. aya-obj has no bounds and panics on damaged objects, so
//! [`Object::read`] always runs first: another version of sockeye may have checked the bytes, or nobody, and reading
//! them again costs a tenth of the load. An object that passes can only make aya-obj panic, and every step is
//! contained. A child process with resource limits would protect against more, but would cost more than the load
//! itself.

pub(crate) mod alias;
pub mod core;

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

/// The reason why an object cannot be made ready for the kernel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The reader refused the object.
    #[error(transparent)]
    Refused(#[from] ObjectError),
    /// aya-obj failed.
    #[error("{step}: {what}")]
    Step {
        /// The step that failed.
        step: &'static str,
        /// The error message, on one line.
        what: String,
        /// True if aya-obj panicked.
        panicked: bool,
    },
}

/// An object that is being made ready for the kernel.
pub struct Loadable {
    object: aya_obj::Object,
    slots: Slots,
}

impl Loadable {
    /// Reads an object from its bytes.
    pub fn read(bytes: &[u8]) -> Result<Self, LinkError> {
        let object = Object::read(bytes)?;
        let mut bytes = alias::rename(bytes, object.info().programs.iter().map(|program| program.section.as_str()))?;
        let Object { slots, hidden, .. } = object;
        for at in hidden {
            // Offset 0 of the strings is the empty name.
            at.checked_add(4).and_then(|end| bytes.to_mut().get_mut(at..end)).unwrap_or_default().fill(0);
        }
        let object = step("parsing", || aya_obj::Object::parse(&bytes))?;
        Ok(Self { object, slots })
    }

    /// Sets global variables: by section, the offset and the bytes of each.
    pub fn set_globals(&mut self, globals: &BTreeMap<String, Vec<(usize, Vec<u8>)>>) {
        for (map, values) in globals {
            let Some(map) = self.object.maps.get_mut(map) else { continue };
            for (offset, value) in values {
                let place = offset.checked_add(value.len()).and_then(|end| map.data_mut().get_mut(*offset..end));
                // The reader has checked the offsets against the same section.
                if let Some(place) = place {
                    place.copy_from_slice(value);
                }
            }
        }
    }

    /// Returns the values that the object itself puts into its maps.
    pub const fn slots(&self) -> &Slots {
        &self.slots
    }

    /// Returns whether the object needs the running kernel's BTF.
    pub fn needs_kernel_btf(&self) -> bool {
        self.object.has_btf_relocations()
    }

    /// Returns the object's own BTF in a form that a kernel with these features accepts.
    pub fn btf(&mut self, features: &BtfFeatures) -> Result<Option<Vec<u8>>, LinkError> {
        step("BTF", || self.object.fixup_and_sanitize_btf(features).map(|btf| btf.map(Btf::to_bytes)))
    }

    /// Relocates the object against the kernel's BTF.
    pub fn relocate_types(&mut self, kernel: &Btf) -> Result<(), LinkError> {
        step("relocation against the kernel's BTF", || self.object.relocate_btf(kernel))
    }

    /// Takes the maps that the object defines, by name.
    pub fn take_maps(&mut self) -> Vec<(String, Map)> {
        self.object.maps.drain().collect()
    }

    /// Fills in the maps' descriptors, and links the callees into each program.
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

    /// Returns a program and its instructions.
    pub fn program(&self, name: &str) -> Option<(&Program, &Function)> {
        let program = self.object.programs.get(name)?;
        Some((program, self.object.functions.get(&program.function_key())?))
    }
}

fn step<T, E: std::error::Error>(step: &'static str, work: impl FnOnce() -> Result<T, E>) -> Result<T, LinkError> {
    // Errors quote names from the object, so the text is made safe to show at once.
    let done = contain(|| work().map_err(|error| message(&error)));
    done.unwrap_or_else(|panicked| Err((format!("{panicked}: the object is damaged"), true)))
        .map_err(|(what, panicked)| LinkError::Step { step, what, panicked })
}

fn message(error: &dyn std::error::Error) -> (String, bool) {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    (line(&text, 512), false)
}
