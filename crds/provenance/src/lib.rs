//! The proof of who signed the object of a revision: stored by the operator beside the object, and verified by it and,
//! where the chart's `policy.nodes.verify` is on, by every node. No IO.
//!
//! | file | noun |
//! |---|---|
//! | [`archive`] | the proof itself, in parts that fit into ConfigMaps |
//! | `fixtures` | images and signatures for tests |
//! | [`verifier`] | a policy with what it trusts, and its judgement of an object and its proof |
//!
//! A signature of an image covers the digest of its manifest, or of the index that names the manifest. So the proof has
//! both as the registry served them, and the layer where the object is packed in one. Whoever trusts nothing but the
//! policy can follow signature, index, manifest, layer and object from one digest to the next.

pub mod archive;
#[cfg(feature = "fixtures")]
#[allow(clippy::expect_used)]
pub mod fixtures;
pub mod verifier;

pub use archive::{Archive, MAX_PART_BYTES, MAX_PARTS};
pub use verifier::{Chain, Claim, Error, Judgement, Source, Verifier};
