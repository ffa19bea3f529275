//! The limits on what the programs of a spec may need. No compiler comes near them; an object written to exhaust a
//! linker does.

/// Programs that a spec names, with those that the object's program arrays hold.
pub(crate) const MAX_PROGRAMS: usize = 64;
/// Instructions of all programs, each with everything it calls. The kernel takes a million of one program.
pub(crate) const MAX_LINKED: usize = 1 << 20;
/// Maps that are created. A program can use 64.
pub(crate) const MAX_MAPS: usize = 128;
