//! The content of a registry, and clients of it.

use std::{collections::BTreeMap, time::Duration};

use sockeye_image::{Digest, Reference, manifest::OCI_MANIFEST};
use sockeye_registry::{Client, Credentials, RegistrySettings, Settings, Timeouts};

use crate::server::{Reply, Seen, Server, answer, of_head, ok};

/// Manifests, blobs and lists by their paths.
#[derive(Clone, Default)]
pub struct Content(BTreeMap<String, (String, Vec<u8>)>);

impl Content {
    /// Adds a manifest or index under its digest, and under a tag if one is given.
    pub fn manifest(mut self, tag: &str, bytes: &[u8]) -> Self {
        let text: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
        let kind = text["mediaType"].as_str().unwrap_or(OCI_MANIFEST).to_owned();
        for name in [tag, Digest::of(bytes).as_str()] {
            self.0.insert(format!("/v2/team/guard/manifests/{name}"), (kind.clone(), bytes.to_vec()));
        }
        self
    }

    /// Adds a blob.
    pub fn blob(self, bytes: &[u8]) -> Self {
        let path = format!("/v2/team/guard/blobs/{}", Digest::of(bytes));
        self.at(&path, "application/octet-stream", bytes)
    }

    /// Adds what a path has.
    pub fn at(mut self, path: &str, media_type: &str, bytes: &[u8]) -> Self {
        self.0.insert(path.to_owned(), (media_type.to_owned(), bytes.to_vec()));
        self
    }

    /// Answers a request as a registry does.
    pub fn reply(&self, seen: &Seen) -> Reply {
        let (method, path) = seen.line.split_once(' ').unwrap_or_default();
        match self.0.get(path) {
            Some((_, bytes)) if method == "HEAD" => of_head(Digest::of(bytes).as_str()),
            Some((media_type, bytes)) => ok(media_type, bytes),
            None => answer(404, &[], br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"not here"}]}"#),
        }
    }
}

/// The times in tests of others than them: long enough for a busy machine.
pub fn timeouts() -> Timeouts {
    let long = Duration::from_secs(60);
    Timeouts { connect: long, silence: Duration::from_secs(10), resolve: long, pull: long, signatures: long }
}

/// Returns settings in which these registries have no TLS.
pub fn insecure(servers: &[&Server]) -> Settings {
    let settings = RegistrySettings { insecure: true, realm_hosts: Vec::new() };
    Settings {
        registries: servers.iter().map(|server| (server.authority.clone(), settings.clone())).collect(),
        system_authorities: false,
        timeouts: timeouts(),
        ..Settings::default()
    }
}

/// Returns a client of one registry without TLS, with these times.
pub fn client_with(server: &Server, timeouts: Timeouts) -> Client {
    Client::new(Settings { timeouts, ..insecure(&[server]) }).unwrap()
}

/// Returns a client of one registry without TLS.
pub fn client_of(server: &Server) -> Client {
    Client::new(insecure(&[server])).unwrap()
}

/// Returns a pull secret for a registry.
pub fn secret(registry: &str) -> Credentials {
    let config = serde_json::json!({"auths": {registry: {"username": "user", "password": "open sesame"}}});
    Credentials::from_docker_config(config.to_string().as_bytes()).unwrap()
}

/// The same secret as it is on the wire.
pub const BASIC: &str = "Basic dXNlcjpvcGVuIHNlc2FtZQ==";

/// Returns the reference of the image that all tests pull.
pub fn image(server: &Server) -> Reference {
    format!("{}/team/guard:v1", server.authority).parse().unwrap()
}
