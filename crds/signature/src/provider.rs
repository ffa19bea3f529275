//! The cryptography that sigstore-verify asks for, on the same primitives as signatures by key.

use std::sync::Once;

use sha2::{Digest, Sha256, Sha384, Sha512};
use sigstore_verify::crypto::{
    CryptoProvider, Error, HashContext, KeyAlgorithm, SigningScheme, install_default_provider,
};
use sigstore_verify::types::HashAlgorithm;

use crate::encoding::Hash;
use crate::key::{Point, verifies_ed25519};

/// Makes this process verify with [`Provider`]. Calls after the first do nothing.
pub fn install() {
    static ONCE: Once = Once::new();
    // It fails only if another provider is there already, which then verifies as well as this one.
    ONCE.call_once(|| {
        let _ = install_default_provider(&Provider);
    });
}

/// ECDSA on P-256 and P-384, Ed25519, and SHA-2.
#[derive(Debug)]
struct Provider;

struct Running<D>(D);

impl<D: Digest + Send> HashContext for Running<D> {
    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn finalize(self: Box<Self>) -> Vec<u8> {
        self.0.finalize().to_vec()
    }
}

impl CryptoProvider for Provider {
    fn hash(&self, algorithm: HashAlgorithm) -> Result<Box<dyn HashContext>, Error> {
        Ok(match algorithm {
            HashAlgorithm::Sha2256 => Box::new(Running(Sha256::new())),
            HashAlgorithm::Sha2384 => Box::new(Running(Sha384::new())),
            HashAlgorithm::Sha2512 => Box::new(Running(Sha512::new())),
            other => return Err(Error::UnsupportedAlgorithm(format!("no {other} here"))),
        })
    }

    fn verify_raw(&self, scheme: SigningScheme, key: &[u8], data: &[u8], signature: &[u8]) -> Result<(), Error> {
        if let Some(hash) = hash_of(scheme) {
            return self.verify_prehashed(scheme, key, &hash.of(data), signature);
        }
        let verified = match point(scheme, key)? {
            Point::Ed25519(key) => verifies_ed25519(&key, data, signature),
            _ => false,
        };
        outcome(scheme, verified)
    }

    fn verify_prehashed(
        &self,
        scheme: SigningScheme,
        key: &[u8],
        digest: &[u8],
        signature: &[u8],
    ) -> Result<(), Error> {
        outcome(scheme, point(scheme, key)?.verifies_hash(digest, signature))
    }
}

/// Returns the hash of a scheme that signs hashes.
fn hash_of(scheme: SigningScheme) -> Option<Hash> {
    match scheme.hash_algorithm()? {
        HashAlgorithm::Sha2256 => Some(Hash::Sha256),
        HashAlgorithm::Sha2384 => Some(Hash::Sha384),
        HashAlgorithm::Sha2512 => Some(Hash::Sha512),
        _ => None,
    }
}

fn point(scheme: SigningScheme, key: &[u8]) -> Result<Point, Error> {
    let point = match scheme.key_algorithm() {
        KeyAlgorithm::EcdsaP256 => Point::p256(key),
        KeyAlgorithm::EcdsaP384 => Point::p384(key),
        KeyAlgorithm::Ed25519 => Point::ed25519(key),
        _ => return Err(Error::UnsupportedAlgorithm(format!("no {} here", scheme.name()))),
    };
    point.ok_or_else(|| Error::InvalidKey(format!("no point of {}", scheme.name())))
}

fn outcome(scheme: SigningScheme, verified: bool) -> Result<(), Error> {
    verified.then_some(()).ok_or_else(|| Error::Verification(format!("{} signature invalid", scheme.name())))
}
