//! A public key, and a signature by it.

use ed25519_dalek::Sha512;
use p256::ecdsa::signature::hazmat::PrehashVerifier;
use sha2::Digest as _;
use spki::der::asn1::ObjectIdentifier;
use spki::der::{DecodePem as _, Encode as _};
use spki::{SubjectPublicKeyInfoOwned, SubjectPublicKeyInfoRef};

use crate::encoding::{Hash, Hashes, to_base64};

/// The longest PEM text of a key that is read. That of a P-521 key has 268 bytes.
const MAX_PEM_BYTES: usize = 4096;

// RFC 5480, RFC 8410 and RFC 8017.
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// Why a text is no key that signatures can be verified with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text is no public key in PEM.
    #[error("it is no public key in PEM (-----BEGIN PUBLIC KEY-----): {0}")]
    NotPem(String),
    /// The text is a private key.
    #[error("it is a private key: give the public one (`cosign public-key --key FILE`), and replace this one")]
    Private,
    /// The key is RSA.
    #[error("RSA keys are not supported: use ECDSA (P-256, P-384, P-521) or Ed25519")]
    Rsa,
    /// The key has another algorithm.
    #[error("keys of algorithm {0} are not supported: use ECDSA (P-256, P-384, P-521) or Ed25519")]
    Algorithm(String),
    /// The key's bytes are no point of its curve.
    #[error("its bytes are no key of its algorithm, or a point that is not written out (uncompressed)")]
    Bytes,
}

/// A public key: ECDSA on P-256, P-384 or P-521, or Ed25519.
#[derive(Clone, Debug)]
pub struct PublicKey {
    /// The SHA-256 of the key's SubjectPublicKeyInfo in base64, which cosign writes into bundles as a hint.
    hint: String,
    point: Point,
}

/// The form of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As the key's algorithm is generally used.
    Plain,
    /// Ed25519 over the message's SHA-512.
    Ed25519ph,
}

#[derive(Clone)]
pub(crate) enum Point {
    P256(p256::ecdsa::VerifyingKey),
    P384(p384::ecdsa::VerifyingKey),
    P521(p521::ecdsa::VerifyingKey),
    Ed25519(ed25519_dalek::VerifyingKey),
}

impl std::fmt::Debug for Point {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str(match self {
            Self::P256(_) => "P-256",
            Self::P384(_) => "P-384",
            Self::P521(_) => "P-521",
            Self::Ed25519(_) => "Ed25519",
        })
    }
}

impl PublicKey {
    /// Reads a key as `cosign public-key` and `openssl pkey -pubout` write it.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        if pem.len() > MAX_PEM_BYTES {
            return Err(KeyError::NotPem(format!("it has more than {MAX_PEM_BYTES} bytes")));
        }
        let pem = pem.trim();
        if pem.lines().next().is_some_and(|line| line.contains("PRIVATE KEY")) {
            return Err(KeyError::Private);
        }
        // Some YAML block styles leave carriage returns or a missing last newline; the decoder wants neither.
        let text = pem.lines().map(str::trim).collect::<Vec<_>>().join("\n") + "\n";
        let spki = SubjectPublicKeyInfoOwned::from_pem(&text).map_err(|error| KeyError::NotPem(error.to_string()))?;
        let der = spki.to_der().map_err(|error| KeyError::NotPem(error.to_string()))?;
        Self::from_der(&der)
    }

    /// Reads a SubjectPublicKeyInfo (RFC 5280) in DER.
    pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        let spki = SubjectPublicKeyInfoRef::try_from(der).map_err(|error| KeyError::NotPem(error.to_string()))?;
        let bytes = spki.subject_public_key.as_bytes().ok_or(KeyError::Bytes)?;
        let point = match spki.algorithm.oid {
            EC_PUBLIC_KEY => match spki.algorithm.parameters_oid() {
                Ok(P256) => Point::p256(bytes),
                Ok(P384) => Point::p384(bytes),
                Ok(P521) => Point::p521(bytes),
                Ok(curve) => return Err(KeyError::Algorithm(format!("EC with curve {curve}"))),
                Err(_) => return Err(KeyError::Algorithm("EC with a curve of its own".into())),
            },
            ED25519 if spki.algorithm.parameters.is_none() => Point::ed25519(bytes),
            RSA => return Err(KeyError::Rsa),
            other => return Err(KeyError::Algorithm(other.to_string())),
        };
        Ok(Self { hint: to_base64(&Hash::Sha256.of(der)), point: point.ok_or(KeyError::Bytes)? })
    }

    /// Returns the hint that cosign writes into bundles for this key.
    pub fn hint(&self) -> &str {
        &self.hint
    }

    /// Returns in which form this is a signature over the message, if it is one.
    ///
    /// An ECDSA signature is over the hash that belongs to the curve, which is cosign's default, or over SHA-256, which
    /// is that of older versions for every curve. An Ed25519 signature is over the message itself, or over its SHA-512
    /// (Ed25519ph, RFC 8032), which is what cosign makes of an image; the two can't be taken for each other.
    pub(crate) fn verifies(&self, message: &Hashes<'_>, signature: &[u8]) -> Option<Form> {
        let over = |hash| self.point.verifies_hash(message.get(hash), signature);
        let verified = match &self.point {
            Point::P256(_) => over(Hash::Sha256),
            Point::P384(_) => over(Hash::Sha384) || over(Hash::Sha256),
            Point::P521(_) => over(Hash::Sha512) || over(Hash::Sha256),
            Point::Ed25519(key) => verifies_ed25519(key, message.message(), signature),
        };
        match &self.point {
            _ if verified => Some(Form::Plain),
            Point::Ed25519(key) if verifies_ed25519ph(key, message.message(), signature) => Some(Form::Ed25519ph),
            _ => None,
        }
    }
}

