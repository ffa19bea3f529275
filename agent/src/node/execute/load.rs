//! Loads the object, and pins its maps and programs.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::AsFd as _,
    time::Instant,
};

use sockeye_crds::{Reason, names::pin_name, program::MapRef};
use sockeye_ebpf::{Object, values::settings::Settings};

use super::{
    executor::Executor,
    progress::{Progress, Undo},
};
use crate::{
    kernel::{
        self, Fd, info,
        load::{self, MapSource, Request},
    },
    model::entries::listed_maps,
    node::{
        entry_sync::RECORD,
        failure::Failure,
        handles::ProgramHandle,
        layout::{self, Origin},
        record,
    },
    plan::entry_changes::applied_after,
};

impl Executor<'_> {
    /// Loads the object, with the pinned maps `reuse` and other BpfPrograms' maps `shared`; makes nothing visible.
    pub(super) fn load(
        &self,
        reuse: &BTreeSet<String>,
        shared: &BTreeMap<String, MapRef>,
        progress: &mut Progress<'_>,
    ) -> Result<(), Failure> {
        let (Some(desired), Some(bytes)) = (self.execution.desired, self.execution.bytes) else {
            return Err(Failure::internal("a load was planned without an object to load"));
        };
        let object = Object::read(bytes).map_err(|error| Failure::new(Reason::InvalidObject, error.to_string()))?;
        let lists = self.execution.lists.clone().unwrap_or_default();
        let settings = Settings::read_with(&object, &desired.globals, &desired.settings, &lists)
            .map_err(|error| Failure::new(error.reason(), error.to_string()))?;
        if desired.maps.values().any(|map| map.sync) {
            progress.listed = listed_maps(desired, &mut settings.clone());
        }
        let mut request = Request { settings, ..Request::default() };
        for (name, map) in desired.maps.iter().filter(|(_, map)| !map.attach_only) {
            let source = if let Some(MapRef { program, name }) = shared.get(name) {
                MapSource::Reuse(self.home.dir.get(&layout::in_home_of(program, &layout::map(name)))?)
            } else if reuse.contains(&map.pin_name) {
                MapSource::Reuse(self.home.dir.get(&layout::map(&map.pin_name))?)
            } else {
                MapSource::Create { value_size: map.shape.value_size, max_entries: map.shape.max_entries }
            };
            request.maps.insert(name, source);
        }
        request.programs.extend(desired.functions.iter().map(|(name, function)| (name.as_str(), function.kind)));
        let start = Instant::now();
        let loaded = load::load(&object, request, self.execution.kernel)?;
        progress.executed.load_time = start.elapsed();
        for (name, fd) in &loaded.maps {
            if desired.maps.get(name).is_some_and(|map| !map.pin) {
                progress.executed.unpinned.insert(name.clone(), info::map(fd.as_fd())?);
            }
        }
        progress.executed.load_notes.clone_from(&loaded.notes);
        progress.loaded = loaded;
        Ok(())
    }

    /// Pins a loaded map of another BpfProgram. The note of its owner is there whenever another BpfProgram's map may be
    /// pinned.
    pub(super) fn share_map(&self, name: &str, from: &MapRef, progress: &mut Progress<'_>) -> Result<(), Failure> {
        let missing = || Failure::internal(format!("map {name} was not loaded"));
        let fd = Fd::clone(progress.loaded.maps.get(name).ok_or_else(missing)?);
        self.pin_map_of(&pin_name(name), from, &fd, progress)
    }

    /// Pins a map of this BpfProgram's own.
    pub(super) fn pin_map(&self, pin: &str, progress: &mut Progress<'_>) -> Result<(), Failure> {
        let missing = || Failure::internal(format!("the map of pin {pin} was not loaded"));
        let desired = self.execution.desired.ok_or_else(missing)?;
        let (name, map) = desired.map_by_pin(pin).ok_or_else(missing)?;
        let fd = Fd::clone(progress.loaded.maps.get(name).ok_or_else(missing)?);
        if let Some(listed) = progress.listed.get(name).filter(|listed| listed.sync) {
            // First: whatever happens next, it is known which entries of the new map are the spec's.
            let entries = record::encode(info::map_id(fd.as_fd())?, &applied_after(listed));
            let former = self.pin(&kernel::record::create(RECORD, &entries)?, &layout::record(pin))?;
            progress.undo.push(Undo::RestoreRecord(pin.to_owned(), former));
        }
        if map.holds_sockets() && !desired.diverts() {
            self.note_lossless(pin, &fd, progress)?;
        }
        self.pin_map_fd(pin, &fd, progress)?;
        if !self.is_new {
            self.remove_note(layout::source(pin), &mut progress.undo)?;
        }
        Ok(())
    }

    /// Pins another BpfProgram's map to attach programs to it.
    pub(super) fn borrow_map(&self, pin: &str, from: &MapRef, progress: &mut Progress<'_>) -> Result<(), Failure> {
        let fd = self.home.dir.get(&layout::in_home_of(&from.program, &layout::map(&from.name)))?;
        self.pin_map_of(pin, from, &fd, progress)
    }

    fn pin_map_of(&self, pin: &str, from: &MapRef, fd: &Fd, progress: &mut Progress<'_>) -> Result<(), Failure> {
        self.set_note(layout::source(pin), &layout::source_note(from), &mut progress.undo)?;
        self.pin_map_fd(pin, fd, progress)
    }

    fn pin_map_fd(&self, pin: &str, fd: &Fd, progress: &mut Progress<'_>) -> Result<(), Failure> {
        let replaced = self.pin(fd, &layout::map(pin))?;
        progress.pinned.maps.insert(pin.to_owned(), Fd::clone(fd));
        progress.undo.push(match replaced {
            Some(fd) => Undo::RepinMap(pin.to_owned(), fd),
            None => Undo::UnpinMap(pin.to_owned()),
        });
        Ok(())
    }

    /// Pins a loaded program, with the note of the load that it came from.
    pub(super) fn pin_program(&self, function: &str, progress: &mut Progress<'_>) -> Result<(), Failure> {
        let missing = || Failure::internal(format!("program {function} was not loaded"));
        let fd = Fd::clone(progress.loaded.programs.get(function).ok_or_else(missing)?);
        let load_key = self.execution.desired.map(|desired| desired.load_key.clone()).ok_or_else(missing)?;
        // The note first: it names the program's ID, so that until the pin follows it counts for no program.
        let origin = Origin { load_key, program_id: info::program_id(fd.as_fd())? };
        self.set_note(layout::origin(function), &origin.note(), &mut progress.undo)?;
        match self.pin(&fd, &layout::program(function))? {
            Some(former) => {
                progress.undo.push(Undo::RepinProgram(function.to_owned(), Fd::clone(&former)));
                let id = info::program_id(former.as_fd())?;
                let known = progress.handles.programs.get(function).filter(|handle| handle.id == id);
                let load_key = known.and_then(|handle| handle.load_key.clone());
                progress.replaced_programs.insert(function.to_owned(), ProgramHandle { fd: former, id, load_key });
            }
            None => progress.undo.push(Undo::UnpinProgram(function.to_owned())),
        }
        let handle = ProgramHandle { fd, id: origin.program_id, load_key: Some(origin.load_key) };
        progress.pinned.programs.insert(function.to_owned(), handle);
        Ok(())
    }
}
