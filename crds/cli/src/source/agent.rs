//! [`Agent`]: an agent's read API, through a port-forward of the API server or on a Unix socket. IO: requests.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::Portforwarder, client::UpgradeConnectionError};
use serde::de::DeserializeOwned;
use sockeye_read_api::{Failure, PORT, Route};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
    time::timeout,
};

use super::error::causes;

/// The most bytes of one answer: a node with a thousand BpfPrograms has some MiB.
const MAX_ANSWER: usize = 64 << 20;
/// The most bytes of a line of a stream.
const MAX_LINE: usize = 1 << 20;

/// The agent of a node.
#[derive(Clone)]
pub struct Agent {
    /// The node.
    pub node: String,
    /// How it is reached.
    pub endpoint: Endpoint,
    /// The longest time for one answer.
    pub limit: Duration,
}

/// How an agent is reached.
#[derive(Clone)]
pub enum Endpoint {
    /// By a port-forward to its pod.
    Pod {
        /// The API server.
        client: Client,
        /// The pod's namespace.
        namespace: String,
        /// The pod.
        pod: String,
    },
    /// On a Unix socket.
    Socket(PathBuf),
}

/// Why an agent did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgentError {
    /// A right is missing.
    #[error(
        "you may not port-forward to pod {pod}: ask for the verbs get and create on pods/portforward in {namespace}"
    )]
    Forbidden {
        /// The namespace.
        namespace: String,
        /// The pod.
        pod: String,
    },
    /// It can't be reached.
    #[error("its agent can't be reached: {0}")]
    Unreachable(String),
    /// It took too long.
    #[error("its agent did not answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// It answers that it can't.
    #[error(transparent)]
    Failure(#[from] Failure),
    /// Its answer can't be read.
    #[error("its agent's answer can't be read by this version: {0}")]
    Unreadable(String),
}

impl AgentError {
    /// Returns whether asking again is of no use.
    pub const fn is_final(&self) -> bool {
        match self {
            Self::Failure(failure) => !failure.reason.is_transient(),
            Self::Forbidden { .. } => true,
            Self::Unreachable(_) | Self::TimedOut(_) | Self::Unreadable(_) => false,
        }
    }

    /// Returns whether the node has no such thing, which another one may have.
    pub fn is_elsewhere(&self) -> bool {
        matches!(self, Self::Failure(failure) if failure.reason.status() == 404)
    }
}

impl Agent {
    /// Asks for something.
    ///
    /// # Errors
    /// Fails where there is no answer that can be read.
    pub async fn get<T: DeserializeOwned>(&self, route: &Route) -> Result<T, AgentError> {
        let bytes = self.within(async { self.open(route).await?.whole().await }).await?;
        serde_json::from_slice(&bytes).map_err(|error| AgentError::Unreadable(error.to_string()))
    }

    /// Asks for something that is text.
    ///
    /// # Errors
    /// Fails where there is no answer.
    pub async fn text(&self, route: &Route) -> Result<String, AgentError> {
        let bytes = self.within(async { self.open(route).await?.whole().await }).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Asks for a stream, of which each line is a value.
    ///
    /// # Errors
    /// Fails where it does not begin.
    pub async fn lines(&self, route: &Route) -> Result<Lines, AgentError> {
        let answer = self.within(self.open(route)).await?;
        Ok(Lines { answer, buffer: Vec::new(), searched: 0 })
    }

    async fn within<T>(&self, work: impl Future<Output = Result<T, AgentError>>) -> Result<T, AgentError> {
        timeout(self.limit, work).await.unwrap_or(Err(AgentError::TimedOut(self.limit)))
    }

    async fn open(&self, route: &Route) -> Result<Answer, AgentError> {
        match &self.endpoint {
            Endpoint::Socket(path) => {
                let stream = UnixStream::connect(path).await;
                let stream = stream.map_err(|error| AgentError::Unreachable(format!("{}: {error}", path.display())))?;
                request(stream, route, None).await
            }
            Endpoint::Pod { client, namespace, pod } => {
                let mut forward = Api::<Pod>::namespaced(client.clone(), namespace)
                    .portforward(pod, &[PORT])
                    .await
                    .map_err(|error| refused(&error, namespace, pod))?;
                let lost = || AgentError::Unreachable("the port-forward has no stream".to_owned());
                let stream = forward.take_stream(PORT).ok_or_else(lost)?;
                let error = forward.take_error(PORT);
                match request(stream, route, Some(forward)).await {
                    // The API server's words say more than a connection that ends.
                    Err(AgentError::Unreachable(words)) => {
                        let said = async { Some(error?.await) };
                        let said = timeout(Duration::from_secs(1), said).await.ok().flatten().flatten();
                        Err(AgentError::Unreachable(said.unwrap_or(words)))
                    }
                    answer => answer,
                }
            }
        }
    }
}

fn refused(error: &kube::Error, namespace: &str, pod: &str) -> AgentError {
    let words = causes(error);
    // A refused upgrade has no status of the API's.
    let code = match error {
        kube::Error::Api(status) => status.code,
        kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(status)) => status.as_u16(),
        _ => 0,
    };
    if code == 403 {
        return AgentError::Forbidden { namespace: namespace.to_owned(), pod: pod.to_owned() };
    }
    AgentError::Unreachable(words)
}

