//! What an ELF object for BPF holds, and whether a spec fits it: bytes to a checked object. No IO, and no panic on any bytes.
//!
//! | module | noun |
//! |---|---|
//! | [`section`] | the one table of program types: section, types, target, least kernel |
//! | [`map_type`] | map types, by number and by name |
//! | [`object`] | the object as read from its bytes |
//! | [`elf`] | the file as its headers tell it, and why bytes are refused |
//! | [`btf`] | the types in `.BTF`, as far as map definitions need them |
//! | [`contain`](mod@contain) | work on a stranger's bytes, whose panic ends that work alone |
//! | [`check`](mod@check) | a spec against its object |
//! | `alias` | names under which aya-obj takes sections that it does not know |
//! | `link` | an object made ready for the kernel (feature `link`: the agent's) |
//! | `mutate` | objects as a stranger might write them, by number (feature `fixtures`: the tests') |
//! | [`programs`] | the programs that ship with sockeye |
//! | `trial` | a stranger's bytes taken through all of it (both features: the tests') |

#[cfg(any(feature = "link", test))]
mod alias;
pub mod btf;
mod btf_ext;
pub mod check;
mod code;
pub mod contain;
pub mod elf;
#[cfg(feature = "link")]
pub mod link;
pub mod map_type;
mod maps;
#[cfg(feature = "fixtures")]
pub mod mutate;
pub mod object;
pub mod programs;
pub mod section;
#[cfg(all(feature = "fixtures", feature = "link"))]
pub mod trial;

pub use check::{Accepted, Refusal, check};
pub use elf::ObjectError;
pub use object::Object;
