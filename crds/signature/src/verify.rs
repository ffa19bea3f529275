//! One piece of evidence against what a rule requires.

use std::time::SystemTime;

use crate::bundle::{Bundle, BundleError, ClaimedSigner, Content};
use crate::dsse::{self, StatementError, pre_authentication_encoding};
use crate::encoding::{Hashes, digest_bytes, from_base64};
use crate::evidence::{Evidence, MAX_EVIDENCE_BYTES, Subject};
use crate::key::{Form, PublicKey};
use crate::keyless::{KeylessError, Signed, Trust, VerifiedIdentity};
use crate::simple_signing::{self, PayloadError};

/// Who may sign, under a name that messages use.
#[derive(Clone, Debug)]
pub(crate) struct NamedKey<'p> {
    pub name: &'p str,
    pub key: &'p PublicKey,
}

/// The subject and the signers that a signature is compared with.
pub(crate) struct Context<'a> {
    pub subject: &'a Subject<'a>,
    /// The object's hashes.
    pub object: Hashes<'a>,
    pub keys: Vec<NamedKey<'a>>,
    /// True if the rule accepts anybody by identity.
    pub accepts_identities: bool,
    pub trust: &'a Trust,
    pub now: SystemTime,
}

/// Who signed, as verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verified {
    /// The key of this name.
    Key(String),
    /// The holder of a certificate. Whether the rule accepts it is still to be asked.
    Identity(VerifiedIdentity),
}

/// Why a piece of evidence does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It is too large.
    #[error("it has {0} bytes: more than {MAX_EVIDENCE_BYTES} are not read")]
    TooLarge(usize),
    /// It is no bundle that can be used.
    #[error("{0}")]
    Bundle(String),
    /// Its envelope is no signature of this object.
    #[error("{0}")]
    Statement(String),
    /// Its payload is no signature of this image.
    #[error("{0}")]
    Payload(String),
    /// Its signature is no base64.
    #[error("its signature is not base64")]
    SignatureText,
    /// It is a signature over another file.
    #[error("it signs another file than this object")]
    OtherFile,
    /// No key of the rule made it.
    #[error("it is signed by none of the rule's keys")]
    OtherKey,
    /// An Ed25519 key made it, in a form that no other verifier of `.sig` tags reads.
    #[error(
        "key {0:?} is Ed25519, and its signature in a `.sig` tag is Ed25519ph, which cosign itself can't verify: \
         sign again without `--new-bundle-format=false`, or use an ECDSA key"
    )]
    Ed25519ph(String),
    /// A key signed it, and the rule accepts identities only.
    #[error("it is signed by a key, and the rule names no key")]
    KeyNotAccepted,
    /// An identity signed it, and the rule accepts keys only.
    #[error("it is signed by identity, and the rule names no identity")]
    IdentityNotAccepted,
    /// It is by identity and in a form without proof of a log.
    #[error(
        "it is signed by identity in the `.sig` form, which has no proof of a transparency log: \
         sign again without `--new-bundle-format=false`"
    )]
    IdentityInSimpleSigning,
    /// Its certificate, log or time does not verify.
    #[error("{0}")]
    Keyless(#[from] KeylessError),
    /// It is by an identity that the rule does not name.
    #[error("it is signed by {subject} (issuer {issuer}), which the rule does not name")]
    OtherIdentity {
        /// The email address or URI.
        subject: String,
        /// The issuer's URL.
        issuer: String,
    },
}

impl Rejection {
    /// Returns whether a signature was verified to find this out.
    pub(crate) fn is_of_the_signature(&self) -> bool {
        matches!(self, Self::OtherKey | Self::Ed25519ph(_) | Self::Keyless(_) | Self::OtherIdentity { .. })
    }
}

impl From<BundleError> for Rejection {
    fn from(error: BundleError) -> Self {
        Self::Bundle(error.to_string())
    }
}

impl From<StatementError> for Rejection {
    fn from(error: StatementError) -> Self {
        Self::Statement(error.to_string())
    }
}

impl From<PayloadError> for Rejection {
    fn from(error: PayloadError) -> Self {
        Self::Payload(error.to_string())
    }
}

