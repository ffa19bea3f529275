//! [`PulledImage`]: what a registry gave, and [`Outcome`]: how a pull ended. IO: none.

use std::{sync::Arc, time::Duration};

use sockeye_crds::Refusal;
use sockeye_image::SignatureManifest;

/// An image, pulled, each digest checked.
#[derive(Clone, Debug, PartialEq)]
pub struct PulledImage {
    /// The registry and the repository, as the rules of a policy select them.
    pub repository: String,
    /// The digest that the reference was resolved to.
    pub digest: String,
    /// The index as served, if the digest is one's.
    pub index: Option<Arc<[u8]>>,
    /// The objects: one, or where they differ, one for each architecture.
    pub objects: Vec<PulledObject>,
    /// The signatures that the registry has beside the image. Empty if no policy asks for them.
    pub signatures: Vec<SignatureManifest>,
}

/// An object of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct PulledObject {
    /// The architecture in Go's words; empty if the object is for all.
    pub architecture: String,
    /// The digest of its bytes.
    pub digest: String,
    /// Its bytes.
    pub bytes: Arc<[u8]>,
    /// The image manifest as served.
    pub manifest: Arc<[u8]>,
    /// The layer as served, if nodes verify signatures and it is not the object itself.
    pub layer: Option<Arc<[u8]>>,
}

impl PulledImage {
    /// Returns the number of bytes that the image takes in memory.
    pub fn size(&self) -> usize {
        let index = self.index.as_ref().map_or(0, |index| index.len());
        let objects = self.objects.iter();
        let objects = objects.map(|object| {
            object.bytes.len() + object.manifest.len() + object.layer.as_ref().map_or(0, |layer| layer.len())
        });
        index + objects.sum::<usize>()
    }
}

/// The end of a pull.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The reference means this digest, and its content is known.
    Known(String),
    /// The reference means this image.
    Pulled(Arc<PulledImage>),
    /// The pull failed.
    Failed {
        /// The reason and message of the BpfProgram's condition.
        refusal: Refusal,
        /// The registry asks to wait for this long.
        retry_after: Option<Duration>,
    },
}

impl Outcome {
    /// Returns the name that metrics give it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Known(_) => "known",
            Self::Pulled(_) => "pulled",
            Self::Failed { .. } => "failed",
        }
    }
}
