//! Loads an ELF object into the kernel in libbpf's order: its types, the maps, the programs, what the maps hold.
//!
//! [`link`] has decided everything; this module makes the calls and fills in descriptors. The load makes nothing
//! visible and leaves nothing that outlives its descriptors: [`Loaded`] holds them all, and dropping it before anything
//! is pinned undoes the load. Maps that no program uses are created too; only a pin keeps those.

use std::{
    collections::BTreeMap,
    ffi::CString,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use sockeye_crds::names;
use sockeye_ebpf::{
    Object,
    link::{
        self, LinkError, MapRequest, Plan, PlannedMap, PlannedProgram, PlannedSlot, ProgramKind as Kind,
        rejection::{Rejection, rejection},
    },
    values::settings::Settings,
};

use super::{
    Fd, SysError, bpf,
    bpf::{ProgAttr, ProgBtf},
    kernel_features::{self, FeatureSupport},
    log::text,
    map,
    running::RunningKernel,
};
use crate::model::kernel::ProgramKind;

/// The most bytes of the verifier's log that are read. Kernels before 6.4 keep the start of a longer one, later ones
/// the end.
const MAX_LOG: usize = 1 << 20;
/// The bytes of other logs that are read.
const SMALL_LOG: usize = 16 << 10;

/// The parts of an object to load.
#[derive(Debug, Default)]
pub struct Request<'a> {
    /// The functions to load, each with the kind that the kernel verifies it for.
    pub programs: BTreeMap<&'a str, ProgramKind>,
    /// The source of every map to create or to use.
    pub maps: BTreeMap<&'a str, MapSource>,
    /// Values of global variables, and the first content of the maps that are created.
    pub settings: Settings,
}

/// The source of a map.
#[derive(Debug)]
pub enum MapSource {
    /// An existing map of the same shape.
    Reuse(Fd),
    /// A new map with its final sizes.
    Create {
        /// Bytes.
        value_size: u32,
        /// Entries.
        max_entries: u32,
    },
}

/// The descriptors that a load returns.
#[derive(Debug, Default)]
pub struct Loaded {
    /// By the function's name.
    pub programs: BTreeMap<String, Fd>,
    /// By the map's name in the ELF.
    pub maps: BTreeMap<String, Fd>,
    /// What the user may not expect of them.
    pub notes: Vec<String>,
}

/// The reason why an object did not load.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The object can't be linked.
    #[error("the object can't be loaded: {0}")]
    Link(#[from] LinkError),
    /// The kernel refused to create a map.
    #[error("map {name}: {source}{}", said(.log))]
    Map {
        /// The map's name in the ELF.
        name: String,
        /// The kernel's answer.
        source: SysError,
        /// The kernel's log; empty if it wrote none.
        log: String,
    },
    /// The kernel refused a map or program that the object puts into a map.
    #[error("map {map} does not take {entry} into its slot {slot}: {source}")]
    Slot {
        /// The map's name in the ELF.
        map: String,
        /// The index.
        slot: u32,
        /// The map or program.
        entry: String,
        /// The kernel's answer.
        source: SysError,
    },
    /// The object lacks a map or program that the request names, or the request lacks a map.
    #[error("the object holds no {0}")]
    Missing(String),
    /// The kernel refused a program.
    #[error("program {name}: BPF_PROG_LOAD: {source}")]
    Program {
        /// The function's name.
        name: String,
        /// The kind that the kernel was to verify it for.
        kind: ProgramKind,
        /// The kernel's answer.
        source: io::Error,
        /// The verifier's log; empty if it wrote none.
        log: String,
        /// What the log means for the object.
        rejection: Box<Rejection>,
        /// What the kernel did not take before, and the object then went without.
        without: Vec<String>,
    },
}

fn said(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!(": the kernel says: {log}") }
}

/// Loads the maps and programs that the request names.
pub fn load(object: &Object<'_>, request: Request<'_>, kernel: &RunningKernel) -> Result<Loaded, LoadError> {
    let Request { programs, maps: sources, settings } = request;
    if let Some(name) = programs.keys().find(|name| object.section_of(name).is_none()) {
        return Err(LoadError::Missing(format!("program {name}")));
    }
    if let Some(name) = sources.keys().find(|name| !object.has_map(name)) {
        return Err(LoadError::Missing(format!("map {name}")));
    }
    let wanted = |source: &MapSource| match source {
        MapSource::Create { max_entries, .. } => MapRequest { max_entries: Some(*max_entries) },
        MapSource::Reuse(_) => MapRequest::default(),
    };
    let kind = |kind: ProgramKind| Kind { prog_type: kind.prog_type, attach_type: kind.attach_type };
    let linked = link::Request {
        programs: programs.into_iter().map(|(name, of)| (name, kind(of))).collect(),
        maps: sources.iter().map(|(name, source)| (*name, wanted(source))).collect(),
    };
    let plan = link::link(object, &linked, &settings, kernel)?;
    execute(plan, sources)
}

