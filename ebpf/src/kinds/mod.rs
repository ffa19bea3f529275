//! The kernel's kinds of objects: program types by ELF section, and map types.

pub mod foreign;
pub mod map_type;
pub mod section;
