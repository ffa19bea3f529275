//! What an ELF object for BPF holds, and whether a spec fits it: bytes to a checked object. No IO, and no panic on any bytes.
//!
//! | module | noun |
//! |---|---|
//! | [`section`] | the one table of program types: section, types, target, least kernel |
//! | [`map_type`] | map types, by number and by name |
//! | [`object`] | the object as read from its bytes |
//! | [`elf`] | the file as its headers tell it, and why bytes are refused |
//! | [`btf`] | the types in `.BTF`, as far as map definitions need them |
//! | [`encode`] | JSON values as the bytes that C has for them, by BTF types |
//! | [`settings`] | what a spec sets in an object, global variables and first entries of maps, as bytes |
//! | [`slots`] | what an object puts into its maps itself |
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
pub mod encode;
#[cfg(feature = "link")]
pub mod link;
pub mod map_type;
mod maps;
#[cfg(feature = "fixtures")]
pub mod mutate;
mod number;
pub mod object;
pub mod programs;
pub mod section;
pub mod settings;
pub mod slots;
#[cfg(all(feature = "fixtures", feature = "link"))]
pub mod trial;

pub use check::{Accepted, check};
pub use elf::ObjectError;
pub use object::Object;
