//! Paths on bpffs, computed from checked names. No IO.
//!
//! ```text
//! <bpffs>/sockeye/_layout                                -> the version of this layout
//!                /_suspend                               -> why nothing is to be attached on this node
//!                /_draining/<BpfProgram>~<map ID>~<map>~<Keep or TakeOut>
//!                                                         a map that the BpfProgram gave up, for the sockets in it
//!                /<BpfProgram>/maps/<map>                 stable across updates
//!                             /programs/<function>        what is live
//!                             /links/<function>/<where>   where: the cgroup's ID, or map-<map>. A link; if the kernel
//!                                                         has none for maps, the program that the map holds
//!                             /_meta/uid                  -> the BpfProgram's UID
//!                                   /claimed              -> when it came to the node, in microseconds since 1970
//!                                   /revision             -> the BpfRevision in effect
//!                                   /program~<function>   -> <load key>.<program ID>: the load that the pin came from
//!                                   /retain~<map>         -> Retain: the map outlives its BpfProgram
//!                                   /from~<map>           -> <BpfProgram>/<map>: its owner, if that is another one
//!                                   /lossless~<map>       -> the map's ID: sockets can leave that map without loss
//!                                   /switch               -> <map ID>.<bytes>: what the object's switch said before it
//!                                                         was turned off
//!                                   /force-detach         -> true: sockets are taken out of maps at once
//!                                   /cgroup~<ID>          -> the cgroup's path below the root
//!                                   /keeper~<keeper>~<pod UID> -> the path of the pod's cgroup: the keeper goes on
//!                                                         selecting the pod
//!                                   /entries~<map>        a map with the keys of <map> that the spec listed when they
//!                                                         were last written
//!                                   /trial                -> <state>.<BpfRevision>: whether it cut the node off
//!                                   /~new                 a new pin or note, before it is renamed over the old one
//! ```
//! The name of a map that programs are only attached to is `<BpfProgram>~<map>`, of the BpfProgram whose map it is.
//!
//! The notes in `_meta` are the targets of symlinks, or maps where they are long, since bpffs has no files. All notes
//! are in one directory, so that one listing finds them.

use std::path::{Path, PathBuf};

use sockeye_crds::{names::is_dns_label, program::MapRef};

use crate::model::{draining_map::SocketFate, kept_pod::KeptPod};

/// The directory that holds everything of sockeye's.
pub const DIRECTORY: &str = "sockeye";

/// The version of the layout. Another one has another version, so that no agent takes pins for what they are not.
pub const VERSION: &str = "1";

/// The name of the staging place. No note and no pin has it.
pub const STAGING: &str = "~new";

/// The prefix of the notes on maps to retain. Pins' names contain no `~`.
const RETAIN: &str = "retain~";

/// The prefix of the notes on kept pods.
const KEEPER: &str = "keeper~";

/// The prefix of the notes on maps of other BpfPrograms.
const FROM: &str = "from~";

/// The prefix of the records of entries.
const RECORD: &str = "entries~";
/// The prefix of the notes on maps that sockets can leave without loss.
const LOSSLESS: &str = "lossless~";

/// sockeye's directory on bpffs.
#[derive(Clone, Debug)]
pub struct Layout {
    directory: PathBuf,
    host_directory: PathBuf,
}

impl Layout {
    /// `bpffs` is the path of the bpffs for this process, `host_bpffs` its path on the host.
    pub fn new(bpffs: &Path, host_bpffs: &Path) -> Self {
        Self { directory: bpffs.join(DIRECTORY), host_directory: host_bpffs.join(DIRECTORY) }
    }

    /// The path of the directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The path of the directory on the host.
    pub fn host_directory(&self) -> &Path {
        &self.host_directory
    }

    /// The path of the bpffs that the directory is on.
    pub fn root(&self) -> &Path {
        self.directory.parent().unwrap_or(&self.directory)
    }

    /// The path of that bpffs on the host.
    pub fn host_root(&self) -> &Path {
        self.host_directory.parent().unwrap_or(&self.host_directory)
    }

    /// The home of a BpfProgram.
    pub fn home(&self, program: &str) -> Home {
        Home { directory: self.directory.join(program), host_directory: self.host_directory.join(program) }
    }
}

