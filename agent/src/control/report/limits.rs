//! The longest lists of a report. A status with longer ones is refused: a detail by its schema, the state of a
//! BpfProgram by the operator. Pure.

use sockeye_crds::node::NodeProgram;

/// The longest lists about one BpfProgram.
#[derive(Debug)]
pub(super) struct Limits {
    /// Functions.
    pub functions: usize,
    /// Maps.
    pub maps: usize,
    /// Links.
    pub links: usize,
    /// Other BpfPrograms that use a map.
    pub users: usize,
    /// Notes.
    pub notes: usize,
}

impl Limits {
    /// Those of statuses.
    pub(super) const OF_STATUSES: Self =
        Self { functions: MAX_FUNCTIONS, maps: MAX_MAPS, links: MAX_LINKS, users: MAX_USERS, notes: MAX_NOTES };
    /// None: for those who ask the agent itself.
    pub(super) const NONE: Self = {
        let most = usize::MAX;
        Self { functions: most, maps: most, links: most, users: most, notes: most }
    };
}

/// Functions of one BpfProgram. More stay pinned if detaching those of earlier revisions fails.
pub(super) const MAX_FUNCTIONS: usize = NodeProgram::MAX_PROGRAM_IDS;
/// Maps of one BpfProgram. It has more if maps of earlier revisions are retained.
pub(super) const MAX_MAPS: usize = NodeProgram::MAX_MAP_IDS;
/// Links of one BpfProgram.
pub(super) const MAX_LINKS: usize = 64;
/// Other BpfPrograms that use a map.
pub(super) const MAX_USERS: usize = 16;
/// Bytes of a message on one BpfProgram.
pub(super) const MAX_MESSAGE: usize = NodeProgram::MAX_MESSAGE;
/// Warnings on one BpfProgram.
pub(super) const MAX_WARNINGS: usize = NodeProgram::MAX_WARNINGS;
/// Bytes of a warning.
pub(super) const MAX_WARNING: usize = NodeProgram::MAX_WARNING;
/// Notes on one BpfProgram.
pub(super) const MAX_NOTES: usize = 16;
/// Cgroups whose attach order is listed.
pub(super) const MAX_ORDERS: usize = 64;
/// Programs in the attach order of one cgroup, which is the kernel's limit.
pub(super) const MAX_ORDERED: usize = 64;
/// Maps with sockets in them, of BpfPrograms that are suspended or gone.
pub(super) const MAX_DRAINING: usize = 256;
/// Maps of deleted BpfPrograms.
pub(super) const MAX_RETAINED: usize = 1024;
