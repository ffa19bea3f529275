//! [`Settings`]: what an administrator says of registries, and the bounds of what they may send. IO: none.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use sockeye_image::{Architecture, Limits};

use crate::Proxy;

/// How to reach registries.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The settings that differ, by the registry as references name it: host, and port if they name one.
    pub registries: BTreeMap<String, RegistrySettings>,
    /// Certificates of authorities, in PEM, that are trusted beside those of the system.
    pub authorities: Vec<u8>,
    /// True if the system's authorities are trusted.
    pub system_authorities: bool,
    /// The proxy for HTTPS, if there is one.
    pub proxy: Option<Proxy>,
    /// The architectures whose images are pulled out of an index.
    pub architectures: Vec<Architecture>,
    /// The bounds of images.
    pub limits: Limits,
    /// The bounds of everything else that arrives.
    pub answers: AnswerLimits,
    /// The bounds of time.
    pub timeouts: Timeouts,
    /// The name that the client gives itself.
    pub user_agent: String,
}

/// The settings of one registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RegistrySettings {
    /// True if it is spoken to over plain HTTP, secrets included.
    pub insecure: bool,
    /// The hosts, `host` or `host:port`, that may be shown its secret to get a token, beside the registry itself.
    pub realm_hosts: Vec<String>,
}

/// Bounds answers that are no part of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerLimits {
    /// The bytes of an answer's status line and header.
    pub header: usize,
    /// The fields of a header.
    pub header_fields: usize,
    /// The bytes of an answer with a token. Tokens have some KiB.
    pub token: u64,
    /// The bytes that are read of an error.
    pub error: u64,
    /// The bytes of a signature, bundle or text.
    pub signature: u64,
    /// The referrers of one digest.
    pub referrers: usize,
    /// The pages of a list of referrers.
    pub pages: usize,
    /// The redirects of one request.
    pub redirects: usize,
}

impl Default for AnswerLimits {
    fn default() -> Self {
        Self {
            header: 64 << 10,
            header_fields: 100,
            token: 64 << 10,
            error: 4 << 10,
            signature: 256 << 10,
            referrers: 256,
            pages: 16,
            redirects: 5,
        }
    }
}

/// Bounds time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To look up the name, connect, and agree on TLS.
    pub connect: Duration,
    /// Between a request and the end of the answer's header, and between two pieces of its body.
    pub silence: Duration,
    /// To resolve a tag, whatever it takes.
    pub resolve: Duration,
    /// To pull an image for all architectures. 64 MiB in this time are 5 Mbit/s.
    pub pull: Duration,
    /// To fetch all signatures of an image.
    pub signatures: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            silence: Duration::from_secs(15),
            resolve: Duration::from_secs(30),
            pull: Duration::from_secs(120),
            signatures: Duration::from_secs(60),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            registries: BTreeMap::new(),
            authorities: Vec::new(),
            system_authorities: true,
            proxy: None,
            architectures: Architecture::supported().to_vec(),
            limits: Limits::default(),
            answers: AnswerLimits::default(),
            timeouts: Timeouts::default(),
            user_agent: concat!("sockeye/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

impl Settings {
    /// Returns what is special about a registry.
    pub fn of(&self, registry: &str) -> RegistrySettings {
        self.registries.get(registry).cloned().unwrap_or_default()
    }
}
