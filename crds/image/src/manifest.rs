//! [`Document`]: an image manifest or an index, of OCI or of Docker. IO: none.
//!
//! The fields are those of the OCI image specification (manifest.md, image-index.md, descriptor.md); Docker's are the
//! same under other media types. A text that could be read as both a manifest and an index is refused: two readers
//! could take it for different images under one digest (CVE-2021-41190).

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{
    Architecture, Digest, Limits,
    error::{Error, shown},
};

/// The media type of an OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of an OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The media type of Docker's image manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// The media type of Docker's manifest list.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// The most layers of a manifest, and the most entries of an index, that are named in a message.
const NAMED: usize = 8;

/// A manifest or an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// The layers of one image.
    Manifest(Box<Manifest>),
    /// Manifests, such as one for each architecture.
    Index(Index),
}

/// The layers of one image or artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The type of the artifact, if it is one.
    pub artifact_type: Option<String>,
    /// The configuration of a container image; of other artifacts whatever they put there.
    pub config: Descriptor,
    /// The layers.
    pub layers: Vec<Descriptor>,
    /// The manifest that this one is about, such as the one that it signs.
    pub subject: Option<Descriptor>,
}

/// Manifests under one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// The manifests, and what else is listed.
    pub manifests: Vec<Descriptor>,
}

/// The type, digest and size of bytes that lie elsewhere. `urls` and `data` are not read: bytes come from the
/// repository alone.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The type of the bytes.
    #[serde(default)]
    pub media_type: String,
    /// The digest as it is written, maybe of another algorithm.
    pub digest: String,
    /// The number of bytes.
    pub size: u64,
    /// The type of the artifact that a manifest is.
    #[serde(default)]
    pub artifact_type: Option<String>,
    /// More about the bytes: those annotations that are read here.
    #[serde(default, deserialize_with = "crate::bounded::annotations")]
    pub annotations: Vec<(String, String)>,
    /// In an index, what the manifest is for.
    #[serde(default)]
    pub platform: Option<Platform>,
}

/// The platform that a manifest in an index is for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// The processor architecture, by Go's name.
    #[serde(default)]
    pub architecture: String,
    /// The operating system, by Go's name.
    #[serde(default)]
    pub os: String,
}

/// The fields of both documents, and one of Docker's first manifests.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    #[serde(default)]
    schema_version: Option<u64>,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default, deserialize_with = "crate::bounded::list")]
    layers: Option<Vec<Descriptor>>,
    #[serde(default, deserialize_with = "crate::bounded::list")]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    subject: Option<Descriptor>,
}

impl Document {
    /// Reads a document; `what` names it in errors.
    ///
    /// # Errors
    /// Fails where the bytes are too many, or no manifest or index of a kind that is read here.
    pub fn parse(what: &str, bytes: &[u8], limits: &Limits) -> Result<Self, Error> {
        let size = bytes.len() as u64;
        if size > limits.manifest {
            return Err(Error::TooLarge { what: what.to_owned(), size: Some(size), limit: limits.manifest });
        }
        let wrong = |problem: String| Error::Manifest { what: what.to_owned(), problem };
        let fields: Fields = serde_json::from_slice(bytes).map_err(|error| wrong(shown(&error.to_string())))?;
        Self::of(fields).map_err(wrong)
    }

    fn of(fields: Fields) -> Result<Self, String> {
        let Fields { schema_version, media_type, artifact_type, config, layers, manifests, subject } = fields;
        if schema_version != Some(2) {
            return Err("its schemaVersion is not 2: push it again with a tool of today".to_owned());
        }
        let (document, types) = match (config, layers, manifests) {
            (Some(config), layers, None) => {
                let layers = layers.unwrap_or_default();
                let manifest = Manifest { artifact_type, config, layers, subject };
                (Self::Manifest(Box::new(manifest)), [OCI_MANIFEST, DOCKER_MANIFEST])
            }
            (None, None, Some(manifests)) => (Self::Index(Index { manifests }), [OCI_INDEX, DOCKER_INDEX]),
            (None, None, None) => return Err("it has neither layers with a config nor manifests".to_owned()),
            (None, Some(_), None) => return Err("it has layers and no config".to_owned()),
            (_, _, Some(_)) => return Err("it could be read as a manifest and as an index".to_owned()),
        };
        match media_type {
            Some(named) if !types.contains(&named.as_str()) => {
                Err(format!("its mediaType is \"{}\", and its fields are those of {}", shown(&named), types[0]))
            }
            _ => Ok(document),
        }
    }
}

