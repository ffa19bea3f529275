//! The form of a policy's text, and its checks.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::pattern::{PatternError, RepositoryPattern, whole};
use super::{DEFAULT_RULE, Identity, Match, Mode, Policy, Require, Rule, SourceKind, Text};
use crate::encoding::digest_bytes;
use crate::key::{KeyError, PublicKey};
use crate::text::quote;

const MAX_RULES: usize = 128;
/// Each piece of evidence is tried with each key of a rule.
const MAX_SIGNERS: usize = 16;
const MAX_ENTRIES: usize = 256;

/// Why a text is no policy. Each names the place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A list is too long.
    #[error("{at} has more than {most} entries")]
    TooMany {
        /// The list.
        at: String,
        /// How many it may have.
        most: usize,
    },
    /// A name is missing, taken, or not fit for a message.
    #[error("{at}: {name:?} is no name, or is used twice: give each its own, of letters, digits, `.`, `_` and `-`")]
    Name {
        /// The key or rule.
        at: String,
        /// Its name.
        name: String,
    },
    /// A key can't be used.
    #[error("keys.{name}: {error}")]
    Key {
        /// Its name.
        name: String,
        /// Why not.
        error: KeyError,
    },
    /// A rule names a key that the policy does not have.
    #[error("{at} names the key {name:?}, which `keys` does not have")]
    NoSuchKey {
        /// The rule.
        at: String,
        /// The key's name.
        name: String,
    },
    /// A rule matches whatever there is.
    #[error("{at}.match is empty: say which objects the rule is about, or use `default`")]
    MatchesAll {
        /// The rule.
        at: String,
    },
    /// A rule can match nothing.
    #[error("{at}.match can match nothing: {why}")]
    MatchesNone {
        /// The rule.
        at: String,
        /// Why.
        why: &'static str,
    },
    /// A requirement's type and its member differ.
    #[error("{at}: `signature` must be given with `type: Signature`, and only with it")]
    Union {
        /// The rule.
        at: String,
    },
    /// A rule requires a signature by nobody.
    #[error("{at}.signature names nobody: give `keys` or `identities`, or `type: Deny`")]
    Nobody {
        /// The rule.
        at: String,
    },
    /// A part of an identity is given twice or not at all.
    #[error("{at} must have one of `{part}` and `{part}Pattern`")]
    Identity {
        /// The identity.
        at: String,
        /// `subject` or `issuer`.
        part: &'static str,
    },
    /// A pattern is none.
    #[error("{at} ({text}): {error}")]
    Pattern {
        /// The field.
        at: String,
        /// The pattern.
        text: String,
        /// The problem with it.
        error: PatternError,
    },
    /// A digest is none.
    #[error("{at}: {text:?} is no digest: write `sha256:` and 64 hexadecimal digits in small letters")]
    Digest {
        /// The field.
        at: String,
        /// The text that it has.
        text: String,
    },
}

