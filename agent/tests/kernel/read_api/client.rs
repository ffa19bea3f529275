//! A client of the read API on an agent's Unix socket.

use std::path::PathBuf;

use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    body::{Bytes, Incoming},
    client::conn::http2::{SendRequest, handshake},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::de::DeserializeOwned;
use serde_json::Value;
use sockeye_read_api::{Failure, Route, map::Entries, route::EntriesQuery};
use tokio::{net::UnixStream, runtime::Runtime};

use crate::node::Node;

/// The arguments that have a node's agent serve the API.
pub fn arguments(node: &Node) -> [String; 2] {
    ["--read-api-socket".to_owned(), socket(node).display().to_string()]
}

/// Returns the path of a node's socket.
pub fn socket(node: &Node) -> PathBuf {
    node.folder().join("read.sock")
}

/// Starts a node's agent with the API.
pub fn start(node: &mut Node) -> Client {
    let arguments = arguments(node);
    node.start_with(&arguments.each_ref().map(String::as_str));
    let client = Client { socket: socket(node), runtime: Runtime::new().unwrap() };
    node.until("an answer", |_| client.try_get("/v1/node").is_some_and(|(status, _)| status == 200));
    client
}

pub struct Client {
    socket: PathBuf,
    runtime: Runtime,
}

/// Opens a connection.
pub async fn connect(socket: &PathBuf) -> Option<SendRequest<Empty<Bytes>>> {
    let stream = UnixStream::connect(socket).await.ok()?;
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    Some(sender)
}

/// Asks for a path. `None` if the connection ends without an answer.
pub async fn request(sender: &mut SendRequest<Empty<Bytes>>, path: &str) -> Option<Response<Incoming>> {
    let request = Request::get(format!("http://node{path}")).body(Empty::new()).unwrap();
    sender.send_request(request).await.ok()
}

impl Client {
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    fn try_get(&self, path: &str) -> Option<(u16, Vec<u8>)> {
        self.runtime.block_on(async {
            let mut sender = connect(&self.socket).await?;
            let response = request(&mut sender, path).await?;
            let status = response.status().as_u16();
            Some((status, response.into_body().collect().await.ok()?.to_bytes().to_vec()))
        })
    }

    /// Asks for a path, and returns the status and the body.
    pub fn get(&self, path: &str) -> (u16, Vec<u8>) {
        self.try_get(path).unwrap_or_else(|| panic!("{path}: no answer"))
    }

    /// Asks for something that is there.
    pub fn read<T: DeserializeOwned>(&self, route: &Route) -> T {
        let path = route.path();
        let (status, body) = self.get(&path);
        assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body)
            .unwrap_or_else(|error| panic!("{path}: {error}: {}", String::from_utf8_lossy(&body)))
    }

    /// Asks for something that is not there.
    pub fn fails(&self, path: &str) -> Failure {
        let (status, body) = self.get(path);
        let failure: Failure = serde_json::from_slice(&body).unwrap();
        assert_eq!(status, failure.reason.status(), "{path}: {failure}");
        failure
    }

    /// Returns a page of a map.
    pub fn page(&self, program: &str, map: &str, query: EntriesQuery) -> Entries {
        self.read(&Route::Entries { program: program.to_owned(), map: map.to_owned(), query })
    }

    /// Returns all entries of a map, read in pages.
    pub fn entries(&self, program: &str, map: &str, limit: u32) -> Vec<(Value, Option<Value>)> {
        let mut query = EntriesQuery { limit, ..EntriesQuery::default() };
        let mut all = Vec::new();
        loop {
            let page = self.page(program, map, query.clone());
            assert!(page.entries.len() <= limit as usize && page.undecoded.is_none(), "{page:?}");
            all.extend(page.entries.into_iter().map(|entry| (entry.key, entry.value)));
            let Some(next) = page.next else { return all };
            query.after = Some(next);
        }
    }
}
