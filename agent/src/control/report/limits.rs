//! The longest lists of a report. The schema of BpfNode refuses a status with longer ones. Pure.

/// Functions of one BpfProgram. More stay pinned if detaching those of earlier revisions fails.
pub(super) const MAX_FUNCTIONS: usize = 32;
/// Maps of one BpfProgram. It has more if maps of earlier revisions are retained.
pub(super) const MAX_MAPS: usize = 128;
/// Links of one BpfProgram. The schema takes more.
pub(super) const MAX_LINKS: usize = 64;
/// Other BpfPrograms that use a map.
pub(super) const MAX_USERS: usize = 16;
/// Notes on one BpfProgram.
pub(super) const MAX_NOTES: usize = 16;
/// Cgroups whose run order is listed.
pub(super) const MAX_ORDERS: usize = 64;
/// Programs in the run order of one cgroup, which is the kernel's limit.
pub(super) const MAX_ORDERED: usize = 64;
/// Maps of deleted BpfPrograms.
pub(super) const MAX_RETAINED: usize = 1024;