/// A policy as it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyFile {
    // Not the less safe one if it is absent: Helm drops what is null.
    mode: Mode,
    #[serde(default)]
    keys: BTreeMap<String, String>,
    #[serde(default)]
    rules: Vec<RuleFile>,
    default: Option<RequireFile>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RuleFile {
    name: String,
    #[serde(rename = "match")]
    matches: MatchFile,
    require: RequireFile,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MatchFile {
    #[serde(default)]
    repositories: Vec<String>,
    #[serde(default)]
    digests: Vec<String>,
    #[serde(default)]
    builtins: Vec<String>,
    #[serde(default)]
    sources: Vec<SourceKind>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RequireFile {
    r#type: RequireType,
    signature: Option<SignatureFile>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum RequireType {
    Allow,
    Deny,
    Signature,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SignatureFile {
    #[serde(default)]
    keys: Vec<String>,
    #[serde(default)]
    identities: Vec<IdentityFile>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct IdentityFile {
    subject: Option<String>,
    subject_pattern: Option<String>,
    issuer: Option<String>,
    issuer_pattern: Option<String>,
}

impl TryFrom<PolicyFile> for Policy {
    type Error = PolicyError;

    fn try_from(file: PolicyFile) -> Result<Self, PolicyError> {
        at_most("keys", file.keys.len(), MAX_ENTRIES)?;
        at_most("rules", file.rules.len(), MAX_RULES)?;
        let keys = file.keys.into_iter().map(|(name, pem)| key(name, &pem)).collect::<Result<BTreeMap<_, _>, _>>()?;
        let mut names = BTreeSet::from([DEFAULT_RULE.to_owned()]);
        let mut rules = Vec::new();
        for (at, rule) in file.rules.into_iter().enumerate() {
            let at = format!("rules[{at}]");
            if !is_name(&rule.name) || !names.insert(rule.name.clone()) {
                return Err(PolicyError::Name { at, name: quote(&rule.name) });
            }
            let matches = matches(rule.matches, &at)?;
            let require = require(rule.require, &keys, &format!("{at}.require"))?;
            rules.push(Rule { name: rule.name, matches, require });
        }
        let default = match file.default {
            Some(default) => require(default, &keys, "default")?,
            None => Require::Deny,
        };
        Ok(Self { mode: file.mode, rules, default, keys })
    }
}

fn at_most(at: &str, count: usize, most: usize) -> Result<(), PolicyError> {
    if count > most { Err(PolicyError::TooMany { at: at.to_owned(), most }) } else { Ok(()) }
}

fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.chars().all(|char| char.is_ascii_alphanumeric() || "._-".contains(char))
}

fn key(name: String, pem: &str) -> Result<(String, PublicKey), PolicyError> {
    if !is_name(&name) {
        return Err(PolicyError::Name { at: "keys".into(), name: quote(&name) });
    }
    match PublicKey::from_pem(pem) {
        Ok(key) => Ok((name, key)),
        Err(error) => Err(PolicyError::Key { name, error }),
    }
}

fn matches(file: MatchFile, rule: &str) -> Result<Match, PolicyError> {
    let at = |field: &str| format!("{rule}.match.{field}");
    let lengths = [file.repositories.len(), file.digests.len(), file.builtins.len(), file.sources.len()];
    for (field, length) in ["repositories", "digests", "builtins", "sources"].into_iter().zip(lengths) {
        at_most(&at(field), length, MAX_ENTRIES)?;
    }
    if lengths == [0; 4] {
        return Err(PolicyError::MatchesAll { at: rule.to_owned() });
    }
    can_match(&file, rule)?;
    let mut repositories = Vec::new();
    for text in file.repositories {
        let pattern = RepositoryPattern::parse(&text);
        repositories.push(pattern.map_err(|error| in_pattern(at("repositories"), &text, error))?);
    }
    if let Some(text) = file.digests.iter().find(|text| digest_bytes(text).is_none()) {
        return Err(PolicyError::Digest { at: at("digests"), text: quote(text) });
    }
    if let Some(text) = file.builtins.iter().find(|text| text.is_empty() || text.len() > 64) {
        return Err(in_pattern(at("builtins"), text, PatternError::Length));
    }
    Ok(Match { repositories, digests: file.digests, builtins: file.builtins, sources: file.sources })
}

/// Refuses lists of which no object fits all.
fn can_match(file: &MatchFile, rule: &str) -> Result<(), PolicyError> {
    let nothing = |why| Err(PolicyError::MatchesNone { at: rule.to_owned(), why });
    let has_source = |kind| file.sources.is_empty() || file.sources.contains(&kind);
    if !file.repositories.is_empty() && !file.builtins.is_empty() {
        return nothing("no object is both an image and a builtin: write two rules");
    }
    if !file.repositories.is_empty() && !has_source(SourceKind::Image) {
        return nothing("only images have a repository, and `sources` lacks Image");
    }
    if !file.builtins.is_empty() && !has_source(SourceKind::Builtin) {
        return nothing("`sources` lacks Builtin");
    }
    Ok(())
}

fn in_pattern(at: String, text: &str, error: PatternError) -> PolicyError {
    PolicyError::Pattern { at, text: quote(text), error }
}

fn require(file: RequireFile, known: &BTreeMap<String, PublicKey>, path: &str) -> Result<Require, PolicyError> {
    let signature = match (file.r#type, file.signature) {
        (RequireType::Allow, None) => return Ok(Require::Allow),
        (RequireType::Deny, None) => return Ok(Require::Deny),
        (RequireType::Signature, Some(signature)) => signature,
        _ => return Err(PolicyError::Union { at: path.to_owned() }),
    };
    let at = |field: &str| format!("{path}.signature.{field}");
    if signature.keys.is_empty() && signature.identities.is_empty() {
        return Err(PolicyError::Nobody { at: path.to_owned() });
    }
    at_most(&at("keys"), signature.keys.len(), MAX_SIGNERS)?;
    at_most(&at("identities"), signature.identities.len(), MAX_SIGNERS)?;
    if let Some(name) = signature.keys.iter().find(|name| !known.contains_key(*name)) {
        return Err(PolicyError::NoSuchKey { at: at("keys"), name: quote(name) });
    }
    let identities = signature.identities.into_iter().enumerate();
    let identities = identities.map(|(index, file)| identity(file, &format!("{}[{index}]", at("identities"))));
    Ok(Require::Signature { keys: signature.keys, identities: identities.collect::<Result<_, _>>()? })
}

fn identity(file: IdentityFile, at: &str) -> Result<Identity, PolicyError> {
    Ok(Identity {
        subject: text(at, "subject", (file.subject, file.subject_pattern))?,
        issuer: text(at, "issuer", (file.issuer, file.issuer_pattern))?,
    })
}

/// Reads a part of an identity from its two fields, of which one must be there.
fn text(at: &str, part: &'static str, fields: (Option<String>, Option<String>)) -> Result<Text, PolicyError> {
    match fields {
        (Some(exact), None) if !exact.is_empty() => Ok(Text::Exact(exact)),
        (None, Some(pattern)) => {
            let error = |error| in_pattern(format!("{at}.{part}Pattern"), &pattern, error);
            whole(&pattern).map(Text::Pattern).map_err(error)
        }
        _ => Err(PolicyError::Identity { at: at.to_owned(), part }),
    }
}

#[cfg(test)]
mod tests;
