//! [`ImageKey`] and [`Want`]: what a BpfProgram asks of a registry. IO: none.

use std::collections::BTreeSet;

use sockeye_crds::program::ImageSource;

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
}
