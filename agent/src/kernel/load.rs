//! Loads an ELF object into the kernel in libbpf's order: create the maps, relocate, load the programs.
//!
//! The load makes nothing visible and leaves nothing that outlives its descriptors: [`Loaded`] holds them all, and
//! dropping it before anything is pinned undoes the load. Maps that no program uses are created too; only a pin keeps
//! those.
//!
//! aya-obj parses and relocates, behind our own reader ([`Loadable`]); the bpf(2) calls are our own. aya's `EbpfLoader`
//! parses the kernel's BTF on construction, even for objects that need none, and pins below /sys/fs/bpf what an ELF
//! asks to pin.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use aya_obj::{Map, btf::Btf};
use sockeye_crds::names;
use sockeye_ebpf::{
    link::{LinkError, Loadable},
    values::settings::Settings,
};

use super::{
    Fd, SysError, bpf,
    bpf::{ProgAttr, ProgBtf},
    map,
    probe::{self, Answer},
};
use crate::model::kernel::ProgramKind;

/// The most bytes of the verifier's log that are read. Kernels before 6.4 keep the start of a longer one, later ones
/// the end.
const MAX_LOG: usize = 1 << 20;

/// The parts of an object to load.
#[derive(Debug, Default)]
pub struct Request<'a> {
    /// The functions to load, each with the kind that the kernel verifies it for.
    pub programs: BTreeMap<&'a str, ProgramKind>,
    /// The source of every map of the object.
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
}

/// The reason why an object did not load.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The bytes are not an object that can be relocated.
    #[error("the object can't be read: {0}")]
    Object(#[from] LinkError),
    /// The object needs the kernel's BTF, which can't be read.
    #[error("the object holds CO-RE relocations, and the kernel's BTF can't be read: {0}")]
    NoKernelBtf(String),
    /// The kernel refused to create a map.
    #[error("map {name}: {source}")]
    Map {
        /// The map's name in the ELF.
        name: String,
        /// The kernel's answer.
        source: SysError,
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
    },
}

/// The kernel's BTF. It is parsed when the first object needs it, and shared by all loads that get the same value.
#[derive(Default)]
pub struct KernelBtf(OnceCell<Result<Btf, String>>);

impl KernelBtf {
    fn get(&self) -> Result<&Btf, LoadError> {
        self.0
            .get_or_init(|| Btf::from_sys_fs().map_err(|e| e.to_string()))
            .as_ref()
            .map_err(|e| LoadError::NoKernelBtf(e.clone()))
    }

    /// Tells whether it has been parsed.
    pub fn is_parsed(&self) -> bool {
        self.0.get().is_some()
    }
}

/// Loads the maps and programs that the request names.
pub fn load(bytes: &[u8], request: Request<'_>, kernel_btf: &KernelBtf) -> Result<Loaded, LoadError> {
    let Request { programs, maps: sources, settings } = request;
    let mut object = Loadable::read(bytes)?;
    object.set_globals(&settings.globals);
    let btf = object_btf(&mut object)?;
    if object.needs_kernel_btf() {
        object.relocate_types(kernel_btf.get()?)?;
    }

    let Maps { fds, definitions, created } = open_maps(&mut object, sources, &settings, btf.as_ref())?;
    let raw = definitions.iter().filter_map(|(name, map)| fds.get(name).map(|fd| (name.as_str(), fd.as_raw_fd(), map)));
    object.link(raw, aya::features())?;

    let mut loaded = Loaded { programs: BTreeMap::new(), maps: fds };
    for (name, kind) in programs {
        let fd = load_program(&object, name, kind, btf.as_ref())?;
        loaded.programs.insert(name.to_owned(), fd.into());
    }
    for (name, definition) in definitions.iter().filter(|(name, _)| created.contains(name)) {
        fill_slots(&object, name, definition, &loaded)?;
    }
    Ok(loaded)
}

/// The maps of an object, by the names that it has for them.
#[derive(Default)]
struct Maps {
    fds: BTreeMap<String, Fd>,
    definitions: Vec<(String, Map)>,
    /// The names of those that this load created.
    created: BTreeSet<String>,
}

