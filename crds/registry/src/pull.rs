//! Resolving a tag, and pulling the images under a digest. IO: requests.

use std::collections::BTreeMap;

use http::{Method, StatusCode, header};
use serde::Deserialize;
use sockeye_image::{
    Architecture, Digest, Format, Image, Limits, chain,
    format::ObjectLayer,
    layer::{Extracted, Extractor},
    manifest::{Descriptor, Document, Index, Manifest},
};

use crate::{
    Error, Settings,
    repository::{Get, Repository},
};

/// The media types of manifests and indexes, of OCI and Docker.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                      application/vnd.docker.distribution.manifest.list.v2+json, \
                      application/vnd.docker.distribution.manifest.v2+json";
/// The digest of an answer (distribution specification, "Pulling manifests").
const CONTENT_DIGEST: header::HeaderName = header::HeaderName::from_static("docker-content-digest");
/// So much of a layer is unpacked before other tasks have their turn. It unpacks to 4 MiB at most.
const TURN: usize = 4 << 10;

/// Pulls from one repository.
pub struct Puller<'a> {
    pub(crate) repository: &'a Repository<'a>,
    pub(crate) settings: &'a Settings,
    /// The image as errors name it.
    pub(crate) image: String,
}

/// The part of a container image's configuration that is read (OCI image specification, config.md).
#[derive(Deserialize)]
struct ImageConfig {
    #[serde(default)]
    config: Option<ContainerConfig>,
}

#[derive(Deserialize)]
struct ContainerConfig {
    #[serde(default, rename = "Labels")]
    labels: Option<BTreeMap<String, String>>,
}

