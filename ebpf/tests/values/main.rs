//! Values as bytes, and bytes as values.
#![allow(clippy::unwrap_used, missing_docs)]

mod decode;
mod encode;
mod format;
mod types;