/// Takes each map from its source: an existing one, or a new one.
fn open_maps(
    object: &mut Loadable,
    mut sources: BTreeMap<&str, MapSource>,
    settings: &Settings,
    btf: Option<&OwnedFd>,
) -> Result<Maps, LoadError> {
    let mut maps = Maps::default();
    for (name, mut definition) in object.take_maps() {
        let source = sources.remove(name.as_str()).ok_or_else(|| LoadError::Missing(format!("plan for map {name}")))?;
        let fd = match source {
            MapSource::Reuse(fd) => fd,
            MapSource::Create { value_size, max_entries } => {
                definition.set_value_size(value_size);
                definition.set_max_entries(max_entries);
                let entries = settings.entries.get(&name).map(Vec::as_slice).unwrap_or_default();
                maps.created.insert(name.clone());
                map::create(&name, &definition, entries, btf.map(|fd| fd.as_fd()))
                    .map_err(|source| LoadError::Map { name: name.clone(), source })?
                    .into()
            }
        };
        maps.fds.insert(name.clone(), fd);
        maps.definitions.push((name, definition));
    }
    match sources.into_keys().next() {
        Some(name) => Err(LoadError::Missing(format!("map {name}"))),
        None => Ok(maps),
    }
}

/// Fills the slots of a new map with the maps or programs that the object names.
fn fill_slots(object: &Loadable, name: &str, definition: &Map, loaded: &Loaded) -> Result<(), LoadError> {
    let missing = || LoadError::Missing(format!("map {name}"));
    for (slot, entry) in object.slots().get(name).into_iter().flatten() {
        let map = loaded.maps.get(name).ok_or_else(missing)?;
        let fd = loaded.programs.get(entry).or_else(|| loaded.maps.get(entry));
        let fd = fd.ok_or_else(|| LoadError::Missing(format!("{entry} for map {name}")))?;
        map::put(name, definition, map.as_fd(), *slot, fd.as_fd()).map_err(|source| LoadError::Slot {
            map: name.to_owned(),
            slot: *slot,
            entry: entry.clone(),
            source,
        })?;
    }
    Ok(())
}

/// Loads the object's own BTF, from which tools print the types of maps and functions. An object loads without it, so
/// an old kernel's refusal is no error.
fn object_btf(object: &mut Loadable) -> Result<Option<OwnedFd>, LoadError> {
    let Some(features) = aya::features().btf() else { return Ok(None) };
    let bytes = object.btf(features)?;
    Ok(bytes.and_then(|bytes| {
        bpf::btf_load(&bytes).inspect_err(|error| tracing::debug!(%error, "the kernel refused the object's BTF")).ok()
    }))
}

fn load_program(object: &Loadable, name: &str, kind: ProgramKind, btf: Option<&OwnedFd>) -> Result<OwnedFd, LoadError> {
    let missing = || LoadError::Missing(format!("program {name}"));
    let (program, function) = object.program(name).ok_or_else(missing)?;
    let (functions, lines) = (function.func_info.func_info_bytes(), function.line_info.line_info_bytes());
    let attr = ProgAttr {
        name,
        prog_type: kind.prog_type,
        expected_attach_type: kind.attach_type,
        instructions: &function.instructions,
        license: &program.license,
        btf: btf.map(|fd| ProgBtf {
            fd: fd.as_fd(),
            functions: (&functions, function.func_info.len()),
            lines: (&lines, function.line_info.len()),
        }),
    };
    // The log costs the verifier time: the first attempt does without.
    match bpf::prog_load(&attr, &mut []) {
        Ok(fd) => Ok(fd),
        Err(source) => match load_with_log(&attr) {
            Ok(fd) => Ok(fd),
            Err(log) => Err(LoadError::Program { name: name.to_owned(), kind, source, log }),
        },
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
    let end = log.iter().position(|&b| b == 0).unwrap_or(log.len());
    // The log quotes lines of the object's source, which may hold control characters.
    let mut log = names::lines(String::from_utf8_lossy(log.get(..end).unwrap_or_default()).trim());
    if is_cut && probe::verifier_log_end() != Answer::Has {
        log += &format!("\n(the log has more than {MAX_LOG} bytes; this kernel, older than 6.4, keeps only its start)");
    }
    Err(log)
}