/// The directory of one BpfProgram.
#[derive(Clone, Debug)]
pub struct Home {
    directory: PathBuf,
    host_directory: PathBuf,
}

impl Home {
    /// The path of the directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The name of the BpfProgram.
    pub fn program(&self) -> String {
        self.directory.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The path of the bpffs that the directory is on.
    pub fn bpffs(&self) -> &Path {
        self.directory.ancestors().nth(2).unwrap_or(&self.directory)
    }

    /// The path of the directory from the root of that bpffs.
    pub fn in_bpffs(&self) -> &Path {
        self.directory.strip_prefix(self.bpffs()).unwrap_or(&self.directory)
    }

    /// The path on the host of something in the home.
    pub fn host(&self, path: &Path) -> String {
        self.host_directory.join(path).to_string_lossy().into_owned()
    }
}

/// The note of the layout's version, relative to the bpffs' root. No BpfProgram has its name.
pub fn version() -> PathBuf {
    Path::new(DIRECTORY).join("_layout")
}

/// The note that suspends the node and says why, relative to the bpffs' root. No BpfProgram has its name.
pub fn suspension() -> PathBuf {
    Path::new(DIRECTORY).join("_suspend")
}

/// The staging place of that note.
pub fn suspension_staging() -> PathBuf {
    Path::new(DIRECTORY).join("_suspend~new")
}

/// A path in another BpfProgram's home. As all paths below, it is relative to this one's home.
pub fn in_home_of(program: &str, path: &Path) -> PathBuf {
    Path::new("..").join(program).join(path)
}

/// A path in the directory that holds the homes, relative to a home.
pub fn beside_home(path: &Path) -> PathBuf {
    Path::new("..").join(path)
}

/// The directory of the maps that are kept for their sockets, beside the homes. No BpfProgram has its name.
pub fn draining() -> PathBuf {
    "_draining".into()
}

/// The pin of a map that is kept for the sockets in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainingPin {
    /// The BpfProgram that had it.
    pub program: String,
    /// The map's ID.
    pub id: u32,
    /// Its pin name there.
    pub map: String,
    /// What becomes of the sockets.
    pub fate: SocketFate,
}

impl DrainingPin {
    /// The path, from the directory that holds the homes.
    pub fn path(&self) -> PathBuf {
        let Self { program, id, map, fate } = self;
        draining().join(format!("{program}~{id}~{map}~{fate:?}"))
    }

    /// Reads the name of a pin. The map's name may have a `~` of its own.
    pub fn parse(name: &str) -> Option<Self> {
        let (program, rest) = name.split_once('~').filter(|(program, _)| is_dns_label(program))?;
        let (id, rest) = rest.split_once('~')?;
        let (map, fate) = rest.rsplit_once('~')?;
        let fate = [SocketFate::TakeOut, SocketFate::Keep].into_iter().find(|known| format!("{known:?}") == fate)?;
        Some(Self { program: program.to_owned(), id: id.parse().ok()?, map: map.to_owned(), fate })
    }
}

/// The directory of the maps' pins.
pub fn maps() -> PathBuf {
    "maps".into()
}

/// A map's pin, by its pin name.
pub fn map(pin: &str) -> PathBuf {
    maps().join(pin)
}

/// The directory of the programs' pins.
pub fn programs() -> PathBuf {
    "programs".into()
}

/// A program's pin.
pub fn program(function: &str) -> PathBuf {
    programs().join(function)
}

/// The directory of the links' pins.
pub fn links() -> PathBuf {
    "links".into()
}

/// The directory of one function's links.
pub fn links_of(function: &str) -> PathBuf {
    links().join(function)
}

/// A link's pin.
pub fn link(function: &str, place: &str) -> PathBuf {
    links_of(function).join(place)
}

/// The directory of the notes.
pub fn meta() -> PathBuf {
    "_meta".into()
}

/// The staging place, where a pin or a note is made that replaces another. Only a killed agent leaves something there.
pub fn staging() -> PathBuf {
    meta().join(STAGING)
}

/// The note of the BpfProgram's UID.
pub fn uid() -> PathBuf {
    meta().join("uid")
}

/// The note of the time at which the BpfProgram came to the node. Homes that older agents made have none.
pub fn claimed() -> PathBuf {
    meta().join("claimed")
}