impl Point {
    // Only points that are written out are read (RFC 5480 lets others be refused), so that a key has one form.
    pub(crate) fn p256(bytes: &[u8]) -> Option<Self> {
        written_out(bytes).and_then(|bytes| p256::ecdsa::VerifyingKey::from_sec1_bytes(bytes).ok()).map(Self::P256)
    }

    pub(crate) fn p384(bytes: &[u8]) -> Option<Self> {
        written_out(bytes).and_then(|bytes| p384::ecdsa::VerifyingKey::from_sec1_bytes(bytes).ok()).map(Self::P384)
    }

    pub(crate) fn p521(bytes: &[u8]) -> Option<Self> {
        written_out(bytes).and_then(|bytes| p521::ecdsa::VerifyingKey::from_sec1_bytes(bytes).ok()).map(Self::P521)
    }

    pub(crate) fn ed25519(bytes: &[u8]) -> Option<Self> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(bytes.try_into().ok()?).ok()?;
        (!key.is_weak()).then_some(Self::Ed25519(key))
    }

    /// Returns whether this is an ECDSA signature, in DER, over a message with this hash.
    pub(crate) fn verifies_hash(&self, hash: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::P256(key) => p256::ecdsa::Signature::from_der(signature)
                .is_ok_and(|signature| key.verify_prehash(hash, &signature).is_ok()),
            Self::P384(key) => p384::ecdsa::Signature::from_der(signature)
                .is_ok_and(|signature| key.verify_prehash(&widened::<48>(hash), &signature).is_ok()),
            Self::P521(key) => p521::ecdsa::Signature::from_der(signature)
                .is_ok_and(|signature| key.verify_prehash(&widened::<66>(hash), &signature).is_ok()),
            Self::Ed25519(_) => false,
        }
    }
}

/// Returns whether this is an Ed25519 signature over the message. Keys of small order and signatures with them are
/// refused.
pub(crate) fn verifies_ed25519(key: &ed25519_dalek::VerifyingKey, message: &[u8], signature: &[u8]) -> bool {
    ed25519_dalek::Signature::from_slice(signature)
        .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok())
}

/// Returns whether this is an Ed25519ph signature over the message, with no context.
fn verifies_ed25519ph(key: &ed25519_dalek::VerifyingKey, message: &[u8], signature: &[u8]) -> bool {
    ed25519_dalek::Signature::from_slice(signature)
        .is_ok_and(|signature| key.verify_prehashed_strict(Sha512::new_with_prefix(message), None, &signature).is_ok())
}

/// Returns a point if it is written out as both coordinates (SEC 1, 2.3.3).
fn written_out(bytes: &[u8]) -> Option<&[u8]> {
    (bytes.first() == Some(&4)).then_some(bytes)
}

/// Fills a short hash up with zeros in front: the same integer. The crates refuse hashes of less than half a field.
fn widened<const FIELD: usize>(hash: &[u8]) -> Vec<u8> {
    let mut wide = vec![0; FIELD.saturating_sub(hash.len())];
    wide.extend_from_slice(hash);
    wide
}
