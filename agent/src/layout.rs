//! Where things stand on bpffs: paths computed from checked names, no IO.
//!
//! ```text
//! <bpffs>/sockeye/_suspend                               -> why nothing is to be attached on this node
//! <bpffs>/sockeye/<BpfProgram>/maps/<map>                 stable across updates
//!                             /programs/<function>        what is live
//!                             /links/<function>/<where>   where: the cgroup's ID, or map-<map>; a link, or, where the
//!                                                         kernel has none for maps, the program that the map holds
//!                             /_meta/uid                  -> the BpfProgram's UID
//!                                   /revision             -> the BpfRevision in effect
//!                                   /program~<function>   -> <load key>.<program ID>: what load the pin came from
//!                                   /retain~<map>         -> Retain: the map outlives its BpfProgram
//!                                   /from~<map>           -> <BpfProgram>/<map>: whose map it is, where it is another's
//!                                   /cgroup~<ID>          -> the cgroup's path below the root
//!                                   /trial                -> <verdict>.<BpfRevision>: whether it cut the node off
//!                                   /~new                 what is made before it is renamed over something else
//! ```
//! What stands under `_meta` are symlinks whose targets are the notes: bpffs has no files. They share one directory, so that
//! one listing finds them.

use std::path::{Path, PathBuf};

use sockeye_crds::program::MapRef;

/// The directory under which sockeye keeps everything.
pub const DIRECTORY: &str = "sockeye";

/// The staging place's name: neither a note's nor a pin's.
pub const STAGING: &str = "~new";

/// What the name of a note that a map is to be retained begins with; a pin's name holds no `~`.
const RETAIN: &str = "retain~";

/// What the name of a note on whose a map is begins with.
const FROM: &str = "from~";

/// sockeye's directory on bpffs.
#[derive(Clone, Debug)]
pub struct Layout {
    here: PathBuf,
    host: PathBuf,
}

impl Layout {
    /// `bpffs` is where bpffs is mounted for this process, `host_bpffs` where the host has it.
    pub fn new(bpffs: &Path, host_bpffs: &Path) -> Self {
        Self { here: bpffs.join(DIRECTORY), host: host_bpffs.join(DIRECTORY) }
    }

    /// The directory itself.
    pub fn directory(&self) -> &Path {
        &self.here
    }

    /// The bpffs that it is on.
    pub fn root(&self) -> &Path {
        self.here.parent().unwrap_or(&self.here)
    }

    /// The same as the host sees it.
    pub fn host_root(&self) -> &Path {
        self.host.parent().unwrap_or(&self.host)
    }

    /// One BpfProgram's home.
    pub fn home(&self, program: &str) -> Home {
        Home { here: self.here.join(program), host: self.host.join(program) }
    }
}

/// One BpfProgram's directory.
#[derive(Clone, Debug)]
pub struct Home {
    here: PathBuf,
    host: PathBuf,
}

impl Home {
    /// The directory itself.
    pub fn directory(&self) -> &Path {
        &self.here
    }

    /// What stands in it, as the host sees it.
    pub fn host(&self, path: &Path) -> String {
        self.host.join(path).to_string_lossy().into_owned()
    }
}

/// The note that nothing is to be attached on this node, and why, from the bpffs' root. Its name is no BpfProgram's.
pub fn suspension() -> PathBuf {
    Path::new(DIRECTORY).join("_suspend")
}

/// Where that note is made, to be renamed over an older one.
pub fn suspension_staging() -> PathBuf {
    Path::new(DIRECTORY).join("_suspend~new")
}

