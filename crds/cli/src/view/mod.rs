//! Tables, pages and decisions, from values alone. No IO.
//!
//! | module | noun |
//! |---|---|
//! | [`columns`] | the table of a resource, by its definition's columns |
//! | [`placement`] | one BpfProgram on one node |
//! | [`why`] | why a BpfProgram is not in effect |
//! | [`advice`] | what to do about a reason |
//! | [`describe`] | the page about one BpfProgram |
//! | [`which`] | the programs that act on a pod |
//! | [`maps`] | maps, what they hold, and what keeps them |
//! | [`events`], [`merge`] | records of ring buffers, in the order of time |
//! | [`top`] | what programs cost |
//! | [`diff`] | what an edit would change |
//! | [`inspect`] | what an ELF object holds and needs |
//! | [`selector`] | label selectors as text |

pub mod advice;
pub mod columns;
pub mod describe;
pub mod diff;
pub mod events;
#[cfg(test)]
mod fixtures;
pub mod inspect;
pub mod maps;
pub mod merge;
pub mod placement;
pub mod selector;
pub mod top;
pub mod which;
pub mod why;
