//! [`Credentials`]: the content of a pull secret. IO: none.
//!
//! It is a Secret of type `kubernetes.io/dockerconfigjson`, read as the kubelet reads it
//! (pkg/credentialprovider/config.go and keyring.go), but for wildcards in hosts. Credential helpers would be programs
//! of a machine; there are none here.

use std::{collections::BTreeMap, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::HeaderValue;
use serde::Deserialize;
use sockeye_image::{DOCKER_HUB, Reference};

use crate::Error;

/// The most bytes of a Secret (Kubernetes, `MaxSecretSize`).
const MAX: usize = 1 << 20;

/// User names and passwords, by registry and repository.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials(Vec<Entry>);

#[derive(Clone, PartialEq, Eq)]
struct Entry {
    host: String,
    /// The beginning of the repositories that it is for; empty if it is for all.
    path: String,
    secret: Basic,
}

/// A user name and a password, as HTTP's Basic scheme sends them (RFC 7617).
#[derive(Clone, PartialEq, Eq)]
pub struct Basic(HeaderValue);

#[derive(Deserialize)]
struct DockerConfig {
    auths: BTreeMap<String, Auth>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
struct Auth {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
    #[serde(default)]
    identitytoken: String,
    #[serde(default)]
    registrytoken: String,
}

impl Credentials {
    /// Reads the `.dockerconfigjson` of a Secret.
    ///
    /// # Errors
    /// Fails where it is none, or has something else than user names and passwords. No error has a part of a secret.
    pub fn from_docker_config(bytes: &[u8]) -> Result<Self, Error> {
        let wrong = |problem: &str| Error::Credentials(problem.to_owned());
        if bytes.len() > MAX {
            return Err(wrong("has more than 1 MiB"));
        }
        // serde's own error quotes what it does not like.
        let config: DockerConfig = serde_json::from_slice(bytes).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            Error::Credentials(format!(
                "is no .dockerconfigjson (line {line}, column {column}): make it by `kubectl create secret \
                 docker-registry`"
            ))
        })?;
        let mut entries = Vec::new();
        for (key, auth) in config.auths {
            let secret = auth.basic().map_err(|problem| Error::Credentials(format!("has for {key:.100} {problem}")))?;
            if let Some(secret) = secret {
                let (host, path) = split_key(&key);
                entries.push(Entry { host, path, secret });
            }
        }
        // The longest path is the closest; the sort keeps the order of equals.
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.path.len()));
        Ok(Self(entries))
    }

    /// Returns what the registry of an image is to be shown.
    pub fn of(&self, reference: &Reference) -> Option<&Basic> {
        let is_hub = |host: &str| DOCKER_HUB.contains(&host);
        let registry = reference.registry.as_str();
        let fits = |entry: &&Entry| {
            (entry.host == registry || is_hub(&entry.host) && is_hub(registry))
                && is_within(&reference.repository, &entry.path)
        };
        self.0.iter().find(fits).map(|entry| &entry.secret)
    }
}

impl Basic {
    /// Encodes a user name and a password.
    fn new(user: &str, password: &str) -> Option<Self> {
        let text = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        let mut header = HeaderValue::try_from(text).ok()?;
        header.set_sensitive(true);
        Some(Self(header))
    }

    /// Returns the value of the header `Authorization`.
    pub fn header(&self) -> &HeaderValue {
        &self.0
    }
}

impl Auth {
    fn basic(&self) -> Result<Option<Basic>, &'static str> {
        let (user, password) = if !self.username.is_empty() || !self.password.is_empty() {
            (self.username.clone(), self.password.clone())
        } else if !self.auth.is_empty() {
            const NO_AUTH: &str = "an auth that is not the base64 of a user name, a colon and a password";
            // docker pads with NUL bytes, and some tools wrap lines.
            let text: String = self.auth.chars().filter(|char| !char.is_ascii_whitespace()).collect();
            let bytes = STANDARD.decode(text).map_err(|_| NO_AUTH)?;
            let text = String::from_utf8(bytes).map_err(|_| NO_AUTH)?;
            let (user, password) = text.split_once(':').ok_or(NO_AUTH)?;
            (user.to_owned(), password.trim_end_matches('\0').to_owned())
        } else if !self.identitytoken.is_empty() || !self.registrytoken.is_empty() {
            return Err("a token, which is not supported; use a user name and a password");
        } else {
            return Ok(None);
        };
        if user.contains(':') {
            return Err("a user name with a colon, which HTTP can't send");
        }
        Ok(Basic::new(&user, &password))
    }
}