/// What stands in another BpfProgram's home, from one's own, as all that follows.
pub fn beside(program: &str, path: &Path) -> PathBuf {
    Path::new("..").join(program).join(path)
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

/// Where a pin or a note is made that is to replace another: one at a time, and gone again unless the agent is killed.
pub fn staging() -> PathBuf {
    meta().join(STAGING)
}

/// The note that holds the BpfProgram's UID.
pub fn uid() -> PathBuf {
    meta().join("uid")
}

/// The note that names the revision in effect.
pub fn revision() -> PathBuf {
    meta().join("revision")
}

/// The note on whether a revision cut this node off.
pub fn trial() -> PathBuf {
    meta().join("trial")
}

/// The note on the load that a program's pin came from.
pub fn origin(function: &str) -> PathBuf {
    meta().join(format!("program~{function}"))
}

/// The note that a map is to be retained.
pub fn retention(pin: &str) -> PathBuf {
    meta().join(format!("{RETAIN}{pin}"))
}

/// The note on whose a map is.
pub fn source(pin: &str) -> PathBuf {
    meta().join(format!("{FROM}{pin}"))
}

/// The note on a cgroup's path.
pub fn cgroup(place: &str) -> PathBuf {
    meta().join(format!("cgroup~{place}"))
}

/// The map that a note of that name says is to be retained.
pub fn retained(note: &str) -> Option<&str> {
    note.strip_prefix(RETAIN)
}

/// The map that a note of that name says is another's.
pub fn shared(note: &str) -> Option<&str> {
    note.strip_prefix(FROM)
}

/// Whose a map is, as it stands in the note.
pub fn source_note(MapRef { program, map }: &MapRef) -> String {
    format!("{program}/{map}")
}

/// Whose a map is, from the note.
pub fn parse_source(note: &str) -> Option<MapRef> {
    let (program, map) = note.split_once('/')?;
    Some(MapRef { program: program.to_owned(), map: map.to_owned() })
}

/// Which load a program came from. The ID tells a note that was written for a pin that never came about (the agent was
/// killed in between) from one that belongs to the pin that is there: IDs are unique within a boot, and so is a bpffs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The revision's load key.
    pub load_key: String,
    /// The kernel's ID of the program.
    pub program_id: u32,
}

impl Origin {
    /// As it stands in the note.
    pub fn note(&self) -> String {
        format!("{}.{}", self.load_key, self.program_id)
    }

    /// From the note.
    pub fn parse(note: &str) -> Option<Self> {
        let (load_key, id) = note.rsplit_once('.')?;
        Some(Self { load_key: load_key.to_owned(), program_id: id.parse().ok()? })
    }
}

/// A revision that can cut the node off from the API server, and whether it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// The revision.
    pub revision: String,
    /// What came of it so far.
    pub verdict: Verdict,
}

/// Whether a revision cut the node off; [`probation`](crate::probation) says how one follows another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was attached lately: not known yet.
    Open,
    /// It was taken back, because the API server could not be reached: not known yet whether it can without it.
    Suspected,
    /// The API server came back too late for that to say anything: it is to be attached once more.
    Reprieved,
    /// It was attached once more: not known yet.
    Reopened,
    /// It did not: the API server was reached with it attached.
    Passed,
    /// It did, and was taken back.
    Reverted,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Open, Self::Suspected, Self::Reprieved, Self::Reopened, Self::Passed, Self::Reverted];

    /// Whether what is attached is on trial.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Open | Self::Reopened)
    }

    /// Whether it is not known yet whether it did, and the API server is asked.
    pub const fn is_undecided(self) -> bool {
        self.is_open() || matches!(self, Self::Suspected)
    }

    /// Whether what it is about was taken back, and is not attached again.
    pub const fn is_taken_back(self) -> bool {
        matches!(self, Self::Suspected | Self::Reprieved | Self::Reverted)
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Suspected => "suspected",
            Self::Reprieved => "reprieved",
            Self::Reopened => "reopened",
            Self::Passed => "passed",
            Self::Reverted => "reverted",
        }
    }
}

impl Trial {
    /// As it stands in the note. No revision's name holds a dot.
    pub fn note(&self) -> String {
        format!("{}.{}", self.verdict.word(), self.revision)
    }

    /// From the note.
    pub fn parse(note: &str) -> Option<Self> {
        let (word, revision) = note.split_once('.')?;
        let verdict = Verdict::ALL.into_iter().find(|verdict| verdict.word() == word)?;
        Some(Self { revision: revision.to_owned(), verdict })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_is_read_as_it_was_noted() {
        for verdict in Verdict::ALL {
            let trial = Trial { revision: "guard-7c9f2".to_owned(), verdict };
            assert_eq!(Trial::parse(&trial.note()), Some(trial));
        }
        assert_eq!(Trial::parse("pardoned.guard-7c9f2"), None, "a newer agent's word");
    }
}
