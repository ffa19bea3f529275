//! `Selection`: the programs of an object that a spec names, with all that they need: the functions they call, the
//! maps they use, and the programs and maps in those.
//!
//! Only what is selected can make an object fail.

use std::collections::{BTreeMap, BTreeSet};

use sockeye_crds::names::{is_pin_name, pin_name, printable};

use crate::object::{
    Object, ObjectError,
    externs::ExternKind,
    functions::{Function, INSTRUCTION},
    limits::{MAX_LINKED, MAX_MAPS, MAX_PROGRAMS},
    maps::{CreationError, KCONFIG, Slot},
    references::{Reference, Target},
};

/// The programs of an object that a spec names, with all that they need. Numbers are indices.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// The programs: those that the spec names, and those that their program arrays hold.
    pub(crate) programs: BTreeSet<usize>,
    /// The maps to create.
    pub(crate) maps: BTreeSet<usize>,
    /// By function: what its instructions refer to.
    pub(crate) references: BTreeMap<usize, Vec<(usize, Target)>>,
    /// Maps of the object that are not created: only programs that the spec does not name use them, or nobody can.
    pub(crate) left_out: BTreeSet<usize>,
}

impl Object<'_> {
    /// Selects the programs that `programs` names, and the maps that `maps` names, with all that they need.
    pub fn select<'n>(
        &self,
        programs: impl IntoIterator<Item = &'n str>,
        maps: impl IntoIterator<Item = &'n str>,
    ) -> Result<Selection, ObjectError> {
        let mut selection = Selection::default();
        let mut open = Vec::new();
        for name in programs {
            let index = self.functions.program(name).ok_or_else(|| ObjectError::NoProgram(name.to_owned()))?;
            open.push(index);
        }
        for name in maps {
            let index = self.map(name).ok_or_else(|| ObjectError::NoMap(name.to_owned()))?;
            self.add_map(index, &mut selection, &mut open);
        }
        while let Some(index) = open.pop() {
            if selection.programs.insert(index) {
                at_most("programs", selection.programs.len(), MAX_PROGRAMS)?;
                self.add_program(index, &mut selection, &mut open)?;
            }
        }
        self.check(&selection)?;
        Ok(selection)
    }

    /// Returns the functions that a program consists of: itself, and all that it calls.
    pub(crate) fn closure(&self, program: usize, selection: &Selection) -> BTreeSet<usize> {
        let mut open = vec![program];
        open.extend(self.exception_callback(program));
        let mut seen: BTreeSet<usize> = open.iter().copied().collect();
        while let Some(index) = open.pop() {
            for (_, target) in selection.references.get(&index).map(Vec::as_slice).unwrap_or_default() {
                let (Target::Call(callee) | Target::Address(callee)) = target else { continue };
                if seen.insert(*callee) {
                    open.push(*callee);
                }
            }
        }
        seen
    }

    fn add_program(
        &self,
        program: usize,
        selection: &mut Selection,
        programs: &mut Vec<usize>,
    ) -> Result<(), ObjectError> {
        let mut open = vec![program];
        open.extend(self.exception_callback(program));
        while let Some(index) = open.pop() {
            let Some(function) = self.functions.get(index) else { continue };
            if selection.references.contains_key(&index) {
                continue;
            }
            function.code().map_err(|what| ObjectError::function(function.name, what))?;
            let mut targets = Vec::new();
            for Reference { instruction, target } in self.references(function) {
                let target = target.map_err(|error| ObjectError::reference(function.name, &error))?;
                self.check_target(function, target)?;
                match target {
                    Target::Call(callee) | Target::Address(callee) => open.push(callee),
                    Target::Map(map) | Target::Data { map, .. } => self.add_map(map, selection, programs),
                    Target::Extern(index) => {
                        self.kconfig(index).into_iter().for_each(|map| self.add_map(map, selection, programs));
                    }
                    Target::ExternCall(_) => {}
                }
                targets.push((instruction, target));
            }
            selection.references.insert(index, targets);
        }
        Ok(())
    }

    /// Returns the map with the kernel's configuration, if an extern is a value of it.
    pub(super) fn kconfig(&self, index: usize) -> Option<usize> {
        let is_config = |kind| matches!(kind, ExternKind::Config(_));
        self.externs.get(index).filter(|one| is_config(one.kind)).and_then(|_| self.map(KCONFIG))
    }

    fn check_target(&self, function: &Function<'_>, target: Target) -> Result<(), ObjectError> {
        let (Target::Extern(index) | Target::ExternCall(index)) = target else { return Ok(()) };
        let Some(one) = self.externs.get(index) else { return Ok(()) };
        let calls = matches!(target, Target::ExternCall(_));
        if let Some(fault) = self.btf_fault().or(self.ext_fault()) {
            return Err(ObjectError::function(
                function.name,
                format!(
                    "it uses {}, which is declared in BTF, and types or CO-RE relocations can't be read: {fault}: \
                     build the object anew",
                    printable(one.name)
                ),
            ));
        }
        match one.kind {
            ExternKind::Undefined => {
                Err(ObjectError::Undefined { function: function.name.to_owned(), name: one.name.to_owned() })
            }
            ExternKind::BadConfig => Err(ObjectError::function(
                function.name,
                format!("{} is a __kconfig variable of a type that has no configuration value", one.name),
            )),
            ExternKind::Function { .. } => Ok(()),
            _ if calls => Err(ObjectError::function(function.name, format!("it calls {}, no function", one.name))),
            _ => Ok(()),
        }
    }

    pub(super) fn add_map(&self, map: usize, selection: &mut Selection, programs: &mut Vec<usize>) {
        let mut open = vec![map];
        while let Some(index) = open.pop() {
            if !selection.maps.insert(index) {
                continue;
            }
            for (_, slot) in self.maps.get(index).map(|map| map.slots.as_slice()).unwrap_or_default() {
                match slot {
                    Slot::Map(inner) => open.push(*inner),
                    Slot::Program(program) => programs.push(*program),
                }
            }
        }
    }

    /// Checks what no single function or map can tell.
    fn check(&self, selection: &Selection) -> Result<(), ObjectError> {
        let mut linked = 0;
        for program in &selection.programs {
            let name = self.functions.get(*program).map(|function| function.name).unwrap_or_default();
            if !is_pin_name(name) {
                return Err(ObjectError::Name(name.to_owned()));
            }
            let functions = self.closure(*program, selection);
            let functions = functions.into_iter().filter_map(|index| self.functions.get(index));
            linked += functions.map(|function| function.code().map_or(0, <[u8]>::len) / INSTRUCTION).sum::<usize>();
            at_most("instructions", linked, MAX_LINKED)?;
        }
        at_most("maps", selection.maps.len(), MAX_MAPS)?;
        for map in selection.maps.iter().filter_map(|index| self.maps.get(*index)) {
            if let Some(fault) = &map.fault {
                return Err(ObjectError::map(map.name, fault));
            }
            // Only the names of global data, such as `.rodata`, may have dots.
            let pin = if map.form.is_data() { pin_name(map.name) } else { map.name.to_owned() };
            if !is_pin_name(&pin) {
                return Err(ObjectError::Name(map.name.to_owned()));
            }
        }
        Ok(())
    }
}

impl<'a> Object<'a> {
    /// Returns the names of the maps that the selection asks to have pinned by the object's own word. Sockeye ignores
    /// this.
    pub fn pin_requests(&self, selection: &Selection) -> Vec<&'a str> {
        let maps = selection.maps.iter().filter_map(|index| self.maps.get(*index));
        maps.filter(|map| map.definition.is_pinned).map(|map| map.name).collect()
    }

    /// Returns the names of the maps that are not created for the selection.
    pub fn left_out(&self, selection: &Selection) -> Vec<&'a str> {
        selection.left_out.iter().filter_map(|index| self.maps.get(*index)).map(|map| map.name).collect()
    }

    /// Returns the selected maps that no kernel creates as they are defined, each with the reason.
    pub(crate) fn creation_errors(&self, selection: &Selection) -> Vec<(&'a str, CreationError)> {
        let maps = selection.maps.iter().filter_map(|index| self.maps.get(*index));
        maps.filter_map(|map| Some((map.name, map.definition.creation_error()?))).collect()
    }
}

fn at_most(what: &'static str, count: usize, most: usize) -> Result<(), ObjectError> {
    if count > most { Err(ObjectError::TooMany { what, most }) } else { Ok(()) }
}