/// Makes the calls of a plan.
fn execute(mut plan: Plan<'_>, mut sources: BTreeMap<&str, MapSource>) -> Result<Loaded, LoadError> {
    let mut loaded = Loaded { notes: std::mem::take(&mut plan.notes), ..Loaded::default() };
    let btf = plan.btf.as_deref().and_then(|bytes| load_types(bytes, &mut loaded.notes));
    let btf = btf.as_ref().map(|fd| fd.as_fd());
    let mut fds: Vec<Fd> = Vec::new();
    let mut created: Vec<&PlannedMap<'_>> = Vec::new();
    for map in &plan.maps {
        let source = sources.remove(map.name);
        let fd = match source.ok_or_else(|| LoadError::Missing(format!("plan for map {}", map.name)))? {
            MapSource::Reuse(fd) => fd,
            MapSource::Create { value_size, max_entries: _ } => {
                created.push(map);
                create(map, value_size, btf, &mut loaded.notes)?
            }
        };
        fds.push(Fd::clone(&fd));
        loaded.maps.insert(map.name.to_owned(), fd);
    }
    let license = CString::new(plan.license).unwrap_or_default();
    for program in &mut plan.programs {
        give_maps(program, &fds);
    }
    for program in &plan.programs {
        let attr = ProgAttr {
            name: program.name,
            prog_type: program.prog_type,
            expected_attach_type: program.attach_type,
            code: &program.code,
            license: &license,
            kernel_version: plan.kernel_version,
            btf: btf.map(|fd| ProgBtf { fd, functions: &program.functions, lines: &program.lines }),
        };
        let fd = load_program(&attr, program, &loaded.notes)?;
        for map in program.bound.iter().filter_map(|index| fds.get(*index)) {
            // As in libbpf, a program that can't keep a map that it does not use is no failure.
            let _ = bpf::prog_bind_map(fd.as_fd(), map.as_fd());
        }
        loaded.programs.insert(program.name.to_owned(), fd.into());
    }
    created.into_iter().try_for_each(|map| fill_slots(map, &loaded))?;
    Ok(loaded)
}

/// Creates a map of its final value size.
fn create(
    map: &PlannedMap<'_>,
    value_size: u32,
    btf: Option<BorrowedFd<'_>>,
    notes: &mut Vec<String>,
) -> Result<Fd, LoadError> {
    map::create(map, value_size, btf, notes).map(Fd::new).map_err(|(source, log)| LoadError::Map {
        name: map.name.to_owned(),
        source,
        log,
    })
}

/// Gives a program's instructions the descriptors of their maps.
fn give_maps(program: &mut PlannedProgram<'_>, fds: &[Fd]) {
    for (at, map) in &program.maps {
        let place = program.code.get_mut(8 * at + 4..8 * at + 8);
        if let (Some(place), Some(fd)) = (place, fds.get(*map)) {
            place.copy_from_slice(&fd.as_raw_fd().to_le_bytes());
        }
    }
}

/// Fills the slots of a new map with the maps or programs that the object names.
fn fill_slots(map: &PlannedMap<'_>, loaded: &Loaded) -> Result<(), LoadError> {
    for (slot, held) in &map.slots {
        let (entry, fd) = match held {
            PlannedSlot::Map(name) => (*name, loaded.maps.get(*name)),
            PlannedSlot::Program(name) => (*name, loaded.programs.get(*name)),
        };
        let holder = loaded.maps.get(map.name);
        let missing = || LoadError::Missing(format!("{entry} for map {}", map.name));
        let (holder, fd) = holder.zip(fd).ok_or_else(missing)?;
        map::put(map, holder.as_fd(), *slot, fd.as_fd()).map_err(|source| LoadError::Slot {
            map: map.name.to_owned(),
            slot: *slot,
            entry: entry.to_owned(),
            source,
        })?;
    }
    Ok(())
}

/// Loads the object's own types. A program loads without them, if it does not need them, so a refusal is no error.
fn load_types(bytes: &[u8], notes: &mut Vec<String>) -> Option<OwnedFd> {
    if let Ok(fd) = bpf::btf_load(bytes, &mut []) {
        return Some(fd);
    }
    let mut log = vec![0; SMALL_LOG];
    let loaded = bpf::btf_load(bytes, &mut log);
    let refused = |error: &SysError| {
        let log = text(&log);
        let last = log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        notes.push(names::line(
            &format!(
                "the kernel refused the object's BTF, so maps and programs have no types ({error}{}): spin locks, \
                 timers and callbacks need them",
                said(last)
            ),
            512,
        ));
    };
    loaded.inspect_err(refused).ok()
}

fn load_program(attr: &ProgAttr<'_>, program: &PlannedProgram<'_>, notes: &[String]) -> Result<OwnedFd, LoadError> {
    // The log costs the verifier time: the first attempt does without.
    let source = match bpf::prog_load(attr, &mut []) {
        Ok(fd) => return Ok(fd),
        Err(source) => source,
    };
    match load_with_log(attr) {
        Ok(fd) => Ok(fd),
        Err(log) => Err(LoadError::Program {
            name: program.name.to_owned(),
            kind: ProgramKind { prog_type: attr.prog_type, attach_type: attr.expected_attach_type },
            rejection: Box::new(rejection(program, &log)),
            without: notes.to_vec(),
            source,
            log,
        }),
    }
}

/// Loads a refused program once more, with a log. Returns the verifier's log if the kernel refuses it again.
fn load_with_log(attr: &ProgAttr<'_>) -> Result<OwnedFd, String> {
    let mut log = vec![0; 64 << 10];
    let is_cut = loop {
        match bpf::prog_load(attr, &mut log) {
            Ok(fd) => return Ok(fd),
            // The log does not fit. Kernels since 6.4 keep its end, older ones its start.
            Err(e) if e.raw_os_error() == Some(libc::ENOSPC) && log.len() < MAX_LOG => log = vec![0; log.len() * 4],
            Err(e) => break e.raw_os_error() == Some(libc::ENOSPC),
        }
    };
    let mut log = text(&log);
    if is_cut && kernel_features::verifier_log_end() != FeatureSupport::Has {
        log += &format!("\n(the log has more than {MAX_LOG} bytes; this kernel, older than 6.4, keeps only its start)");
    }
    Err(log)
}
