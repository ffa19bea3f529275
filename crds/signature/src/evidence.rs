//! The evidence that comes with an object to show who signed it, and the object that it is to cover.

use serde::{Deserialize, Serialize};

/// The most pieces of evidence that are looked at for one object: a registry may list any number.
pub const MAX_EVIDENCE: usize = 256;

/// The most of them of which a signature is verified. Attestations are told apart before.
pub const MAX_VERIFIED: usize = 32;

/// The most bytes of one piece of evidence. cosign's bundles have 2 to 12 KB.
pub const MAX_EVIDENCE_BYTES: usize = 256 * 1024;

/// One piece of evidence, as it was found. Nothing in it is trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum Evidence {
    /// A sigstore bundle, of version 0.1 to 0.3, as JSON text.
    Bundle(#[serde(with = "wrapped")] Vec<u8>),
    /// A layer of a `.sig` tag and its annotations.
    ///
    /// See cosign's `specs/SIGNATURE_SPEC.md`.
    SimpleSigning {
        /// The layer: the JSON text that is signed.
        #[serde(with = "crate::encoding::base64_text")]
        payload: Vec<u8>,
        /// The annotation `dev.cosignproject.cosign/signature`, base64.
        signature: String,
        /// The annotation `dev.sigstore.cosign/certificate`, PEM.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        certificate: Option<String>,
        /// The annotation `dev.sigstore.cosign/chain`, PEM.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        chain: Option<String>,
        /// The annotation `dev.sigstore.cosign/bundle`, JSON text.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bundle: Option<String>,
    },
    /// A bare signature over the object's bytes.
    Detached {
        /// The signature: DER for ECDSA, 64 bytes for Ed25519.
        #[serde(with = "crate::encoding::base64_text")]
        signature: Vec<u8>,
        /// Which key to try first: a key's name in the policy. It is a hint, and proves nothing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key_hint: Option<String>,
    },
}

impl Evidence {
    /// Names the form of the evidence, for messages.
    pub(crate) fn form(&self) -> &'static str {
        match self {
            Self::Bundle(_) => "bundle",
            Self::SimpleSigning { .. } => ".sig signature",
            Self::Detached { .. } => "detached signature",
        }
    }
}

/// The source of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source<'a> {
    /// A registry.
    Image {
        /// The registry and the repository in it, without tag or digest, as `registry.example.com/team/guard`.
        repository: &'a str,
    },
    /// An object that sockeye ships.
    Builtin {
        /// Its name.
        name: &'a str,
    },
    /// A ConfigMap that the BpfProgram names.
    ConfigMap,
    /// The BpfProgram itself.
    Inline,
}

/// An object that is to run, and whatever a signature of it may cover.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The object's source.
    pub source: Source<'a>,
    /// The object itself: the ELF bytes.
    pub object: &'a [u8],
    /// The digest of the object, as `sha256:<64 hexadecimal digits>`.
    pub object_digest: &'a str,
    /// The digests of the manifest and the index that led to the object, in the same form; none if no image did. The
    /// caller has checked that each of them leads to the object.
    pub image_digests: &'a [&'a str],
}

impl Subject<'_> {
    /// Returns whether a signature over what has this digest covers the object.
    pub(crate) fn covers(&self, digest: &str) -> bool {
        self.object_digest == digest || self.image_digests.contains(&digest)
    }
}

/// A bundle's text within the object that serde's internal tag asks for: `{"type": "Bundle", "bundle": "..."}`.
mod wrapped {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Wrapped {
        #[serde(with = "crate::encoding::base64_text")]
        bundle: Vec<u8>,
    }

    pub fn serialize<S: Serializer>(bundle: &[u8], to: S) -> Result<S::Ok, S::Error> {
        Wrapped { bundle: bundle.to_vec() }.serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        Wrapped::deserialize(from).map(|wrapped| wrapped.bundle)
    }
}
