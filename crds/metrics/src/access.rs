//! [`Access`]: whether whoever has a bearer token may read `/metrics`. IO: requests to the API server.
//!
//! As controller-runtime does it: a TokenReview says whose token it is, and a SubjectAccessReview whether its owner may
//! `get` the non-resource URL `/metrics`. An answer is remembered for a while, so that a scraper costs two requests a
//! minute. No token is kept, only its digest.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, UserInfo},
    authorization::v1::{NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};
use sha2::{Digest as _, Sha256};
use tokio::{sync::Semaphore, time::timeout};

/// An answer holds for this long.
const REMEMBERED: Duration = Duration::from_secs(60);
/// At most this many answers are remembered; then all are forgotten.
const MAX_REMEMBERED: usize = 256;
/// So many tokens are reviewed at once: whoever makes tokens up keeps the API server no busier.
const MAX_REVIEWS: usize = 4;
/// A review takes at most this long.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(5);

/// Why nothing is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no token, or it is nobody's.
    Unauthenticated,
    /// Its owner has no such right.
    Forbidden,
    /// The API server could not be asked.
    Unavailable,
}

/// Decides who may read `/metrics`.
pub struct Access {
    client: Client,
    reviews: Semaphore,
    remembered: Mutex<HashMap<[u8; 32], (Instant, Result<(), Refused>)>>,
}

impl Access {
    /// Asks the API server by this client.
    pub fn new(client: Client) -> Self {
        Self { client, reviews: Semaphore::new(MAX_REVIEWS), remembered: Mutex::default() }
    }

    /// Decides by an `Authorization` header.
    ///
    /// # Errors
    /// Says why nothing is shown.
    pub async fn check(&self, authorization: Option<&str>) -> Result<(), Refused> {
        let Some(token) = authorization.and_then(bearer) else { return Err(Refused::Unauthenticated) };
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(answer) = self.remembered_answer(&digest) {
            return answer;
        }
        let reviewed = timeout(REVIEW_TIMEOUT, async {
            let _permit = self.reviews.acquire().await.ok();
            // Another request with the same token may have been answered meanwhile.
            match self.remembered_answer(&digest) {
                Some(answer) => Ok(answer),
                None => self.review(token).await,
            }
        });
        match reviewed.await {
            Ok(Ok(answer)) => {
                self.remember(digest, answer);
                answer
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot ask the API server who may read /metrics");
                Err(Refused::Unavailable)
            }
            Err(_) => Err(Refused::Unavailable),
        }
    }

    async fn review(&self, token: &str) -> Result<Result<(), Refused>, kube::Error> {
        let spec = TokenReviewSpec { token: Some(token.to_owned()), ..TokenReviewSpec::default() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let reviewed = Api::all(self.client.clone()).create(&PostParams::default(), &review).await?;
        let status = reviewed.status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true));
        let Some(user) = user else { return Ok(Err(Refused::Unauthenticated)) };
        let review = SubjectAccessReview { spec: may_get_metrics(user), ..SubjectAccessReview::default() };
        let reviewed = Api::all(self.client.clone()).create(&PostParams::default(), &review).await?;
        let is_allowed = reviewed.status.is_some_and(|status| status.allowed && status.denied != Some(true));
        Ok(if is_allowed { Ok(()) } else { Err(Refused::Forbidden) })
    }

    fn remembered_answer(&self, digest: &[u8; 32]) -> Option<Result<(), Refused>> {
        let remembered = self.remembered();
        remembered.get(digest).filter(|(at, _)| at.elapsed() < REMEMBERED).map(|(_, answer)| *answer)
    }

    fn remember(&self, digest: [u8; 32], answer: Result<(), Refused>) {
        let mut remembered = self.remembered();
        if remembered.len() >= MAX_REMEMBERED {
            remembered.clear();
        }
        // One that was remembered already keeps its time, so that it ends.
        let is_over = |(at, _): &(Instant, _)| at.elapsed() >= REMEMBERED;
        if remembered.get(&digest).is_none_or(is_over) {
            remembered.insert(digest, (Instant::now(), answer));
        }
    }

    fn remembered(&self) -> MutexGuard<'_, HashMap<[u8; 32], (Instant, Result<(), Refused>)>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks whether a user may get `/metrics`.
fn may_get_metrics(user: UserInfo) -> SubjectAccessReviewSpec {
    let UserInfo { extra, groups, uid, username } = user;
    let attributes = NonResourceAttributes { path: Some("/metrics".to_owned()), verb: Some("get".to_owned()) };
    SubjectAccessReviewSpec {
        extra,
        groups,
        non_resource_attributes: Some(attributes),
        resource_attributes: None,
        uid,
        user: username,
    }
}

/// Returns the token of an `Authorization` header.
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_token_is_taken_from_the_header_and_nothing_else() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc"), Some("abc"));
        for other in ["", "Bearer", "Bearer ", "Basic abc", "abc"] {
            assert_eq!(bearer(other), None, "{other}");
        }
    }
}
