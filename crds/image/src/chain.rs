//! [`verify_chain`]: from the digest of an image to its object, over index, manifest and layer. IO: none.
//!
//! A signature of an image covers the digest of its index or manifest. What follows from there is checked here, link by
//! link, so whoever stored the bytes can't have chosen others.

use crate::{
    Digest, Error, Format, Limits,
    format::ObjectLayer,
    layer::{Extracted, Extractor},
    manifest::{Document, Index, Manifest},
};

/// An image for one architecture, as it was served, and its object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The digest that the reference resolved to: of the index, or of the manifest where there is no index.
    pub digest: Digest,
    /// The index.
    pub index: Option<Vec<u8>>,
    /// The manifest.
    pub manifest: Vec<u8>,
    /// The format.
    pub format: Format,
    /// The layer with the object, unless it has more than [`Limits::kept_layer`]. Of the formats whose layer is the
    /// object, the object.
    pub layer: Option<Vec<u8>>,
    /// The object: bytes that begin as an ELF file.
    pub object: Vec<u8>,
}

impl Image {
    /// Returns the digest of the manifest. With [`digest`](Self::digest), these are what a signature may cover.
    pub fn manifest_digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }
}

/// Returns the object of the image with this digest, from stored bytes.
///
/// # Errors
/// Fails where the bytes are not those that the digest stands for, are larger than the limits, or hold no object.
pub fn verify_chain(
    image_digest: &Digest,
    index: Option<&[u8]>,
    manifest: &[u8],
    layer: &[u8],
    limits: &Limits,
) -> Result<Vec<u8>, Error> {
    if let Some(index) = index {
        let index = read_index(image_digest, index, limits)?;
        let digest = Digest::of(manifest);
        let Some(entry) = index.entry(&digest) else {
            let problem = format!("it does not list the manifest {digest}");
            return Err(Error::Manifest { what: format!("the index {image_digest}"), problem });
        };
        entry.check("the manifest", manifest)?;
    }
    let digest = if index.is_some() { &Digest::of(manifest) } else { image_digest };
    let manifest = read_manifest(digest, manifest, limits)?;
    let object_layer = ObjectLayer::of(&manifest, limits)?;
    // Nothing is unpacked that is not what the manifest names.
    object_layer.descriptor.check(&format!("the layer {}", object_layer.digest), layer)?;
    let mut extractor = Extractor::new(object_layer, limits);
    extractor.push(layer)?;
    extractor.finish().map(|Extracted { object, .. }| object)
}

/// Reads a document that has this digest.
///
/// # Errors
/// Fails where it has another one, or is none.
pub fn read_document(digest: &Digest, bytes: &[u8], limits: &Limits) -> Result<Document, Error> {
    let actual = Digest::of(bytes);
    if actual != *digest {
        return Err(Error::WrongDigest {
            what: "the manifest".to_owned(),
            expected: digest.to_string(),
            actual: actual.into(),
        });
    }
    Document::parse(&format!("the manifest {digest}"), bytes, limits)
}

/// Reads a manifest that has this digest.
///
/// # Errors
/// Fails where it has another one, or is none.
pub fn read_manifest(digest: &Digest, bytes: &[u8], limits: &Limits) -> Result<Manifest, Error> {
    match read_document(digest, bytes, limits)? {
        Document::Manifest(manifest) => Ok(*manifest),
        Document::Index(_) => {
            let problem = "it is an index where a manifest should be".to_owned();
            Err(Error::Manifest { what: format!("the manifest {digest}"), problem })
        }
    }
}

fn read_index(digest: &Digest, bytes: &[u8], limits: &Limits) -> Result<Index, Error> {
    match read_document(digest, bytes, limits)? {
        Document::Index(index) => Ok(index),
        Document::Manifest(_) => {
            let problem = "it is a manifest where an index should be".to_owned();
            Err(Error::Manifest { what: format!("the index {digest}"), problem })
        }
    }
}
