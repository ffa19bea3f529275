//! [`Error`]: why nothing was pulled. IO: none.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};

/// Says what failed, at which registry and image, and what to do about it. No message has a secret, nor what another
/// host than the registry has sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The settings can't be used.
    #[error("the registry settings {0}")]
    Settings(String),
    /// The credentials can't be read.
    #[error("the pull secret {0}")]
    Credentials(String),
    /// The bytes are not what they should be.
    #[error("{image}: {source}")]
    Content {
        /// The image.
        image: String,
        /// The problem, in words.
        source: sockeye_image::Error,
    },
    /// The host can't be connected to, or the connection broke.
    #[error("{host} can't be reached: {problem}")]
    Unreachable {
        /// The host and its port.
        host: String,
        /// The system's own words.
        problem: String,
    },
    /// There is no secure connection to the host.
    #[error(
        "{host} has no TLS connection that can be trusted: {problem}; give its authority's certificate as a custom CA, \
         or, where it has no TLS at all, set the registry insecure"
    )]
    Tls {
        /// The host and its port.
        host: String,
        /// The problem, in words.
        problem: String,
    },
    /// The time is over.
    #[error("{what} took longer than {} s", .limit.as_secs_f64())]
    TimedOut {
        /// The step that was waited for.
        what: String,
        /// How long.
        limit: Duration,
    },
    /// The registry has no such thing.
    #[error("{what} is not there: look for a mistake in its name, or push it{}", hint_of_secret(*.has_secret))]
    NotFound {
        /// The resource that was asked for.
        what: String,
        /// True if the registry was shown a secret. Registries answer so, too, to who may not know.
        has_secret: bool,
    },
    /// The registry wants to know who asks, and was not satisfied.
    #[error("{what} was refused: {}{}", why_unauthorized(*.has_secret), in_brackets(.detail))]
    Unauthorized {
        /// The resource that was asked for.
        what: String,
        /// True if the registry was shown a secret.
        has_secret: bool,
        /// The registry's own words.
        detail: String,
    },
    /// The registry knows who asks, and does not allow it.
    #[error("{what} was refused: the registry does not allow it{}", in_brackets(.detail))]
    Forbidden {
        /// The resource that was asked for.
        what: String,
        /// The registry's own words.
        detail: String,
    },
    /// The registry was asked too often.
    #[error("{host} was asked too often{}", .retry_after.map(to_wait).unwrap_or_default())]
    TooManyRequests {
        /// The host and its port.
        host: String,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// The registry failed.
    #[error("{what}: {host} failed with HTTP {status}{}", in_brackets(.detail))]
    Failed {
        /// The resource that was asked for.
        what: String,
        /// The host and its port.
        host: String,
        /// The HTTP status.
        status: u16,
        /// The registry's own words.
        detail: String,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// The answer is none that a registry gives.
    #[error("{what}: {host} {problem}; is it a registry?")]
    Unexpected {
        /// The resource that was asked for.
        what: String,
        /// The host and its port.
        host: String,
        /// The problem, in words.
        problem: String,
    },
    /// The answer has more bytes than are read.
    #[error("{what} is too large: {host} sends more than the {limit} bytes that sockeye takes")]
    TooLarge {
        /// The resource that was asked for.
        what: String,
        /// The host and its port.
        host: String,
        /// The most that is read.
        limit: u64,
    },
    /// An image has more referrers than are read.
    #[error("{what} has more than {limit} referrers; delete those that nobody needs")]
    TooManyReferrers {
        /// The image.
        what: String,
        /// The most that are read.
        limit: usize,
    },
    /// The host sends the client on, where it does not go.
    #[error("{what}: {host} redirects {problem}")]
    Redirect {
        /// The resource that was asked for.
        what: String,
        /// The host and its port.
        host: String,
        /// The target of the redirect, and the reason why it is refused.
        problem: String,
    },
    /// The registry has its tokens issued where the secret does not go.
    #[error("{registry} has its tokens issued by {realm}, {problem}")]
    Realm {
        /// The registry.
        registry: String,
        /// The host that issues them.
        realm: String,
        /// Why that is refused, and what to do.
        problem: String,
    },
}

impl Error {
    /// Returns whether the same request may succeed later though nobody changes anything.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::TooManyRequests { .. } | Self::Failed { .. }
        )
    }

    /// Returns how long the registry asks to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooManyRequests { retry_after, .. } | Self::Failed { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Adds what the registry says.
    pub(crate) fn add_detail(&mut self, said: String) {
        match self {
            Self::Unauthorized { detail, .. } | Self::Forbidden { detail, .. } | Self::Failed { detail, .. } => {
                *detail = said;
            }
            Self::Unexpected { problem, .. } => problem.push_str(&in_brackets(&said)),
            _ => {}
        }
    }
}

fn to_wait(time: Duration) -> String {
    format!(", and asks to wait {} s", time.as_secs())
}

fn hint_of_secret(has_secret: bool) -> &'static str {
    if has_secret { "" } else { ". A private image may need a pull secret" }
}

fn why_unauthorized(has_secret: bool) -> &'static str {
    if has_secret {
        "the registry does not accept the pull secret for this"
    } else {
        "the registry wants a pull secret"
    }
}

fn in_brackets(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(" ({detail})") }
}

/// The longest `Retry-After` that is believed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Returns the error that a status of failure stands for, without what the host says.
pub(crate) fn of_status(
    status: StatusCode,
    headers: &HeaderMap,
    what: String,
    host: String,
    has_secret: bool,
) -> Error {
    let detail = String::new();
    // Of the two forms, the date is not used by registries (RFC 9110, 10.2.3).
    let retry_after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let retry_after = retry_after.map(|seconds| Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
    match status {
        StatusCode::TOO_MANY_REQUESTS => Error::TooManyRequests { host, retry_after },
        StatusCode::UNAUTHORIZED => Error::Unauthorized { what, has_secret, detail },
        StatusCode::FORBIDDEN => Error::Forbidden { what, detail },
        StatusCode::NOT_FOUND => Error::NotFound { what, has_secret },
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY => {
            Error::Failed { what, host, status: status.as_u16(), detail, retry_after }
        }
        status if status.is_server_error() => {
            Error::Failed { what, host, status: status.as_u16(), detail, retry_after }
        }
        status => Error::Unexpected { what, host, problem: format!("answers HTTP {}", status.as_u16()) },
    }
}
