//! [`Transport`]: one request and its answer, within bounds of bytes and time. IO: requests.
//!
//! Each request has a connection of its own. A pull has few of them, and what a host does to a connection then ends
//! with the request.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{task::JoinHandle, time::timeout};

use crate::{Error, Settings, connect::Connector, url::Url};

/// The least buffer for an answer's header that hyper takes.
const MIN_HEADER: usize = 8 << 10;

/// Sends requests.
pub struct Transport {
    connector: Connector,
    settings: Arc<Settings>,
}

/// An answer whose body has not been read.
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The header.
    pub headers: HeaderMap,
    /// Who answered.
    pub url: Url,
    body: Incoming,
    silence: Duration,
    /// Ends with the answer, and with it the connection.
    _connection: Connection,
}

struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Transport {
    /// Returns one with these settings.
    ///
    /// # Errors
    /// Fails if an authority is not a valid certificate.
    pub fn new(settings: Arc<Settings>) -> Result<Self, Error> {
        Ok(Self { connector: Connector::new(&settings)?, settings })
    }

    /// Sends a request to a URL, which sets the request's path and host.
    ///
    /// # Errors
    /// Fails where there is no answer, or not in time.
    pub async fn send(&self, url: &Url, mut request: Request<Full<Bytes>>) -> Result<Answer, Error> {
        let host = url.host_and_port();
        let odd = |problem: &str| Error::Unexpected {
            what: url.to_string(),
            host: host.clone(),
            problem: problem.to_owned(),
        };
        *request.uri_mut() = url.path.parse().map_err(|_| odd("has a path that is none"))?;
        let headers = request.headers_mut();
        headers.insert(header::HOST, url.authority().parse().map_err(|_| odd("has a name that is none"))?);
        headers.insert(header::CONNECTION, header::HeaderValue::from_static("close"));
        if let Ok(agent) = self.settings.user_agent.parse() {
            headers.insert(header::USER_AGENT, agent);
        }
        let stream = self.connector.connect(url).await?;
        let broken = |error: hyper::Error| failed(url, &error);
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(self.settings.answers.header.max(MIN_HEADER))
            .max_headers(self.settings.answers.header_fields)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        // Its error reaches the request and the body, too.
        let connection = Connection(tokio::spawn(async move { drop(connection.await) }));
        let silence = self.settings.timeouts.silence;
        let late = |_| Error::TimedOut { what: format!("the answer of {host}"), limit: silence };
        let answer = timeout(silence, sender.send_request(request)).await.map_err(late)?.map_err(broken)?;
        let (parts, body) = answer.into_parts();
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            url: url.clone(),
            body,
            silence,
            _connection: connection,
        })
    }
}

impl Answer {
    /// Returns a header as text.
    pub fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns the length that the header says the body has.
    pub fn content_length(&self) -> Option<u64> {
        self.header(header::CONTENT_LENGTH)?.parse().ok()
    }

    /// Returns the next piece of the body.
    ///
    /// # Errors
    /// Fails where the connection breaks, or nothing arrives in time.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let host = self.url.host_and_port();
            let late = |_| Error::TimedOut { what: format!("the rest of what {host} sends"), limit: self.silence };
            let Some(frame) = timeout(self.silence, self.body.frame()).await.map_err(late)? else { return Ok(None) };
            // Frames without data are trailers.
            if let Ok(data) = frame.map_err(|error| failed(&self.url, &error))?.into_data() {
                return Ok(Some(data));
            }
        }
    }

    /// Returns the whole body; `what` names it in errors.
    ///
    /// # Errors
    /// Fails where it has more than `limit` bytes, which are not read then, or does not arrive.
    pub async fn read(mut self, what: &str, limit: u64) -> Result<Vec<u8>, Error> {
        let host = self.url.host_and_port();
        let too_large = || Error::TooLarge { what: what.to_owned(), host: host.clone(), limit };
        if self.headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
            let problem = "packs its answer though nobody asked for that".to_owned();
            return Err(Error::Unexpected { what: what.to_owned(), host, problem });
        }
        if self.content_length().is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let mut bytes = Vec::new();
        while let Some(piece) = self.next().await? {
            if (bytes.len() + piece.len()) as u64 > limit {
                return Err(too_large());
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    /// Returns the first `limit` bytes of an error's body; read errors end it early.
    pub async fn beginning(mut self, limit: u64) -> Vec<u8> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut bytes = Vec::new();
        while let (true, Ok(Some(piece))) = (bytes.len() < limit, self.next().await) {
            bytes.extend_from_slice(piece.get(..piece.len().min(limit - bytes.len())).unwrap_or_default());
        }
        bytes
    }
}

/// Classifies a failed exchange: invalid HTTP is permanent, a broken connection may be retried.
fn failed(url: &Url, error: &hyper::Error) -> Error {
    let host = url.host_and_port();
    let mut problem = error.to_string();
    if let Some(source) = std::error::Error::source(error) {
        problem = format!("{problem}: {source}");
    }
    if error.is_parse() {
        let problem = format!("does not answer in HTTP ({problem})");
        return Error::Unexpected { what: url.to_string(), host, problem };
    }
    Error::Unreachable { host, problem }
}
