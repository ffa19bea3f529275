//! [`Repository`]: requests to one repository of a registry: redirects, authentication, failures. IO: requests.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use serde::Deserialize;
use sockeye_image::{Digest, Reference, shown};

use crate::{
    Error, Settings,
    auth::Auth,
    challenge::Challenge,
    error,
    transport::{Answer, Transport},
    url::Url,
};

/// The host of the registry of Docker Hub.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// One repository of a registry, and who asks it.
pub struct Repository<'a> {
    transport: &'a Transport,
    settings: &'a Settings,
    auth: &'a Auth,
    reference: &'a Reference,
    base: Url,
}

/// The resource that a request is for.
pub struct Get<'a> {
    /// The method: GET or HEAD.
    pub method: Method,
    /// The path below the repository, or of the whole host if it begins with `/`.
    pub path: &'a str,
    /// The media types that are taken.
    pub accept: &'static str,
    /// Its name in errors.
    pub what: &'a str,
}

/// Something that is written.
pub struct Write<'a> {
    /// The method: POST or PUT.
    pub method: Method,
    /// The URL: of the repository, or where the registry wants it.
    pub url: Url,
    /// The body.
    pub body: Bytes,
    /// The media type of the body.
    pub media_type: &'static str,
    /// Its name in errors.
    pub what: &'a str,
}

/// The body of an error (distribution specification, "Error Codes").
#[derive(Deserialize)]
struct Errors {
    errors: Vec<OneError>,
}

#[derive(Deserialize)]
struct OneError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl<'a> Repository<'a> {
    /// Returns the repository of an image.
    ///
    /// # Errors
    /// Fails where the registry's name is none of a host.
    pub fn new(
        transport: &'a Transport,
        settings: &'a Settings,
        auth: &'a Auth,
        reference: &'a Reference,
    ) -> Result<Self, Error> {
        let registry = reference.registry.as_str();
        let scheme = if settings.of(registry).insecure { "http" } else { "https" };
        let host = if registry == DOCKER_HUB.0 { DOCKER_HUB.1 } else { registry };
        let base = Url::parse(&format!("{scheme}://{host}/")).map_err(|problem| Error::Unexpected {
            what: reference.to_string(),
            host: registry.to_owned(),
            problem: format!("leads {problem}"),
        })?;
        Ok(Self { transport, settings, auth, reference, base })
    }

    /// Names a part of the image in errors.
    pub fn name(&self, part: &str) -> String {
        format!("the {part} of {}", self.reference)
    }

    /// Names something that has a digest in errors.
    pub fn name_of(&self, part: &str, digest: &Digest) -> String {
        format!("the {part} {}@{digest}", self.reference.name())
    }

    /// Returns the URL of a path below the repository, or of the whole host if it begins with `/`.
    pub fn url(&self, path: &str) -> Url {
        match path.starts_with('/') {
            true => self.base.with_path(path.to_owned()),
            false => self.base.with_path(format!("/v2/{}/{path}", self.reference.repository)),
        }
    }

    /// Sends a request, shows the registry who asks if it wants to know, and returns the answer of success.
    ///
    /// # Errors
    /// Fails where there is no such answer.
    pub async fn get(&self, get: &Get<'_>) -> Result<Answer, Error> {
        let url = self.url(get.path);
        let first = self.auth.kept(self.reference);
        let was_shown = first.is_some();
        let answer = self.follow(&url, get, first).await?;
        if answer.status != StatusCode::UNAUTHORIZED || !answer.url.is_same_origin(&self.base) {
            return self.check(answer, get.what, was_shown).await;
        }
        let challenges = Challenge::all(&answer.headers);
        let authorization = self.auth.answer(self.transport, &self.base, self.reference, &challenges).await?;
        let has_secret = self.auth.has_secret(self.reference);
        if authorization.is_none() {
            return self.check(answer, get.what, has_secret).await;
        }
        drop(answer);
        let answer = self.follow(&url, get, authorization).await?;
        self.check(answer, get.what, has_secret).await
    }

    /// Writes something, shows the registry who asks if it wants to know, and returns the answer of success. It follows
    /// no redirect.
    ///
    /// # Errors
    /// Fails where there is no such answer.
    pub async fn write(&self, write: &Write<'_>) -> Result<Answer, Error> {
        let first = self.auth.kept(self.reference);
        let was_shown = first.is_some();
        let answer = self.write_once(write, first).await?;
        if answer.status != StatusCode::UNAUTHORIZED || !answer.url.is_same_origin(&self.base) {
            return self.check(answer, write.what, was_shown).await;
        }
        let challenges = Challenge::all(&answer.headers);
        let authorization = self.auth.answer(self.transport, &self.base, self.reference, &challenges).await?;
        let has_secret = self.auth.has_secret(self.reference);
        if authorization.is_none() {
            return self.check(answer, write.what, has_secret).await;
        }
        drop(answer);
        let answer = self.write_once(write, authorization).await?;
        self.check(answer, write.what, has_secret).await
    }