impl Descriptor {
    /// Returns the digest, if it is one that can be checked.
    ///
    /// # Errors
    /// Fails where it is no SHA-256.
    pub fn digest(&self) -> Result<Digest, Error> {
        self.digest.parse()
    }

    /// Returns an annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Checks bytes against the digest and the size; `what` names them in errors.
    ///
    /// # Errors
    /// Fails where they are others.
    pub fn check(&self, what: &str, bytes: &[u8]) -> Result<(), Error> {
        self.check_digest(what, bytes.len() as u64, Digest::of(bytes))
    }

    /// Checks the size and digest of bytes that are no longer there.
    pub(crate) fn check_digest(&self, what: &str, size: u64, actual: Digest) -> Result<(), Error> {
        let (what, expected) = (what.to_owned(), self.digest()?);
        if expected != actual {
            return Err(Error::WrongDigest { what, expected: expected.into(), actual: actual.into() });
        }
        // Bytes of the right digest have the right size, unless the descriptor itself is wrong.
        if self.size != size {
            return Err(Error::WrongSize { what, expected: self.size, actual: size });
        }
        Ok(())
    }

    /// Tells whether an index lists this as an image. Build tools list attestations too, for the platform unknown.
    fn is_image(&self) -> bool {
        matches!(self.media_type.as_str(), OCI_MANIFEST | DOCKER_MANIFEST)
            && self.platform.as_ref().is_none_or(|platform| platform.os == "linux" || platform.os.is_empty())
    }

    /// Returns the architecture; none if its name is none that can be one.
    fn architecture(&self) -> Option<Architecture> {
        self.platform.as_ref().map_or_else(|| Some(Architecture::any()), |platform| platform.architecture.parse().ok())
    }
}

impl Index {
    /// Returns the first image for each of these architectures, and the one that is for any. An entry whose architecture
    /// has no name that one can have is left out.
    ///
    /// # Errors
    /// Fails where there is none at all, or several that name no platform: none of them is the right one.
    pub fn images(&self, wanted: &[Architecture]) -> Result<BTreeMap<Architecture, &Descriptor>, Error> {
        let mut images = BTreeMap::new();
        for descriptor in self.manifests.iter().filter(|descriptor| descriptor.is_image()) {
            let Some(architecture) = descriptor.architecture() else { continue };
            if architecture.is_any() && images.contains_key(&architecture) {
                return Err(Error::Format(
                    "the index lists several images without a platform; name each one's with `--platform`".to_owned(),
                ));
            }
            if architecture.is_any() || wanted.contains(&architecture) {
                images.entry(architecture).or_insert(descriptor);
            }
        }
        if images.is_empty() {
            let wanted: Vec<_> = wanted.iter().map(Architecture::as_str).collect();
            return Err(Error::Architecture { wanted: wanted.join(" or "), present: self.platforms() });
        }
        Ok(images)
    }

    /// Returns the entry of that digest.
    pub fn entry(&self, digest: &Digest) -> Option<&Descriptor> {
        self.manifests.iter().find(|descriptor| descriptor.digest == digest.as_str())
    }

    fn platforms(&self) -> String {
        let named = self.manifests.iter().take(NAMED).map(|descriptor| match &descriptor.platform {
            Some(platform) => format!("{}/{}", shown(&platform.os), shown(&platform.architecture)),
            None => format!("\"{}\"", shown(&descriptor.media_type)),
        });
        list(named.collect(), self.manifests.len())
    }
}

impl Manifest {
    /// Names the layers' media types.
    pub(crate) fn layer_types(&self) -> String {
        let named = self.layers.iter().take(NAMED).map(|layer| format!("\"{}\"", shown(&layer.media_type)));
        list(named.collect(), self.layers.len())
    }
}

/// Joins names of some of `count` things.
fn list(named: Vec<String>, count: usize) -> String {
    match count - named.len() {
        0 if count == 0 => "nothing".to_owned(),
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}