async fn request(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    route: &Route,
    forward: Option<Portforwarder>,
) -> Result<Answer, AgentError> {
    let broken = |error: hyper::Error| AgentError::Unreachable(causes(&error));
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(broken)?;
    let task = tokio::spawn(async move { drop(connection.await) });
    let request = Request::get(format!("http://agent{}", route.path())).body(Empty::<Bytes>::new());
    let request = request.map_err(|error| AgentError::Unreachable(error.to_string()))?;
    let answer = sender.send_request(request).await.map_err(broken)?;
    let status = answer.status();
    let answer = Answer { body: answer.into_body(), _sender: sender, _forward: forward, _connection: Connection(task) };
    if status == StatusCode::OK {
        return Ok(answer);
    }
    let bytes = answer.whole().await?;
    let failure: Failure =
        serde_json::from_slice(&bytes).map_err(|_| AgentError::Unreadable(format!("HTTP {}", status.as_u16())))?;
    Err(failure.into())
}

/// The connection ends with the answer.
struct Connection(tokio::task::JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An answer whose body has not been read.
struct Answer {
    body: Incoming,
    _sender: http2::SendRequest<Empty<Bytes>>,
    _forward: Option<Portforwarder>,
    _connection: Connection,
}

impl Answer {
    async fn next(&mut self) -> Result<Option<Bytes>, AgentError> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| AgentError::Unreachable(causes(&error)))?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    async fn whole(mut self) -> Result<Vec<u8>, AgentError> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.next().await? {
            if bytes.len() + piece.len() > MAX_ANSWER {
                return Err(AgentError::Unreadable(format!("it has more than {MAX_ANSWER} bytes")));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }
}

/// A stream of values, one a line.
pub struct Lines {
    answer: Answer,
    buffer: Vec<u8>,
    /// So many bytes of the buffer have no end of a line.
    searched: usize,
}

impl Lines {
    /// Returns the next value, or None at the end.
    ///
    /// # Errors
    /// Fails where the connection ends within a line, or a line can't be read.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, AgentError> {
        loop {
            if let Some(line) = take_line(&mut self.buffer, &mut self.searched) {
                let value = serde_json::from_slice(&line);
                return value.map(Some).map_err(|error| AgentError::Unreadable(error.to_string()));
            }
            if self.buffer.len() > MAX_LINE {
                return Err(AgentError::Unreadable(format!("a line has more than {MAX_LINE} bytes")));
            }
            match self.answer.next().await? {
                Some(piece) => self.buffer.extend_from_slice(&piece),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(AgentError::Unreachable("the stream ends within a line".to_owned())),
            }
        }
    }
}

/// Takes the first line out of a buffer, if it is whole.
fn take_line(buffer: &mut Vec<u8>, searched: &mut usize) -> Option<Vec<u8>> {
    let end = buffer.get(*searched..).unwrap_or_default().iter().position(|byte| *byte == b'\n');
    let Some(end) = end.map(|end| end + *searched) else {
        *searched = buffer.len();
        return None;
    };
    let rest = buffer.split_off(end + 1);
    let mut line = std::mem::replace(buffer, rest);
    line.truncate(end);
    *searched = 0;
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_whole_however_they_arrive() {
        let text = b"{\"a\":1}\n\n{\"b\":2}\n{\"c\"";
        let (mut buffer, mut searched, mut lines) = (Vec::new(), 0, Vec::new());
        for byte in text {
            buffer.push(*byte);
            lines.extend(take_line(&mut buffer, &mut searched));
        }
        assert_eq!(lines, [&b"{\"a\":1}"[..], b"", b"{\"b\":2}"]);
        assert_eq!(buffer, b"{\"c\"");
    }
}
