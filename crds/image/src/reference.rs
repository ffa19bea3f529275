//! [`Reference`]: the name of an image. IO: none.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use crate::{
    Digest,
    error::{Error, shown},
};

/// The names of Docker Hub's registry, under which it has the same repositories. References say the first one.
pub const DOCKER_HUB: [&str; 4] = ["docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"];
/// The tag that a reference without tag and digest stands for, as everywhere in Kubernetes.
const DEFAULT_TAG: &str = "latest";
/// The longest reference. A registry's host has 253 bytes at most, a repository 255, a tag 128.
const MAX: usize = 800;
/// The longest repository (distribution/reference, `RepositoryNameTotalLengthMax`).
const MAX_REPOSITORY: usize = 255;
/// The longest tag (distribution/reference, `tag`).
const MAX_TAG: usize = 128;
/// The longest name of a host (RFC 1035).
const MAX_HOST: usize = 253;

/// The name of an image: `registry/repository`, then `:tag`, `@digest` or both, as github.com/distribution/reference
/// reads it. Unlike there, the registry is never left out: it decides who may be asked with which secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// The registry's host in lower case, and its port if it is named.
    pub registry: String,
    /// The repository, such as `team/guard`.
    pub repository: String,
    /// The tag, if one is named.
    pub tag: Option<String>,
    /// The digest, if one is named. It decides, whatever the tag.
    pub digest: Option<Digest>,
}

impl Reference {
    /// Returns the tag to ask for where no digest is named: `latest` if there is none.
    pub fn tag_or_latest(&self) -> &str {
        self.tag.as_deref().unwrap_or(DEFAULT_TAG)
    }

    /// Returns the registry and the repository: the image without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).map_err(|problem| Error::Reference { reference: shown(text), problem: problem.to_owned() })
    }
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    if text.len() > MAX {
        return Err("is longer than 800 bytes");
    }
    if text.contains("://") {
        return Err("has a scheme: leave out https:// or oci://");
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => {
            (rest, Some(digest.parse().map_err(|_| "has no digest behind its @: write sha256: and 64 digits")?))
        }
        None => (text, None),
    };
    let (registry, path) = rest.split_once('/').filter(|(host, _)| names_host(host)).ok_or(
        "names no registry: write its host first, as registry.example.com/team/guard:v1, and docker.io for Docker Hub",
    )?;
    if !is_host(registry) {
        return Err(
            "has no valid registry in front: a name or address and at most a port, as registry.example.com:5000",
        );
    }
    let (repository, tag) = match path.split_once(':') {
        Some((repository, tag)) => (repository, Some(tag)),
        None => (path, None),
    };
    if repository.len() > MAX_REPOSITORY || !repository.split('/').all(is_component) {
        return Err("has no valid repository: lower-case letters and digits, separated by one of . _ __ - and by /");
    }
    if !tag.is_none_or(is_tag) {
        return Err("has no valid tag: up to 128 letters, digits, _ . and -, and neither . nor - first");
    }
    Ok(Reference {
        registry: registry.to_ascii_lowercase(),
        repository: repository.to_owned(),
        tag: tag.map(str::to_owned),
        digest,
    })
}

/// Tells whether the first part of a name is a host, as distribution/reference decides (`splitDockerDomain`).
fn names_host(part: &str) -> bool {
    part.contains(['.', ':']) || part == "localhost" || part.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn is_host(text: &str) -> bool {
    let (is_host, rest) = match text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        Some((address, rest)) => (address.parse::<Ipv6Addr>().is_ok(), rest),
        None => {
            let (name, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
            (name.len() <= MAX_HOST && name.split('.').all(is_label), rest)
        }
    };
    is_host && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port))
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port != 0)
}

