//! The forms of output, as kubectl has them: tables, JSON, YAML, JSONPath, names. No IO but [`terminal`].
//!
//! | module | noun |
//! |---|---|
//! | [`format`](mod@format) | the choice of `-o` |
//! | [`table`] | columns and rows |
//! | [`jsonpath`] | kubectl's templates |
//! | [`structured`] | objects as JSON, YAML, JSONPath and names |
//! | [`duration`] | ages and times, as kubectl writes them |
//! | [`quantity`] | bytes, counts and shares |
//! | [`terminal`] | whether there is one, and its colours |

pub mod duration;
pub mod format;
pub mod jsonpath;
pub mod quantity;
pub mod structured;
pub mod table;
pub mod terminal;

pub use format::Format;
pub use table::Table;
