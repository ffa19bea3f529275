//! The client against registries that do what they should not: each attack ends in a bounded time, after a bounded
//! number of bytes, with an error that says what happened.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod authentication;
mod bounds;
mod certificate;
mod content;
mod pulls;
mod redirects;
mod secure;
mod server;
mod signatures;