/// The note of the revision in effect.
pub fn revision() -> PathBuf {
    meta().join("revision")
}

/// The note of a trial: whether a revision cut the node off.
pub fn trial() -> PathBuf {
    meta().join("trial")
}

/// The note of the load that a program's pin came from.
pub fn origin(function: &str) -> PathBuf {
    meta().join(format!("program~{function}"))
}

/// The note that a map is to be retained.
pub fn retention(pin: &str) -> PathBuf {
    meta().join(format!("{RETAIN}{pin}"))
}

/// The note of a map's owner.
pub fn source(pin: &str) -> PathBuf {
    meta().join(format!("{FROM}{pin}"))
}

/// The note that sockets can leave a map without loss.
pub fn lossless(pin: &str) -> PathBuf {
    meta().join(format!("{LOSSLESS}{pin}"))
}

/// The note that sockets are to be taken out of maps at once.
pub fn force_detach() -> PathBuf {
    meta().join("force-detach")
}

/// The note of what the object's switch said before it was turned off.
pub fn switch() -> PathBuf {
    meta().join("switch")
}

/// The note of a cgroup's path.
pub fn cgroup(place: &str) -> PathBuf {
    meta().join(format!("cgroup~{place}"))
}

/// The note of a kept pod.
pub fn kept_pod(pod: &KeptPod) -> PathBuf {
    meta().join(format!("{KEEPER}{}~{}", pod.keeper(), pod.uid()))
}

/// The pod that a note keeps, if the note of that name does so.
pub fn parse_kept_pod(note: &str) -> Option<KeptPod> {
    let (keeper, uid) = note.strip_prefix(KEEPER)?.split_once('~')?;
    KeptPod::new(keeper, uid)
}

/// The pin name of the map that a note retains, if the note of that name does so.
pub fn retained(note: &str) -> Option<&str> {
    note.strip_prefix(RETAIN)
}

/// The pin name of the map whose owner a note names, if the note of that name does so.
pub fn shared(note: &str) -> Option<&str> {
    note.strip_prefix(FROM)
}

/// The record of the entries that the spec listed for a map, by the map's pin name.
pub fn record(pin: &str) -> PathBuf {
    meta().join(format!("{RECORD}{pin}"))
}

/// The pin name of the map whose entries are recorded under that name, if any are.
pub fn recorded(note: &str) -> Option<&str> {
    note.strip_prefix(RECORD)
}

/// The text of the note of a map's owner.
pub fn source_note(MapRef { program, name }: &MapRef) -> String {
    format!("{program}/{name}")
}

/// Reads the note of a map's owner.
pub fn parse_source(note: &str) -> Option<MapRef> {
    let (program, name) = note.split_once('/')?;
    Some(MapRef { program: program.to_owned(), name: name.to_owned() })
}

/// The load that a program came from.
///
/// The ID shows whether the note belongs to the pin: an agent that is killed between the two leaves a note for a pin
/// that was never made. IDs are unique within a boot, and a bpffs does not outlive one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The revision's load key.
    pub load_key: String,
    /// The kernel's ID of the program.
    pub program_id: u32,
}

impl Origin {
    /// The text of the note.
    pub fn note(&self) -> String {
        format!("{}.{}", self.load_key, self.program_id)
    }

    /// Reads the note.
    pub fn parse(note: &str) -> Option<Self> {
        let (load_key, id) = note.rsplit_once('.')?;
        Some(Self { load_key: load_key.to_owned(), program_id: id.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pin_of_a_draining_map_names_all_of_it() {
        for (map, fate) in [("sockets", SocketFate::Keep), ("lender~sockets", SocketFate::TakeOut)] {
            let pin = DrainingPin { program: "p-1".to_owned(), id: 41, map: map.to_owned(), fate };
            let name = pin.path().file_name().unwrap().to_str().unwrap().to_owned();
            assert_eq!(DrainingPin::parse(&name), Some(pin));
        }
        for other in ["", "p~1~m", "p~x~m~Keep", "p~1~m~Other", "../q~1~m~Keep", "~1~m~Keep"] {
            assert_eq!(DrainingPin::parse(other), None, "{other}");
        }
    }
}
