//! The payload of a `.sig` tag: the simple signing format of Red Hat's containers, as cosign writes it.
//!
//! See `specs/SIGNATURE_SPEC.md` of sigstore/cosign and `containers-signature(5)`.

use crate::dsse::SIGNATURE_PREDICATE;
use crate::json::{JsonError, Node, parse};
use crate::text::quote;

/// The types of a payload that is a signature: the first is cosign's before version 3.
const TYPES: [&str; 2] = ["cosign container image signature", SIGNATURE_PREDICATE];

/// Why a payload is no signature of the subject.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// The payload can't be read.
    #[error("its payload can't be read: {0}")]
    Json(#[from] JsonError),
    /// The payload has another type.
    #[error("its payload is of type {0:?}, not {first:?}", first = TYPES[0])]
    Type(String),
    /// The payload is about another image.
    #[error("it signs {digest}{reference}, which is not this object")]
    OtherSubject {
        /// The digest that is signed.
        digest: String,
        /// ` (named REFERENCE)`, or empty. The reference is what the signer wrote, and proves nothing.
        reference: String,
    },
}

/// Checks that a payload says that an image is signed whose digest `covers` accepts, and returns that digest.
pub fn signed_digest(payload: &[u8], covers: impl Fn(&str) -> bool) -> Result<String, PayloadError> {
    let json = parse(payload)?;
    let critical = Node::root(&json).require("critical")?;
    let kind = critical.require("type")?.text()?;
    if !TYPES.contains(&kind) {
        return Err(PayloadError::Type(quote(kind)));
    }
    let digest = critical.require("image")?.require("docker-manifest-digest")?.text()?;
    if covers(digest) {
        return Ok(digest.to_owned());
    }
    Err(PayloadError::OtherSubject { digest: quote(digest), reference: reference(&critical)? })
}

fn reference(critical: &Node<'_>) -> Result<String, JsonError> {
    let Some(identity) = critical.get("identity")? else { return Ok(String::new()) };
    let Some(reference) = identity.get("docker-reference")? else { return Ok(String::new()) };
    let reference = reference.text()?;
    Ok(if reference.is_empty() { String::new() } else { format!(" (named {})", quote(reference)) })
}