/// Splits a key, such as `host`, `host:port/path` or `https://host/v1/`, into host and path.
fn split_key(key: &str) -> (String, String) {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    let path = path.trim_matches('/');
    // Keys of before had the version of the API there.
    let path =
        path.strip_prefix("v1").or_else(|| path.strip_prefix("v2")).filter(|rest| !is_word(rest)).unwrap_or(path);
    (host.to_ascii_lowercase(), path.trim_matches('/').to_owned())
}

fn is_word(rest: &str) -> bool {
    !rest.is_empty() && !rest.starts_with('/')
}

/// Tells whether a repository is the path or lies below it.
fn is_within(repository: &str, path: &str) -> bool {
    path.is_empty() || repository.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<_> = self.0.iter().map(|entry| (&entry.host, &entry.path)).collect();
        formatter.debug_tuple("Credentials").field(&hosts).finish()
    }
}

impl fmt::Debug for Basic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Basic(_)")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(auths: &Value) -> Result<Credentials, Error> {
        Credentials::from_docker_config(json!({ "auths": auths }).to_string().as_bytes())
    }

    fn user(name: &str) -> Value {
        json!({"username": name, "password": "p"})
    }

    /// Returns the user whose password an image's registry is shown.
    fn shown(credentials: &Credentials, image: &str) -> Option<String> {
        let basic = credentials.of(&image.parse().unwrap())?.header().to_str().unwrap().to_owned();
        let decoded = STANDARD.decode(basic.strip_prefix("Basic ")?).unwrap();
        Some(String::from_utf8(decoded).unwrap().split_once(':')?.0.to_owned())
    }

    #[test]
    fn the_closest_key_decides_and_hosts_are_whole() {
        let credentials = read(&json!({
            "registry.example.com": user("all"),
            "registry.example.com/team": user("team"),
            "https://registry.example.com/v2/team/guard": user("guard"),
            "registry.example.com:5000": user("port"),
            "HTTPS.example.com": user("case"),
            "v1.example.com/v1": user("version"),
            "words.example.com/v1beta": user("word"),
            "https://index.docker.io/v1/": user("hub"),
        }))
        .unwrap();
        for (image, name) in [
            ("registry.example.com/other", Some("all")),
            ("registry.example.com/team", Some("team")),
            ("registry.example.com/team/x", Some("team")),
            ("registry.example.com/team/guard/x", Some("guard")),
            ("registry.example.com/teams/x", Some("all")),
            ("registry.example.com:5000/team/x", Some("port")),
            ("registry.example.com:5001/team/x", None),
            ("https.example.com/x", Some("case")),
            ("v1.example.com/x", Some("version")),
            ("words.example.com/v1beta/x", Some("word")),
            ("words.example.com/x", None),
            ("docker.io/team/x", Some("hub")),
            ("registry-1.docker.io/team/x", Some("hub")),
            ("evil-registry.example.com/x", None),
            ("example.com/x", None),
        ] {
            assert_eq!(shown(&credentials, image).as_deref(), name, "{image}");
        }
    }

    #[test]
    fn both_forms_of_a_password_are_read() {
        for auth in [
            json!({"username": "me", "password": "a:b"}),
            json!({"auth": STANDARD.encode("me:a:b")}),
            json!({"auth": STANDARD.encode("me:a:b\0\0"), "email": "x@y"}),
            json!({"username": "me", "password": "a:b", "auth": "ignored"}),
        ] {
            let credentials = read(&json!({"a.b": auth})).unwrap();
            let header = credentials.of(&"a.b/c".parse().unwrap()).unwrap().header().clone();
            assert_eq!(header, format!("Basic {}", STANDARD.encode("me:a:b")).as_str());
            assert!(header.is_sensitive() && format!("{credentials:?} {header:?}").find("bWU6").is_none());
        }
        assert_eq!(read(&json!({"a.b": {}})).unwrap(), Credentials::default());
    }

    #[test]
    fn what_is_no_pull_secret_is_refused_without_a_word_of_it() {
        for text in [
            "",
            "secret",
            "[]",
            "{}",
            r#"{"auths":{"a.b":{"auth":"secret"}}}"#,
            r#"{"auths":{"a.b":{"auth":"c2VjcmV0"}}}"#,
            r#"{"auths":{"a.b":"secret"}}"#,
            r#"{"auths":{"a.b":{"identitytoken":"secret"}}}"#,
            r#"{"auths":{"a.b":{"username":"sec:ret","password":"secret"}}}"#,
        ] {
            let error = Credentials::from_docker_config(text.as_bytes()).unwrap_err().to_string();
            assert!(
                !error.contains("secret\"") && !error.contains("sec:ret") && !error.contains("c2VjcmV0"),
                "{error}"
            );
        }
        let large = format!(r#"{{"auths":{{}},"x":"{}"}}"#, "x".repeat(1 << 20));
        assert!(Credentials::from_docker_config(large.as_bytes()).is_err());
    }
}
