//! [`Registry`]: a registry on loopback, over plain HTTP, whose content is a table.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use sockeye_image::Digest;
use sockeye_provenance::fixtures::Image;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// A registry. It ends with its last clone and the runtime.
#[derive(Clone)]
pub struct Registry {
    /// Its host and port.
    pub host: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// The answers, by path: the media type and the bytes.
    content: BTreeMap<String, (String, Vec<u8>)>,
    requests: Vec<String>,
    /// The Authorization header that is asked for.
    wants: Option<String>,
    is_away: bool,
}

impl Registry {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let registry = Self { host, state: Arc::default() };
        let served = registry.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let served = served.clone();
                tokio::spawn(async move { served.serve(stream).await });
            }
        });
        registry
    }

    /// Pushes an image under a tag. Returns its reference.
    pub fn push(&self, repository: &str, tag: &str, object: &[u8], image: &Image) -> String {
        let archive = &image.archive;
        self.put_manifest(repository, MANIFEST, &archive.manifest);
        if let Some(index) = &archive.index {
            self.put_manifest(repository, INDEX, index);
        }
        let layer = archive.layer.as_deref().unwrap_or(object);
        self.put_blob(repository, layer);
        self.put_blob(repository, &image.config);
        let (media_type, top) = archive.index.as_ref().map_or((MANIFEST, &archive.manifest), |index| (INDEX, index));
        self.put(format!("/v2/{repository}/manifests/{tag}"), media_type, top);
        format!("{}/{repository}:{tag}", self.host)
    }

    /// Pushes a signature of an image, under the fallback tag of its digest.
    pub fn push_bundle(&self, repository: &str, digest: &str, bundle: &[u8]) {
        self.put_blob(repository, bundle);
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": BUNDLE,
            "config": {"mediaType": EMPTY, "digest": Digest::of(b"{}").as_str(), "size": 2},
            "layers": [{"mediaType": BUNDLE, "digest": Digest::of(bundle).as_str(), "size": bundle.len()}],
            "subject": {"mediaType": MANIFEST, "digest": digest, "size": 1},
        });
        let manifest = manifest.to_string().into_bytes();
        self.put_manifest(repository, MANIFEST, &manifest);
        let list = serde_json::json!({
            "schemaVersion": 2, "mediaType": INDEX,
            "manifests": [{"mediaType": MANIFEST, "digest": Digest::of(&manifest).as_str(), "size": manifest.len(),
                "artifactType": EMPTY}],
        });
        let tag = digest.replace(':', "-");
        self.put(format!("/v2/{repository}/manifests/{tag}"), INDEX, list.to_string().as_bytes());
    }

    /// Lets in only who sends this header.
    pub fn want_authorization(&self, header: &str) {
        self.state().wants = Some(header.to_owned());
    }

    /// Has it close every connection, or serve again.
    pub fn set_away(&self, is_away: bool) {
        self.state().is_away = is_away;
    }

    /// Returns the paths that were asked for, and forgets them.
    pub fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state().requests)
    }

    fn put_manifest(&self, repository: &str, media_type: &str, bytes: &[u8]) {
        self.put(format!("/v2/{repository}/manifests/{}", Digest::of(bytes)), media_type, bytes);
    }

    fn put_blob(&self, repository: &str, bytes: &[u8]) {
        self.put(format!("/v2/{repository}/blobs/{}", Digest::of(bytes)), "application/octet-stream", bytes);
    }

    fn put(&self, path: String, media_type: &str, bytes: &[u8]) {
        self.state().content.insert(path, (media_type.to_owned(), bytes.to_vec()));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn serve(&self, mut stream: TcpStream) {
        let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            match stream.read(&mut buffer).await {
                Ok(1..) if self.state().is_away => return,
                Ok(read @ 1..) => head.extend_from_slice(&buffer[..read]),
                _ => return,
            }
        }
        let answer = self.answer(&String::from_utf8_lossy(&head));
        let _ = stream.write_all(&answer).await;
        let _ = stream.shutdown().await;
    }

    fn answer(&self, head: &str) -> Vec<u8> {
        let mut state = self.state();
        let mut words = head.split_ascii_whitespace();
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().to_owned());
        state.requests.push(path.clone());
        let is_sent = |wanted: &str| {
            let mut fields = head.lines().filter_map(|line| line.split_once(": "));
            fields.any(|(name, value)| name.eq_ignore_ascii_case("authorization") && value == wanted)
        };
        if state.wants.as_deref().is_some_and(|wanted| !is_sent(wanted)) {
            return b"HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic realm=\"r\"\r\ncontent-length: 0\r\n\
                connection: close\r\n\r\n"
                .to_vec();
        }
        let Some((media_type, bytes)) = state.content.get(&path) else {
            return b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec();
        };
        let mut answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {media_type}\r\ncontent-length: {}\r\ndocker-content-digest: {}\r\n\
             connection: close\r\n\r\n",
            bytes.len(),
            Digest::of(bytes)
        )
        .into_bytes();
        if method == "GET" {
            answer.extend_from_slice(bytes);
        }
        answer
    }
}
