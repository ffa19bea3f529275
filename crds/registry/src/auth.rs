//! [`Auth`]: what a registry is shown to know who asks, and for how long. IO: requests for tokens.
//!
//! A secret goes to the registry itself: the same host and port, and never over plain HTTP unless the registry is set
//! insecure. A registry can have its tokens issued elsewhere; there the secret goes only if an administrator named that
//! host for that registry. Whoever runs a registry could otherwise have the secrets of all its users sent anywhere.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::Full;
use serde::Deserialize;
use sockeye_image::{Reference, shown};
use tokio::time::Instant;

use crate::{
    Credentials, Error, Settings,
    challenge::Challenge,
    credentials::Basic,
    transport::{Answer, Transport},
    url::{Url, add_parameter},
};

/// The validity of a token whose answer says none (distribution, docs/content/spec/auth/token.md).
const DEFAULT_VALIDITY: u64 = 60;
/// The longest that a token is kept.
const MAX_VALIDITY: u64 = 3600;
/// A token is renewed so long before its end.
const MARGIN: u64 = 10;
/// The most repositories whose tokens are kept.
const MAX_KEPT: usize = 1024;
/// The longest token. It has to fit into a header.
const MAX_TOKEN: usize = 16 << 10;

/// Knows the secrets, and keeps the tokens that were got for them.
pub struct Auth {
    settings: Arc<Settings>,
    credentials: Credentials,
    purpose: Purpose,
    /// The credentials that were shown last, by registry and repository.
    kept: Mutex<HashMap<String, Kept>>,
}

/// The purpose of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Pull,
    Push,
}

struct Kept {
    header: HeaderValue,
    until: Instant,
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

impl Auth {
    /// Returns one that has these credentials and no tokens.
    pub fn new(settings: Arc<Settings>, credentials: Credentials) -> Self {
        Self { settings, credentials, purpose: Purpose::Pull, kept: Mutex::default() }
    }

    /// Returns one with the same credentials, whose tokens allow to push too.
    #[must_use]
    pub fn for_pushing(&self) -> Self {
        let (settings, credentials) = (Arc::clone(&self.settings), self.credentials.clone());
        Self { settings, credentials, purpose: Purpose::Push, kept: Mutex::default() }
    }

    /// Tells whether there is a secret for an image.
    pub fn has_secret(&self, reference: &Reference) -> bool {
        self.credentials.of(reference).is_some()
    }

    /// Returns what was shown last for an image, while it is valid.
    pub fn kept(&self, reference: &Reference) -> Option<HeaderValue> {
        let kept = self.lock();
        kept.get(&reference.name()).filter(|kept| kept.until > Instant::now()).map(|kept| kept.header.clone())
    }

    /// Returns what a registry asks for by its challenges, or None if that needs a secret and there is none.
    ///
    /// # Errors
    /// Fails where the registry asks for what is not known here, no token is issued, or the secret would go elsewhere.
    pub async fn answer(
        &self,
        transport: &Transport,
        registry: &Url,
        reference: &Reference,
        challenges: &[Challenge],
    ) -> Result<Option<HeaderValue>, Error> {
        self.lock().remove(&reference.name());
        let secret = self.credentials.of(reference);
        let bearer = challenges.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        let (header, validity) = match (bearer, secret) {
            (Some(Challenge::Bearer { realm, service }), secret) => {
                let realm = self.realm(registry, reference, realm, secret.is_some())?;
                let url = token_url(&realm, reference, service.as_deref(), self.purpose);
                self.token(transport, reference, &url, secret).await?
            }
            (_, Some(secret)) if challenges.contains(&Challenge::Basic) => (secret.header().clone(), MAX_VALIDITY),
            (_, None) if challenges.contains(&Challenge::Basic) => return Ok(None),
            _ => {
                return Err(Error::Unexpected {
                    what: reference.to_string(),
                    host: registry.host_and_port(),
                    problem: "refuses, and asks neither for a Bearer token nor for Basic authentication".to_owned(),
                });
            }
        };
        self.keep(reference, header.clone(), validity);
        Ok(Some(header))
    }

    /// Reads where tokens are issued, and refuses what is unsafe.
    fn realm(&self, registry: &Url, reference: &Reference, realm: &str, has_secret: bool) -> Result<Url, Error> {
        let wrong = |realm: &str, problem: String| Error::Realm {
            registry: reference.registry.clone(),
            realm: realm.to_owned(),
            problem,
        };
        let url = Url::parse(realm)
            .map_err(|problem| wrong(&format!("\"{}\"", shown(realm)), format!("which leads {problem}")))?;
        let settings = self.settings.of(&reference.registry);
        let is_own = (&url.host, url.port) == (&registry.host, registry.port);
        let is_named = settings.realm_hosts.iter().any(|host| *host == url.host_and_port() || *host == url.authority());
        if !url.is_https && !(settings.insecure && (is_own || is_named)) {
            let problem = "over plain HTTP; that is used only for a registry that is set insecure, at its own host or \
                           at one of its realm hosts";
            return Err(wrong(&url.host_and_port(), problem.to_owned()));
        }
        if has_secret && !is_own && !is_named {
            let (registry, host) = (&reference.registry, url.authority());
            let problem = format!(
                "which is not shown the pull secret: if {host} is right, name it among the realm hosts of {registry}"
            );
            return Err(wrong(&url.host_and_port(), problem));
        }
        Ok(url)
    }

