//! [`Connector`]: a connection to a host, through the proxy if one is set, with TLS unless the host has none.
//! IO: sockets.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;

use crate::{Error, Proxy, Settings, resolver::Resolver, url::Url};

/// The most bytes of a proxy's answer.
const MAX_PROXY_ANSWER: usize = 8 << 10;
/// An address is tried so long after the one before it (RFC 8305, 5), since some lead nowhere and say nothing.
const STAGGER: Duration = Duration::from_millis(250);

/// A connection, with or without TLS.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Makes connections.
pub struct Connector {
    tls: TlsConnector,
    proxy: Option<Proxy>,
    resolver: Resolver,
    limit: Duration,
}

impl Connector {
    /// Returns one that trusts the authorities of the settings.
    ///
    /// # Errors
    /// Fails where the settings have what is no certificate.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let mut tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Settings(format!("allow no version of TLS: {error}")))?
            .with_root_certificates(authorities(settings)?)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            tls: TlsConnector::from(Arc::new(tls)),
            proxy: settings.proxy.clone(),
            resolver: Resolver::new(),
            limit: settings.timeouts.connect,
        })
    }

    /// Connects to the host of a URL.
    ///
    /// # Errors
    /// Fails where nobody answers in time, or nobody who is trusted.
    pub async fn connect(&self, url: &Url) -> Result<Box<dyn Stream>, Error> {
        let late =
            |_| Error::TimedOut { what: format!("the connection to {}", url.host_and_port()), limit: self.limit };
        timeout(self.limit, self.connect_at_leisure(url)).await.map_err(late)?
    }

    async fn connect_at_leisure(&self, url: &Url) -> Result<Box<dyn Stream>, Error> {
        let host = url.bare_host();
        let proxy = self.proxy.as_ref().filter(|proxy| url.is_https && proxy.is_for(host, url.port));
        let stream = match proxy {
            Some(proxy) => self.tunnel(proxy, url).await?,
            None => self.dial(host, url.port).await.map_err(|error| unreachable(url.host_and_port(), &error))?,
        };
        // Requests are small, and each is followed by a wait for its answer.
        stream.set_nodelay(true).map_err(|error| unreachable(url.host_and_port(), &error))?;
        if !url.is_https {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Error::Tls { host: url.host_and_port(), problem: "its name is no host name".to_owned() })?;
        let stream = self.tls.connect(name, stream).await.map_err(|error| failed(url.host_and_port(), &error))?;
        Ok(Box::new(stream))
    }

    /// Connects to a host at the first of its addresses that answers.
    async fn dial(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        first(self.resolver.addresses(host, port).await?.into_iter()).await
    }

    /// Has the proxy open a tunnel to the host.
    async fn tunnel(&self, proxy: &Proxy, url: &Url) -> Result<TcpStream, Error> {
        let name = format!("the proxy {}:{}", proxy.host, proxy.port);
        let broken = |error: io::Error| unreachable(name.clone(), &error);
        let mut stream = self.dial(&proxy.host, proxy.port).await.map_err(broken)?;
        let target = url.host_and_port();
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
        if let Some(authorization) = &proxy.authorization {
            request.extend_from_slice(b"Proxy-Authorization: ");
            request.extend_from_slice(authorization.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        stream.write_all(&request).await.map_err(broken)?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            // The host's own bytes follow at once, so no byte too many may be read.
            let byte = stream.read_u8().await.map_err(broken)?;
            answer.push(byte);
            if answer.len() > MAX_PROXY_ANSWER {
                return Err(Error::Unreachable { host: target, problem: format!("{name} sends an endless answer") });
            }
        }
        let line = String::from_utf8_lossy(answer.split(|byte| *byte == b'\r').next().unwrap_or_default()).into_owned();
        if line.starts_with("HTTP/1.") && line.split(' ').nth(1).is_some_and(|status| status.starts_with('2')) {
            return Ok(stream);
        }
        Err(Error::Unreachable {
            host: target,
            problem: format!("{name} answers {:?}", line.get(..64).unwrap_or(&line)),
        })
    }
}

fn authorities(settings: &Settings) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    if settings.system_authorities {
        // Those that can't be read are left out, as all programs do.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    let wrong = |problem: &str| Error::Settings(format!("have a custom CA that {problem}"));
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(&settings.authorities) {
        let certificate = certificate.map_err(|_| wrong("is no PEM"))?;
        roots.add(certificate).map_err(|_| wrong("has a certificate which can't be read"))?;
        count += 1;
    }
    if count == 0 && settings.authorities.iter().any(|byte| !byte.is_ascii_whitespace()) {
        return Err(wrong("has no certificate: it has to be PEM, with lines BEGIN CERTIFICATE"));
    }
    Ok(roots)
}

async fn first(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let mut attempts = JoinSet::new();
    for (at, address) in (0..).zip(addresses) {
        attempts.spawn(async move {
            sleep(STAGGER * at).await;
            TcpStream::connect(address).await
        });
    }
    let mut failure = io::Error::other("its name has no address");
    while let Some(attempt) = attempts.join_next().await {
        match attempt {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failure = error,
            Err(_) => {}
        }
    }
    Err(failure)
}

/// Names the failure of a connection: of the certificate, or of the network.
fn failed(host: String, error: &io::Error) -> Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(problem) => Error::Tls { host, problem: problem.to_string() },
        None => unreachable(host, error),
    }
}

fn unreachable(host: String, error: &io::Error) -> Error {
    Error::Unreachable { host, problem: error.to_string() }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn an_address_that_leads_nowhere_holds_up_no_other() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // That of TEST-NET-1, which nobody has (RFC 5737).
        let addresses = ["192.0.2.1:443".parse().unwrap(), listener.local_addr().unwrap()];
        let stream = timeout(Duration::from_secs(5), first(addresses.into_iter())).await.unwrap().unwrap();
        assert_eq!(stream.peer_addr().unwrap(), addresses[1]);
        assert!(first(std::iter::empty()).await.is_err());
    }
}
