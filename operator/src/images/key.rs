//! [`ImageKey`] and [`Want`]: what a BpfProgram asks of a registry. IO: none.

use std::collections::BTreeSet;

use sockeye_crds::program::ImageSource;

use crate::images::pulled::PulledImage;

/// An image as a spec names it. BpfPrograms with equal keys share a pull.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageKey {
    /// The reference, as the spec has it.
    pub reference: String,
    /// The Secret with the credentials.
    pub secret: Option<String>,
    /// The digest to pull, where the tag was resolved before and must not be resolved again.
    pub pinned: Option<String>,
}

impl ImageKey {
    /// Returns the key of an image whose tag is resolved.
    pub fn of(source: &ImageSource) -> Self {
        let secret = source.pull_secret_ref.as_ref().map(|secret| secret.name.clone());
        Self { reference: source.reference.clone(), secret, pinned: None }
    }

    /// Returns the registry's host and port.
    pub fn registry(&self) -> &str {
        self.reference.split('/').next().unwrap_or_default()
    }
}

/// The wish of a BpfProgram for an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// The image.
    pub key: ImageKey,
    /// The BpfProgram's generation. An edit ends the delay after a failure.
    pub generation: i64,
    /// The digests of the image whose content is no longer needed: it is stored, or it was refused.
    pub known: BTreeSet<String>,
    /// True if the tag is to be resolved again at intervals.
    pub follows: bool,
    /// The content that lacks a signature, which may be pushed at any time: it is pulled again at intervals.
    pub unsigned: Option<Unsigned>,
}

impl Want {
    /// Reports whether the content of an image is not needed: neither its bytes, nor its signatures.
    pub fn has(&self, image: &PulledImage) -> bool {
        let is_judged = |unsigned: &Unsigned| {
            unsigned.digest != image.digest || unsigned.signatures.as_ref() == Some(&image.signatures_digest())
        };
        self.known.contains(&image.digest) && self.unsigned.as_ref().is_none_or(is_judged)
    }
}

/// The content of an image to which the policy objects, as it was judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsigned {
    /// The digest of the image.
    pub digest: String,
    /// The signatures that were judged, by [`PulledImage::signatures_digest`]; none if they were stored ones.
    pub signatures: Option<String>,
}
