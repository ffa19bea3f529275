//! kubectl's JSONPath templates (client-go, `util/jsonpath`): text, and in braces paths, quoted text, and ranges.
//!
//! | module | noun |
//! |---|---|
//! | [`parse`] | a template as a tree |
//! | [`evaluate`] | the text that a template makes of a value |

mod evaluate;
mod parse;

pub use self::{
    evaluate::{EvaluateError, as_go, shown},
    parse::{ParseError, Template},
};
