//! [`ImageContent`]: the bytes of a BpfProgram whose object is in an image. IO: none.

use std::sync::Arc;

use sockeye_crds::provenance::RevisionImage;

use crate::images::pulled::PulledImage;

/// The content of an image.
#[derive(Clone, Debug)]
pub enum ImageContent {
    /// From a registry.
    Pulled(RevisionImage, Arc<PulledImage>),
    /// As a revision has it.
    Stored(RevisionImage, Vec<StoredBytes>),
}

/// The stored bytes of a revision, for one architecture.
#[derive(Clone, Debug)]
pub struct StoredBytes {
    /// The architecture; empty if the object is for all.
    pub architecture: String,
    /// The object's bytes.
    pub object: Vec<u8>,
    /// The parts of the proof.
    pub proof: Vec<Vec<u8>>,
}

impl ImageContent {
    /// Returns the reference and what it means.
    pub const fn image(&self) -> &RevisionImage {
        match self {
            Self::Pulled(image, _) | Self::Stored(image, _) => image,
        }
    }
}
