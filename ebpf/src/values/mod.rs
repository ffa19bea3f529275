//! Values of a spec, `globals` and `maps[].entries`, as the bytes that C has for them.
//!
//! | module | noun |
//! |---|---|
//! | [`settings`] | everything that a spec sets in an object |
//! | [`encode`] | one value as bytes, by its BTF type |
//! | `named` | the bits that a value names |
//! | [`list`] | lists of entries as text |
//! | [`Mistake`] | a mistake in a value, with the path of its field |
//! | `json` | what the text of a composite value says |
//! | `number` | numbers, addresses and prefixes as bytes |

pub mod encode;
mod json;
pub mod list;
mod mistake;
mod named;
mod number;
pub mod settings;

pub use mistake::Mistake;
