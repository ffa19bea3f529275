//! A sigstore bundle: one signature and what verifies it, as JSON of protobuf's mapping.
//!
//! See `sigstore_bundle.proto` and `sigstore_common.proto` of sigstore/protobuf-specs. Only what verification by key
//! needs is read here; log entries, certificates and timestamps are `keyless`'s.

use crate::encoding::Hash;
use crate::json::{JsonError, Node, parse};
use crate::text::quote;

/// The media types of versions 0.1 to 0.3. The last has had two spellings.
const MEDIA_TYPES: [&str; 4] = [
    "application/vnd.dev.sigstore.bundle+json;version=0.1",
    "application/vnd.dev.sigstore.bundle+json;version=0.2",
    "application/vnd.dev.sigstore.bundle+json;version=0.3",
    "application/vnd.dev.sigstore.bundle.v0.3+json",
];

/// The most certificates, log entries and timestamps of one bundle: each is verified. cosign's have one of each.
const MAX_MATERIAL: usize = 8;

/// Why a text is no bundle that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// The text can't be read.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The bundle has another version.
    #[error("its media type is {0:?}: only sigstore bundles of version 0.1 to 0.3 are read")]
    MediaType(String),
    /// The bundle has both or neither of a message signature and an envelope.
    #[error("it must have one of `messageSignature` and `dsseEnvelope`")]
    Content,
    /// The bundle has several or none of the ways to name a signer.
    #[error("`verificationMaterial` must have one of `publicKey`, `certificate` and `x509CertificateChain`")]
    Material,
    /// The bundle has more to verify than anybody needs.
    #[error("its `{0}` has more than {MAX_MATERIAL} entries")]
    TooMany(&'static str),
    /// The envelope has several signatures or none.
    #[error("its envelope has {0} signatures: it must have one")]
    Signatures(usize),
    /// The digest has another algorithm.
    #[error("its message's digest is {0:?}: it must be SHA2_256, SHA2_384 or SHA2_512")]
    DigestAlgorithm(String),
}

/// The content of a bundle.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// Who signed, as the bundle says.
    pub signer: ClaimedSigner,
    /// The signed content, and the signature.
    pub content: Content,
    /// The entries of logs.
    pub log_entries: Vec<LogEntry>,
}

/// Who signed, as the bundle says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimedSigner {
    /// A key, which the bundle does not contain.
    Key {
        /// Which key: not authenticated.
        hint: String,
    },
    /// The key of a certificate, in DER.
    Certificate(Vec<u8>),
}

/// The content that a bundle's signature is over.
#[derive(Clone, Debug)]
pub enum Content {
    /// The bytes of a file, which the bundle does not contain.
    Message {
        /// The hash of the bytes, if the bundle has it.
        digest: Option<(Hash, Vec<u8>)>,
        /// The signature.
        signature: Vec<u8>,
    },
    /// An envelope (DSSE), which has what is signed.
    Envelope {
        /// The type of the payload.
        payload_type: String,
        /// The payload.
        payload: Vec<u8>,
        /// The signature.
        signature: Vec<u8>,
    },
}

/// An entry of a transparency log, as far as `keyless` asks about it beyond sigstore-verify.
#[derive(Clone, Copy, Debug)]
pub struct LogEntry {
    /// True if the bundle has the proof that the log includes the entry.
    pub has_proof: bool,
}

impl Bundle {
    /// Reads a bundle.
    pub fn read(text: &[u8]) -> Result<Self, BundleError> {
        let json = parse(text)?;
        let root = Node::root(&json);
        root.only(&["mediaType", "verificationMaterial", "messageSignature", "dsseEnvelope"])?;
        let media_type = root.require("mediaType")?.text()?;
        if !MEDIA_TYPES.contains(&media_type) {
            return Err(BundleError::MediaType(quote(media_type)));
        }
        let material = root.require("verificationMaterial")?;
        Ok(Self { signer: signer(&material)?, content: content(&root)?, log_entries: log_entries(&material)? })
    }
}

