//! The kinds of things that the kernel knows: program types by ELF section, and map types.

pub mod map_type;
pub mod section;
