//! [`Puller`]: one pull. IO: registries, and the mounted Secrets.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc, time::Duration};

use sockeye_crds::{Reason, Refusal, names};
use sockeye_image::{Architecture, Digest, Image, Reference};
use sockeye_registry::{Client, Credentials};

use crate::images::{
    key::ImageKey,
    pulled::{Outcome, PulledImage, PulledObject},
    pulls::Job,
};

/// The file of a mounted Secret.
const CONFIG: &str = "config.json";
/// The longest message. A condition quotes it, and what a registry says is part of it.
const MAX_MESSAGE: usize = 1024;

/// Pulls images.
#[derive(Clone)]
pub struct Puller {
    client: Client,
    /// The folder of the mounted Secrets.
    secrets: PathBuf,
    /// True if signatures are pulled too, and what they cover.
    with_signatures: bool,
}

/// Why an image was not pulled.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Reference(#[from] sockeye_image::Error),
    #[error("{0}")]
    Registry(#[from] sockeye_registry::Error),
    #[error(
        "pullSecretRef: no Secret {0} with a .dockerconfigjson is mounted into the operator: create it in sockeye's \
         namespace, and list its name in the chart's images.pullSecrets"
    )]
    NoSecret(String),
}

impl Puller {
    /// Creates a puller that finds Secrets in a folder.
    pub const fn new(client: Client, secrets: PathBuf, with_signatures: bool) -> Self {
        Self { client, secrets, with_signatures }
    }

    /// Pulls an image.
    pub async fn pull(self, job: Job) -> Outcome {
        self.run(&job).await.unwrap_or_else(|error| failed(&error))
    }

    async fn run(&self, Job { key, known, digest }: &Job) -> Result<Outcome, Error> {
        let mut reference: Reference = key.reference.parse()?;
        if let Some(pinned) = digest.as_ref().or(key.pinned.as_ref()) {
            reference.digest = Some(pinned.parse()?);
        }
        let client = self.client_of(key)?;
        let digest = client.resolve(&reference).await?;
        if known.contains(digest.as_str()) {
            return Ok(Outcome::Known(digest.as_str().to_owned()));
        }
        let images = client.pull(&reference, &digest).await?;
        let signatures = if self.with_signatures {
            let mut covered: Vec<Digest> = images.values().map(Image::manifest_digest).collect();
            covered.insert(0, digest.clone());
            covered.dedup();
            client.signatures(&reference, &covered).await?
        } else {
            Vec::new()
        };
        let index = images.values().next().and_then(|image| image.index.clone()).map(Arc::from);
        Ok(Outcome::Pulled(Arc::new(PulledImage {
            repository: reference.name(),
            digest: digest.as_str().to_owned(),
            index: index.filter(|_| self.with_signatures),
            objects: self.objects(images),
            signatures,
        })))
    }

    /// Returns a client with the credentials of a mounted Secret, which may have changed since the last pull.
    fn client_of(&self, key: &ImageKey) -> Result<Client, Error> {
        let Some(secret) = &key.secret else { return Ok(self.client.clone()) };
        let missing = || Error::NoSecret(secret.clone());
        // The API server checks that, too. It is part of a path here.
        if secret.contains('/') || secret.starts_with('.') {
            return Err(missing());
        }
        let config = fs::read(self.secrets.join(secret).join(CONFIG)).map_err(|_| missing())?;
        Ok(self.client.with_credentials(Credentials::from_docker_config(&config)?))
    }

    /// Returns the objects of an image: one if they are all the same and no architecture lacks one, and otherwise one for each architecture.
    fn objects(&self, images: BTreeMap<Architecture, Image>) -> Vec<PulledObject> {
        let object = |(architecture, image): (Architecture, Image)| {
            let Image { manifest, format, layer, object, .. } = image;
            // Of the other formats the object is the layer.
            let layer = layer.filter(|_| self.with_signatures && format.is_packed());
            PulledObject {
                architecture: architecture.as_str().to_owned(),
                digest: names::digest(&object),
                bytes: object.into(),
                manifest: if self.with_signatures { manifest.into() } else { Arc::default() },
                layer: layer.map(Arc::from),
            }
        };
        let is_for_all = images.contains_key(&Architecture::any())
            || Architecture::supported().iter().all(|architecture| images.contains_key(architecture));
        let mut objects: Vec<PulledObject> = images.into_iter().map(object).collect();
        if objects.len() > 1 && objects[0].architecture.is_empty() {
            // What is for any architecture is that of each which has none of its own.
            let any = objects.remove(0);
            for architecture in Architecture::supported() {
                if objects.iter().all(|object| object.architecture != architecture.as_str()) {
                    objects.push(PulledObject { architecture: architecture.as_str().to_owned(), ..any.clone() });
                }
            }
            objects.sort_by(|a, b| a.architecture.cmp(&b.architecture));
        }
        if is_for_all && objects.iter().all(|other| other.digest == objects[0].digest) {
            objects.truncate(1);
            objects.iter_mut().for_each(|object| object.architecture.clear());
        }
        objects
    }
}

fn failed(error: &Error) -> Outcome {
    let (reason, retry_after): (Reason, Option<Duration>) = match error {
        Error::Reference(_) => (Reason::InvalidSpec, None),
        Error::Registry(sockeye_registry::Error::Content { .. } | sockeye_registry::Error::TooLarge { .. }) => {
            (Reason::InvalidImage, None)
        }
        Error::Registry(error) => (Reason::ImagePullFailed, error.retry_after()),
        Error::NoSecret(_) => (Reason::ImagePullFailed, None),
    };
    let again = if reason == Reason::ImagePullFailed { "; the operator tries again" } else { "" };
    let message = names::line(&format!("spec.bytecode.image: {error}"), MAX_MESSAGE) + again;
    Outcome::Failed { refusal: Refusal { reason, message }, retry_after }
}
