//! Which objects may run: rules in order, of which the first that matches decides.
//!
//! [`Policy`] is read as the chart's values have it; what it says is checked then, so a policy in memory can be
//! applied. `pattern` has the patterns, `file` the text's form and its checks, `decide` the decision.

use std::collections::BTreeMap;

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::key::PublicKey;

mod decide;
mod file;
mod pattern;

pub use file::PolicyError;
pub use pattern::{PatternError, RepositoryPattern};

/// The name that decisions have where no rule matched.
pub const DEFAULT_RULE: &str = "default";

/// The treatment of an object that the policy refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// It runs, and its status and an Event say why the policy refuses it.
    Warn,
    /// It does not run.
    Enforce,
}

/// Rules that say which objects may run.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "file::PolicyFile")]
pub struct Policy {
    /// The treatment of an object that is refused.
    pub mode: Mode,
    /// The rules, of which the first that matches an object decides.
    pub rules: Vec<Rule>,
    /// The requirement for an object that no rule matches.
    pub default: Require,
    /// The keys that rules name.
    keys: BTreeMap<String, PublicKey>,
}

/// The requirement for the objects that match.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The name that messages use.
    pub name: String,
    /// Which objects the rule is about.
    pub matches: Match,
    /// Its requirement for them.
    pub require: Require,
}

/// Which objects a rule is about: those that fit one entry of each list that is not empty.
#[derive(Clone, Debug, Default)]
pub struct Match {
    /// Patterns of images' repositories.
    pub repositories: Vec<RepositoryPattern>,
    /// Digests of an object, a manifest or an index, as `sha256:<64 hexadecimal digits>`.
    pub digests: Vec<String>,
    /// Names of objects that sockeye ships; `*` stands for any characters.
    pub builtins: Vec<String>,
    /// Kinds of sources.
    pub sources: Vec<SourceKind>,
}

/// The kind of an object's source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SourceKind {
    /// A registry.
    Image,
    /// An object that sockeye ships.
    Builtin,
    /// A ConfigMap.
    ConfigMap,
    /// The BpfProgram itself.
    Inline,
}

/// The requirement of a rule.
#[derive(Clone, Debug)]
pub enum Require {
    /// Nothing.
    Allow,
    /// A requirement that no object meets.
    Deny,
    /// A signature by any of these keys or identities.
    Signature {
        /// Names of the policy's keys.
        keys: Vec<String>,
        /// Identities.
        identities: Vec<Identity>,
    },
}

/// A pattern of identities. Both parts must match.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The email address or URI of the certificate.
    pub subject: Text,
    /// The URL of the OIDC issuer.
    pub issuer: Text,
}

/// A text, or an expression for the whole of one.
#[derive(Clone, Debug)]
pub enum Text {
    /// This text.
    Exact(String),
    /// A regular expression.
    Pattern(Regex),
}

impl Text {
    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == text,
            Self::Pattern(pattern) => pattern.is_match(text),
        }
    }
}

/// A rule's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The name of the rule that decided; [`DEFAULT_RULE`] if none matched.
    pub rule: String,
    /// Its verdict. Whether a refused object runs all the same depends on [`Policy::mode`].
    pub verdict: Verdict,
}

/// The verdict on an object: whether it meets the requirement of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has.
    Allowed {
        /// Who signed it, as far as the rule asked; none if it asked for no signature.
        signed_by: Vec<Signer>,
    },
    /// It has not.
    Refused {
        /// For people: the rule, what it asks for, and what was found instead.
        message: String,
    },
}

/// Who signed an object, as verified.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Signer {
    /// The holder of a key.
    Key {
        /// The key's name in the policy.
        hint: String,
    },
    /// The holder of a certificate.
    Identity {
        /// The email address or URI.
        subject: String,
        /// The URL of the OIDC issuer.
        issuer: String,
    },
}

impl Policy {
    /// Returns whether a rule names an identity, so that a trust root is needed.
    pub fn names_identities(&self) -> bool {
        let requirements = self.rules.iter().map(|rule| &rule.require).chain([&self.default]);
        requirements
            .into_iter()
            .any(|require| matches!(require, Require::Signature { identities, .. } if !identities.is_empty()))
    }
}