impl Puller<'_> {
    /// Returns the digest that a tag stands for now.
    ///
    /// The registry's word is taken for it: what is pulled by the digest is checked, and a registry can choose what its
    /// tags stand for anyway. Docker Hub counts a HEAD as no pull.
    ///
    /// # Errors
    /// Fails where there is no such tag, or the registry does not answer.
    pub async fn resolve(&self, tag: &str) -> Result<Digest, Error> {
        let what = self.repository.name("manifest");
        let path = format!("manifests/{tag}");
        let get = Get { method: Method::HEAD, path: &path, accept: ACCEPT, what: &what };
        let digest = match self.repository.get(&get).await {
            Ok(answer) => answer.header(CONTENT_DIGEST).and_then(|digest| digest.parse().ok()),
            // A HEAD that is not understood is no reason to give up.
            Err(Error::Unexpected { .. }) => None,
            Err(error) => return Err(error),
        };
        match digest {
            Some(digest) => Ok(digest),
            None => Ok(Digest::of(&self.manifest(&path, &what).await?)),
        }
    }

    /// Returns the images under a digest, by architecture.
    ///
    /// # Errors
    /// Fails where something is not there, too large, of another digest or of no known format.
    pub async fn pull(&self, digest: &Digest) -> Result<BTreeMap<Architecture, Image>, Error> {
        let bytes = self.by_digest(digest).await?;
        match chain::read_document(digest, &bytes, self.limits()).map_err(|error| self.wrong(error))? {
            Document::Manifest(manifest) => {
                let image = self.image(digest, None, bytes, *manifest).await?;
                Ok([(Architecture::any(), image)].into())
            }
            Document::Index(index) => self.images(digest, index, bytes).await,
        }
    }

    async fn images(
        &self,
        digest: &Digest,
        index: Index,
        index_bytes: Vec<u8>,
    ) -> Result<BTreeMap<Architecture, Image>, Error> {
        let mut images = BTreeMap::new();
        let chosen = index.images(&self.settings.architectures).map_err(|error| self.wrong(error))?;
        let chosen: Vec<_> = chosen.into_iter().map(|(name, descriptor)| (name, descriptor.clone())).collect();
        // It may take much more memory than its text, and a layer may take two minutes.
        drop(index);
        for (architecture, descriptor) in chosen {
            let (bytes, manifest) = self.listed(&descriptor).await?;
            images.insert(architecture, self.image(digest, Some(index_bytes.clone()), bytes, manifest).await?);
        }
        Ok(images)
    }

    /// Returns a manifest that an index or a list of referrers has.
    ///
    /// # Errors
    /// Fails where it is not there, or is another one.
    pub async fn listed(&self, descriptor: &Descriptor) -> Result<(Vec<u8>, Manifest), Error> {
        let digest = descriptor.digest().map_err(|error| self.wrong(error))?;
        let limit = self.limits().manifest;
        if descriptor.size > limit {
            let what = self.repository.name_of("manifest", &digest);
            let source = sockeye_image::Error::TooLarge { what, size: Some(descriptor.size), limit };
            return Err(self.wrong(source));
        }
        let bytes = self.by_digest(&digest).await?;
        let manifest = descriptor
            .check(&format!("the manifest {digest}"), &bytes)
            .and_then(|()| chain::read_manifest(&digest, &bytes, self.limits()))
            .map_err(|error| self.wrong(error))?;
        Ok((bytes, manifest))
    }

    async fn image(
        &self,
        digest: &Digest,
        index: Option<Vec<u8>>,
        bytes: Vec<u8>,
        manifest: Manifest,
    ) -> Result<Image, Error> {
        let layer = ObjectLayer::of(&manifest, self.limits()).map_err(|error| self.wrong(error))?;
        let format = layer.format;
        if format == Format::Bpfman {
            self.check_labels(&manifest.config).await?;
        }
        drop(manifest);
        let Extracted { layer, object } = self.layer(layer).await?;
        Ok(Image { digest: digest.clone(), index, manifest: bytes, format, layer, object })
    }

    /// Checks that a container image is one of bpfman's: a label says so, and the layer of any other holds no object to
    /// look for.
    async fn check_labels(&self, config: &Descriptor) -> Result<(), Error> {
        let bytes = self.blob(config, "configuration", self.limits().manifest).await?;
        let labels = serde_json::from_slice::<ImageConfig>(&bytes)
            .map_err(|_| "its configuration can't be read".to_owned())
            .map(|config| config.config.and_then(|config| config.labels).unwrap_or_default());
        let problem = match labels {
            Ok(labels) if labels.keys().any(|label| label.starts_with("io.ebpf.")) => return Ok(()),
            Ok(_) => "it is a container image without the labels io.ebpf.* of an object's image".to_owned(),
            Err(problem) => problem,
        };
        Err(self.wrong(sockeye_image::Error::Format(problem)))
    }

    /// Fetches the layer that has the object, and takes it out as it arrives.
    async fn layer(&self, layer: ObjectLayer) -> Result<Extracted, Error> {
        let (digest, size) = (layer.digest.clone(), layer.descriptor.size);
        let mut extractor = Extractor::new(layer, self.limits());
        let what = self.repository.name_of("layer", &digest);
        let path = format!("blobs/{digest}");
        let get = Get { method: Method::GET, path: &path, accept: "*/*", what: &what };
        let mut answer = self.repository.get(&get).await?;
        if let Some(actual) = answer.content_length().filter(|length| *length != size) {
            return Err(self.wrong(sockeye_image::Error::WrongSize { what, expected: size, actual }));
        }
        while let Some(piece) = answer.next().await? {
            for turn in piece.chunks(TURN) {
                extractor.push(turn).map_err(|error| self.wrong(error))?;
                tokio::task::yield_now().await;
            }
        }
        extractor.finish().map_err(|error| self.wrong(error))
    }

    /// Fetches bytes that a descriptor names, and checks them.
    ///
    /// # Errors
    /// Fails where they are not there, more than `limit`, or others.
    pub async fn blob(&self, descriptor: &Descriptor, part: &str, limit: u64) -> Result<Vec<u8>, Error> {
        let digest = descriptor.digest().map_err(|error| self.wrong(error))?;
        let what = self.repository.name_of(part, &digest);
        if descriptor.size > limit {
            let size = Some(descriptor.size);
            return Err(self.wrong(sockeye_image::Error::TooLarge { what, size, limit }));
        }
        let path = format!("blobs/{digest}");
        let get = Get { method: Method::GET, path: &path, accept: "*/*", what: &what };
        let bytes = self.repository.get(&get).await?.read(&what, limit).await?;
        descriptor.check(&what, &bytes).map_err(|error| self.wrong(error))?;
        Ok(bytes)
    }

    async fn by_digest(&self, digest: &Digest) -> Result<Vec<u8>, Error> {
        let what = self.repository.name_of("manifest", digest);
        self.manifest(&format!("manifests/{digest}"), &what).await
    }

    /// Fetches a manifest or index by its path, unchecked.
    ///
    /// # Errors
    /// Fails where it is not there, or too large.
    pub async fn manifest(&self, path: &str, what: &str) -> Result<Vec<u8>, Error> {
        let get = Get { method: Method::GET, path, accept: ACCEPT, what };
        let answer = self.repository.get(&get).await?;
        if answer.status != StatusCode::OK {
            let (host, status) = (answer.url.host_and_port(), answer.status.as_u16());
            let problem = format!("answers HTTP {status} without a manifest");
            return Err(Error::Unexpected { what: what.to_owned(), host, problem });
        }
        answer.read(what, self.limits().manifest).await
    }

    /// Adds the image to what is wrong with its bytes.
    pub(crate) fn wrong(&self, source: sockeye_image::Error) -> Error {
        Error::Content { image: self.image.clone(), source }
    }

    fn limits(&self) -> &Limits {
        &self.settings.limits
    }
}
