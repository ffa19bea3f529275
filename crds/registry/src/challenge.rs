//! [`Challenge`]: how a registry wants to be told who asks, from its header `WWW-Authenticate`. IO: none.

use http::{HeaderMap, header::WWW_AUTHENTICATE};

/// The most challenges that are read of one answer.
const MAX: usize = 8;

/// One way to authenticate (RFC 9110, 11.6.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// A user name and a password with each request.
    Basic,
    /// A token, which is issued elsewhere (distribution, docs/content/spec/auth/token.md).
    Bearer {
        /// The URL that issues tokens.
        realm: String,
        /// The name of the registry there.
        service: Option<String>,
    },
}

impl Challenge {
    /// Reads the ways of an answer, and leaves out what is none that is known here.
    pub fn all(headers: &HeaderMap) -> Vec<Self> {
        let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(parse).take(MAX).collect()
    }
}

fn parse(text: &str) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    let mut rest = text;
    while let Some((scheme, parameters, after)) = next_challenge(rest) {
        let find = |name: &str| {
            parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
        };
        if scheme.eq_ignore_ascii_case("basic") {
            challenges.push(Challenge::Basic);
        } else if let (true, Some(realm)) = (scheme.eq_ignore_ascii_case("bearer"), find("realm")) {
            challenges.push(Challenge::Bearer { realm, service: find("service") });
        }
        rest = after;
    }
    challenges
}

type Parameters = Vec<(String, String)>;

/// Reads a scheme and its parameters; returns what follows, too.
fn next_challenge(text: &str) -> Option<(&str, Parameters, &str)> {
    let text = text.trim_start_matches([' ', '\t', ',']);
    let (scheme, mut rest) = token(text)?;
    let mut parameters = Vec::new();
    // What is followed by `=` is a parameter, and anything else the next scheme.
    while let Some((key, value, after)) = parameter(rest) {
        parameters.push((key.to_owned(), value));
        rest = after;
    }
    Some((scheme, parameters, rest))
}

fn parameter(text: &str) -> Option<(&str, String, &str)> {
    let (key, rest) = token(text.trim_start_matches([' ', '\t', ',']))?;
    let rest = rest.trim_start().strip_prefix('=')?.trim_start();
    let Some(quoted) = rest.strip_prefix('"') else {
        let (value, rest) = token(rest)?;
        return Some((key, value.to_owned(), rest));
    };
    let (mut value, mut is_escaped) = (String::new(), false);
    for (at, char) in quoted.char_indices() {
        match char {
            _ if is_escaped => value.push(char),
            '\\' => {}
            '"' => return Some((key, value, quoted.get(at + 1..).unwrap_or_default())),
            _ => value.push(char),
        }
        is_escaped = char == '\\' && !is_escaped;
    }
    None
}

fn token(text: &str) -> Option<(&str, &str)> {
    let is_end = |char: char| !char.is_ascii_alphanumeric() && !"!#$%&'*+-.^_`|~/:".contains(char);
    let len = text.find(is_end).unwrap_or(text.len());
    (len > 0).then(|| text.split_at(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>) -> Challenge {
        Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) }
    }

    #[test]
    fn challenges_are_read_in_all_forms() {
        for (text, read) in [
            (r#"Basic realm="x""#, vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                r#"Bearer realm="https://a.b/token",service="c",scope="repository:d/e:pull,push""#,
                vec![bearer("https://a.b/token", Some("c"))],
            ),
            (r#"bearer  Realm = "https://a.b/t" , error=invalid_token"#, vec![bearer("https://a.b/t", None)]),
            (
                r#"Negotiate, Basic realm="a, \"b\"", Bearer realm="https://c""#,
                vec![Challenge::Basic, bearer("https://c", None)],
            ),
            (r#"Bearer service="no realm""#, vec![]),
            (r#"Bearer realm="not closed"#, vec![]),
            ("", vec![]),
            ("=,=\"", vec![]),
        ] {
            assert_eq!(parse(text), read, "{text}");
        }
    }

    #[test]
    fn of_many_challenges_a_few_are_read() {
        let mut headers = HeaderMap::new();
        for _ in 0..20 {
            headers.append(WWW_AUTHENTICATE, "Basic, Basic".parse().unwrap());
        }
        assert_eq!(Challenge::all(&headers).len(), MAX);
    }
}
