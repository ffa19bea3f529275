//! What an ELF object for BPF holds, and whether a spec fits it: bytes to a checked object. No IO, and no panic on any bytes.
//!
//! | module | noun |
//! |---|---|
//! | [`section`] | the one table of program types: section, types, target, least kernel |
//! | [`map_type`] | map types, by number and by name |
//! | [`object`] | the object as read from its bytes |
//! | [`elf`] | the file as its headers tell it, and why bytes are refused |
//! | [`btf`] | the types in `.BTF`, as far as map definitions need them |
//! | [`check`](mod@check) | a spec against its object |
//! | [`programs`] | the programs that ship with sockeye |

pub mod btf;
pub mod check;
pub mod elf;
pub mod map_type;
mod maps;
pub mod object;
pub mod programs;
pub mod section;

pub use check::{Accepted, Refusal, check};
pub use elf::ObjectError;
pub use object::Object;
