//! An ELF object made into programs and maps in the kernel, in libbpf's order: create the maps, relocate, load the programs.
//!
//! Nothing here is visible to others or outlives its descriptors: [`Loaded`] holds them all, and dropping it before
//! anything is pinned undoes the load. Maps that no program uses are created too; only a pin will keep those.
//!
//! Parsing and relocation are aya-obj's, behind our own reader ([`Loadable`]); the bpf(2) calls are our own. aya's
//! `EbpfLoader` parses the kernel's BTF on construction, even for objects that need none, and joins names that an ELF asks
//! to have pinned to /sys/fs/bpf.

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

/// The verifier's log is read up to so many bytes; kernels before 6.4 keep its start, later ones its end.
const MAX_LOG: usize = 1 << 20;

/// What to load of an object.
#[derive(Debug, Default)]
pub struct Request<'a> {
    /// The functions to load, and how each is to be verified.
    pub programs: BTreeMap<&'a str, ProgramKind>,
    /// Every map of the object.
    pub maps: BTreeMap<&'a str, MapSource>,
    /// Values of global variables, and what maps begin with that are created.
    pub settings: Settings,
}

/// How a program is to be verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProgramKind {
    /// `enum bpf_prog_type`
    pub prog_type: u32,
    /// `enum bpf_attach_type`
    pub attach_type: u32,
}

/// Where a map comes from.
#[derive(Debug)]
pub enum MapSource {
    /// A map that is already there, of the same shape.
    Reuse(Fd),
    /// A new one, with sizes settled.
    Create {
        /// Bytes.
        value_size: u32,
        /// Entries.
        max_entries: u32,
    },
}

/// What a load gave: descriptors, nothing else.
#[derive(Debug, Default)]
pub struct Loaded {
    /// By the function's name.
    pub programs: BTreeMap<String, Fd>,
    /// By the map's name in the ELF.
    pub maps: BTreeMap<String, Fd>,
}

/// Why an object did not load.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The bytes are no object that can be relocated.
    #[error("the object can't be read: {0}")]
    Object(#[from] LinkError),
    /// The object needs the kernel's BTF.
    #[error("the object holds CO-RE relocations, and the kernel's BTF can't be read: {0}")]
    NoKernelBtf(String),
    /// A map was not created.
    #[error("map {name}: {source}")]
    Map {
        /// The map's name in the ELF.
        name: String,
        /// The kernel's answer.
        source: SysError,
    },
    /// A map does not take what the object puts into it.
    #[error("map {map} does not take {held} into its slot {slot}: {source}")]
    Slot {
        /// The map's name in the ELF.
        map: String,
        /// The index.
        slot: u32,
        /// The map or program.
        held: String,
        /// The kernel's answer.
        source: SysError,
    },
    /// The object lacks what was asked for.
    #[error("the object holds no {0}")]
    Missing(String),
    /// A program was refused.
    #[error("program {name}: BPF_PROG_LOAD: {source}")]
    Program {
        /// The function's name.
        name: String,
        /// The kernel's answer.
        source: io::Error,
        /// The verifier's words; empty where it had none.
        log: String,
    },
}

/// The kernel's BTF, parsed when the first object needs it, and then shared by all loads that are given the same one.
#[derive(Default)]
pub struct KernelBtf(OnceCell<Result<Btf, String>>);

impl KernelBtf {
    fn get(&self) -> Result<&Btf, LoadError> {
        self.0
            .get_or_init(|| Btf::from_sys_fs().map_err(|e| e.to_string()))
            .as_ref()
            .map_err(|e| LoadError::NoKernelBtf(e.clone()))
    }

    /// Whether it has been parsed.
    pub fn is_parsed(&self) -> bool {
        self.0.get().is_some()
    }
}

