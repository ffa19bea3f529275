//! [`Client`]: pulls images that hold an ELF object, and their signatures, from registries that may be hostile; and
//! pushes such images, which the command line does.
//!
//! Whatever a registry sends costs a bounded number of bytes and a bounded time. An image is unpacked as it arrives:
//! the index, the manifests, the objects and at most 4 MiB of each layer stay in memory. Everything that is pulled is
//! checked against the digest that named it.
//!
//! | module | noun | IO |
//! |---|---|---|
//! | [`Settings`] | what an administrator says of registries, and all bounds | none |
//! | [`Credentials`] | the content of a pull secret | none |
//! | [`Proxy`] | which connections go through a proxy | none |
//! | [`Error`] | why nothing was pulled | none |
//! | `url`, `challenge` | parts of HTTP that hyper leaves to its users | none |
//! | `resolver` | the addresses of a host, by threads of its own | threads |
//! | `connect` | a connection, with proxy and TLS | sockets |
//! | `transport` | one request and its answer, within bounds | requests |
//! | `auth` | what a registry is shown to know who asks | requests |
//! | `repository` | requests to one repository: redirects, authentication, failures | requests |
//! | `pull` | tags, manifests, layers | requests |
//! | `push` | an image's blobs and manifest | requests |
//! | `attestation` | what lies beside an image and is no signature | none |
//! | `referrers` | the signatures beside an image | requests |

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

pub use sockeye_image::Packed;
use sockeye_image::{Architecture, Digest, Image, Reference, SignatureManifest};
use tokio::time::timeout;

mod attestation;
mod auth;
mod challenge;
mod connect;
mod credentials;
mod error;
mod proxy;
mod pull;
mod push;
mod referrers;
mod repository;
mod resolver;
mod settings;
mod transport;
mod url;

pub use credentials::Credentials;
pub use error::Error;
pub use proxy::Proxy;
pub use settings::{AnswerLimits, RegistrySettings, Settings, Timeouts};

use auth::Auth;
use pull::Puller;
use push::Pusher;
use referrers::Collector;
use repository::Repository;
use transport::Transport;

/// Pulls images and their signatures. Clones share connections' settings and tokens.
///
/// All requests of one client are made in the name of the same [`Credentials`].
#[derive(Clone)]
pub struct Client {
    settings: Arc<Settings>,
    transport: Arc<Transport>,
    auth: Arc<Auth>,
}

impl Client {
    /// Returns a client without credentials. It reads the certificates of the system's authorities, once.
    ///
    /// # Errors
    /// Fails where the settings can't be used.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let settings = Arc::new(settings);
        Ok(Self {
            transport: Arc::new(Transport::new(Arc::clone(&settings))?),
            auth: Arc::new(Auth::new(Arc::clone(&settings), Credentials::default())),
            settings,
        })
    }

    /// Returns a client with these credentials. It shares no token with this one.
    #[must_use]
    pub fn with_credentials(&self, credentials: Credentials) -> Self {
        Self { auth: Arc::new(Auth::new(Arc::clone(&self.settings), credentials)), ..self.clone() }
    }

    /// Returns the digest of an image: the one that the reference has, or the one that its tag stands for now.
    ///
    /// # Errors
    /// Fails where there is no such tag, or the registry does not answer.
    pub async fn resolve(&self, reference: &Reference) -> Result<Digest, Error> {
        if let Some(digest) = &reference.digest {
            return Ok(digest.clone());
        }
        let repository = self.repository(reference)?;
        let resolve = async { self.puller(&repository, reference).resolve(reference.tag_or_latest()).await };
        within(self.settings.timeouts.resolve, format!("resolving {reference}"), resolve).await
    }

    /// Pulls the image of a digest, for each architecture of the settings that it has. An image that is no part of an
    /// index, or is listed without a platform, is that of [`Architecture::any`].
    ///
    /// # Errors
    /// Fails where one of them can't be pulled.
    pub async fn pull(&self, reference: &Reference, digest: &Digest) -> Result<BTreeMap<Architecture, Image>, Error> {
        let repository = self.repository(reference)?;
        let pull = async { self.puller(&repository, reference).pull(digest).await };
        within(self.settings.timeouts.pull, format!("pulling {reference}"), pull).await
    }

    /// Pushes an image under the reference's tag, and returns its digest.
    ///
    /// # Errors
    /// Fails where the registry does not take it.
    pub async fn push(&self, reference: &Reference, packed: &Packed) -> Result<Digest, Error> {
        let auth = self.auth.for_pushing();
        let repository = Repository::new(&self.transport, &self.settings, &auth, reference)?;
        let push = async { Pusher { repository: &repository }.push(packed, reference.tag_or_latest()).await };
        within(self.settings.timeouts.pull, format!("pushing {reference}"), push).await
    }

    /// Returns the signatures that lie beside these digests, which are those of an image's index and manifests. None of
    /// them is verified.
    ///
    /// # Errors
    /// Fails where the registry does not answer all that it is asked.
    pub async fn signatures(&self, reference: &Reference, digests: &[Digest]) -> Result<Vec<SignatureManifest>, Error> {
        let repository = self.repository(reference)?;
        let collect = async { Collector::new(&self.puller(&repository, reference)).collect(digests).await };
        within(self.settings.timeouts.signatures, format!("fetching the signatures of {reference}"), collect).await
    }

    fn repository<'a>(&'a self, reference: &'a Reference) -> Result<Repository<'a>, Error> {
        Repository::new(&self.transport, &self.settings, &self.auth, reference)
    }

    fn puller<'a>(&'a self, repository: &'a Repository<'a>, reference: &Reference) -> Puller<'a> {
        Puller { repository, settings: &self.settings, image: reference.to_string() }
    }
}

/// Ends what takes too long.
async fn within<T>(limit: Duration, what: String, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(limit, work).await.unwrap_or(Err(Error::TimedOut { what, limit }))
}
