//! The client against real registries, with images and signatures that the public tools push.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../attacks/certificate.rs"]
#[allow(dead_code, reason = "the tests in attacks use more of it")]
mod certificate;
mod images;
mod push;
#[path = "../attacks/server.rs"]
#[allow(dead_code, reason = "the tests in attacks use more of it")]
mod server;
mod signatures;
mod start;
mod token;
