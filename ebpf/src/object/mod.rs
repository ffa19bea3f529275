//! `Object`: an ELF object for BPF as its bytes describe it: programs, maps, which program uses which map, licence. No
//! IO.
//!
//! The bytes may come from anyone. [`Object::read`] refuses only what can't be read at all; everything else is judged
//! when somebody selects it ([`Object::select`]). Every walk is bounded by the size of the file.
//!
//! | module | noun |
//! |---|---|
//! | [`image`] | the file: its sections, symbols and relocations |
//! | `functions` | the functions, each known by section and offset |
//! | `type_info` | the types, and the records about instructions |
//! | `callbacks` | the functions that programs' exceptions end in |
//! | `externs` | what the kernel or another object defines |
//! | `maps` | the maps that the object defines, and what it puts into them |
//! | [`Object`] | all of these, as the object has them |
//! | `references`, `instructions` | what instructions refer to, and how it is read |
//! | [`Selection`] | the programs that a spec names, with all that they need |
//! | `pointers` | the addresses that global data is to hold, and can't |
//! | `uses` | the maps that each program uses |
//! | `info` | the content as statuses show it |
//! | `limits` | the limits on what a spec's programs may need |

mod callbacks;
mod error;
pub(crate) mod externs;
pub(crate) mod functions;
pub mod image;
mod info;
mod instructions;
mod limits;
pub(crate) mod maps;
#[expect(clippy::module_inception, reason = "the file of the noun that the module is named after")]
mod object;
mod pointers;
pub(crate) mod references;
mod selection;
mod type_info;
mod uses;

pub use self::{error::ObjectError, object::Object, selection::Selection};
