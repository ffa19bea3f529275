//! [`Verifier`]: a policy with what it trusts, and its judgement of an object and its proof. IO: none.

use std::time::SystemTime;

use sockeye_image::{Digest, Limits, MAX_KEPT_LAYER, chain::read_manifest, format::ObjectLayer, verify_chain};
use sockeye_signature::{Mode, Policy, Require, Signer, Source as PolicySource, Subject, Trust, TrustError, Verdict};

use crate::archive::{self, Archive};

/// The source of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The BpfProgram itself.
    Inline,
    /// A ConfigMap that the BpfProgram names.
    ConfigMap,
    /// An object that ships with sockeye.
    Builtin {
        /// Its name.
        name: String,
    },
    /// An image.
    Image {
        /// The registry and the repository, without tag and digest.
        repository: String,
        /// The digest that the reference was resolved to.
        digest: String,
    },
}

/// An object, where it is said to come from, and its proof.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// Its source.
    pub source: &'a Source,
    /// Its bytes.
    pub object: &'a [u8],
    /// Its proof.
    pub archive: &'a Archive,
}

/// Says whether to follow the way from an image's digest to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    /// It was followed when the image was pulled, and the bytes are those that were stored then.
    Trusted,
    /// It is followed.
    Followed,
}

/// The judgement of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Who signed the object, of those that the rule accepts.
    pub signed_by: Vec<Signer>,
    /// The objection of the policy to the object.
    pub objection: Option<Objection>,
}

/// The objection of a policy to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objection {
    /// True if no signature would help.
    pub is_denial: bool,
    /// For people: the rule, what it requires, and what was found.
    pub message: String,
}

/// An object and its proof can't be judged, or a policy can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The policy can't be read.
    #[error("the signature policy cannot be read: {0}")]
    Policy(String),
    /// The trust root can't be read.
    #[error("the trust root of the signature policy: {0}")]
    Trust(#[from] TrustError),
    /// A rule names an identity, and there is no trust root.
    #[error("a rule of the signature policy names an identity, and there is no trust root to verify one: give it one")]
    NoTrustRoot,
    /// The proof can't be read.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// The way from the image's digest to the object is broken.
    #[error("the object does not follow from image {digest}: {source}")]
    Chain {
        /// The image's digest.
        digest: String,
        /// The broken link.
        source: sockeye_image::Error,
    },
    /// The layer leads to another object.
    #[error("image {0} holds another object than the one that was stored")]
    OtherObject(String),
    /// The layer is not part of the proof.
    #[error(
        "the layer of image {0} is not stored, because it has more than {max} MiB: nodes verify signatures (the \
         chart's policy.nodes.verify), and need it. Push an image with a smaller layer, such as one that holds the \
         object alone",
        max = MAX_KEPT_LAYER >> 20
    )]
    NoLayer(String),
}

/// A policy, and what it trusts.
#[derive(Debug)]
pub struct Verifier {
    policy: Policy,
    trust: Trust,
}

impl Verifier {
    /// Reads a policy, as JSON, and the trust root for identities, if there is one.
    pub fn read(policy: &str, trust_root: Option<&str>) -> Result<Self, Error> {
        let policy: Policy = serde_json::from_str(policy).map_err(|error| Error::Policy(error.to_string()))?;
        let trust = trust_root.map(Trust::from_trusted_root).transpose()?;
        if policy.names_identities() && trust.is_none() {
            return Err(Error::NoTrustRoot);
        }
        Ok(Self { policy, trust: trust.unwrap_or_else(Trust::none) })
    }

    /// Returns whether what the policy objects to must not run.
    pub fn enforces(&self) -> bool {
        self.policy.mode == Mode::Enforce
    }

    /// Judges an object by its proof.
    pub fn judge(&self, claim: &Claim<'_>, chain: Chain, now: SystemTime) -> Result<Judgement, Error> {
        let Claim { source, object, archive } = *claim;
        if let (Source::Image { digest, .. }, Chain::Followed) = (source, chain) {
            follow(digest, object, archive)?;
        }
        let mut image_digests = Vec::new();
        let source = match source {
            Source::Inline => PolicySource::Inline,
            Source::ConfigMap => PolicySource::ConfigMap,
            Source::Builtin { name } => PolicySource::Builtin { name },
            Source::Image { repository, digest } => {
                image_digests = vec![digest.clone(), Digest::of(&archive.manifest).as_str().to_owned()];
                PolicySource::Image { repository }
            }
        };
        let object_digest = Digest::of(object);
        let image_digests: Vec<&str> = image_digests.iter().map(String::as_str).collect();
        let object_digest = object_digest.as_str();
        let subject = Subject { source, object, object_digest, image_digests: &image_digests };
        let decision = self.policy.decide(&subject, &archive.evidence, &self.trust, now);
        Ok(match decision.verdict {
            Verdict::Allowed { signed_by } => Judgement { signed_by, objection: None },
            Verdict::Refused { message } => {
                let objection = Objection { is_denial: self.denies(&decision.rule), message };
                Judgement { signed_by: Vec::new(), objection: Some(objection) }
            }
        })
    }

    /// Returns whether a rule denies what it matches.
    fn denies(&self, rule: &str) -> bool {
        let rule = self.policy.rules.iter().find(|one| one.name == rule);
        matches!(rule.map_or(&self.policy.default, |rule| &rule.require), Require::Deny)
    }
}

/// Follows the way from an image's digest to its object.
fn follow(digest: &str, object: &[u8], archive: &Archive) -> Result<(), Error> {
    let broken = |source| Error::Chain { digest: digest.to_owned(), source };
    let image: Digest = digest.parse().map_err(broken)?;
    let limits = Limits::default();
    if archive.layer.is_none() && is_packed(&archive.manifest, &limits).map_err(broken)? {
        return Err(Error::NoLayer(digest.to_owned()));
    }
    // Without a layer of its own, the object is the layer.
    let layer = archive.layer.as_deref().unwrap_or(object);
    let found = verify_chain(&image, archive.index.as_deref(), &archive.manifest, layer, &limits).map_err(broken)?;
    if found != object { Err(Error::OtherObject(digest.to_owned())) } else { Ok(()) }
}

/// Returns whether a manifest names a layer that has the object in it, and is not the object itself.
fn is_packed(manifest: &[u8], limits: &Limits) -> Result<bool, sockeye_image::Error> {
    let manifest = read_manifest(&Digest::of(manifest), manifest, limits)?;
    Ok(ObjectLayer::of(&manifest, limits)?.format.is_packed())
}
