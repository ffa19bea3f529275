//! Images that hold an ELF object: what they are called, what they are made of, and how the object is taken out. No IO.
//!
//! The operator reads images as they arrive from a registry. Agents read them again from the bytes that the operator
//! stored, since a signature covers the digest of a manifest or an index and not that of the object.
//!
//! | module | noun |
//! |---|---|
//! | [`Reference`] | the name of an image: registry, repository, tag, digest |
//! | [`Digest`] | the SHA-256 of bytes |
//! | [`Architecture`] | a processor architecture, by Go's name |
//! | [`manifest`] | image manifests and indexes, of OCI and of Docker |
//! | [`format`](mod@format) | the three formats: which layer has the object, and how it is packed |
//! | [`layer`] | the object out of a layer, as the layer arrives |
//! | [`chain`] | index, manifest, layer and object, each checked against the digest that the one before has |
//! | [`Packed`] | an image ready to be pushed |
//! | `pack` | archives and layers, as tools build them |
//! | [`signature`] | manifests that hold signatures of cosign |
//! | [`Limits`] | bounds of all of these |
//! | [`Error`] | why bytes are refused |
//!
//! Begin with [`chain::verify_chain`].

mod architecture;
mod bounded;
pub mod chain;
mod digest;
mod error;
#[cfg(any(test, feature = "fixtures"))]
pub mod fixtures;
pub mod format;
mod gzip;
pub mod layer;
mod limits;
pub mod manifest;
mod pack;
mod packed;
mod reference;
pub mod signature;
mod tar;

pub use architecture::Architecture;
pub use chain::{Image, verify_chain};
pub use digest::{Digest, Hasher};
pub use error::{Error, shown};
pub use format::Format;
pub use limits::Limits;
pub use packed::Packed;
pub use reference::{DOCKER_HUB, Reference};
pub use signature::{SignatureKind, SignatureManifest};
