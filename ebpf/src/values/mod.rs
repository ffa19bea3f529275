//! Values as bytes: those of a spec, `globals` and `maps[].entries`, are encoded; what maps and rings hold is decoded.
//!
//! | module | noun |
//! |---|---|
//! | [`settings`] | everything that a spec sets in an object |
//! | [`encode`] | one value as bytes, by its BTF type |
//! | [`shape`] | a type whose values can be decoded, copied out of the object |
//! | [`decode`] | bytes as JSON, by a shape |
//! | [`format`](mod@format) | fields that are shown otherwise than their types say |
//! | [`record`] | what the records of a ring or perf buffer are |
//! | [`map_shapes`] | what the keys and values of a map are |
//! | `named` | the bits that a value names |
//! | [`list`] | lists of entries as text |
//! | [`Mistake`] | a mistake in a value, with the path of its field |
//! | `json` | what the text of a composite value says |
//! | `budget` | a bound on what is written of values |
//! | `bits` | bits as numbers |
//! | `number` | numbers, addresses and prefixes as bytes |
//! | `variables` | the variables of a data section |

mod bits;
mod budget;
pub mod decode;
pub mod encode;
pub mod format;
mod json;
pub mod list;
pub mod map_shapes;
mod mistake;
mod named;
mod number;
pub mod record;
pub mod settings;
pub mod shape;
mod variables;

pub use budget::{Budget, DecodeError};
pub use format::{FormatError, Place};
pub use map_shapes::{MapShapes, Undecodable};
pub use mistake::Mistake;
pub use record::RecordShape;
pub use shape::{Shape, ShapeError};
