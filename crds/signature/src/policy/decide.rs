//! The decision about one object.

use std::time::SystemTime;

use super::pattern::glob_matches;
use super::{DEFAULT_RULE, Decision, Identity, Match, Policy, Require, Signer, SourceKind, Verdict};
use crate::encoding::Hashes;
use crate::evidence::{Evidence, MAX_EVIDENCE, MAX_VERIFIED, Source, Subject};
use crate::keyless::{Trust, VerifiedIdentity};
use crate::text::{bounded, line, quote};
use crate::verify::{Context, NamedKey, Rejection, Verified, verify};

/// The most characters of a refusal's message. A condition's message has room for 32768, and is read by people.
const MAX_MESSAGE: usize = 1024;

/// The most pieces of evidence that a message tells of.
const MAX_TOLD: usize = 4;

/// The most characters of each part of an identity. Those of workflows on forges have about a hundred.
const MAX_IDENTITY: usize = 512;

impl Policy {
    /// Decides about an object, and says why.
    ///
    /// `evidence` is whatever was found, in any order and for whatever it may be; at most 256 pieces of it are looked
    /// at, and at most 32 verified. `now` is only compared with the times of signatures by identity.
    pub fn decide(&self, subject: &Subject<'_>, evidence: &[Evidence], trust: &Trust, now: SystemTime) -> Decision {
        let rule = self.rules.iter().find(|rule| rule.matches.covers(subject));
        let (name, require) = match rule {
            Some(rule) => (rule.name.as_str(), &rule.require),
            None => (DEFAULT_RULE, &self.default),
        };
        let verdict = match require {
            Require::Allow => Verdict::Allowed { signed_by: Vec::new() },
            Require::Deny => Verdict::Refused { message: denial(name) },
            Require::Signature { keys, identities } => {
                let keys = keys.iter().filter_map(|name| Some(NamedKey { name, key: self.keys.get(name)? })).collect();
                let object = Hashes::new(subject.object);
                let context = Context { subject, object, keys, accepts_identities: !identities.is_empty(), trust, now };
                signed(name, evidence, &context, identities)
            }
        };
        Decision { rule: name.to_owned(), verdict }
    }
}

impl Match {
    /// Returns whether the rule is about this object.
    fn covers(&self, subject: &Subject<'_>) -> bool {
        let repository = |repository| self.repositories.iter().any(|pattern| pattern.matches(repository));
        let builtin = |name| self.builtins.iter().any(|glob| glob_matches(glob, name));
        let (kind, repository, builtin) = match subject.source {
            Source::Image { repository: name } => (SourceKind::Image, repository(name), false),
            Source::Builtin { name } => (SourceKind::Builtin, false, builtin(name)),
            Source::ConfigMap => (SourceKind::ConfigMap, false, false),
            Source::Inline => (SourceKind::Inline, false, false),
        };
        (self.repositories.is_empty() || repository)
            && (self.builtins.is_empty() || builtin)
            && (self.sources.is_empty() || self.sources.contains(&kind))
            && (self.digests.is_empty() || self.digests.iter().any(|digest| subject.covers(digest)))
    }
}

impl Identity {
    fn accepts(&self, identity: &VerifiedIdentity) -> bool {
        self.subject.matches(&identity.subject) && self.issuer.matches(&identity.issuer)
    }
}

fn denial(rule: &str) -> String {
    if rule == DEFAULT_RULE {
        "no rule of the signature policy allows this object, and its default denies it: take another source, or have a \
         rule added"
            .into()
    } else {
        format!("rule {rule:?} of the signature policy denies this object")
    }
}

/// Looks for signatures that a rule accepts.
fn signed(rule: &str, evidence: &[Evidence], context: &Context<'_>, identities: &[Identity]) -> Verdict {
    let mut signed_by = Vec::new();
    let mut rejections = Vec::new();
    let mut verified = 0;
    for (at, piece) in evidence.iter().take(MAX_EVIDENCE).enumerate() {
        if verified == MAX_VERIFIED {
            break;
        }
        match verify(piece, context).and_then(|signer| accepted(signer, identities)) {
            Ok(signer) => {
                signed_by.push(signer);
                verified += 1;
            }
            Err(rejection) => {
                verified += usize::from(rejection.is_of_the_signature());
                let told = format!("{} {}: {rejection}", piece.form(), at + 1);
                rejections.push((rejection.is_of_the_signature(), told));
            }
        }
    }
    if signed_by.is_empty() {
        // Signatures are told of before attestations, of which an image may have any number.
        rejections.sort_by_key(|(is_signature, _)| !is_signature);
        let rejections: Vec<_> = rejections.into_iter().map(|(_, told)| told).collect();
        return Verdict::Refused { message: refusal(rule, &rejections, evidence.len(), context) };
    }
    signed_by.sort();
    signed_by.dedup();
    Verdict::Allowed { signed_by }
}

fn accepted(verified: Verified, identities: &[Identity]) -> Result<Signer, Rejection> {
    match verified {
        Verified::Key(hint) => Ok(Signer::Key { hint }),
        Verified::Identity(identity) if identities.iter().any(|pattern| pattern.accepts(&identity)) => {
            let part = |text: &str| line(text, MAX_IDENTITY);
            Ok(Signer::Identity { subject: part(&identity.subject), issuer: part(&identity.issuer) })
        }
        Verified::Identity(identity) => {
            Err(Rejection::OtherIdentity { subject: quote(&identity.subject), issuer: quote(&identity.issuer) })
        }
    }
}

/// Says what a rule asks for and what was found instead.
fn refusal(rule: &str, rejections: &[String], found: usize, context: &Context<'_>) -> String {
    let keys = context.keys.iter().map(|key| key.name).collect::<Vec<_>>().join(", ");
    let by = match (context.keys.len(), context.accepts_identities) {
        (0, _) => "one of its identities".to_owned(),
        (1, false) => format!("key {keys}"),
        (_, false) => format!("one of the keys {keys}"),
        (1, true) => format!("key {keys} or one of its identities"),
        (_, true) => format!("one of the keys {keys} or one of its identities"),
    };
    let mut message = format!("rule {rule:?} of the signature policy requires a signature by {by}; ");
    if found == 0 {
        message += "none was found";
        return message;
    }
    message += &rejections.iter().take(MAX_TOLD).map(|told| bounded(told, 240)).collect::<Vec<_>>().join("; ");
    if found > MAX_TOLD {
        message += &format!("; and {} more", found - MAX_TOLD);
    }
    if found > rejections.len() {
        message += &format!(", of which {} were not looked at", found - rejections.len());
    }
    bounded(&message, MAX_MESSAGE)
}

#[cfg(test)]
mod tests;
