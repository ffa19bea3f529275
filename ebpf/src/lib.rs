//! Reads ELF objects for BPF and checks that a BpfProgram's spec fits its object. No IO, and no panic on any bytes.
//!
//! | module | noun |
//! |---|---|
//! | [`btf`] | types in BPF Type Format |
//! | [`object`] | an ELF object as its bytes describe it: programs, maps, BTF |
//! | [`check`](mod@check) | a spec checked against its object |
//! | [`values`] | the values that a spec sets, as bytes |
//! | [`kinds`] | program types by ELF section, and map types |
//! | [`link`] | an object linked for a kernel: maps and programs as bpf(2) takes them |
//! | [`programs`] | the objects that ship with sockeye |

pub mod btf;
mod bytes;
pub mod check;
pub mod kinds;
pub mod link;
pub mod object;
pub mod programs;
pub mod values;

pub use check::{Accepted, check};
pub use object::{Object, ObjectError};
