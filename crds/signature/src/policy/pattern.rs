//! Patterns: of repositories, and of the texts in certificates.

use regex::{Regex, RegexBuilder};
use sockeye_image::DOCKER_HUB;

/// The longest pattern.
pub const MAX_PATTERN: usize = 512;

/// The most bytes of a compiled regular expression.
const MAX_REGEX_BYTES: usize = 256 * 1024;

/// Why a pattern is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// The pattern is empty or too long.
    #[error("it must have 1 to {MAX_PATTERN} characters")]
    Length,
    /// The pattern does not begin with a registry.
    #[error(
        "it must begin with a registry's host, as `registry.example.com/team/**`: a name with a dot or a port, or \
         `localhost`; for images of every registry use `sources: [Image]`"
    )]
    NoRegistry,
    /// The pattern has no repository.
    #[error("it must name repositories behind the registry, as `registry.example.com/**`")]
    NoRepository,
    /// The pattern has a character that no repository has.
    #[error("{0:?} can't be in a repository's name: give no scheme, tag or digest, and small letters")]
    Character(char),
    /// The pattern has a segment that mixes `**` with a text.
    #[error("`**` must stand alone between slashes")]
    DoubleStar,
    /// The pattern has an empty segment.
    #[error("it has an empty segment")]
    EmptySegment,
    /// The text is no regular expression.
    #[error("it is no regular expression: {0}")]
    Regex(String),
}

/// A pattern of repositories. `*` stands for any characters of one segment, `**` for any number of segments, one at
/// least.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryPattern {
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    /// Any number of segments, also none.
    Any,
    /// A text with `*` in it, or none.
    One(String),
}

impl RepositoryPattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() || text.len() > MAX_PATTERN {
            return Err(PatternError::Length);
        }
        let (registry, path) = text.split_once('/').unwrap_or((text, ""));
        let is_host = registry == "localhost" || registry.contains('.') || registry.contains(':');
        if !is_host || registry.contains("**") {
            return Err(PatternError::NoRegistry);
        }
        if path.is_empty() {
            return Err(PatternError::NoRepository);
        }
        let is_host_char = |char: char| char.is_ascii_alphanumeric() || ".-:[]*".contains(char);
        let is_path_char = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || "._-/*".contains(char);
        let wrong = registry.chars().find(|&char| !is_host_char(char));
        if let Some(char) = wrong.or_else(|| path.chars().find(|&char| !is_path_char(char))) {
            return Err(PatternError::Character(char));
        }
        let mut segments = vec![Segment::One(normal_registry(registry))];
        for segment in path.split('/') {
            segments.push(match segment {
                "" => return Err(PatternError::EmptySegment),
                "**" => Segment::One("*".into()),
                _ if segment.contains("**") => return Err(PatternError::DoubleStar),
                _ => Segment::One(segment.to_owned()),
            });
            if segment == "**" {
                segments.push(Segment::Any);
            }
        }
        Ok(Self { segments })
    }

    /// Returns whether a repository, with its registry, fits the pattern.
    pub fn matches(&self, repository: &str) -> bool {
        let (registry, path) = repository.split_once('/').unwrap_or((repository, ""));
        let registry = normal_registry(registry);
        let segments: Vec<&str> = std::iter::once(registry.as_str()).chain(path.split('/')).collect();
        let any = |pattern: &Segment| *pattern == Segment::Any;
        fits(&self.segments, &segments, any, |pattern, segment| match pattern {
            Segment::One(glob) => glob_matches(glob, segment),
            Segment::Any => true,
        })
    }
}

/// Returns a registry's host as it is compared: in small letters, without the port that HTTPS has anyway, and by one of
/// Docker Hub's names.
fn normal_registry(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    let host = host.strip_suffix(":443").unwrap_or(&host).trim_end_matches('.');
    match host {
        _ if DOCKER_HUB.contains(&host) => DOCKER_HUB[0].to_owned(),
        _ => host.to_owned(),
    }
}

/// Returns whether a text fits a glob, in which `*` stands for any characters.
pub fn glob_matches(glob: &str, text: &str) -> bool {
    fits(glob.as_bytes(), text.as_bytes(), |&pattern| pattern == b'*', |pattern, byte| pattern == byte)
}

/// Matches a pattern with a text: `any` says which elements of the pattern stand for any number of the text's, also
/// none, and `one` whether another one stands for an element. It takes the time of the product of their lengths,
/// whatever they are.
fn fits<P, T>(pattern: &[P], text: &[T], any: impl Fn(&P) -> bool, one: impl Fn(&P, &T) -> bool) -> bool {
    // `reached[i]`: the pattern's first i elements fit the text so far.
    let mut reached = vec![false; pattern.len() + 1];
    reached[0] = true;
    let pass = |reached: &mut [bool]| {
        for (at, part) in pattern.iter().enumerate() {
            reached[at + 1] |= reached[at] && any(part);
        }
    };
    pass(&mut reached);
    for element in text {
        let mut next = vec![false; pattern.len() + 1];
        for (at, part) in pattern.iter().enumerate().filter(|&(at, _)| reached[at]) {
            if any(part) {
                next[at] = true;
            } else if one(part, element) {
                next[at + 1] = true;
            }
        }
        pass(&mut next);
        reached = next;
    }
    reached[pattern.len()]
}

/// Compiles a regular expression that must match a whole text.
pub fn whole(expression: &str) -> Result<Regex, PatternError> {
    if expression.is_empty() || expression.len() > MAX_PATTERN {
        return Err(PatternError::Length);
    }
    let error = |error: regex::Error| PatternError::Regex(crate::text::bounded(&error.to_string(), 240));
    // By itself first: `a)|(b` is an expression only between the parentheses of the next line.
    let build = |text: &str| RegexBuilder::new(text).size_limit(MAX_REGEX_BYTES).build().map_err(error);
    build(expression)?;
    build(&format!("^(?:{expression})$"))
}

#[cfg(test)]
mod tests;