fn signer(material: &Node<'_>) -> Result<ClaimedSigner, BundleError> {
    material.only(&["publicKey", "certificate", "x509CertificateChain", "tlogEntries", "timestampVerificationData"])?;
    let key = material.get("publicKey")?;
    let certificate = material.get("certificate")?;
    let chain = material.get("x509CertificateChain")?;
    match (key, certificate, chain) {
        (Some(key), None, None) => {
            key.only(&["hint"])?;
            let hint = key.get("hint")?.map(|hint| hint.text()).transpose()?.unwrap_or_default();
            Ok(ClaimedSigner::Key { hint: hint.to_owned() })
        }
        (None, Some(certificate), None) => Ok(ClaimedSigner::Certificate(certificate.require("rawBytes")?.base64()?)),
        (None, None, Some(chain)) => {
            let certificates = chain.require("certificates")?;
            few(&certificates, "certificates")?;
            let leaf = certificates.items()?.next().ok_or_else(|| certificates.is_not("a list with a certificate"))?;
            Ok(ClaimedSigner::Certificate(leaf.require("rawBytes")?.base64()?))
        }
        _ => Err(BundleError::Material),
    }
}

fn content(root: &Node<'_>) -> Result<Content, BundleError> {
    match (root.get("messageSignature")?, root.get("dsseEnvelope")?) {
        (Some(message), None) => {
            message.only(&["messageDigest", "signature"])?;
            let digest = message.get("messageDigest")?.map(|digest| digest_of(&digest)).transpose()?.flatten();
            Ok(Content::Message { digest, signature: message.require("signature")?.base64()? })
        }
        (None, Some(envelope)) => {
            envelope.only(&["payload", "payloadType", "signatures"])?;
            let signatures: Vec<_> = envelope.require("signatures")?.items()?.collect();
            let [signature] = signatures.as_slice() else { return Err(BundleError::Signatures(signatures.len())) };
            Ok(Content::Envelope {
                payload_type: envelope.require("payloadType")?.text()?.to_owned(),
                payload: envelope.require("payload")?.base64()?,
                signature: signature.require("sig")?.base64()?,
            })
        }
        _ => Err(BundleError::Content),
    }
}

/// Reads the hash of a message. cosign leaves both fields out for Ed25519, which signs no hash.
fn digest_of(digest: &Node<'_>) -> Result<Option<(Hash, Vec<u8>)>, BundleError> {
    digest.only(&["algorithm", "digest"])?;
    let Some(algorithm) = digest.get("algorithm")? else {
        return match digest.get("digest")? {
            None => Ok(None),
            Some(_) => Err(BundleError::DigestAlgorithm(String::new())),
        };
    };
    let hash = match algorithm.text()? {
        "SHA2_256" => Hash::Sha256,
        "SHA2_384" => Hash::Sha384,
        "SHA2_512" => Hash::Sha512,
        other => return Err(BundleError::DigestAlgorithm(quote(other))),
    };
    Ok(Some((hash, digest.require("digest")?.base64()?)))
}

/// Checks that a list is short.
fn few(list: &Node<'_>, name: &'static str) -> Result<(), BundleError> {
    if list.items()?.count() > MAX_MATERIAL { Err(BundleError::TooMany(name)) } else { Ok(()) }
}

fn log_entries(material: &Node<'_>) -> Result<Vec<LogEntry>, BundleError> {
    if let Some(times) = material.get("timestampVerificationData")?
        && let Some(stamps) = times.get("rfc3161Timestamps")?
    {
        few(&stamps, "rfc3161Timestamps")?;
    }
    let Some(entries) = material.get("tlogEntries")? else { return Ok(Vec::new()) };
    few(&entries, "tlogEntries")?;
    entries.items()?.map(|entry| Ok(LogEntry { has_proof: entry.get("inclusionProof")?.is_some() })).collect()
}

#[cfg(test)]
mod tests;
