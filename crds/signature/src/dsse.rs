//! The in-toto statement in a DSSE envelope: what cosign signs of an image since bundles are its form.

use crate::json::{JsonError, Node, parse};
use crate::text::quote;

/// The predicate type that makes an in-toto statement a signature and nothing else.
///
/// See `specs/SIGNATURE_SPEC.md` of sigstore/cosign.
pub const SIGNATURE_PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";

/// The payload type of in-toto statements in envelopes.
const IN_TOTO: &str = "application/vnd.in-toto+json";

/// The types of statements. The first is that of in-toto 0.1, which older tools write.
const STATEMENTS: [&str; 2] = ["https://in-toto.io/Statement/v0.1", "https://in-toto.io/Statement/v1"];

/// The most subjects of one statement, and how many of those that don't match a message names.
const MAX_SUBJECTS: usize = 64;

/// Why an envelope is no signature of the subject.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// The payload has another type.
    #[error("its payload type is {0:?}, and only an in-toto statement ({IN_TOTO}) can be a signature")]
    PayloadType(String),
    /// The payload can't be read.
    #[error("its statement can't be read: {0}")]
    Json(#[from] JsonError),
    /// The payload is no in-toto statement of a known version.
    #[error("its payload is of type {0:?}, which is no in-toto statement")]
    Statement(String),
    /// The statement says something else than that the subject is signed.
    #[error("it is an attestation of type {0:?}, not a signature: sign with `cosign sign`")]
    Predicate(String),
    /// The statement has too many subjects.
    #[error("its statement has more than {MAX_SUBJECTS} subjects")]
    Subjects,
    /// The statement is about something else.
    #[error("it signs {0}, which is not this object")]
    OtherSubject(String),
}

/// Returns what a DSSE signature is over: the pre-authentication encoding (PAE) of a payload.
///
/// See `protocol.md` of secure-systems-lab/dsse.
pub fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut encoded = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    encoded.extend_from_slice(payload);
    encoded
}

/// Checks that a payload says that something is signed which `covers` accepts, and returns its digest.
pub fn signed_digest(
    payload_type: &str,
    payload: &[u8],
    covers: impl Fn(&str) -> bool,
) -> Result<String, StatementError> {
    if payload_type != IN_TOTO {
        return Err(StatementError::PayloadType(quote(payload_type)));
    }
    let json = parse(payload)?;
    let root = Node::root(&json);
    let statement = root.require("_type")?.text()?;
    if !STATEMENTS.contains(&statement) {
        return Err(StatementError::Statement(quote(statement)));
    }
    let predicate = root.require("predicateType")?.text()?;
    if predicate != SIGNATURE_PREDICATE {
        return Err(StatementError::Predicate(quote(predicate)));
    }
    let mut others = String::new();
    for (at, subject) in root.require("subject")?.items()?.enumerate() {
        if at == MAX_SUBJECTS {
            return Err(StatementError::Subjects);
        }
        let Some(digest) = subject.require("digest")?.get("sha256")? else { continue };
        let digest = format!("sha256:{}", digest.text()?);
        if covers(&digest) {
            return Ok(digest);
        }
        if others.is_empty() {
            others = quote(&digest);
        }
    }
    Err(StatementError::OtherSubject(if others.is_empty() { "nothing with a SHA-256".into() } else { others }))
}