/// Verifies one piece of evidence: that it is a signature, of this subject, by a key of the rule or by an identity.
pub(crate) fn verify(evidence: &Evidence, context: &Context<'_>) -> Result<Verified, Rejection> {
    match evidence {
        Evidence::Bundle(text) => bundle(bounded(text)?, context),
        Evidence::SimpleSigning { payload, signature, certificate, .. } => {
            if certificate.is_some() {
                return Err(Rejection::IdentityInSimpleSigning);
            }
            bounded(signature.as_bytes())?;
            simple_signing(bounded(payload)?, signature, context)
        }
        Evidence::Detached { signature, key_hint } => {
            let hint = key_hint.as_deref().unwrap_or_default();
            by_key(&context.object, bounded(signature)?, hint, context)
        }
    }
}

fn bounded(bytes: &[u8]) -> Result<&[u8], Rejection> {
    if bytes.len() > MAX_EVIDENCE_BYTES { Err(Rejection::TooLarge(bytes.len())) } else { Ok(bytes) }
}

fn bundle(text: &[u8], context: &Context<'_>) -> Result<Verified, Rejection> {
    let bundle = Bundle::read(text)?;
    match &bundle.content {
        Content::Message { digest, signature } => {
            if digest.as_ref().is_some_and(|(hash, digest)| context.object.get(*hash) != digest) {
                return Err(Rejection::OtherFile);
            }
            match &bundle.signer {
                ClaimedSigner::Key { hint } => by_key(&context.object, signature, hint, context),
                ClaimedSigner::Certificate(_) => {
                    by_identity(text, &bundle, Signed::Bytes(context.subject.object), context)
                }
            }
        }
        Content::Envelope { payload_type, payload, signature } => {
            let digest = dsse::signed_digest(payload_type, payload, |digest| context.subject.covers(digest))?;
            match &bundle.signer {
                ClaimedSigner::Key { hint } => {
                    let encoded = pre_authentication_encoding(payload_type, payload);
                    by_key(&Hashes::new(&encoded), signature, hint, context)
                }
                ClaimedSigner::Certificate(_) => {
                    let digest = digest_bytes(&digest).ok_or(Rejection::OtherFile)?;
                    by_identity(text, &bundle, Signed::Digest(digest), context)
                }
            }
        }
    }
}

fn simple_signing(payload: &[u8], signature: &str, context: &Context<'_>) -> Result<Verified, Rejection> {
    simple_signing::signed_digest(payload, |digest| context.subject.image_digests.contains(&digest))?;
    let signature = from_base64(signature).ok_or(Rejection::SignatureText)?;
    match key_of(&Hashes::new(payload), &signature, "", context)? {
        (name, Form::Plain) => Ok(Verified::Key(name.to_owned())),
        (name, Form::Ed25519ph) => Err(Rejection::Ed25519ph(name.to_owned())),
    }
}

/// Verifies that a key of the rule made a signature.
fn by_key(message: &Hashes<'_>, signature: &[u8], hint: &str, context: &Context<'_>) -> Result<Verified, Rejection> {
    key_of(message, signature, hint, context).map(|(name, _)| Verified::Key(name.to_owned()))
}

/// Returns the name of the key that made a signature, and its form. A key that the hint names is tried first.
fn key_of<'p>(
    message: &Hashes<'_>,
    signature: &[u8],
    hint: &str,
    context: &Context<'p>,
) -> Result<(&'p str, Form), Rejection> {
    if context.keys.is_empty() {
        return Err(Rejection::KeyNotAccepted);
    }
    let hinted = |key: &&NamedKey<'_>| !hint.is_empty() && (key.name == hint || key.key.hint() == hint);
    let others = context.keys.iter().filter(|key| !hinted(key));
    for key in context.keys.iter().filter(hinted).chain(others) {
        if let Some(form) = key.key.verifies(message, signature) {
            return Ok((key.name, form));
        }
    }
    Err(Rejection::OtherKey)
}

fn by_identity(text: &[u8], bundle: &Bundle, signed: Signed<'_>, context: &Context<'_>) -> Result<Verified, Rejection> {
    if !context.accepts_identities {
        return Err(Rejection::IdentityNotAccepted);
    }
    Ok(Verified::Identity(context.trust.verify(text, bundle, signed, context.now)?))
}

#[cfg(test)]
mod tests;
