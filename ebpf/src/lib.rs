//! Reads ELF objects for BPF and checks that a BpfProgram's spec fits its object. No IO, and no panic on any bytes.
//!
//! | module | noun |
//! |---|---|
//! | [`btf`] | types in BPF Type Format |
//! | [`object`] | an ELF object as its bytes describe it: programs, maps, BTF |
//! | [`check`](mod@check) | a spec checked against its object |
//! | [`values`] | the values that a spec sets, as bytes |
//! | [`kinds`] | program types by ELF section, and map types |
//! | `link` | an object made ready for the kernel (feature `link`, for the agent) |
//! | [`programs`] | the objects that ship with sockeye |
//! | [`contain`](mod@contain) | turns a panic over someone's bytes into an error |

pub mod btf;
pub mod check;
pub mod contain;
pub mod kinds;
#[cfg(any(feature = "link", test))]
pub mod link;
pub mod object;
pub mod programs;
pub mod values;

pub use check::{Accepted, check};
pub use object::{Object, ObjectError};
