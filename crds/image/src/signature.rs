//! [`SignatureManifest`]: a signature of cosign's, as it lies beside an image. IO: none.
//!
//! cosign stores a signature as an image manifest, in one of two forms. Nothing is verified here, and nothing is left
//! out for the type that a list of referrers gives it: that list has the type that whoever pushed it chose.
//!
//! - A *bundle*: a layer of `application/vnd.dev.sigstore.bundle.v0.3+json`, which is a sigstore bundle
//!   (sigstore/cosign, specs/BUNDLE_SPEC.md).
//! - *Simple signing*: layers of `application/vnd.dev.cosign.simplesigning.v1+json`, each a text that names the image,
//!   with its signature in the annotations of the layer's descriptor (sigstore/cosign, specs/SIGNATURE_SPEC.md).

use crate::{
    Digest,
    manifest::{Descriptor, Manifest},
};

/// How the media types of bundles begin, whatever their version.
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle";
const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotations of a layer of simple signing (sigstore/cosign, pkg/oci/static/options.go).
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
const CHAIN: &str = "dev.sigstore.cosign/chain";
const REKOR_BUNDLE: &str = "dev.sigstore.cosign/bundle";
/// All annotations that are read.
pub(crate) const ANNOTATIONS: [&str; 4] = [SIGNATURE, CERTIFICATE, CHAIN, REKOR_BUNDLE];

/// A signature that lies beside an image. It is not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureManifest {
    /// The digest that it is listed under. Which one it signs, its content says.
    pub subject: Digest,
    /// The signature.
    pub kind: SignatureKind,
}

/// A signature's form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignatureKind {
    /// A sigstore bundle: JSON.
    Bundle(Vec<u8>),
    /// Simple signing.
    SimpleSigning {
        /// The text that is signed.
        payload: Vec<u8>,
        /// The signature, in base64.
        signature: String,
        /// The signer's certificate, in PEM.
        certificate: Option<String>,
        /// The certificates that issued it, in PEM.
        chain: Option<String>,
        /// The entry of the transparency log, in JSON.
        bundle: Option<String>,
    },
}

/// A layer that has a signature. Its bytes are still to be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignatureLayer<'a> {
    /// The layer.
    pub descriptor: &'a Descriptor,
    is_bundle: bool,
}

impl<'a> SignatureLayer<'a> {
    /// Returns the layers of a manifest that have signatures.
    pub fn of(manifest: &'a Manifest) -> impl Iterator<Item = Self> {
        manifest.layers.iter().filter_map(|descriptor| {
            let is_bundle = descriptor.media_type.starts_with(BUNDLE);
            let is_signed = descriptor.media_type == SIMPLE_SIGNING && descriptor.annotation(SIGNATURE).is_some();
            (is_bundle || is_signed).then_some(Self { descriptor, is_bundle })
        })
    }

    /// Tells whether the layer is a bundle.
    pub const fn is_bundle(&self) -> bool {
        self.is_bundle
    }

    /// Returns the signature, from the layer's bytes.
    pub fn signature(&self, bytes: Vec<u8>) -> SignatureKind {
        if self.is_bundle {
            return SignatureKind::Bundle(bytes);
        }
        let annotation = |key| self.descriptor.annotation(key).filter(|text| !text.is_empty()).map(str::to_owned);
        SignatureKind::SimpleSigning {
            payload: bytes,
            signature: annotation(SIGNATURE).unwrap_or_default(),
            certificate: annotation(CERTIFICATE),
            chain: annotation(CHAIN),
            bundle: annotation(REKOR_BUNDLE),
        }
    }
}

/// Tells whether a manifest that a list of referrers has for `subject` is about it.
pub fn is_about(manifest: &Manifest, subject: &Digest) -> bool {
    manifest.subject.as_ref().is_some_and(|named| named.digest == subject.as_str())
}
