//! [`Certificate`]: what the server of `/metrics` shows of itself. IO: files, if it is a Secret's.
//!
//! A self-signed one is made at the start and lives as long as the process: a scraper can't verify it, and only whoever
//! reads the traffic is kept out. One of a mounted Secret is read again every minute, because it is renewed there.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustls::{
    ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio_rustls::TlsAcceptor;

/// A mounted Secret is read again after this long.
const REREAD: Duration = Duration::from_secs(60);

/// The names of a Secret's files, as those of type kubernetes.io/tls have.
const FILES: (&str, &str) = ("tls.crt", "tls.key");

/// A certificate can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// None could be made.
    #[error("making a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// It and its key don't go together, or can't be used for TLS.
    #[error("the certificate of /metrics: {0}")]
    Tls(#[from] rustls::Error),
    /// A file can't be read.
    #[error("{}: {source}: it must hold PEM", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
}

/// The server's certificate.
pub struct Certificate {
    folder: Option<PathBuf>,
    current: Mutex<(Instant, TlsAcceptor)>,
}

impl Certificate {
    /// Makes a self-signed certificate.
    ///
    /// # Errors
    /// Fails where there is no randomness.
    pub fn self_signed() -> Result<Self, Error> {
        let made = rcgen::generate_simple_self_signed(vec!["sockeye-metrics".to_owned()])?;
        let key = PrivateKeyDer::from(made.signing_key);
        let acceptor = acceptor(vec![made.cert.der().clone()], key)?;
        Ok(Self { folder: None, current: Mutex::new((Instant::now(), acceptor)) })
    }

    /// Reads the certificate of a mounted Secret.
    ///
    /// # Errors
    /// Fails if it can't be read or used.
    pub fn mounted(folder: &Path) -> Result<Self, Error> {
        let current = Mutex::new((Instant::now(), read(folder)?));
        Ok(Self { folder: Some(folder.to_owned()), current })
    }

    /// Returns what accepts connections by the newest certificate. One that can't be read leaves the one before.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = self.folder.as_ref().filter(|_| current.0.elapsed() >= REREAD) {
            current.0 = Instant::now();
            match read(folder) {
                Ok(acceptor) => current.1 = acceptor,
                Err(error) => tracing::warn!(%error, "keeping the certificate that was read before"),
            }
        }
        current.1.clone()
    }
}

fn read(folder: &Path) -> Result<TlsAcceptor, Error> {
    let (certificate, key) = (folder.join(FILES.0), folder.join(FILES.1));
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::File { path, source }
    };
    let chain = CertificateDer::pem_file_iter(&certificate).and_then(|chain| chain.collect::<Result<Vec<_>, _>>());
    let chain = chain.map_err(failed(&certificate))?;
    acceptor(chain, PrivateKeyDer::from_pem_file(&key).map_err(failed(&key))?)
}

fn acceptor(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<TlsAcceptor, Error> {
    // Named, because a process may have no default: several parts of it bring one.
    let builder =
        ServerConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions()?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