    async fn token(
        &self,
        transport: &Transport,
        reference: &Reference,
        url: &Url,
        secret: Option<&Basic>,
    ) -> Result<(HeaderValue, u64), Error> {
        let what = format!("the token for {}", reference.name());
        let mut request = Request::new(Full::<Bytes>::default());
        if let Some(secret) = secret {
            request.headers_mut().insert(header::AUTHORIZATION, secret.header().clone());
        }
        let answer = transport.send(url, request).await?;
        let odd = |problem: &str| Error::Unexpected {
            what: what.clone(),
            host: url.host_and_port(),
            problem: problem.to_owned(),
        };
        if answer.status.is_redirection() {
            return Err(odd("sends the client on for a token, where it does not go"));
        }
        if !answer.status.is_success() {
            return Err(refused(&answer, what, secret.is_some()));
        }
        let bytes = answer.read(&what, self.settings.answers.token).await?;
        let answer: TokenAnswer = serde_json::from_slice(&bytes).map_err(|_| odd("sends what is no token"))?;
        let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty() && token.len() <= MAX_TOKEN);
        let header = token.and_then(|token| HeaderValue::try_from(format!("Bearer {token}")).ok());
        let mut header = header.ok_or_else(|| odd("sends a token that is none"))?;
        header.set_sensitive(true);
        Ok((header, answer.expires_in.unwrap_or(DEFAULT_VALIDITY).clamp(DEFAULT_VALIDITY, MAX_VALIDITY)))
    }

    fn keep(&self, reference: &Reference, header: HeaderValue, validity: u64) {
        let mut kept = self.lock();
        let now = Instant::now();
        if kept.len() >= MAX_KEPT {
            kept.retain(|_, kept| kept.until > now);
        }
        if kept.len() < MAX_KEPT {
            let until = now + Duration::from_secs(validity.saturating_sub(MARGIN));
            kept.insert(reference.name(), Kept { header, until });
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Names the refusal of a token. What the host says is not shown: it may be another than the registry's.
fn refused(answer: &Answer, what: String, has_secret: bool) -> Error {
    crate::error::of_status(answer.status, &answer.headers, what, answer.url.host_and_port(), has_secret)
}

/// Returns the URL of a token that is for pulling from the image's repository, or for pushing, and for nothing else. The
/// registry's own wish does not count: it could have a secret's token issued for another repository.
fn token_url(realm: &Url, reference: &Reference, service: Option<&str>, purpose: Purpose) -> Url {
    let (path, query) = realm.path.split_once('?').unwrap_or((&realm.path, ""));
    let mut query = query.to_owned();
    if let Some(service) = service {
        add_parameter(&mut query, "service", service);
    }
    let actions = match purpose {
        Purpose::Pull => "pull",
        Purpose::Push => "pull,push",
    };
    add_parameter(&mut query, "scope", &format!("repository:{}:{actions}", reference.repository));
    realm.with_path(format!("{path}?{query}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tokens_are_shown_until_shortly_before_their_end() {
        let auth = Auth::new(Arc::new(Settings::default()), Credentials::default());
        let (image, other) = ("a.b/c:v1".parse().unwrap(), "a.b/d:v1".parse().unwrap());
        auth.keep(&image, HeaderValue::from_static("Bearer x"), 300);
        assert_eq!(auth.kept(&"a.b/c:v2".parse().unwrap()).unwrap(), "Bearer x");
        assert_eq!(auth.kept(&other), None);
        tokio::time::advance(Duration::from_secs(289)).await;
        assert!(auth.kept(&image).is_some());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(auth.kept(&image), None);
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_tokens_are_kept_and_those_of_before_make_room() {
        let auth = Auth::new(Arc::new(Settings::default()), Credentials::default());
        for at in 0..2 * MAX_KEPT {
            let image = format!("a.b/c{at}").parse().unwrap();
            auth.keep(&image, HeaderValue::from_static("Bearer x"), 60);
            assert_eq!(auth.kept(&image).is_some(), at < MAX_KEPT);
        }
        tokio::time::advance(Duration::from_secs(60)).await;
        let image = "a.b/new".parse().unwrap();
        auth.keep(&image, HeaderValue::from_static("Bearer x"), 60);
        assert!(auth.kept(&image).is_some() && auth.lock().len() == 1);
    }
}