fn is_label(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(is_inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// Tells whether text is one part of a repository: letters and digits, separated by `.`, `_`, `__` or several `-`.
fn is_component(text: &str) -> bool {
    let is_letter = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit();
    let is_separator = |text: &str| matches!(text, "." | "_" | "__") || text.bytes().all(|byte| byte == b'-');
    text.starts_with(is_letter) && text.ends_with(is_letter) && text.split(is_letter).all(is_separator)
}

fn is_tag(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (1..=MAX_TAG).contains(&text.len()) && text.bytes().all(is_letter) && !text.starts_with(['.', '-'])
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(formatter, ":{tag}")?;
        }
        self.digest.as_ref().map_or(Ok(()), |digest| write!(formatter, "@{digest}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest() -> String {
        Digest::of(b"").to_string()
    }

    #[test]
    fn references_are_read_and_written_alike() {
        let digest = digest();
        for (text, registry, repository, tag) in [
            ("registry.example.com/guard", "registry.example.com", "guard", None),
            ("registry.example.com/a/b/c:v1", "registry.example.com", "a/b/c", Some("v1")),
            ("localhost/guard:v1", "localhost", "guard", Some("v1")),
            ("localhost:5000/guard:V1.0-rc_1", "localhost:5000", "guard", Some("V1.0-rc_1")),
            ("127.0.0.1:5000/a__b/c--d/e.f_g", "127.0.0.1:5000", "a__b/c--d/e.f_g", None),
            ("[::1]:5000/guard", "[::1]:5000", "guard", None),
            ("[2001:db8::1]/guard:x", "[2001:db8::1]", "guard", Some("x")),
            ("docker.io/library/guard:x", "docker.io", "library/guard", Some("x")),
        ] {
            for with in [String::new(), format!("@{digest}")] {
                let text = format!("{text}{with}");
                let read: Reference = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
                assert_eq!((read.registry.as_str(), read.repository.as_str()), (registry, repository), "{text}");
                assert_eq!(read.tag.as_deref(), tag, "{text}");
                assert_eq!(read.digest.is_some(), !with.is_empty(), "{text}");
                assert_eq!(read.to_string(), text);
            }
        }
    }

    #[test]
    fn hosts_are_read_in_lower_case_since_secrets_are_chosen_by_them() {
        let read: Reference = "Registry.Example.COM:5000/guard:V1".parse().unwrap();
        assert_eq!(read.to_string(), "registry.example.com:5000/guard:V1");
    }

    #[test]
    fn what_is_no_reference_is_refused_with_what_to_write() {
        let long = format!("a.b/{}", "a".repeat(256));
        let tag = format!("a.b/c:{}", "a".repeat(129));
        for (text, named) in [
            ("guard", "names no registry"),
            ("guard:v1", "names no registry"),
            ("team/guard:v1", "names no registry"),
            ("", "names no registry"),
            ("/guard", "names no registry"),
            ("https://a.b/c", "scheme"),
            ("oci://a.b/c", "scheme"),
            ("a.b/", "repository"),
            ("a.b//c", "repository"),
            ("a.b/c/", "repository"),
            ("a.b/C", "repository"),
            ("a.b/c___d", "repository"),
            ("a.b/c..d", "repository"),
            ("a.b/-c", "repository"),
            ("a.b/../c", "repository"),
            ("a.b/c?x=1", "repository"),
            ("a.b/c%2f", "repository"),
            ("a.b/c d", "repository"),
            ("a.b/c\r\nX: y", "repository"),
            (&long, "repository"),
            ("a.b/c:", "tag"),
            ("a.b/c:.x", "tag"),
            ("a.b/c:x:y", "tag"),
            ("a.b/c:x/y", "tag"),
            (&tag, "tag"),
            ("a.b/c@", "digest"),
            ("a.b/c@sha256:00", "digest"),
            ("a.b/c@sha512:00", "digest"),
            ("a.b:/c", "registry in front"),
            ("a.b:0/c", "registry in front"),
            ("a.b:65536/c", "registry in front"),
            ("a.b:+80/c", "registry in front"),
            ("a..b/c", "registry in front"),
            ("-a.b/c", "registry in front"),
            ("[::1/c", "registry in front"),
            ("[::1]5000/c", "registry in front"),
            ("[x:y]/c", "registry in front"),
            ("user:secret/c", "registry in front"),
            ("a_b.c/d", "registry in front"),
        ] {
            let error = text.parse::<Reference>().expect_err(text).to_string();
            assert!(error.contains(named), "{text}: {error}");
            assert!(!error.contains(['\r', '\n']), "{error}");
        }
    }

    #[test]
    fn a_reference_without_tag_and_digest_is_that_of_latest() {
        let read: Reference = "a.b/c".parse().unwrap();
        assert_eq!((read.tag_or_latest(), read.name().as_str()), ("latest", "a.b/c"));
    }
}
