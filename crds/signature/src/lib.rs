//! Who signed an eBPF object, and whether a policy is content with that.
//!
//! [`Policy::decide`] is the way in: it takes what is to run ([`Subject`]), what came with it ([`Evidence`]) and what
//! is trusted ([`Trust`]), and returns the rule that decides and its verdict. The operator asks it before it dispatches
//! an object, and an agent asks again before it loads one. Nothing here does IO: no request, no file, no clock.
//!
//! | module | noun |
//! |---|---|
//! | `evidence` | what came with an object, and the object that it is to cover |
//! | `json` | a strict reader of JSON: no duplicate member, bounded in size and depth |
//! | `encoding` | base64, hexadecimal digits, hashes |
//! | `text` | what strangers wrote, fit for a message |
//! | `key` | a public key, and a signature by it |
//! | `bundle` | a sigstore bundle |
//! | `dsse` | the in-toto statement in a DSSE envelope |
//! | `simple_signing` | the payload of a `.sig` tag |
//! | `provider`, `keyless` | certificates of an identity, proofs of a log, timestamps; a trust root |
//! | `verify` | one piece of evidence against what a rule requires |
//! | `policy` | rules, patterns, and the decision |
//!
//! **What counts as a signature.** A statement by a key is a signature only if it says so: an in-toto statement with
//! the predicate type [`SIGNATURE_PREDICATE`], a simple signing payload of a signature's type, or a signature over the
//! object's own bytes. The same key may also attest an SBOM, a scan or a failed test, and cosign itself lets these
//! pass.
//!
//! **Names follow sigstore's own:** its protobuf specification of bundles, its trusted root, and cosign's specification
//! of signatures.

mod bundle;
mod dsse;
mod encoding;
mod evidence;
mod json;
mod key;
mod keyless;
mod policy;
mod provider;
mod simple_signing;
#[cfg(test)]
#[allow(clippy::unwrap_used)] // Helpers of tests are tests.
mod testing;
mod text;
mod verify;

pub use dsse::SIGNATURE_PREDICATE;
pub use evidence::{Evidence, MAX_EVIDENCE, MAX_EVIDENCE_BYTES, MAX_VERIFIED, Source, Subject};
pub use key::{KeyError, PublicKey};
pub use keyless::{Trust, TrustError};
pub use policy::{
    DEFAULT_RULE, Decision, Identity, Match, Mode, PatternError, Policy, PolicyError, RepositoryPattern, Require, Rule,
    Signer, SourceKind, Text, Verdict,
};
pub use verify::Rejection;