/// Loads what `request` names.
pub fn load(bytes: &[u8], request: Request<'_>, kernel_btf: &KernelBtf) -> Result<Loaded, LoadError> {
    let Request { programs, maps: mut sources, settings } = request;
    let mut object = Loadable::read(bytes)?;
    object.set_globals(&settings.globals);
    let btf = object_btf(&mut object)?;
    if object.needs_kernel_btf() {
        object.relocate_types(kernel_btf.get()?)?;
    }

    let mut maps = BTreeMap::new();
    let mut definitions = Vec::new();
    let mut created = BTreeSet::new();
    for (name, mut definition) in object.take_maps() {
        let source = sources.remove(name.as_str()).ok_or_else(|| LoadError::Missing(format!("plan for map {name}")))?;
        let fd = match source {
            MapSource::Reuse(fd) => fd,
            MapSource::Create { value_size, max_entries } => {
                definition.set_value_size(value_size);
                definition.set_max_entries(max_entries);
                let entries = settings.initial.get(&name).map(Vec::as_slice).unwrap_or_default();
                created.insert(name.clone());
                map::create(&name, &definition, entries, btf.as_ref().map(|fd| fd.as_fd()))
                    .map_err(|source| LoadError::Map { name: name.clone(), source })?
                    .into()
            }
        };
        maps.insert(name.clone(), fd);
        definitions.push((name, definition));
    }
    if let Some(name) = sources.into_keys().next() {
        return Err(LoadError::Missing(format!("map {name}")));
    }

    let fds = definitions.iter().filter_map(|(name, d)| maps.get(name).map(|fd| (name.as_str(), fd.as_raw_fd(), d)));
    object.link(fds, aya::features())?;

    let mut loaded = Loaded { programs: BTreeMap::new(), maps };
    for (name, kind) in programs {
        let fd = load_program(&object, name, kind, btf.as_ref())?;
        loaded.programs.insert(name.to_owned(), fd.into());
    }
    for (name, definition) in definitions.iter().filter(|(name, _)| created.contains(name)) {
        fill_slots(&object, name, definition, &loaded)?;
    }
    Ok(loaded)
}

/// Puts into a map what the object says it holds: maps or programs.
fn fill_slots(object: &Loadable, name: &str, definition: &Map, loaded: &Loaded) -> Result<(), LoadError> {
    let missing = || LoadError::Missing(format!("map {name}"));
    for (slot, held) in object.slots().get(name).into_iter().flatten() {
        let map = loaded.maps.get(name).ok_or_else(missing)?;
        let fd = loaded.programs.get(held).or_else(|| loaded.maps.get(held));
        let fd = fd.ok_or_else(|| LoadError::Missing(format!("{held} for map {name}")))?;
        map::put(name, definition, map.as_fd(), *slot, fd.as_fd()).map_err(|source| LoadError::Slot {
            map: name.to_owned(),
            slot: *slot,
            held: held.clone(),
            source,
        })?;
    }
    Ok(())
}

/// The object's own BTF in the kernel: for map and function types that tools print. An object loads without it, so that
/// an old kernel's refusal is no error.
fn object_btf(object: &mut Loadable) -> Result<Option<OwnedFd>, LoadError> {
    let Some(features) = aya::features().btf() else { return Ok(None) };
    let bytes = object.btf(features)?;
    Ok(bytes.and_then(|bytes| bpf::btf_load(&bytes).inspect_err(|error| tracing::debug!(%error, "no BTF")).ok()))
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
    // A log costs the verifier time: it is asked for only when the program was refused.
    let refused = match bpf::prog_load(&attr, &mut []) {
        Ok(fd) => return Ok(fd),
        Err(error) => error,
    };
    let mut log = vec![0; 64 << 10];
    let cut = loop {
        match bpf::prog_load(&attr, &mut log) {
            Ok(fd) => return Ok(fd),
            // The log did not fit; kernels since 6.4 keep its end, those before its beginning.
            Err(e) if e.raw_os_error() == Some(libc::ENOSPC) && log.len() < MAX_LOG => log = vec![0; log.len() * 4],
            Err(e) => break e.raw_os_error() == Some(libc::ENOSPC),
        }
    };
    let end = log.iter().position(|&b| b == 0).unwrap_or(log.len());
    // It quotes the object's lines of source.
    let mut log = names::lines(String::from_utf8_lossy(log.get(..end).unwrap_or_default()).trim());
    if cut && probe::verifier_log_end() != Answer::Has {
        log += &format!(
            "\n(its log has more than {MAX_LOG} bytes, of which this kernel, being older than 6.4, keeps the first)"
        );
    }
    Err(LoadError::Program { name: name.to_owned(), source: refused, log })
}