    async fn write_once(&self, write: &Write<'_>, authorization: Option<HeaderValue>) -> Result<Answer, Error> {
        let Write { method, url, body, media_type, what } = write;
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = method.clone();
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        if let Some(authorization) = authorization.filter(|_| url.is_same_origin(&self.base)) {
            headers.insert(header::AUTHORIZATION, authorization);
        }
        let answer = self.transport.send(url, request).await?;
        if answer.status.is_redirection() {
            let (what, host) = ((*what).to_owned(), answer.url.host_and_port());
            let problem = "what is written, which is not followed".to_owned();
            return Err(Error::Redirect { what, host, problem });
        }
        Ok(answer)
    }

    /// Returns where an answer says that an upload goes on.
    ///
    /// # Errors
    /// Fails where it says nothing, or names plain HTTP that nobody allowed.
    pub fn upload_location(&self, answer: &Answer, what: &str) -> Result<Url, Error> {
        let refused =
            |problem: String| Error::Redirect { what: what.to_owned(), host: answer.url.host_and_port(), problem };
        let location = answer.header(header::LOCATION).ok_or_else(|| refused("to nowhere".to_owned()))?;
        let next = answer.url.join(location).map_err(|problem| refused(problem.to_owned()))?;
        self.check_plain(answer, &next).map_err(refused)?;
        Ok(next)
    }

    /// Refuses a URL of plain HTTP unless the registry itself is spoken to so, or that host is.
    fn check_plain(&self, answer: &Answer, next: &Url) -> Result<(), String> {
        let may_be_plain = next.is_same_origin(&self.base) || self.settings.of(&next.authority()).insecure;
        if !next.is_https && (answer.url.is_https || !may_be_plain) {
            return Err(format!("to {} over plain HTTP, which is not followed", next.host_and_port()));
        }
        Ok(())
    }

    /// Sends a request, and sends it again to where the answer redirects it.
    async fn follow(&self, url: &Url, get: &Get<'_>, authorization: Option<HeaderValue>) -> Result<Answer, Error> {
        let mut url = url.clone();
        for _ in 0..=self.settings.answers.redirects {
            let mut request = Request::new(Full::<Bytes>::default());
            *request.method_mut() = get.method.clone();
            request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static(get.accept));
            // Another host is not to learn who asks.
            if let Some(authorization) = authorization.as_ref().filter(|_| url.is_same_origin(&self.base)) {
                request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
            }
            let answer = self.transport.send(&url, request).await?;
            match self.redirect(&answer, get.what)? {
                Some(next) => url = next,
                None => return Ok(answer),
            }
        }
        let problem = format!("more than {} times", self.settings.answers.redirects);
        Err(Error::Redirect { what: get.what.to_owned(), host: url.host_and_port(), problem })
    }

    /// Returns where an answer redirects to, if it does.
    fn redirect(&self, answer: &Answer, what: &str) -> Result<Option<Url>, Error> {
        if !matches!(answer.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let refused =
            |problem: String| Error::Redirect { what: what.to_owned(), host: answer.url.host_and_port(), problem };
        let location = answer.header(header::LOCATION).ok_or_else(|| refused("to nowhere".to_owned()))?;
        let next = answer.url.join(location).map_err(|problem| refused(problem.to_owned()))?;
        self.check_plain(answer, &next).map_err(refused)?;
        Ok(Some(next))
    }

    /// Returns an answer of success, or the error that it stands for.
    async fn check(&self, answer: Answer, what: &str, has_secret: bool) -> Result<Answer, Error> {
        if answer.status.is_success() {
            return Ok(answer);
        }
        let (host, is_own) = (answer.url.host_and_port(), answer.url.is_same_origin(&self.base));
        let mut error = error::of_status(answer.status, &answer.headers, what.to_owned(), host, has_secret);
        if is_own {
            error.add_detail(detail(&answer.beginning(self.settings.answers.error).await));
        }
        Err(error)
    }
}

/// Returns what a registry says of an error, fit to be shown. Anything else than a registry's error is not shown: a
/// reference could name any server within the cluster.
fn detail(body: &[u8]) -> String {
    let errors = serde_json::from_slice::<Errors>(body).map(|body| body.errors).unwrap_or_default();
    errors.first().map(|error| shown(&format!("{}: {}", error.code, error.message))).unwrap_or_default()
}
